"""The made-up world of the demo: two tenants, their people, reviews and tickets, the same on every machine.

Seeded and without a clock, so that the story can be checked against it. Must not write files (files.py
does) and must not know the gateway: the ground truth of the story (truth.py) is computed from here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from onbehalf.demo.phrases import CUSTOMERS, FEEDBACK, TITLES

__all__ = ["DemoPerson", "Order", "Review", "Ticket", "World", "world"]

_SEED = 20260728
PERIODS = ("2025-H1", "2025-H2", "2026-H1")
QUEUES = ("platform", "product", "sales", "facilities", "people-ops", "legal-hold")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPerson:
    """Somebody in a tenant. `position` is "" for one who has none; `subject` is what the issuer calls them."""

    tenant: str
    id: str
    name: str
    position: str
    groups: tuple[str, ...]
    active: bool
    department: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One performance review. `id` is unique within its tenant only, on purpose."""

    tenant: str
    id: str
    subject_id: str
    author_id: str
    period: str
    rating: int
    status: str
    feedback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One ticket. `id` is unique within its tenant only, on purpose."""

    tenant: str
    id: str
    owner_id: str
    title: str
    status: str
    priority: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order, looked after by `owner_id`; `total` is in cents. `id` is unique within its tenant only, on purpose."""

    id: str
    tenant: str
    owner_id: str
    status: str
    total: int
    customer: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Everything the demo knows. `positions` maps a tenant to position and the position above it ("" for none)."""

    people: tuple[DemoPerson, ...]
    positions: dict[str, dict[str, str]]
    reviews: tuple[Review, ...]
    tickets: tuple[Ticket, ...]
    orders: tuple[Order, ...]

    def person(self, tenant: str, person_id: str) -> DemoPerson:
        """The person of that id. Raises KeyError."""
        for person in self.people:
            if (person.tenant, person.id) == (tenant, person_id):
                return person
        raise KeyError(f"{tenant}/{person_id}")


# id, name, position, the position above, department, groups
_ACME = """
ines    | Ines Halloran   | ceo            |               | office      |
marta   | Marta Lindqvist | vp-eng         | ceo           | engineering |
jonas   | Jonas Weber     | vp-sales       | ceo           | sales       |
priya   | Priya Raman     | vp-people      | ceo           | people      | hr
alice   | Alice Ngo       | dir-platform   | vp-eng        | engineering |
tomas   | Tomas Keller    | dir-product    | vp-eng        | engineering |
lucia   | Lucia Ferri     | dir-emea       | vp-sales      | sales       |
bob     | Bob Tran        | eng-platform-1 | dir-platform  | engineering |
carol   | Carol Diaz      | eng-platform-2 | dir-platform  | engineering |
omar    | Omar Haddad     | lead-runtime   | dir-platform  | engineering |
yuki    | Yuki Sato       | lead-data      | dir-platform  | engineering |
erik    | Erik Johansen   | eng-runtime-1  | lead-runtime  | engineering |
fatima  | Fatima Zahra    | eng-runtime-2  | lead-runtime  | engineering |
grace   | Grace Liu       | eng-runtime-3  | lead-runtime  | engineering |
henry   | Henry Osei      | eng-data-1     | lead-data     | engineering |
isla    | Isla Murray     | eng-data-2     | lead-data     | engineering |
nadia   | Nadia Petrov    | lead-mobile    | dir-product   | engineering |
jack    | Jack Doyle      | eng-mobile-1   | lead-mobile   | engineering |
kira    | Kira Novak      | eng-mobile-2   | lead-mobile   | engineering |
leo     | Leo Martins     | eng-mobile-3   | lead-mobile   | engineering |
maya    | Maya Cohen      | designer       | dir-product   | engineering |
ben     | Ben Carter      | lead-accounts  | dir-emea      | sales       |
nils    | Nils Berg       | account-1      | lead-accounts | sales       |
olga    | Olga Romanova   | account-2      | lead-accounts | sales       |
sam     | Sam Okafor      | account-3      | lead-accounts | sales       |
paul    | Paul Adeyemi    | hr-generalist  | vp-people     | people      | hr
quinn   | Quinn Foster    | hr-partner     | vp-people     | people      | hr-partners
ravi    | Ravi Menon      |                |               | engineering |
sofia   | Sofia Almeida   |                |               | board       |
"""

_GLOBEX = """
dmitri  | Dmitri Volkov   | ceo            |               | office      |
helena  | Helena Strand   | coo            | ceo           | operations  |
wanda   | Wanda Pietrzak  | vp-people      | ceo           | people      | hr
dave    | Dave Kim        | dir-operations | coo           | operations  |
petra   | Petra Vogel     | dir-finance    | coo           | finance     |
rosa    | Rosa Mendes     | lead-logistics | dir-operations| operations  |
tariq   | Tariq Aziz      | lead-support   | dir-operations| operations  |
alice   | Alice Ngo       | logistics-1    | lead-logistics| operations  |
sam     | Sam Okafor      | logistics-2    | lead-logistics| operations  |
uma     | Uma Krishnan    | logistics-3    | lead-logistics| operations  |
victor  | Victor Almeida  | support-1      | lead-support  | operations  |
wen     | Wen Zhao        | support-2      | lead-support  | operations  |
xenia   | Xenia Markou    | support-3      | lead-support  | operations  |
yann    | Yann Lefevre    | controller     | dir-finance   | finance     |
zoe     | Zoe Baker       | analyst        | dir-finance   | finance     |
anton   | Anton Reyes     |                |               | operations  |
"""

LEFT = {("acme", "ravi"), ("globex", "anton")}
"""Those who left: not active, no position any more, their reviews and a login still there."""


def world() -> World:
    """The demo's world; equal on every call."""
    dice = random.Random(_SEED)  # noqa: S311  # made-up data must be the same everywhere, not unguessable
    people: list[DemoPerson] = []
    positions: dict[str, dict[str, str]] = {}
    for tenant, text, first in (("acme", _ACME, 1001), ("globex", _GLOBEX, 2001)):
        found, positions[tenant] = _read(tenant, text, first)
        people += found
    reviews = [review for tenant in positions for review in _reviews(tenant, people, positions[tenant], dice)]
    tickets = [ticket for tenant in positions for ticket in _tickets(tenant, people, dice)]
    orders = [order for tenant in positions for order in _orders(tenant, people, dice)]
    return World(
        people=tuple(people), positions=positions, reviews=tuple(reviews), tickets=tuple(tickets), orders=tuple(orders)
    )


