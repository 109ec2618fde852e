"""Sentences the demo's reviews and tickets are made of. Nothing but text."""

from __future__ import annotations

__all__ = ["CUSTOMERS", "FEEDBACK", "TITLES"]

FEEDBACK: dict[int, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    1: (
        ("This was a hard half-year for NAME.", "NAME and the role did not fit each other this period."),
        ("Agreed dates slipped without a word in advance.", "Hand-overs were often left to colleagues."),
        ("We meet weekly from now on and look again in three months.", "A written plan with clear steps is agreed."),
    ),
    2: (
        ("NAME met some goals and missed the larger one.", "NAME started well and lost pace by the middle."),
        ("Estimates were optimistic, and risks came up late.", "Feedback in reviews was short and hard to act on."),
        ("Next half, fewer projects and an earlier raise of the hand.", "A mentor from the next team will help."),
    ),
    3: (
        ("NAME did solid, dependable work.", "A steady half-year: NAME delivered what was promised."),
        ("The on-call rotation ran without a surprise.", "Colleagues describe NAME as calm and easy to work with."),
        ("I would like to see more opinions voiced in planning.", "The next step is to lead a small project alone."),
    ),
    4: (
        ("NAME exceeded what we had agreed.", "A strong half-year, and NAME carried others along."),
        ("The migration landed early, and its notes are now our template.", "Customers asked for NAME by name."),
        ("Keep teaching; it shows in the whole team.", "Ready for a wider area next year."),
    ),
    5: (
        ("NAME had an outstanding half-year.", "I have rarely seen a period like this one from NAME."),
        (
            "The outage in spring was short because NAME had prepared for it.",
            "Two teams now work the way NAME proposed.",
        ),
        ("A promotion is overdue.", "My only wish is that NAME takes all the holidays this time."),
    ),
}

TITLES: dict[str, tuple[str, ...]] = {
    "platform": (
        "Build fails after runner update",
        "Raise the memory limit of the queue worker",
        "Flaky test in the scheduler",
        "Rotate the staging certificate",
        "Dashboard shows yesterday's numbers",
    ),
    "product": (
        "Export loses the last column",
        "Sign-up page breaks on small screens",
        "Search ignores accents",
        "Wrong plural in the invoice text",
    ),
    "sales": (
        "Quote template has the old address",
        "Demo account for the fair",
        "Discount code rejected",
    ),
    "facilities": (
        "Heating in room 4.12",
        "New badge for the side entrance",
        "Projector cable missing",
    ),
    "people-ops": (
        "Change of working hours",
        "Question about parental leave",
        "Salary slip shows the wrong tax class",
    ),
    "legal-hold": (
        "Keep mailbox for case 2025-17",
        "Preserve contract drafts of supplier Y",
    ),
}

CUSTOMERS: tuple[str, ...] = (
    "Brightwater Dental",
    "Hollis & Sons",
    "Kaltenbach Optik",
    "Lumen Bakeries",
    "Northgate School",
    "Ostrava Tools",
    "Peregrine Cycles",
    "Quayside Hotel",
)
