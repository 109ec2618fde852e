# ruff: noqa: E501  # queries read best in one line
"""Exploration: what a model's own SELECT gives is what it would give were only the permitted rows in the database."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.doors.upstream_postgres import PostgresUpstream, Role
from onbehalf.doors.upstream_postgres import Statement as PostgresStatement
from onbehalf.doors.upstream_sql import SqliteUpstream
from onbehalf.doors.wall_sqlite import SqliteWall
from onbehalf.errors import ArgumentsRefused
from onbehalf.gateway import Gateway
from onbehalf.model import Explored, Explores, Presented, Tool, ToolRequest, canonical
from onbehalf.validate import explore
from onbehalf.validate.pushdown_sql import Dialect
from replacing import replace
from test_scoped import Around, standing
from validate import pushdown_house as house
from validate.hostile_sql import HOSTILE
from validate.policy_house import BOB, person, tool_call

COLUMNS = ("id", "tenant_id", "subject_id", "status", "rating", "level")
TABLES = {"reviews": Explored(rows=house.SHAPE, table="reviews", columns=COLUMNS)}


def exploring(dialect: Dialect, *, max_cost: float = 1_000_000.0) -> Tool:
    return replace(
        house.TOOL,
        rows=None,
        schema=explore.schema(),
        explores=Explores(dialect=dialect, tables=TABLES, max_cost=max_cost),
    )


@asynccontextmanager
async def before(
    directory: Path, world: house.World, where: str, *, wall: SqliteWall | None = None, timeout: float = 20,
    max_rows: int = 1000, max_cost: float = 1_000_000.0,
) -> AsyncIterator[tuple[Gateway, Around]]:  # fmt: skip
    """A gateway that explores this company's tables: in the file `where`, or in the PostgreSQL of that DSN."""
    text = explore.trial(TABLES)
    dialect: Dialect = "sqlite" if where.endswith(".db") else "postgres"
    upstream: SqliteUpstream | PostgresUpstream
    if dialect == "sqlite":
        upstream = SqliteUpstream.open(
            Path(where), audience="db", statements={"reviews": text}, timeout=timeout, max_rows=max_rows, wall=wall
        )
    else:
        upstream = await PostgresUpstream.open(
            Role(dsn=where, wall=None), None, audience="db", timeout=timeout, max_rows=max_rows,
            statements={"reviews": PostgresStatement(text=text, writes=False)},
        )  # fmt: skip
    tool = exploring(dialect, max_cost=max_cost)
    async with aclosing(upstream), standing(directory, world, upstream, dialect, tool=tool, scoped=False) as made:
        yield made


async def asked(gateway: Gateway, who: str, sql: str) -> Any:
    """The rows of a query, or the code of its refusal."""
    request = ToolRequest(tool="reviews", arguments={"sql": sql}, protocol="2026-07-28", agent="a")
    reply = await gateway.call(Presented(token=who), request)
    if reply.denial:
        return reply.denial
    content: Any = reply.content["structuredContent"]
    return content["rows"]


def in_file(directory: Path, world: house.World) -> str:
    with closing(sqlite3.connect(directory / "hr.db")) as file:
        house.in_sqlite(world).backup(file)
    return str(directory / "hr.db")


# --- the same as if nothing else were there -------------------------------------------------

