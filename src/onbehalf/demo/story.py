"""Plays the demo's story through a real MCP client and checks every step against the made-up world.

What is right is computed by truth.py from data.py and read from the databases on disk, never asked of the
gateway. A step that is not as told fails the story; it does not end it. Must not start processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from rich.console import Console

from onbehalf.demo.data import Review
from onbehalf.demo.person_client import PersonClient, Told, connected
from onbehalf.demo.story_orders import cancelling, managing, selling
from onbehalf.demo.story_postgres import finishing, walled
from onbehalf.demo.telling import Stage, StoryResult, Teller, first, summary, table
from onbehalf.demo.truth import readable_reviews, reports

__all__ = ["play", "run_story"]

_Scene = Callable[[Stage, PersonClient, Teller], Awaitable[None]]


def run_story(stage: Stage, console: Console) -> StoryResult:
    """`play`, from code that has no event loop."""
    return asyncio.run(play(stage, console))


async def play(stage: Stage, console: Console) -> StoryResult:
    """The whole story. Never raises for what the gateway does."""
    teller = Teller(console)
    scenes: tuple[tuple[str, str, str, _Scene], ...] = (
        ("Alice Ngo (acme) manages a team. She asks for its performance reviews.", "acme", "alice", _alice),
        ("Her model is talked into asking for more.", "acme", "alice", _hostile),
        ("Bob Tran (acme), who reports to Alice, asks the same.", "acme", "bob", _bob_reviews),
        ("Dave Kim (globex), a manager too, asks the same.", "globex", "dave", _dave),
        ("Bob changes tickets.", "acme", "bob", _bob_tickets),
        ("Nils Berg (acme) sells. His model reads and ships orders through an HTTP API.", "acme", "nils", selling),
        ("Ben Carter, his manager, asks for orders.", "acme", "ben", managing),
        ("Nils wants to cancel an order, which needs his manager's yes.", "acme", "nils", cancelling),
    )
    if stage.seen_by_reader is not None:
        scenes = (*scenes, ("Alice finishes a draft.", "acme", "alice", finishing))
    for text, tenant, person_id, scene in scenes:
        teller.scene(text)
        try:
            async with connected(stage.gateway, stage.world.person(tenant, person_id)) as client:
                await scene(stage, client, teller)
        except Exception as error:  # whatever breaks, the story goes on and says that it broke
            teller.check(text, False, first(error))
    if stage.seen_by_reader is not None:
        teller.scene("Somebody got hold of the gateway's own database password.")
        walled(stage, teller)
    teller.scene("An auditor looks at the record.")
    _audit(stage, teller)
    return StoryResult(steps=tuple(teller.steps))


async def _alice(stage: Stage, client: PersonClient, teller: Teller) -> None:
    teller.check("she is connected", True, f"logged in with OAuth (PKCE), MCP {client.protocol}")
    below = reports(stage.world, "acme", "alice")
    told = await client.call("reviews_list", {"about": "team"})
    expected = [r for r in stage.world.reviews if r.tenant == "acme" and r.subject_id in below]
    ok = told.done and _same(told.rows, expected)
    seen = f"{len(told.rows)} reviews of {len(_subjects(told))} people; right are {len(expected)} of {len(below)}"
    teller.check("exactly the reviews of her direct and indirect reports", ok, seen)
    teller.calls["allowed"] = told.call
    for review in expected[:2]:
        teller.show(f"{review.subject_id}, {review.period}, {review.status}, rating {review.rating}: {review.feedback}")
    own = await client.call("reviews_list", {})
    ids = readable_reviews(stage.world, "acme", "alice")
    ok = own.done and _same(own.rows, _acme(stage, ids))
    teller.check(
        "without `about`, her own final reviews come too", ok, f"{len(own.rows)} reviews; right are {len(ids)}"
    )


async def _hostile(stage: Stage, client: PersonClient, teller: Teller) -> None:
    may = readable_reviews(stage.world, "acme", "alice")
    nothing: tuple[tuple[str, dict[str, Any]], ...] = (
        ("another team's person (jack, under Tomas)", {"subject_id": "jack"}),
        ("her own manager (marta)", {"subject_id": "marta"}),
        ("another tenant's person (dave, globex)", {"subject_id": "dave"}),
        ("another tenant's person by path (globex/uma)", {"subject_id": "globex/uma"}),
        ("SQL in `status`", {"status": "final' OR '1'='1"}),
        ("SQL that would drop the table", {"status": "x'; DROP TABLE reviews; --"}),
        ("SQL that would join the other tenant", {"period": "' UNION SELECT * FROM reviews WHERE tenant='globex"}),
    )
    for title, arguments in nothing:
        told = await client.call("reviews_list", arguments)
        teller.check(title, told.done and not told.rows, summary(told))
    told = await client.call("reviews_list", {"subject_id": "alice"})
    ok = told.done and _same(told.rows, [r for r in _acme(stage, may) if r.subject_id == "alice"])
    teller.check("her namesake in globex has the same id: she gets only her own", ok, summary(told))
    for title, arguments in (
        ("an injected `tenant_id`", {"tenant_id": "globex"}),
        ("an injected `me`", {"me": "tomas", "about": "me"}),
    ):
        told = await client.call("reviews_list", arguments)
        teller.check(f"{title} is refused", told.denial == "bound_parameter" and not told.rows, summary(told))
    left = stage.reviews()
    whole = {key: row["feedback"] for key, row in left.items()} == {
        (each.tenant, each.id): each.feedback for each in stage.world.reviews
    }
    teller.check("the database is whole", whole, f"{len(left)} reviews on disk")


async def _bob_reviews(stage: Stage, client: PersonClient, teller: Teller) -> None:
    told = await client.call("reviews_list", {})
    expected = _acme(stage, readable_reviews(stage.world, "acme", "bob"))
    ok = told.done and _same(told.rows, expected) and _subjects(told) == {"bob"}
    teller.check("only his own, once final", ok, f"{len(told.rows)} reviews; right are {len(expected)}")
    told = await client.call("reviews_list", {"subject_id": "carol"})
    teller.check("nothing about Carol, though he wrote one of them", told.done and not told.rows, summary(told))


async def _dave(stage: Stage, client: PersonClient, teller: Teller) -> None:
    told = await client.call("reviews_list", {})
    ids = readable_reviews(stage.world, "globex", "dave")
    expected = [r for r in stage.world.reviews if r.tenant == "globex" and r.id in ids]
    acme = sum(1 for row in told.rows if row.get("tenant") != "globex")
    ok = told.done and _same(told.rows, expected) and acme == 0
    teller.check("his own team's, none of acme's", ok, f"{len(told.rows)} reviews of globex, {acme} of acme")
    told = await client.call("reviews_list", {"subject_id": "bob"})
    teller.check("nothing about Bob of acme", told.done and not told.rows, summary(told))


async def _bob_tickets(stage: Stage, client: PersonClient, teller: Teller) -> None:
    path = stage.directory / "tickets.db"
    before = table(path, "tickets")
    change = {"status": "in_progress", "comment": "on it"}
    told = await client.call("tickets_update", {"ticket_id": "T-1001", **change})
    wanted = {**before, ("acme", "T-1001"): {**before["acme", "T-1001"], **change}}
    ok = told.done and table(path, "tickets") == wanted
    teller.check("his own T-1001 is changed, and nothing else is", ok, summary(told))
    again = await client.call("tickets_get", {"ticket_id": "T-1001"})
    ok = (
        len(again.rows) == 1 and again.rows[0].get("status") == "in_progress" and again.rows[0].get("owner_id") == "bob"
    )
    teller.check("read again, it is in progress", ok, summary(again))
    denied = await client.call("tickets_update", {"ticket_id": "T-1002", "status": "closed"})
    ok = denied.denial == "not_permitted" and bool(denied.remedy)
    teller.check("Carol's T-1002 is refused, with a way out", ok, summary(denied))
    teller.check(
        "Carol's ticket is as it was",
        table(path, "tickets") == wanted,
        f"status {table(path, 'tickets')['acme', 'T-1002']['status']}",
    )
    teller.calls["denied"] = denied.call


def _audit(stage: Stage, teller: Teller) -> None:
    try:
        ok, text = stage.verify()
        teller.check("the record verifies", ok, first(text))
    except Exception as error:  # an auditor's tool that breaks is a failed step, not the end
        teller.check("the record verifies", False, first(error))
    for what, names in (
        ("allowed", ("Alice", "reviews_list")),
        ("denied", ("Bob", "tickets_update")),
        ("approved", ("Nils", "order_cancel", "approved by ben")),
    ):
        title = f"the {what} call is explained"
        call = teller.calls.get(what, "")
        try:
            text = stage.explain(call) if call else ""
        except Exception as error:
            teller.check(title, False, first(error))
            continue
        teller.check(title, bool(text) and all(name in text for name in names), call or "there was no such call")
        teller.show(text)


def _acme(stage: Stage, ids: Iterable[str]) -> list[Review]:
    wanted = set(ids)
    return [review for review in stage.world.reviews if review.tenant == "acme" and review.id in wanted]


def _same(rows: Iterable[Mapping[str, Any]], reviews: Iterable[Review]) -> bool:
    """Whether the rows are these reviews, each once and word for word."""
    found = sorted((row.get("tenant"), row.get("id"), row.get("subject_id"), row.get("feedback")) for row in rows)
    return found == sorted((review.tenant, review.id, review.subject_id, review.feedback) for review in reviews)


def _subjects(told: Told) -> set[str]:
    return {str(row.get("subject_id")) for row in told.rows}
