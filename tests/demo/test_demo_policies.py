"""The demo's policies, asked through the real engine about every review and ticket, against brute force."""

from __future__ import annotations

import pytest

from onbehalf import config
from onbehalf.demo.data import Review, Ticket, World, world
from onbehalf.demo.files import Places, write
from onbehalf.demo.truth import readable_reviews, reports
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.model import Entity, Json, Question, Ref, Tool, digest
from onbehalf.validate import decide

WORLD: World = world()
SCOPES = ["reviews.read", "tickets.read", "tickets.write"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> CedarEngine:
    directory = tmp_path_factory.mktemp("demo")
    places = Places(
        gateway="http://127.0.0.1:1",
        admin="http://127.0.0.1:2",
        issuer="http://127.0.0.1:3",
        tickets="http://127.0.0.1:4",
        orders="http://127.0.0.1:5",
    )
    settings = config.parse(write(directory, WORLD, places).read_text())
    return CedarEngine.load(directory / "policies", tools=tools(settings))


def tools(settings: config.Settings) -> list[Tool]:
    return [
        Tool(
            name=name, title="", description="", upstream=upstream, remote=tool.remote or name, action=tool.action,
            scopes=frozenset(tool.scopes), schema={}, bound=(), rows=None, lookup=None, writes=tool.writes,
            exposed=tool.exposed, definition=digest(name.encode()),
        )
        for upstream, each in settings.upstreams.items()
        for name, tool in each.tools.items()
    ]  # fmt: skip


def person_entities(tenant: str, person_id: str) -> list[Entity]:
    person = WORLD.person(tenant, person_id)
    mine: dict[str, Json | Ref] = {"tenant": Ref(type="Tenant", id=tenant)}
    entities = []
    position = person.position
    while position:
        above = WORLD.positions[tenant][position]
        parents = (Ref(type="Position", id=f"{tenant}/{above}"),) if above else ()
        entities.append(Entity(ref=Ref(type="Position", id=f"{tenant}/{position}"), attributes=mine, parents=parents))
        position = above
    groups = tuple(Ref(type="Group", id=f"{tenant}/{group}") for group in person.groups)
    entities += [Entity(ref=group, attributes=mine, parents=()) for group in groups]
    facts: dict[str, Json | Ref] = {**mine, "name": person.name, "active": person.active}
    if person.position:
        facts["position"] = Ref(type="Position", id=f"{tenant}/{person.position}")
    return [*entities, Entity(ref=Ref(type="User", id=f"{tenant}/{person_id}"), attributes=facts, parents=groups)]


def may(engine: CedarEngine, who: tuple[str, str], action: str, thing: Review | Ticket) -> bool:
    user = lambda name: Ref(type="User", id=f"{thing.tenant}/{name}")  # noqa: E731
    facts: dict[str, Json | Ref] = {"tenant": Ref(type="Tenant", id=thing.tenant), "status": thing.status}
    if isinstance(thing, Review):
        people = [thing.subject_id, thing.author_id]
        facts |= {"subject": user(people[0]), "author": user(people[1]), "period": thing.period, "rating": thing.rating}
    else:
        people = [thing.owner_id]
        facts |= {"owner": user(people[0]), "priority": thing.priority, "queue": thing.queue}
    ref = Ref(type=type(thing).__name__, id=f"{thing.tenant}/{thing.id}")
    found = {e.ref: e for name in people for e in person_entities(thing.tenant, name)}
    found |= {e.ref: e for e in person_entities(*who)}
    question = Question(
        principal=Ref(type="User", id="/".join(who)),
        action=action,
        resource=ref,
        context={"client": Ref(type="Client", id="c"), "scopes": list(SCOPES), "now": 1_800_000_000},
        entities=(*found.values(), Entity(ref=ref, attributes=facts, parents=())),
    )
    judgement = engine.judge(question)
    assert judgement.validated, judgement.errors
    assert not judgement.errors
    return decide.may(judgement)


@pytest.mark.parametrize(
    "who",
    [("acme", "alice"), ("acme", "bob"), ("globex", "dave"), ("acme", "sofia"), ("acme", "ines"), ("globex", "alice")],
)
def test_reviews_are_allowed_exactly_as_brute_force_says(engine: CedarEngine, who: tuple[str, str]) -> None:
    allowed = {(r.tenant, r.id) for r in WORLD.reviews if may(engine, who, "readReview", r)}
    assert allowed == {(who[0], name) for name in readable_reviews(WORLD, *who)}


@pytest.mark.parametrize("who", [("acme", "ravi"), ("globex", "anton")])
def test_who_left_reads_nothing(engine: CedarEngine, who: tuple[str, str]) -> None:
    assert not any(may(engine, who, "readReview", r) for r in WORLD.reviews)
    assert not any(may(engine, who, "readTicket", t) for t in WORLD.tickets)


def test_hr_reads_final_reviews_in_its_own_tenant(engine: CedarEngine) -> None:
    allowed = {(r.tenant, r.id) for r in WORLD.reviews if may(engine, ("acme", "paul"), "readReview", r)}
    assert allowed == {(r.tenant, r.id) for r in WORLD.reviews if r.tenant == "acme" and r.status == "final"}


def test_tickets_are_changed_by_owner_and_manager_but_not_under_legal_hold(engine: CedarEngine) -> None:
    for who in (("acme", "bob"), ("acme", "alice")):
        mine = reports(WORLD, *who) | {who[1]}
        allowed = {(t.tenant, t.id) for t in WORLD.tickets if may(engine, who, "updateTicket", t)}
        assert allowed == {
            (t.tenant, t.id)
            for t in WORLD.tickets
            if t.tenant == who[0] and t.owner_id in mine and t.queue != "legal-hold"
        }
