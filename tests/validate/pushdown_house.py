# ruff: noqa: E501  # policies read best in one line
"""A company in a directory and in tables at once, random policies, and the two answers that must be one."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import psycopg

from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.errors import PolicyInvalid
from onbehalf.model import Caller, Entity, Json, Person, Predicate, Ref, Rows, Tool, UnixTime, digest
from onbehalf.validate import decide, questions, rows
from onbehalf.validate.pushdown_sql import Dialect
from onbehalf.validate.pushdown_terms import Closure, Column, Layout, Table
from validate.policy_house import EVIDENCE, bundle_at

NOW = UnixTime(1_800_000_000)
SCHEMA = """
entity Review {
  tenant: Tenant, subject: User, author?: User, status: String, rating?: Long, level: Long, team?: Group, seat?: Position
};
action read appliesTo { principal: User, resource: [Tool, Review], context: Context };
"""
SHAPE = Rows(
    type="Review", at=("rows",), id="id", tenant="tenant_id",
    attributes={
        "subject": ("subject_id", "User"), "author": ("author_id", "User"), "status": ("status", "String"),
        "rating": ("rating", "Long"), "level": ("level", "Long"), "team": ("team_id", "Group"),
        "seat": ("seat_id", "Position"),
    },
)  # fmt: skip
TOOL = Tool(
    name="reviews", title="", description="", upstream="hr", remote="reviews", action="read", scopes=frozenset(),
    schema={}, bound=(), rows=SHAPE, lookup=None, writes=False, exposed=True, definition=digest(b""),
)  # fmt: skip
LAYOUT = Layout(
    tables={
        "Review": Table(
            name="reviews", id="id", tenant="tenant_id",
            attributes={
                "subject": Column(name="subject_id", kind="User", required=True),
                "author": Column(name="author_id", kind="User", required=False),
                "status": Column(name="status", kind="String", required=True),
                "rating": Column(name="rating", kind="Long", required=False),
                "level": Column(name="level", kind="Long", required=True),
                "team": Column(name="team_id", kind="Group", required=False),
                "seat": Column(name="seat_id", kind="Position", required=False),
            },
        ),
        "User": Table(
            name="people", id="id", tenant="tenant_id",
            attributes={
                "position": Column(name="position_id", kind="Position", required=False),
                "name": Column(name="name", kind="String", required=True),
            },
        ),
    },
    closures={
        ("Position", "Position"): Closure(name="position_tree", tenant="tenant_id", below="below", above="above"),
        ("User", "Group"): Closure(name="memberships", tenant="tenant_id", below="below", above="above"),
        ("Group", "Group"): Closure(name="group_tree", tenant="tenant_id", below="below", above="above"),
    },
)  # fmt: skip
SPACED_TOOL = replace(TOOL, action="HR::read", rows=replace(SHAPE, type="HR::Review"))
"""The same in a namespace of Cedar's."""
SPACED_LAYOUT = replace(LAYOUT, tables={"HR::Review": LAYOUT.tables["Review"], "User": LAYOUT.tables["User"]})
DDL = """
CREATE TABLE reviews(id TEXT, tenant_id TEXT, subject_id TEXT, author_id TEXT, status TEXT, rating BIGINT, level BIGINT,
    team_id TEXT, seat_id TEXT);
CREATE TABLE people(tenant_id TEXT, id TEXT, position_id TEXT, name TEXT);
CREATE TABLE position_tree(tenant_id TEXT, below TEXT, above TEXT);
CREATE TABLE memberships(tenant_id TEXT, below TEXT, above TEXT);
CREATE TABLE group_tree(tenant_id TEXT, below TEXT, above TEXT);
"""
TABLES = ("reviews", "people", "position_tree", "memberships", "group_tree")
TEXTS = ("final", "Final", "FINAL", "final ", " final", "draft", "", "fin*l", "f?nal", "[f]inal", "50%", "a_b", "a!b", "é",
         "e\u0301", "ß", "SS", "日本", "x" * 300, "it's", '"q"', "\\")  # fmt: skip
IDS = ("ann", "bob", "cyd", "dan", "Ann", "eve ", "7", "07", "o'x")
NUMBERS = (0, 1, -1, 5, 2**63 - 1, -(2**63))
PLACES = ("top", "mid", "low", "side")
TREE = {"top": None, "mid": "top", "low": "mid", "side": "top"}
GROUPS = {"hr": None, "hr-eu": "hr", "it": None}

