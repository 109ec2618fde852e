"""A scoped tool that writes: the condition stands inside of the UPDATE, on a real PostgreSQL, in the whole corridor."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from onbehalf.doors.upstream_postgres import PostgresUpstream, Role, Statement
from onbehalf.model import Json, Presented, Reply, ToolRequest
from postgres import run
from test_scoped import TOOL, standing
from validate import pushdown_house as house

UPDATE = """UPDATE reviews AS scoped SET status = :status, level = 1 WHERE tenant_id = 'acme' AND {scope}
RETURNING id, tenant_id, subject_id, author_id, status, rating, level, team_id, seat_id"""
WRITING = replace(
    TOOL, writes=True, preview="checked", once_s=0,
    schema={"type": "object", "properties": {"status": {"type": "string"}}, "additionalProperties": False},
)  # fmt: skip


@pytest.fixture
def world(database: str) -> house.World:
    made = house.World(random.Random(11))
    with psycopg.connect(database, autocommit=True) as connection:
        house.in_postgres(connection, made)
    return made


def told(database: str, directory: Path, world: house.World, who: str, status: str) -> tuple[Reply, int]:
    """What a person's update answers, and how many rows have that status afterwards."""

    async def walk() -> Reply:
        writer = Role(dsn=database, wall=None)
        upstream = await PostgresUpstream.open(
            writer, writer, audience="db", timeout=20, max_rows=100,
            statements={"reviews": Statement(text=UPDATE, writes=True)},
        )  # fmt: skip
        async with (
            aclosing(upstream),
            standing(directory, world, upstream, "postgres", tool=WRITING) as (gateway, doors),
        ):
            request = ToolRequest(tool="reviews", arguments={"status": status}, protocol="2026-07-28", agent="a")
            reply = await gateway.call(Presented(token=who), request)
            assert doors.tripped == []
            return reply

    reply = asyncio.run(walk())
    [(count,)] = run(database, f"SELECT count(*)::int FROM reviews WHERE status = '{status}'")
    return reply, int(count)


def test_every_person_changes_exactly_the_rows_that_were_theirs(
    database: str, tmp_path: Path, world: house.World
) -> None:
    changed = 0
    for number, person in enumerate(each for each in house.people_of(world) if each.tenant == "acme"):
        with psycopg.connect(database, autocommit=True) as connection:
            house.in_postgres(connection, world)
        engine_rows = theirs(tmp_path / f"e{number}", world, person.ref.id)
        status = "final"  # what a person's own reviews must stay to be theirs
        reply, _ = told(database, tmp_path / str(number), world, person.ref.id, status)
        assert reply.denial == ""
        content = reply.content["structuredContent"]
        assert isinstance(content, dict)
        rows = content["rows"]
        assert isinstance(rows, list)
        found = sorted(str(row["id"]) for row in rows if isinstance(row, dict))
        assert found == engine_rows
        [(count,)] = run(database, "SELECT count(*)::int FROM reviews WHERE level = 1 AND status = 'final'")
        already = sum(
            1 for row in world.rows if row["level"] == 1 and row["status"] == "final" and str(row["id"]) not in found
        )
        assert count == already + len(found)
        changed += len(found)
    assert changed > 5


def test_a_change_that_would_take_a_row_out_of_reach_is_not_made(
    database: str, tmp_path: Path, world: house.World
) -> None:
    refused = 0
    for number, person in enumerate(each for each in house.people_of(world) if each.tenant == "acme"):
        reply, count = told(database, tmp_path / str(number), world, person.ref.id, "mine no more")
        if reply.denial:
            assert reply.denial == "not_permitted"
            assert count == 0
            refused += 1
        run(database, "UPDATE reviews SET status = 'final' WHERE status = 'mine no more'")
    assert refused > 0


def theirs(directory: Path, world: house.World, who: str) -> list[str]:
    from test_scoped import POLICIES
    from validate.policy_house import bundle_at

    engine = house.CedarEngine.load(bundle_at(directory, POLICIES, house.SCHEMA), tools=[house.TOOL])
    person = next(each for each in house.people_of(world) if each.ref.id == who)
    ids: list[Json] = [world.rows[at]["id"] for at in house.by_engine(engine, world, person)]
    return sorted(map(str, ids))
