# ruff: noqa: E501  # statements read best in one line
"""Turning pages: all of them together are exactly the permitted rows, each once, whatever is put in between."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.doors.upstream_postgres import PostgresUpstream, Role
from onbehalf.doors.upstream_postgres import Statement as PostgresStatement
from onbehalf.doors.upstream_sql import SqliteUpstream
from onbehalf.gateway import Gateway
from onbehalf.model import Json, Pages, Presented, Reply, ToolRequest
from onbehalf.validate import paging
from onbehalf.validate.pushdown_sql import Dialect
from test_scoped import STATEMENT, TOOL, Around, standing
from validate import pushdown_house as house

BY = st.lists(
    st.tuples(st.sampled_from(["status", "rating", "level", "subject_id", "team_id"]), st.booleans()),
    max_size=2,
    unique_by=lambda pair: pair[0],
)


@asynccontextmanager
async def before(
    directory: Path, world: house.World, where: str, by: list[tuple[str, bool]], *, scoped: bool = True, size: int = 4
) -> AsyncIterator[tuple[Gateway, Around]]:
    """A gateway with one tool with pages, over the file or the PostgreSQL of that DSN."""
    dialect: Dialect = "sqlite" if where.endswith(".db") else "postgres"
    upstream: SqliteUpstream | PostgresUpstream
    if dialect == "sqlite":
        upstream = SqliteUpstream.open(
            Path(where), audience="db", statements={"reviews": STATEMENT}, timeout=10, max_rows=100
        )
    else:
        upstream = await PostgresUpstream.open(
            Role(dsn=where, wall=None), None, audience="db", timeout=20, max_rows=100,
            statements={"reviews": PostgresStatement(text=STATEMENT.rstrip(" ;"), writes=False)},
        )  # fmt: skip
    pages = Pages(by=(*by, ("id", False)), size=size, dialect=dialect)
    properties: Any = TOOL.schema["properties"]
    schema = {**TOOL.schema, "properties": {**properties, **paging.properties(pages)}}
    tool = replace(TOOL, pages=pages, schema=schema)
    async with (
        aclosing(upstream),
        standing(directory, world, upstream, dialect, tool=tool, scoped=scoped) as (house_, doors),
    ):
        yield replace(house_, secret=b"k" * 32), doors


async def page(gateway: Gateway, who: str, cursor: str = "", **arguments: Json) -> Reply:
    sent: dict[str, Json] = {"not_level": 5, **arguments, **({"cursor": cursor} if cursor else {})}
    request = ToolRequest(tool="reviews", arguments=sent, protocol="2026-07-28", agent="a")
    return await gateway.call(Presented(token=who), request)


def rows_of(reply: Reply) -> tuple[list[dict[str, Any]], str]:
    assert reply.denial == "", reply.content
    content: Any = reply.content["structuredContent"]
    return content["rows"], content.get("next_cursor", "")


async def every_page(gateway: Gateway, who: str, **arguments: Json) -> list[list[dict[str, Any]]]:
    pages, cursor = [], ""
    for _ in range(60):
        found, cursor = rows_of(await page(gateway, who, cursor, **arguments))
        pages.append(found)
        if not cursor:
            return pages
    raise AssertionError("the pages do not end")


def in_file(directory: Path, world: house.World) -> str:
    with closing(sqlite3.connect(directory / "hr.db")) as file:
        house.in_sqlite(world).backup(file)
        file.execute("UPDATE reviews SET id = 'r' || number")
        file.commit()
    for number, row in enumerate(world.rows):
        row["id"] = f"r{number}"
    return str(directory / "hr.db")


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 8), by=BY, size=st.integers(1, 4), scoped=st.booleans())
def test_in_sqlite_all_pages_together_are_the_permitted_rows_each_once(
    seed: int, by: list[tuple[str, bool]], size: int, scoped: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory, world = tmp_path_factory.mktemp("pages"), house.World(random.Random(seed))
    where = in_file(directory, world)

    async def run() -> int:
        some = 0
        async with before(directory, world, where, by, scoped=scoped) as (gateway, doors):
            engine: Any = gateway.standing().engine
            for one in list(house.people_of(world))[:5]:
                pages = await every_page(gateway, one.ref.id, page_size=size)
                found = [row["id"] for each in pages for row in each]
                mine = [
                    world.rows[at]["id"]
                    for at in house.by_engine(engine, world, one)
                    if world.rows[at]["level"] not in (None, 5)
                ]
                assert sorted(found) == sorted(map(str, mine))
                if scoped:
                    assert all(len(each) == size for each in pages[:-1])
                for name, down in by[:1]:
                    values = [row[name] for each in pages for row in each]
                    assert values == sorted(
                        values, key=lambda each: (each is not None, each if each is not None else 0), reverse=down
                    )
                some += len(found)
            assert doors.tripped == []
        return some

    asyncio.run(run())


@pytest.mark.parametrize("by", [[], [("rating", False)], [("rating", True), ("status", False)], [("team_id", True)]])
def test_in_postgres_too(database: str, tmp_path: Path, by: list[tuple[str, bool]]) -> None:
    world = house.World(random.Random(5))
    for number, row in enumerate(world.rows):
        row["id"] = f"r{number}"
    world.tables["reviews"] = [tuple(row.values()) for row in world.rows]
    with psycopg.connect(database, autocommit=True) as connection:
        house.in_postgres(connection, world)

    async def run() -> None:
        some = 0
        async with before(tmp_path, world, database, by, size=3) as (gateway, doors):
            engine: Any = gateway.standing().engine
            for one in house.people_of(world):
                pages = await every_page(gateway, one.ref.id)
                found = [row["id"] for each in pages for row in each]
                mine = [
                    world.rows[at]["id"]
                    for at in house.by_engine(engine, world, one)
                    if world.rows[at]["level"] not in (None, 5)
                ]
                assert sorted(found) == sorted(map(str, mine))
                assert all(len(each) == 3 for each in pages[:-1])
                some += len(found)
            assert some > 20
            assert doors.tripped == []

    asyncio.run(run())


@pytest.fixture
def busy(tmp_path: Path) -> tuple[house.World, str, str]:
    """A company, its file, and somebody in it with two pages at least."""
    world = house.World(random.Random(2))
    where = in_file(tmp_path, world)

    async def find() -> str:
        async with before(tmp_path, world, where, [("status", False)]) as (gateway, _):
            for one in house.people_of(world):
                if len(await every_page(gateway, one.ref.id)) > 2:
                    return one.ref.id
        raise AssertionError

    return world, where, asyncio.run(find())


def test_what_is_put_in_between_moves_no_page(busy: tuple[house.World, str, str], tmp_path: Path) -> None:
    world, where, who = busy

    async def run() -> None:
        async with before(tmp_path, world, where, [("status", False)]) as (gateway, _):
            first, cursor = rows_of(await page(gateway, who))
            before_, _ = rows_of(await page(gateway, who, cursor))
            with closing(sqlite3.connect(where)) as base:
                copied = "INSERT INTO reviews SELECT 'a' || id, tenant_id, subject_id, author_id, status, rating, level, team_id, seat_id, number FROM reviews WHERE id = ?"
                base.execute(copied, (first[0]["id"],))
                base.execute("DELETE FROM reviews WHERE id = ?", (first[1]["id"],))
                base.commit()
            after, _ = rows_of(await page(gateway, who, cursor))
            assert after == before_

    asyncio.run(run())


def test_a_cursor_is_of_one_person_one_call_and_a_quarter_of_an_hour(
    busy: tuple[house.World, str, str], tmp_path: Path
) -> None:
    world, where, who = busy
    other = next(one.ref.id for one in house.people_of(world) if one.ref.id != who)

    async def run() -> None:
        async with before(tmp_path, world, where, [("status", False)]) as (gateway, doors):
            _, cursor = rows_of(await page(gateway, who))
            assert rows_of(await page(gateway, who, cursor, page_size=2))[0]
            for refused in (
                await page(gateway, other, cursor),
                await page(gateway, who, cursor, not_level=4),
                await page(gateway, who, cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB")),
                await page(gateway, who, "x"),
                await page(gateway, who, "é"),
                await page(replace(gateway, secret=b"z" * 32), who, cursor),
            ):
                assert refused.denial == "cursor_invalid"
            late = replace(gateway, clock=lambda: doors.now() + 900)  # type: ignore[arg-type,return-value]  # whole seconds
            assert (await page(late, who, cursor)).denial == "cursor_invalid"
            assert doors.entries[-1].kind == "denial"

    asyncio.run(run())


def test_a_cursor_shows_nothing_of_a_row(busy: tuple[house.World, str, str], tmp_path: Path) -> None:
    import base64

    world, where, who = busy

    async def run() -> None:
        async with before(tmp_path, world, where, [("status", False)]) as (gateway, _):
            found, cursor = rows_of(await page(gateway, who))
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            assert found[-1]["id"].encode() not in raw

    asyncio.run(run())


def test_without_the_key_there_is_one_page(busy: tuple[house.World, str, str], tmp_path: Path) -> None:
    world, where, who = busy

    async def run() -> None:
        async with before(tmp_path, world, where, []) as (gateway, _):
            assert rows_of(await page(replace(gateway, secret=b""), who))[1] == ""

    asyncio.run(run())


def test_the_record_says_which_page(busy: tuple[house.World, str, str], tmp_path: Path) -> None:
    world, where, who = busy

    async def run() -> None:
        async with before(tmp_path, world, where, []) as (gateway, doors):
            _, cursor = rows_of(await page(gateway, who))
            await page(gateway, who, cursor)
            intents = [entry.facts for entry in doors.entries if entry.kind == "intent"]
            assert [facts["page"] for facts in intents] == [{"size": 4, "first": True}, {"size": 4, "first": False}]
            assert all("cursor" not in str(facts["arguments"]) for facts in intents)

    asyncio.run(run())


def test_the_most_rows_of_an_answer_are_not_had_again_by_turning_pages(tmp_path: Path) -> None:
    from company import company

    with company(tmp_path / "it") as made:
        made.edit('@id("own")', '@id("own") @max_rows("2")', name="policies/own.cedar")
        made.edit("ORDER BY id\n", "\n        page: {by: [-text], size: 3}\n")
        with closing(sqlite3.connect(made.directory / "notes.db")) as base:
            base.executemany(
                "INSERT INTO notes VALUES ('acme', ?, 'alice', ?)", [(at, f"n{at}") for at in range(10, 20)]
            )
            base.commit()
        with made.serving():
            found = made.call("notes_list")["structuredContent"]
            assert [row["text"] for row in found["rows"]] == ["n19", "n18"]
            assert "next_cursor" not in found
            tools = made.post("tools/list").json()["result"]["tools"]
            [shown] = [each for each in tools if each["name"] == "notes_list"]
            assert set(shown["inputSchema"]["properties"]) == {"cursor", "page_size"}


def test_a_client_turns_the_pages_of_a_running_gateway(tmp_path: Path) -> None:
    from company import company

    with company(tmp_path / "it") as made:
        made.edit("ORDER BY id\n", "\n        page: {by: [-text], size: 3}\n")
        with closing(sqlite3.connect(made.directory / "notes.db")) as base:
            base.executemany(
                "INSERT INTO notes VALUES ('acme', ?, 'alice', ?)", [(at, f"n{at}") for at in range(10, 17)]
            )
            base.commit()
        with made.serving():
            texts, cursor = [], {}
            while True:
                found = made.call("notes_list", **cursor)["structuredContent"]
                texts.append([row["text"] for row in found["rows"]])
                if "next_cursor" not in found:
                    break
                cursor = {"cursor": found["next_cursor"]}
            assert texts == [["n16", "n15", "n14"], ["n13", "n12", "n11"], ["n10", "mine"]]
            assert made.call("notes_list", cursor="nonsense")["_meta"]["onbehalf/denial"]["code"] == "cursor_invalid"