def _read(tenant: str, text: str, first: int) -> tuple[list[DemoPerson], dict[str, str]]:
    people: list[DemoPerson] = []
    positions: dict[str, str] = {}
    rows = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    # Alice is u-1001 in every text about the demo, so she is numbered first.
    order = {row[0]: number for number, row in enumerate(sorted(rows, key=lambda row: row[0] != "alice"), start=first)}
    for person_id, name, position, above, department, groups in rows:
        if position:
            positions[position] = above
        people.append(
            DemoPerson(
                tenant=tenant,
                id=person_id,
                name=name,
                position=position,
                groups=tuple(groups.split()),
                active=(tenant, person_id) not in LEFT,
                department=department,
                subject=f"u-{order[person_id]}",
            )
        )
    return people, positions


def _reviews(tenant: str, people: list[DemoPerson], above: dict[str, str], dice: random.Random) -> list[Review]:
    mine = [person for person in people if person.tenant == tenant]
    holder = {person.position: person for person in mine if person.position}
    pairs: list[tuple[DemoPerson, DemoPerson, str]] = []
    for subject in mine:
        manager = holder.get(above.get(subject.position, ""))
        peers = [p for p in mine if p != subject and p.active and p.department == subject.department]
        for period in PERIODS if subject.active else PERIODS[:2]:
            if manager:
                pairs.append((subject, manager, period))
            if peers and (manager is None or dice.random() < 0.6):
                pairs.append((subject, dice.choice(peers), period))
    if tenant == "acme":  # the corners the story leans on
        by_id = {person.id: person for person in mine}
        pairs.append((by_id["alice"], by_id["tomas"], "2026-H1"))
        pairs.append((by_id["carol"], by_id["bob"], "2026-H1"))
        pairs.append((by_id["bob"], by_id["carol"], "2025-H2"))
    return [_review(tenant, f"R-{number}", pair, dice) for number, pair in enumerate(pairs, start=1)]


def _review(tenant: str, review_id: str, pair: tuple[DemoPerson, DemoPerson, str], dice: random.Random) -> Review:
    subject, author, period = pair
    rating = dice.choices((1, 2, 3, 4, 5), weights=(1, 3, 8, 9, 4))[0]
    opening, middle, closing = (dice.choice(part) for part in FEEDBACK[rating])
    return Review(
        tenant=tenant,
        id=review_id,
        subject_id=subject.id,
        author_id=author.id,
        period=period,
        rating=rating,
        status="draft" if period == PERIODS[-1] and dice.random() < 0.4 else "final",
        feedback=f"{opening} {middle} {closing}".replace("NAME", subject.name.split()[0]),
    )


def _tickets(tenant: str, people: list[DemoPerson], dice: random.Random) -> list[Ticket]:
    owners = [person for person in people if person.tenant == tenant and person.active]
    count = 130 if tenant == "acme" else 70
    chosen = [dice.choice(owners) for _ in range(count)]
    queues = [dice.choices(QUEUES, weights=(6, 5, 4, 3, 2, 1))[0] for _ in range(count)]
    if tenant == "acme":  # the first two belong to the story: open, in an ordinary queue
        by_id = {person.id: person for person in owners}
        chosen[:2] = [by_id["bob"], by_id["carol"]]
        queues[:2] = ["platform", "platform"]
    return [
        Ticket(
            tenant=tenant,
            id=f"T-{1000 + number}",
            owner_id=owner.id,
            title=dice.choice(TITLES[queue]),
            status="open" if number <= 2 else dice.choices(("open", "in_progress", "closed"), weights=(5, 3, 3))[0],
            priority=dice.choice(("low", "normal", "normal", "high")),
            queue=queue,
        )
        for number, (owner, queue) in enumerate(zip(chosen, queues, strict=True), start=1)
    ]


def _orders(tenant: str, people: list[DemoPerson], dice: random.Random) -> list[Order]:
    """Orders of those who sell (in globex: who run logistics), the first two of the first seller still open."""
    names = ("nils", "olga", "sam", "ben", "lucia") if tenant == "acme" else ("uma", "sam", "rosa")
    sellers = [person for name in names for person in people if (person.tenant, person.id) == (tenant, name)]
    made: list[Order] = []
    for number in range(1, 37 if tenant == "acme" else 19):
        owner = sellers[0] if number <= 2 else dice.choice(sellers)
        customer = dice.choice(CUSTOMERS)
        status = "open" if number <= 2 else dice.choices(("open", "shipped", "cancelled"), weights=(5, 4, 1))[0]
        mail = f"orders@{customer.split()[0].lower()}.example"
        made.append(
            Order(
                id=f"O-{number}", tenant=tenant, owner_id=owner.id, status=status, total=dice.randrange(900, 90_000),
                customer=customer, email=mail,
            )
        )  # fmt: skip
    return made