Row = dict[str, Json]


class World:
    """One random company: `people` by entity id with all they refer to, and rows for every table."""

    def __init__(self, chance: random.Random) -> None:
        self.people: dict[str, tuple[Entity, ...]] = {}
        self.tables: dict[str, list[tuple[Json, ...]]] = {name: [] for name in TABLES}
        for tenant in ("acme", "globex"):
            self._tenant(tenant, chance)
        self.rows = [self._row(number, chance) for number in range(60)]
        self.tables["reviews"] = [tuple(row.values()) for row in self.rows]

    def _tenant(self, tenant: str, chance: random.Random) -> None:
        for below in PLACES:
            for above in _up(below, TREE)[1:]:
                self.tables["position_tree"].append((tenant, below, above))
        for below in GROUPS:
            for above in _up(below, GROUPS)[1:]:
                self.tables["group_tree"].append((tenant, below, above))
        for id_ in IDS:
            if chance.random() < 0.15:
                continue  # nobody of that name, in the directory and in the tables
            place = chance.choice((*PLACES, None))
            groups = [group for group in GROUPS if chance.random() < 0.3]
            name = chance.choice(TEXTS)
            self.people[f"{tenant}/{id_}"] = _person(tenant, id_, place, groups, name)
            self.tables["people"].append((tenant, id_, place, name))
            for group in sorted({above for each in groups for above in _up(each, GROUPS)}):
                self.tables["memberships"].append((tenant, id_, group))

    def _row(self, number: int, chance: random.Random) -> Row:
        def some(values: Sequence[Json], nothing: float) -> Json:
            return None if chance.random() < nothing else chance.choice(values)

        return {
            "id": some((f"r{number}", f"R{number}", f"{number}"), 0.02), "tenant_id": some(("acme", "acme", "globex"), 0.02),
            "subject_id": some(IDS, 0.05), "author_id": some(IDS, 0.4), "status": some(TEXTS, 0.05),
            "rating": some(NUMBERS, 0.4), "level": some(NUMBERS, 0.05), "team_id": some((*GROUPS, "none"), 0.4),
            "seat_id": some((*PLACES, "none"), 0.4),
        }  # fmt: skip


def _up(name: str, tree: Mapping[str, str | None]) -> list[str]:
    found, at = [name], tree[name]
    while at is not None:
        found.append(at)
        at = tree[at]
    return found


def _person(tenant: str, id_: str, place: str | None, groups: Sequence[str], name: str) -> tuple[Entity, ...]:
    attributes: dict[str, Json | Ref] = {"tenant": Ref(type="Tenant", id=tenant), "name": name, "active": True}
    others: list[Entity] = []
    if place is not None:
        attributes["position"] = Ref(type="Position", id=f"{tenant}/{place}")
        others += _chain("Position", tenant, place, TREE)
    for group in groups:
        others += _chain("Group", tenant, group, GROUPS)
    parents = tuple(Ref(type="Group", id=f"{tenant}/{group}") for group in groups)
    distinct = {each.ref: each for each in others}
    return (
        Entity(ref=Ref(type="User", id=f"{tenant}/{id_}"), attributes=attributes, parents=parents),
        *distinct.values(),
    )


def _chain(type_: str, tenant: str, name: str, tree: Mapping[str, str | None]) -> list[Entity]:
    names = _up(name, tree)
    return [
        Entity(
            ref=Ref(type=type_, id=f"{tenant}/{each}"), attributes={"tenant": Ref(type="Tenant", id=tenant)},
            parents=tuple(Ref(type=type_, id=f"{tenant}/{above}") for above in names[at + 1 : at + 2]),
        )
        for at, each in enumerate(names)
    ]  # fmt: skip


# --- random policies -----------------------------------------------------------------------

USERS = (
    "principal",
    "resource.subject",
    "resource.author",
    'User::"acme/ann"',
    'User::"acme/07"',
    'User::"globex/bob"',
)
SEATS = ("principal.position", "resource.subject.position", "resource.author.position", "resource.seat",
         'Position::"acme/mid"', 'Position::"acme/none"')  # fmt: skip
TEAMS = ("resource.team", 'Group::"acme/hr"', 'Group::"acme/hr-eu"', 'Group::"globex/it"', 'Group::"acme/none"')
GUARDS = {
    "principal.position": "principal has position", "resource.author": "resource has author",
    "resource.subject.position": "resource.subject has position", "resource.seat": "resource has seat",
    "resource.author.position": "resource has author && resource.author has position",
    "resource.team": "resource has team", "resource.rating": "resource has rating",
}  # fmt: skip


