"""SQL as an upstream: only fixed SELECTs, values never become text, and everything is bounded."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from doors.upstream_house import AUDIENCE, a_call, a_token
from onbehalf.doors.upstream_sql import SqliteUpstream, Statement
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Done, Failed, Json, Outcome, Rows
from onbehalf.validate import rows

FOREVER = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) AS n FROM r"
SHAPE = Rows(type="Review", at=(), id="id", tenant="tenant", attributes={"rating": ("rating", "Long")})


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "a b#?.db"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE reviews (id TEXT PRIMARY KEY, tenant TEXT, rating INTEGER, note)")
        made.executemany(
            "INSERT INTO reviews VALUES (?, ?, ?, ?)",
            [(f"r{n}", "acme" if n % 2 else "globex", n, "x") for n in range(10)],
        )
    made.close()
    return path


def opened(path: Path, statement: str, *, timeout: float = 5.0, max_rows: int = 100) -> SqliteUpstream:
    return SqliteUpstream.open(path, audience=AUDIENCE, statements={"t": statement}, timeout=timeout, max_rows=max_rows)


def asked(upstream: SqliteUpstream, arguments: Json = None, shape: Rows | None = None) -> Outcome:
    async def ask() -> Outcome:
        call = a_call("t", arguments, rows=shape)
        try:
            return await upstream.send(call, a_token(call))
        finally:
            await upstream.aclose()

    return asyncio.run(ask())


def rows_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Done), outcome
    found = outcome.content["structuredContent"]
    assert isinstance(found, dict)
    return found["rows"]


def code_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Failed), outcome
    assert not outcome.unknown
    return outcome.code


def test_rows_come_back_as_an_mcp_result(database: Path) -> None:
    upstream = opened(database, "SELECT id, rating FROM reviews WHERE id = :id")
    outcome = asked(upstream, {"id": "r3"})
    assert isinstance(outcome, Done)
    assert outcome.content == {
        "content": [{"type": "text", "text": '{"rows":[{"id":"r3","rating":3}]}'}],
        "structuredContent": {"rows": [{"id": "r3", "rating": 3}]},
        "isError": False,
    }


@pytest.mark.parametrize("at", [(), ("rows",), ("data", "items")])
def test_rows_stand_where_the_mapping_looks_for_them(database: Path, at: tuple[str, ...]) -> None:
    shape = Rows(type="Review", at=at, id="id", tenant="tenant", attributes={"rating": ("rating", "Long")})
    outcome = asked(opened(database, "SELECT * FROM reviews WHERE tenant = :t"), {"t": "acme"}, shape)
    assert isinstance(outcome, Done)
    found = rows.extract(shape, outcome.content, limit=100)
    assert [row.id for row in found.rows] == ["r1", "r3", "r5", "r7", "r9"]
    kept = rows.release(shape, outcome.content, found.rows)
    assert kept["structuredContent"] == outcome.content["structuredContent"]


def test_no_row_is_an_empty_list(database: Path) -> None:
    assert rows_of(asked(opened(database, "SELECT id FROM reviews WHERE id = :id"), {"id": "' OR 1=1 --"})) == []


def test_an_absent_parameter_is_null(database: Path) -> None:
    statement = "SELECT id FROM reviews WHERE (:id IS NULL OR id = :id) ORDER BY id"
    assert len(rows_of(asked(opened(database, statement)))) == 10


def test_a_list_is_bound_as_json_text(database: Path) -> None:
    statement = "SELECT id FROM reviews WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id"
    assert rows_of(asked(opened(database, statement), {"ids": ["r1", "r2"]})) == [{"id": "r1"}, {"id": "r2"}]


@pytest.mark.parametrize("value", [{"a": 1}, [["r1"]], [{"a": 1}]])
def test_what_is_no_plain_value_is_refused(database: Path, value: Json) -> None:
    upstream = opened(database, "SELECT id FROM reviews WHERE id = :id")
    assert code_of(asked(upstream, {"id": value})) == "arguments_refused"


def test_an_argument_that_the_statement_does_not_use_is_refused(database: Path) -> None:
    outcome = asked(opened(database, "SELECT id FROM reviews"), {"tenant": "acme"})
    assert code_of(outcome) == "arguments_refused"


def test_parameters_and_columns_are_known_at_open(database: Path) -> None:
    upstream = opened(database, "SELECT id, rating AS stars FROM reviews WHERE id = :b AND ':no' != :a_1 -- :c\n;")
    assert upstream.parameters("t") == ("b", "a_1")
    assert upstream.columns("t") == ("id", "stars")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("SELECT 1; SELECT 2", "more than one"),
        ("SELECT id FROM reviews; DROP TABLE reviews", "more than one"),
        ("DELETE FROM reviews", "not a SELECT"),
        ("PRAGMA user_version", "not a SELECT"),
        ("/* SELECT */ UPDATE reviews SET id = 1", "not a SELECT"),
        ("ATTACH 'x' AS y", "not a SELECT"),
        ("", "not a SELECT"),
        ("WITH x AS (SELECT 1) DELETE FROM reviews", "not allowed"),
        ("WITH x AS (SELECT 1) INSERT INTO reviews SELECT 1, 1, 1, 1", "not allowed"),
        ("SELECT nope FROM reviews", "no such column"),
        ("SELECT id FROM nowhere", "no such table"),
        ("SELECT id FROM reviews WHERE id = ?", "without a name"),
        ("SELECT id FROM reviews WHERE id = ?1", "without a name"),
        ("SELECT load_extension('x')", "not allowed"),
        ("SELECT randomblob(9)", "not allowed"),
        ("SELECT sql FROM sqlite_master", "not allowed"),
        ("SELECT * FROM pragma_table_info('reviews')", "not allowed"),
        ("SELECT id, tenant AS id FROM reviews", "two columns named `id`"),
        ("SELECT id FROM", "does not fit"),
    ],
)
def test_a_statement_that_is_not_one_plain_select_is_refused_at_open(
    database: Path, statement: str, words: str
) -> None:
    with pytest.raises(ConfigInvalid, match=words) as refused:
        opened(database, statement)
    assert refused.value.hint


def test_a_file_that_is_no_database_is_refused_at_open(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid):
        opened(tmp_path / "absent.db", "SELECT 1 AS n")
    assert not (tmp_path / "absent.db").exists()
    (tmp_path / "text.db").write_text("no database" * 100)
    with pytest.raises(ConfigInvalid):
        opened(tmp_path / "text.db", "SELECT 1 AS n")


def test_more_rows_than_allowed_are_a_failure_and_never_cut(database: Path) -> None:
    assert code_of(asked(opened(database, "SELECT id FROM reviews", max_rows=9))) == "too_many_rows"
    assert len(rows_of(asked(opened(database, "SELECT id FROM reviews", max_rows=10)))) == 10


def test_a_huge_result_is_a_failure(database: Path) -> None:
    with sqlite3.connect(database) as made:
        made.execute("UPDATE reviews SET note = ?", ("x" * 2**20,))
    made.close()
    assert code_of(asked(opened(database, "SELECT note FROM reviews"))) == "result_too_large"
    huge = "SELECT replace(note, 'x', note) AS n FROM reviews"
    assert code_of(asked(opened(database, huge))) == "upstream_error"


@pytest.mark.parametrize("expression", ["CAST('x' AS BLOB)", "9e999"])
def test_what_json_cannot_say_is_a_failure(database: Path, expression: str) -> None:
    assert code_of(asked(opened(database, f"SELECT {expression} AS n"))) == "result_refused"


def test_text_that_is_no_utf_8_is_a_failure(database: Path) -> None:
    assert code_of(asked(opened(database, "SELECT CAST(x'E9' AS TEXT) AS n"))) == "upstream_error"


def test_malformed_json_from_a_model_is_a_failure(database: Path) -> None:
    outcome = asked(opened(database, "SELECT value FROM json_each(:ids)"), {"ids": "no json"})
    assert code_of(outcome) == "upstream_error"


def test_a_statement_without_an_end_is_stopped_and_its_thread_is_free_again(database: Path) -> None:
    async def walk() -> None:
        async with two(database, timeout=0.2) as upstream:
            started = time.monotonic()
            endless = [a_call("forever") for _ in range(4)]
            outcomes = await asyncio.gather(*(upstream.send(call, a_token(call)) for call in endless))
            assert {code_of(outcome) for outcome in outcomes} == {"upstream_timed_out"}
            assert time.monotonic() - started < 2.0
            call = a_call("quick")
            assert rows_of(await upstream.send(call, a_token(call))) == [{"n": 1}]

    asyncio.run(walk())


def test_a_cancelled_call_frees_its_thread_at_once(database: Path) -> None:
    async def walk() -> None:
        async with two(database, timeout=30) as upstream:
            call = a_call("forever")
            endless = [asyncio.create_task(upstream.send(call, a_token(call))) for _ in range(8)]
            await asyncio.sleep(0.05)
            for task in endless:
                task.cancel()
            await asyncio.gather(*endless, return_exceptions=True)
            quick = a_call("quick")
            async with asyncio.timeout(5):
                assert rows_of(await upstream.send(quick, a_token(quick))) == [{"n": 1}]
            assert all(task.cancelled() for task in endless)

    asyncio.run(walk())


def test_a_call_after_the_end_is_refused(database: Path) -> None:
    async def walk() -> None:
        async with two(database, timeout=1) as upstream:
            pass
        call = a_call("quick")
        assert code_of(await upstream.send(call, a_token(call))) == "upstream_busy"

    asyncio.run(walk())


def test_a_file_put_in_place_of_the_old_one_is_read_from_then_on(database: Path, tmp_path: Path) -> None:
    async def walk() -> None:
        upstream = opened(database, "SELECT count(*) AS n FROM reviews")
        call = a_call("t")
        assert rows_of(await upstream.send(call, a_token(call))) == [{"n": 10}]
        with sqlite3.connect(tmp_path / "new.db") as made:
            made.execute("CREATE TABLE reviews (id)")
        made.close()
        (tmp_path / "new.db").replace(database)
        assert rows_of(await upstream.send(call, a_token(call))) == [{"n": 0}]
        database.unlink()
        assert code_of(await upstream.send(call, a_token(call))) == "upstream_unavailable"
        await upstream.aclose()

    asyncio.run(walk())


def test_a_locked_database_and_wal_are_read(database: Path) -> None:
    writer = sqlite3.connect(database, isolation_level=None)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("DELETE FROM reviews")
    assert rows_of(asked(opened(database, "SELECT count(*) AS n FROM reviews"))) == [{"n": 10}]
    writer.close()


@asynccontextmanager
async def two(database: Path, *, timeout: float) -> AsyncIterator[SqliteUpstream]:
    statements: Mapping[str, Statement] = {"forever": FOREVER, "quick": "SELECT 1 AS n"}
    upstream = SqliteUpstream.open(database, audience=AUDIENCE, statements=statements, timeout=timeout, max_rows=10)
    try:
        yield upstream
    finally:
        await upstream.aclose()