QUERIES = (
    "SELECT * FROM reviews ORDER BY id",
    "SELECT id, status AS was FROM reviews WHERE rating IS NOT NULL ORDER BY rating DESC, id LIMIT 3",
    "SELECT status, count(*) AS n, count(DISTINCT subject_id) AS people FROM reviews GROUP BY status ORDER BY n, status",
    "SELECT count(*) AS n FROM reviews WHERE status LIKE 'f%' OR rating BETWEEN 1 AND 9",
    "SELECT a.id AS a, b.id AS b FROM reviews a JOIN reviews b ON a.subject_id = b.subject_id AND a.id < b.id ORDER BY 1, 2",
    "SELECT a.id FROM reviews a LEFT JOIN reviews b ON b.id = a.id AND b.rating = 5 WHERE b.id IS NULL ORDER BY a.id",
    "WITH most AS (SELECT subject_id, count(*) AS n FROM reviews GROUP BY subject_id) SELECT * FROM most WHERE n > 1 ORDER BY n, subject_id",
    "SELECT id FROM reviews WHERE level = (SELECT max(level) FROM reviews) ORDER BY id",
    "SELECT id FROM reviews r WHERE EXISTS (SELECT 1 FROM reviews s WHERE s.subject_id = r.subject_id AND s.id <> r.id) ORDER BY id",
    "SELECT id FROM reviews WHERE rating > 0 UNION SELECT id FROM reviews WHERE level > 0 ORDER BY 1",
    "SELECT id FROM reviews EXCEPT SELECT id FROM reviews WHERE rating IS NULL ORDER BY id",
    "SELECT CASE WHEN rating IS NULL THEN 'none' WHEN rating > 0 THEN upper(status) ELSE lower(status) END AS said, id FROM reviews ORDER BY id",
    "SELECT coalesce(rating, 0) AS r, length(status) AS l, trim(status) || '!' AS t, id FROM reviews ORDER BY id",
    "SELECT q.n FROM (SELECT count(*) AS n FROM reviews) q WHERE NOT (q.n = 7)",
    "SELECT id FROM reviews WHERE status IN ('final', 'it''s', '%s') AND id NOT IN ('r1', '2', 'R3') ORDER BY id DESC",
)  # fmt: skip


@st.composite
def random_query(draw: Callable[[Any], Any]) -> str:
    """One more query, of the parts that there are."""
    column = st.sampled_from(COLUMNS)
    leaf = st.one_of(
        st.builds("{} {} {}".format, st.sampled_from(["rating", "level"]),
                  st.sampled_from(["=", "<>", "<", ">="]), st.integers(-2, 6)),
        st.builds("{} LIKE '{}'".format, st.just("status"), st.sampled_from(["f%", "%l", "_inal", "", "50%"])),
        st.builds("{} IS {}NULL".format, column, st.sampled_from(["", "NOT "])),
        st.builds("subject_id IN ('{}', 'bob')".format, st.sampled_from(["ann", "cyd", "o''x"])),
    )  # fmt: skip
    tree = st.recursive(
        leaf, lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["AND", "OR"]), inner), max_leaves=5
    )
    where = draw(tree)
    if draw(st.booleans()):
        by = draw(st.sampled_from(["status", "subject_id", "rating"]))
        return (
            f"SELECT {by}, count(*) AS n, max(level) AS top FROM reviews WHERE {where} GROUP BY {by} ORDER BY n, {by}"
        )
    return f"SELECT id, status FROM reviews WHERE NOT ({where}) ORDER BY id"