def policies(chance: random.Random) -> str:
    """A few policies that Cedar's strict validation mostly takes."""
    made = []
    for number in range(chance.randint(1, 4)):
        effect = "permit" if number == 0 or chance.random() < 0.6 else "forbid"
        scope = chance.choice(
            ("principal", "principal", 'principal in Group::"acme/hr"', 'principal == User::"acme/ann"')
        )
        of = chance.choice(("resource is Review", "resource is Review", "resource"))
        when = chance.choice(("when", "when", "unless"))
        body = _condition(chance, 3) if of != "resource" else _fixed(chance)
        made.append(
            f'@id("p{number}") @doc("d") {effect} ({scope}, action == Action::"read", {of}) {when} {{ {body} }};'
        )
    return "\n".join([*made, '@id("tool") @doc("d") permit (principal, action, resource is Tool);'])


def _condition(chance: random.Random, depth: int) -> str:
    if depth == 0 or chance.random() < 0.3:
        return _guarded(_leaf(chance))
    left, right = _condition(chance, depth - 1), _condition(chance, depth - 1)
    match chance.randrange(6):
        case 0 | 1:
            return f"({left} && {right})"
        case 2 | 3:
            return f"({left} || {right})"
        case 4:
            return f"!({left})"
        case _:
            return f"(if {_condition(chance, depth - 1)} then {left} else {right})"


def _guarded(leaf: str) -> str:
    guards = [
        guard
        for path, guard in GUARDS.items()
        if path in leaf and f"{path}." not in leaf.replace(f"{path}.position", "")
    ]
    needed = [guard for guard in guards if guard not in leaf]
    return f"({' && '.join([*dict.fromkeys(needed), leaf])})" if needed else leaf


def _leaf(chance: random.Random) -> str:
    pick = chance.choice
    text = '"' + pick(TEXTS).replace("\\", "\\\\").replace('"', '\\"') + '"'
    number = pick(
        (
            "resource.rating",
            "resource.level",
            "resource.level",
            "context.now",
            *map(str, NUMBERS[:4]),
            "9223372036854775807",
        )
    )
    match chance.randrange(14):
        case 0:
            return f"{pick(USERS)} {pick(('==', '!='))} {pick(USERS)}"
        case 1:
            return f"{pick(SEATS)} {pick(('==', '!='))} {pick(SEATS)}"
        case 2 | 3:
            return f"{pick(('resource.subject.position', 'resource.author.position'))} in {pick(SEATS)}"
        case 4:
            return f"principal.position in {pick(SEATS)}"
        case 5:
            return f"{pick(('principal', 'resource.subject', 'resource.author'))} in {pick(TEAMS)}"
        case 6:
            return f"{pick(('resource.team', 'resource.seat'))} in {pick((*TEAMS, *SEATS))}"
        case 7:
            return f"resource.status {pick(('==', '!='))} {text}"
        case 8:
            return f"resource.rating {pick(('<', '<=', '>', '>=', '==', '!='))} {number}"
        case 9:
            pattern = "".join(
                pick(("*", "f", "F", "a", "l", "\\\\*", "?", "[", "%", "_", "!", "é"))
                for _ in range(chance.randint(0, 4))
            )
            return f'resource.status like "{pattern.replace(chr(92) * 2, chr(92))}"'
        case 10:
            return f'["final", "Final", {text}].contains(resource.status)'
        case 11:
            return f'resource.subject in [principal, User::"acme/bob", {pick(TEAMS[1:])}]'
        case 12:
            return f'[principal, User::"acme/7"].contains({pick(("resource.subject", "resource.author"))})'
        case _:
            return pick((
                "resource has author", "resource has rating", "resource.subject has position", _fixed(chance),
                "resource.subject.name == principal.name", "resource.tenant == principal.tenant",
                "resource.subject.tenant == resource.tenant", "context.now + 9223372036854775807 > resource.level",
                "resource.level < context.now - 1", "resource.level * 1 == resource.level",
            ))  # fmt: skip


def _fixed(chance: random.Random) -> str:
    return chance.choice((
        'context.scopes.contains("x")', "context.now > 5", 'principal.name == "final"', "principal has position", "true",
        'principal in Group::"acme/it"', "context.now + 9223372036854775807 > 0", "principal.active",
    ))  # fmt: skip


