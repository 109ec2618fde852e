"""A scoped tool: the policies' own condition goes into the statement, on real databases; what disagrees trips it."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from house import Doors
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.doors.engine_cedar_scope import Narrowed
from onbehalf.doors.upstream_postgres import PostgresUpstream, Role
from onbehalf.doors.upstream_postgres import Statement as PostgresStatement
from onbehalf.doors.upstream_sql import SqliteUpstream
from onbehalf.errors import PersonUnknown
from onbehalf.gateway import Gateway, Offer, Standing
from onbehalf.model import Caller, Entity, Json, Person, Presented, Reply, Tool, ToolRequest
from onbehalf.ports import Upstream
from onbehalf.validate import route
from onbehalf.validate.pushdown_sql import Dialect
from replacing import replace
from validate import pushdown_house as house
from validate.policy_house import bundle_at

POLICIES = """
@id("ask") @doc("d") permit (principal, action == Action::"read", resource is Tool);
@id("team") @doc("d") permit (principal, action == Action::"read", resource is Review)
when { resource.subject has position && principal has position && resource.subject.position in principal.position };
@id("own") @doc("d") permit (principal, action == Action::"read", resource is Review)
when { resource.subject == principal && resource.status == "final" };
@id("shut") @doc("d") forbid (principal, action == Action::"read", resource is Review)
when { resource has rating && resource.rating < 0 };
"""
STATEMENT = """SELECT id, tenant_id, subject_id, author_id, status, rating, level, team_id, seat_id
FROM reviews WHERE level <> :not_level; """
TOOL = replace(
    house.TOOL, scoped=True,
    schema={"type": "object", "properties": {"not_level": {"type": "integer"}}, "additionalProperties": False},
)  # fmt: skip


class Around(Doors):
    """In-memory doors but for the database, over the people of a random company."""

    world: house.World

    async def person(self, caller: Caller) -> Person:
        found = {each.ref.id: each for each in house.people_of(self.world)}.get(caller.subject)
        if found is None:
            raise PersonUnknown("nobody")
        return found

    async def prove(self, presented: Presented, *, now: object) -> Caller:
        tenant = presented.token.partition("/")[0]
        made = house.caller(next(house.people_of(self.world)))
        return replace(made, subject=presented.token, tenant=tenant)

    async def people(self, tenant: str, ids: object) -> Sequence[Entity]:
        return [each for id_ in ids for each in self.world.people.get(f"{tenant}/{id_}", ())]  # type: ignore[attr-defined]


@asynccontextmanager
async def standing(
    directory: Path,
    world: house.World,
    upstream: Upstream,
    dialect: Dialect,
    *,
    scoped: bool = True,
    tool: Tool = TOOL,
) -> AsyncIterator[tuple[Gateway, Around]]:
    tool = replace(tool, scoped=scoped)
    where = Narrowed(layout=house.LAYOUT, dialect=dialect)
    narrowed = {tool.name: where} if scoped or tool.explores is not None else {}
    bundle = bundle_at(directory / f"p{scoped}", POLICIES, house.SCHEMA)
    engine = CedarEngine.load(bundle, tools=[tool], narrowed=narrowed)
    doors = Around(audience=upstream.audience)
    doors.world = world
    offers = {tool.name: Offer(tool=tool, check=route.prepare(tool.schema), upstream=upstream)}
    yield (
        Gateway(
            clock=doors.now, ids=doors.fresh, callers=doors, directory=doors, ledger=doors, signer=doors, meter=doors,
            once=doors, changes=doors, standing=lambda: Standing(engine=engine, offers=offers), max_rows=100,
            trip=doors.tripped.append,
        ),
        doors,
    )  # fmt: skip


async def asked(gateway: Gateway, who: str) -> tuple[list[Json], Reply]:
    request = ToolRequest(tool="reviews", arguments={"not_level": 5}, protocol="2026-07-28", agent="a")
    reply = await gateway.call(Presented(token=who), request)
    assert reply.denial == "", reply.content
    content = reply.content["structuredContent"]
    assert isinstance(content, dict)
    found = content["rows"]
    assert isinstance(found, list)
    return sorted(found, key=str), reply


def in_file(path: Path, world: house.World) -> SqliteUpstream:
    with sqlite3.connect(path) as file:
        house.in_sqlite(world).backup(file)
    return SqliteUpstream.open(path, audience="db", statements={"reviews": STATEMENT}, timeout=10, max_rows=100)


@pytest.mark.parametrize("seed", range(4))
def test_with_the_condition_in_the_statement_come_the_same_rows_and_no_more_are_read(seed: int, tmp_path: Path) -> None:
    world = house.World(random.Random(seed))

    async def run() -> None:
        upstream = in_file(tmp_path / "hr.db", world)
        async with (
            standing(tmp_path, world, upstream, "sqlite") as (narrow, doors),
            standing(tmp_path, world, upstream, "sqlite", scoped=False) as (wide, _),
        ):
            some = 0
            for person in house.people_of(world):
                mine, _ = await asked(narrow, person.ref.id)
                assert mine == (await asked(wide, person.ref.id))[0]
                some += len(mine)
                [*_, outcome] = [entry for entry in doors.entries if entry.kind == "outcome"]
                rows = outcome.facts["rows"]
                assert isinstance(rows, dict)
                assert (
                    rows["returned"] == rows["released"] == len(mine)
                )  # the database gave nothing that was not theirs
            assert some > 10
            assert doors.tripped == []
        upstream.close()

    asyncio.run(run())


def test_on_postgres_come_the_same_rows(database: str, tmp_path: Path) -> None:
    world = house.World(random.Random(7))
    with psycopg.connect(database, autocommit=True) as connection:
        house.in_postgres(connection, world)

    async def run() -> None:
        upstream = await PostgresUpstream.open(
            Role(dsn=database, wall=None), None, audience="db", timeout=20, max_rows=100,
            statements={"reviews": PostgresStatement(text=STATEMENT.rstrip(" ;"), writes=False)},
        )  # fmt: skip
        async with (
            aclosing(upstream),
            standing(tmp_path, world, upstream, "postgres") as (narrow, doors),
            standing(tmp_path, world, upstream, "postgres", scoped=False) as (wide, _),
        ):
            some = 0
            for person in house.people_of(world):
                mine, _ = await asked(narrow, person.ref.id)
                assert mine == (await asked(wide, person.ref.id))[0]
                some += len(mine)
            assert some > 10
            assert doors.tripped == []

    asyncio.run(run())


def test_the_intent_says_by_what_condition_and_holds_no_value_of_it(tmp_path: Path) -> None:
    world = house.World(random.Random(1))

    async def run() -> None:
        upstream = in_file(tmp_path / "hr.db", world)
        async with standing(tmp_path, world, upstream, "sqlite") as (gateway, doors):
            who = next(house.people_of(world)).ref.id
            await asked(gateway, who)
            [intent] = [entry for entry in doors.entries if entry.kind == "intent"]
            scope = intent.facts["scope"]
            assert isinstance(scope, dict)
            assert 'scoped."tenant_id"' in str(scope["predicate"])
            assert who.partition("/")[2] not in str(scope)
        upstream.close()

    asyncio.run(run())


def test_a_row_that_the_statement_gives_and_the_policies_refuse_is_dropped_and_trips_the_tool(tmp_path: Path) -> None:
    world = house.World(random.Random(3))
    told = house.World(random.Random(3))  # what the tables say: everybody sits below `top`, and everybody is on top
    told.tables["people"] = [(tenant, id_, "top", name) for tenant, id_, _, name in told.tables["people"]]

    async def run() -> None:
        upstream = in_file(tmp_path / "hr.db", told)
        async with standing(tmp_path, world, upstream, "sqlite") as (gateway, doors):
            for person in house.people_of(world):
                mine, _ = await asked(gateway, person.ref.id)
                assert {row["tenant_id"] for row in mine if isinstance(row, dict)} <= {person.tenant}
                allowed = house.by_engine(gateway.standing().engine, world, person)  # type: ignore[arg-type]
                ids = {str(world.rows[at]["id"]) for at in allowed}
                assert {str(row["id"]) for row in mine if isinstance(row, dict)} <= ids
            assert set(doors.tripped) == {"reviews"}
        upstream.close()

    asyncio.run(run())


def test_a_scoped_tool_is_never_run_without_its_condition(tmp_path: Path) -> None:
    from doors.upstream_house import a_call, a_token

    async def run() -> None:
        world = house.World(random.Random(1))
        upstream = in_file(tmp_path / "hr.db", world)
        call = a_call("reviews", {"not_level": 1}, rows=house.SHAPE)
        bare = replace(call, tool=replace(call.tool, scoped=True))
        outcome = await upstream.send(bare, a_token(bare, audience="db"))
        assert getattr(outcome, "code", "") == "unscoped"
        upstream.close()

    asyncio.run(run())