def sql_rows(connection: sqlite3.Connection, sql: str) -> list[dict[str, Any]]:
    cursor = connection.execute(sql)
    names = [each[0] for each in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def reference(world: house.World, numbers: Sequence[int]) -> sqlite3.Connection:
    """A database where there are no rows but these, and no columns but the mapped ones."""
    made = house.in_sqlite(world)
    made.execute(f"DELETE FROM reviews WHERE number NOT IN ({', '.join(map(str, numbers)) or -1})")
    made.execute("ALTER TABLE reviews RENAME TO every_column")
    made.execute(f"CREATE VIEW reviews AS SELECT {', '.join(COLUMNS)} FROM every_column")
    return made


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 5), more=st.lists(random_query(), min_size=1, max_size=4))
def test_in_sqlite_an_answer_is_what_it_were_if_only_permitted_rows_were_there(
    seed: int, more: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("explore")
    world = house.World(random.Random(seed))

    async def run() -> int:
        compared = 0
        async with before(directory, world, in_file(directory, world)) as (gateway, _):
            engine: Any = gateway.standing().engine
            for one in list(house.people_of(world))[:6]:
                alone = reference(world, house.by_engine(engine, world, one))
                for sql in (*QUERIES, *more):
                    assert await asked(gateway, one.ref.id, sql) == sql_rows(alone, sql), sql
                    compared += 1
        return compared

    assert asyncio.run(run()) > 20


def test_in_postgres_too(database: str, tmp_path: Path) -> None:
    world = house.World(random.Random(3))
    with psycopg.connect(database, autocommit=True) as connection:
        house.in_postgres(connection, world)

    async def run() -> int:
        compared = 0
        async with before(tmp_path, world, database) as (gateway, _):
            engine: Any = gateway.standing().engine
            for one in house.people_of(world):
                alone = reference(world, house.by_engine(engine, world, one))
                for sql in QUERIES:
                    found = await asked(gateway, one.ref.id, sql)
                    # PostgreSQL's LIKE minds case, its texts sort by bytes here, its nulls come last
                    if "LIKE" in sql or "DESC" in sql:
                        continue
                    assert sorted(map(str, found)) == sorted(map(str, sql_rows(alone, sql))), sql
                    compared += 1
        return compared

    assert asyncio.run(run()) > 50


# --- whatever is written, nothing of anybody else comes back ---------------------------------


class Company(house.World):
    """Bob's three reviews among two thousand that are not his, every value of which is a canary."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        own = [self._made(at, "acme", "bob", "final", at) for at in (1, 2, 3)]
        theirs = [
            self._made(1000 + at, "globex" if at % 2 else "acme", "CANARY", "CANARY", 987_654_321) for at in range(2000)
        ]
        self.rows = [*own, *theirs]
        self.tables["reviews"] = [tuple(row.values()) for row in self.rows]

    @staticmethod
    def _made(id_: int, tenant: str, subject: str, status: str, level: int) -> dict[str, Any]:
        return {
            "id": str(id_), "tenant_id": tenant, "subject_id": subject, "author_id": subject, "status": status,
            "rating": level, "level": level, "team_id": None, "seat_id": None,
        }  # fmt: skip


def leaks(value: Any) -> bool:
    """Whether an answer holds a canary, or a number that only somebody else's rows could make."""
    if isinstance(value, dict):
        return any(map(leaks, (*value, *value.values())))
    if isinstance(value, list):
        return any(map(leaks, value))
    if isinstance(value, str):
        return "CANARY" in value or "987654321" in value
    return isinstance(value, int | float) and not isinstance(value, bool) and 900 < value < 10**15


async def tried(gateway: Gateway, doors: Around) -> tuple[int, list[str]]:
    """How many of the corpus gave rows, and those that gave something foreign."""
    answered, leaking = 0, []
    for sql in HOSTILE:
        found = await asked(gateway, "acme/bob", sql)
        answered += isinstance(found, list)
        if leaks(found) or (isinstance(found, str) and found not in EXPECTED):
            leaking.append(f"{sql[:200]} -> {str(found)[:200]}")
    assert doors.tripped == []
    return answered, leaking


EXPECTED = {
    "arguments_refused",
    "query_failed",
    "query_too_costly",
    "too_many_rows",
    "result_too_large",
    "upstream_timed_out",
}


@pytest.mark.parametrize("walled", [False, True])
def test_no_statement_of_the_corpus_gives_a_foreign_value_in_sqlite(walled: bool, tmp_path: Path) -> None:
    assert len(HOSTILE) > 250
    world = Company()
    with closing(sqlite3.connect(in_file(tmp_path, world))) as base:
        base.executescript("CREATE TABLE secrets (id, value, level); INSERT INTO secrets VALUES (1, 'CANARY', 987654321);"
                           "ALTER TABLE reviews ADD COLUMN secret TEXT DEFAULT 'CANARY';")  # fmt: skip
    tables = {
        "reviews": "tenant_id",
        "people": "tenant_id",
        "position_tree": "tenant_id",
        "memberships": "tenant_id",
        "group_tree": "tenant_id",
    }
    wall = SqliteWall(tables=tables, shared=()) if walled else None

    async def run() -> None:
        async with before(tmp_path, world, str(tmp_path / "hr.db"), wall=wall, timeout=2) as (gateway, doors):
            answered, leaking = await tried(gateway, doors)
            assert leaking == []
            assert answered > 25

    asyncio.run(run())


def test_no_statement_of_the_corpus_gives_a_foreign_value_in_postgres(database: str, tmp_path: Path) -> None:
    world = Company()
    with psycopg.connect(database, autocommit=True) as connection:
        house.in_postgres(connection, world)
        connection.execute("CREATE TABLE secrets AS SELECT 1 AS id, 'CANARY'::text AS value, 987654321 AS level")
        connection.execute("ALTER TABLE reviews ADD COLUMN secret text DEFAULT 'CANARY'")

    async def run() -> None:
        async with before(tmp_path, world, database, timeout=2) as (gateway, doors):
            answered, leaking = await tried(gateway, doors)
            assert leaking == []
            assert answered > 25

    asyncio.run(run())


def test_the_corpus_would_be_noticed(tmp_path: Path) -> None:
    """Run as it is, without us, it gives canaries: else the tests above prove nothing."""
    world = Company()
    with closing(sqlite3.connect(in_file(tmp_path, world))) as base:
        base.execute("CREATE TABLE secrets (id, value, level)")
        base.execute("INSERT INTO secrets VALUES (1, 'CANARY', 987654321)")
        found = 0
        for sql in HOSTILE:
            if (
                sql.lower().lstrip().startswith(("select", "with"))
                and "recursive" not in sql.lower()
                and "randomblob" not in sql
                and "zeroblob" not in sql
                and "reviews h" not in sql
                and "r199" not in sql
            ):
                try:
                    found += leaks(sql_rows(base, sql))
                except (sqlite3.Error, sqlite3.Warning, ValueError, RecursionError):
                    continue
        assert found > 40


def test_an_error_of_a_foreign_row_is_never_met(database: str, tmp_path: Path) -> None:
    """The planner must not run what the model wrote before the condition: a division by zero on somebody else's value
    would tell that the value is there."""
    world = Company()
    with psycopg.connect(database, autocommit=True) as connection:
        house.in_postgres(connection, world)

    async def run() -> None:
        for where in (database, in_file(tmp_path, world)):
            async with before(tmp_path, world, where) as (gateway, _):
                for sql in (
                    "SELECT id FROM reviews WHERE 10 / (level - 987654321) < 5 ORDER BY id",
                    "SELECT id FROM reviews WHERE abs(level * 1000000000000) > 0 ORDER BY id",
                    "SELECT id FROM reviews WHERE CAST(replace_me AS integer) >= 0".replace("replace_me", "level")
                    + " ORDER BY id",
                ):
                    assert await asked(gateway, "acme/bob", sql) == [{"id": "1"}, {"id": "2"}, {"id": "3"}], sql
                assert await asked(gateway, "acme/bob", "SELECT 1 / (level - 2) AS x FROM reviews") in (
                    "query_failed", [{"x": -1}, {"x": None}, {"x": 1}],
                )  # fmt: skip

    asyncio.run(run())


# --- bounds ---------------------------------------------------------------------------------


def test_what_costs_too_much_or_gives_too_much_is_refused(database: str, tmp_path: Path) -> None:
    world = Company()
    with psycopg.connect(database, autocommit=True) as connection:
        house.in_postgres(connection, world)
        connection.execute("ANALYZE")
    bomb = "SELECT count(*) AS n FROM reviews a, reviews b, reviews c, reviews d, reviews e, reviews f, reviews g, reviews h"

    async def run() -> None:
        async with before(tmp_path, world, database, max_cost=1.0) as (gateway, _):
            assert await asked(gateway, "acme/bob", "SELECT id FROM reviews") == "query_too_costly"
        async with before(tmp_path / "r", world, in_file(tmp_path, world), max_rows=2) as (gateway, _):
            assert await asked(gateway, "acme/bob", "SELECT id FROM reviews") == "too_many_rows"
            assert await asked(gateway, "acme/bob", bomb) == [{"n": 3**8}]

    (tmp_path / "r").mkdir()
    asyncio.run(run())


def test_the_record_holds_what_was_asked_and_what_was_run(tmp_path: Path) -> None:
    world = Company()

    async def run() -> None:
        async with before(tmp_path, world, in_file(tmp_path, world)) as (gateway, doors):
            await asked(gateway, "acme/bob", "SELECT count(*) AS n FROM reviews WHERE status = 'secret-9876'")
            [intent] = [entry for entry in doors.entries if entry.kind == "intent"]
            arguments: Any = intent.facts["arguments"]
            scope: Any = intent.facts["scope"]
            assert arguments["sql"].startswith("SELECT count(*)")
            assert scope["predicate"].startswith('WITH "onbehalf_reviews" AS MATERIALIZED (SELECT')
            assert "secret-9876" not in scope["predicate"]

    asyncio.run(run())


# --- reading, by itself ---------------------------------------------------------------------


def written(sql: str, dialect: Dialect = "sqlite") -> str:
    """The statement as it would be run, over a condition that is plain to see."""
    from onbehalf.model import Predicate

    call = replace(tool_call(person(BOB), wanted=exploring(dialect)), arguments=canonical({"sql": sql}))
    where = Predicate(sql=":scope_0 = 1", parameters={"scope_0": 1})
    return explore.statement(call, {"reviews": where}).sql


@settings(deadline=None)
@given(
    st.text(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                "SELECT",
                "FROM",
                "WHERE",
                "reviews",
                "(",
                ")",
                ",",
                "*",
                ".",
                "'",
                '"',
                ";",
                "--",
                "/*",
                "*/",
                "AS",
                "id",
                "1",
                "=",
                "AND",
                "WITH",
                "UNION",
                "ORDER",
                "BY",
                "LIMIT",
                "CASE",
                "WHEN",
                "||",
                "::",
                "$1",
                ":x",
                "[",
                "]",
                "{",
                "}",
            ]
        ),
        max_size=40,
    ).map(" ".join)
)
def test_whatever_is_sent_is_written_anew_or_refused(text: str) -> None:
    refusals: list[str] = []
    for dialect in ("sqlite", "postgres"):
        try:
            found = written(text, dialect)  # type: ignore[arg-type]  # one of the two
        except ArgumentsRefused as error:
            refusals.append(error.message)
            continue
        assert not any(part in found for part in (";", "--", "/*", "'", "\\", "\0"))
    assert all(each.startswith("`sql`: ") for each in refusals)


def test_a_name_that_is_not_ours_never_stands_where_a_table_does() -> None:
    for sql in (
        "SELECT * FROM reviews AS secrets",
        "WITH a AS (SELECT * FROM reviews) SELECT * FROM a JOIN a b ON TRUE",
    ):
        sources = [word for word in written(sql).replace("(", " ").split() if word.startswith('"')]
        assert not {'"secrets".'} & set(sources)
        assert 'FROM "onbehalf_' in written(sql)


def test_what_is_refused_says_what_and_what_there_is() -> None:
    with pytest.raises(ArgumentsRefused, match="there is no table `secrets`") as raised:
        written("SELECT * FROM secrets")
    assert "`reviews`" in raised.value.hint
    with pytest.raises(ArgumentsRefused, match="the function `pg_sleep` may not stand here"):
        written("SELECT pg_sleep(1)")