# --- the two answers -----------------------------------------------------------------------


def replace_tool(**changes: Any) -> Tool:
    return replace(TOOL, **changes)


def with_scopes(found: Caller, *scopes: str) -> Caller:
    return replace(found, scopes=frozenset(scopes))


def caller(person: Person) -> Caller:
    return Caller(subject="s", tenant=person.tenant, client="c", actors=(), scopes=frozenset({"x"}), evidence=EVIDENCE)


def people_of(world: World) -> Iterator[Person]:
    for ref, entities in world.people.items():
        tenant = ref.partition("/")[0]
        yield Person(
            ref=entities[0].ref, tenant=tenant, name="", active=True, attributes={}, entities=entities, revision=1
        )


def by_engine(engine: CedarEngine, world: World, person: Person, tool: Tool = TOOL) -> list[int]:
    """The rows that the engine allows, one by one, as the corridor asks."""
    found = []
    assert tool.rows is not None
    for number, row in enumerate(world.rows):
        extracted = rows.extract(tool.rows, {"structuredContent": {"rows": [row]}}, limit=1).rows
        if extracted:
            people = {
                id_: world.people[f"{row['tenant_id']}/{id_}"]
                for id_ in extracted[0].people
                if f"{row['tenant_id']}/{id_}" in world.people
            }
            flat = [entity for entities in people.values() for entity in entities]
            if decide.may(engine.judge(questions.about_row(person, caller(person), tool, NOW, extracted[0], flat))):
                found.append(number)
    return found


def predicate(
    engine: CedarEngine, person: Person, dialect: Dialect, tool: Tool = TOOL, layout: Layout = LAYOUT
) -> Predicate:
    assert tool.rows is not None
    scope = engine.scope(tool.action, tool.rows.type, layout, dialect)
    return engine.predicate(scope, questions.about_tool(person, caller(person), tool, NOW))


def in_sqlite(world: World) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.executescript(DDL + "ALTER TABLE reviews ADD COLUMN number BIGINT;")
    for name, found in world.tables.items():
        if name == "reviews":
            found = [(*row, number) for number, row in enumerate(found)]
        if found:
            marks = ",".join("?" * len(found[0]))
            connection.executemany(f"INSERT INTO {name} VALUES ({marks})", found)
    connection.commit()
    return connection


def by_sqlite(connection: sqlite3.Connection, made: Predicate) -> list[int]:
    values = {
        name: orjson.dumps(value).decode() if isinstance(value, list) else value
        for name, value in made.parameters.items()
    }
    text = f"SELECT number FROM (SELECT * FROM reviews) AS scoped WHERE {made.sql} ORDER BY number"
    return [number for (number,) in connection.execute(text, values)]


def in_postgres(connection: psycopg.Connection[Any], world: World) -> None:
    """The same tables, in the place of those that were there."""
    with connection.cursor() as cursor:
        for name in TABLES:
            cursor.execute(f"DROP TABLE IF EXISTS {name}".encode())
        cursor.execute((DDL + "ALTER TABLE reviews ADD COLUMN number BIGINT;").encode())
        for name, found in world.tables.items():
            rows_ = [(*row, at) for at, row in enumerate(found)] if name == "reviews" else found
            with cursor.copy(f"COPY {name} FROM STDIN".encode()) as copy:
                for row in rows_:
                    copy.write_row(row)


def by_postgres(connection: psycopg.Connection[Any], made: Predicate) -> list[int]:
    text = re.sub(r":(scope_\d+)", r"%(\1)s", made.sql.replace("%", "%%"))
    query = f"SELECT number FROM (SELECT * FROM reviews) AS scoped WHERE {text} ORDER BY number"
    return [number for (number,) in connection.execute(query.encode(), dict(made.parameters))]


def spaced(text: str) -> str:
    """Policies or a schema for types and actions within a namespace."""
    if "entity Review" in text:
        return f"namespace HR {{ {text} }}"
    return text.replace("is Review", "is HR::Review").replace('Action::"', 'HR::Action::"')


def loaded(directory: Path, text: str, tool: Tool = TOOL) -> CedarEngine | None:
    """The engine, None for policies that strict validation refuses."""
    schema = spaced(SCHEMA) if tool is SPACED_TOOL else SCHEMA
    try:
        return CedarEngine.load(bundle_at(directory, text, schema), tools=[tool])
    except PolicyInvalid:
        return None
