"""The wall in SQLite: a table of many tenants is its caller's own part of it, whatever a statement says."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from company import company, said
from doors.postgres_house import code_of, of, rows_of
from doors.upstream_house import AUDIENCE, a_call, a_token
from onbehalf.doors.upstream_sql import SqliteUpstream
from onbehalf.doors.upstream_sql_statement import connect
from onbehalf.doors.wall_sqlite import SqliteWall
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Outcome

OWN, FOREIGN = 3, 7
WALL = SqliteWall(tables={"reviews": "tenant_id"}, shared=("countries",))
COUNT = "SELECT count(*) AS n FROM reviews"
TABLES = f"""
CREATE TABLE reviews (id INTEGER PRIMARY KEY, tenant_id TEXT COLLATE NOCASE, note TEXT);
CREATE INDEX reviews_tenant ON reviews (tenant_id COLLATE BINARY);
CREATE TABLE salaries (id INTEGER, tenant_id TEXT);
CREATE TABLE countries (code TEXT);
CREATE VIEW all_reviews AS SELECT * FROM reviews;
CREATE VIEW bare AS SELECT 1 AS one FROM reviews;
WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {OWN + FOREIGN})
  INSERT INTO reviews SELECT n, CASE WHEN n <= {OWN} THEN 'acme' ELSE 'globex' END, 'note ' || n FROM n;
INSERT INTO salaries VALUES (1, 'globex');
INSERT INTO countries VALUES ('DE'), ('TR');
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.db"
    with closing(sqlite3.connect(path)) as made:
        made.executescript(TABLES)
    return path


def opened(path: Path, statements: Mapping[str, str], *, wall: SqliteWall | None = WALL) -> SqliteUpstream:
    return SqliteUpstream.open(path, audience=AUDIENCE, statements=statements, timeout=5, max_rows=100, wall=wall)


async def sent(door: SqliteUpstream, remote: str, tenant: str) -> Outcome:
    call = of(a_call(remote), tenant)
    return await door.send(call, a_token(call))


def ask(path: Path, statement: str, *, tenant: str = "acme") -> Outcome:
    async def walk() -> Outcome:
        door = opened(path, {"t": statement})
        try:
            return await sent(door, "t", tenant)
        finally:
            await door.aclose()

    return asyncio.run(walk())


@pytest.mark.parametrize(("tenant", "rows"), [("acme", OWN), ("globex", FOREIGN), ("ACME", 0), ("acme ", 0), ("", 0)])
def test_each_tenant_sees_its_own_rows_though_the_statement_names_none(base: Path, tenant: str, rows: int) -> None:
    assert rows_of(ask(base, COUNT, tenant=tenant)) == [{"n": rows}]


def test_many_tenants_at_once_never_see_one_anothers_rows(base: Path) -> None:
    async def walk() -> None:
        door = opened(base, {"count": COUNT})
        tenants = ["acme", "globex", "nobody"] * 40
        told = await asyncio.gather(*(sent(door, "count", tenant) for tenant in tenants))
        await door.aclose()
        expected = {"acme": OWN, "globex": FOREIGN, "nobody": 0}
        assert [rows_of(each) for each in told] == [[{"n": expected[tenant]}] for tenant in tenants]

    asyncio.run(walk())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) AS n FROM (SELECT * FROM reviews WHERE tenant_id <> 'acme' OR 1)",
        "WITH x AS (SELECT id FROM reviews) SELECT count(id) AS n FROM x",
        "SELECT count(*) AS n FROM REVIEWS AS r",
        'SELECT count(*) AS n FROM temp."reviews"',
        "SELECT count(DISTINCT a.id) AS n FROM reviews a, reviews b, countries",
        "SELECT count(*) AS n FROM (SELECT 1 FROM reviews LIMIT 100)",
        "SELECT count(*) AS n FROM (SELECT code FROM countries LIMIT 1) LEFT JOIN reviews",
        "SELECT sum(1) AS n FROM reviews LEFT JOIN (SELECT DISTINCT note FROM reviews) AS x ON 0",
        "SELECT (SELECT count(*) FROM reviews) AS n",
    ],
)
def test_every_way_to_name_the_table_gives_the_callers_rows(base: Path, statement: str) -> None:
    assert rows_of(ask(base, statement)) == [{"n": OWN}]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) AS n FROM main.reviews",
        "SELECT id FROM main.reviews",
        "WITH reviews AS (SELECT * FROM main.reviews) SELECT id FROM reviews",
        "WITH wall_0 AS (SELECT * FROM main.reviews) SELECT id FROM wall_0",
        "SELECT id FROM (SELECT * FROM main.reviews) AS reviews",
        "SELECT (SELECT count(*) FROM main.reviews) AS n",
        "SELECT count(*) AS n FROM all_reviews",
        "SELECT id FROM all_reviews",
        "SELECT count(*) AS n FROM bare",
        "SELECT one FROM bare",
        "SELECT count(*) AS n FROM (SELECT one FROM bare UNION ALL SELECT 1)",
        "WITH x AS (SELECT 1 AS n FROM bare) SELECT n FROM x",
        "SELECT EXISTS (SELECT 1 FROM bare) AS n",
        "SELECT 1 AS n FROM countries LEFT JOIN bare",
        "SELECT 1 AS n FROM main.bare",
        "SELECT id FROM salaries",
        "SELECT count(*) AS n FROM salaries",
        "SELECT count(*) AS n FROM main.salaries",
        "SELECT sql FROM sqlite_master",
        "SELECT sql FROM sqlite_temp_master",
        "SELECT sql FROM temp.sqlite_schema",
        "SELECT name FROM pragma_table_info('reviews')",
        "PRAGMA trusted_schema",
        "ATTACH 'x' AS y",
        "DROP VIEW temp.reviews",
    ],
)
def test_whatever_leads_past_the_wall_is_refused_at_open(base: Path, statement: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"is not a SELECT|uses what is not allowed") as found:
        opened(base, {"t": statement})
    assert found.value.hint


def test_what_is_shared_is_read_by_all(base: Path) -> None:
    assert rows_of(ask(base, "SELECT code FROM countries", tenant="nobody")) == [{"code": "DE"}, {"code": "TR"}]


def test_a_table_made_later_is_not_read_through_the_wall(base: Path) -> None:
    async def walk() -> None:
        door = opened(base, {"t": COUNT})
        with closing(sqlite3.connect(base)) as made:
            made.executescript("DROP TABLE reviews; CREATE TABLE reviews (id INTEGER, company TEXT)")
        assert code_of(await sent(door, "t", "acme")) in ("upstream_error", "upstream_unavailable")
        await door.aclose()

    asyncio.run(walk())


def test_the_rows_are_found_by_the_index_of_the_tenant(base: Path) -> None:
    with closing(connect(base, max_bytes=2**20, wall=WALL, tenant=lambda: "acme")) as connection:
        connection.set_authorizer(None)
        plan = str(connection.execute("EXPLAIN QUERY PLAN SELECT note FROM reviews").fetchall())
    assert "reviews_tenant (tenant_id=?)" in plan


@pytest.mark.parametrize(
    "wall",
    [
        SqliteWall(tables={"reviews": "company"}, shared=()),
        SqliteWall(tables={"nowhere": "tenant_id"}, shared=()),
        SqliteWall(tables={"reviews": "tenant_id"}, shared=("nowhere",)),
        SqliteWall(tables={"reviews": "tenant_id"}, shared=("bare",)),
        SqliteWall(tables={"all_reviews": "tenant_id"}, shared=()),
    ],
)
def test_a_wall_around_what_is_not_there_is_refused(base: Path, wall: SqliteWall) -> None:
    with pytest.raises(ConfigInvalid, match="no such table or column"):
        opened(base, {"t": "SELECT 1 AS n"}, wall=wall)


@pytest.mark.parametrize(
    ("tables", "shared"), [({"a": "t", "A": "t"}, ()), ({"a": "t"}, ("A",)), ({"a": "t"}, ("b", "b")), ({}, ("a",))]
)
def test_settings_that_contradict_themselves_are_refused(tables: dict[str, str], shared: tuple[str, ...]) -> None:
    with pytest.raises(ConfigInvalid):
        SqliteWall.of("base", tables, shared)


def test_without_tables_there_is_no_wall() -> None:
    assert SqliteWall.of("base", {}, (), without=True) is None


@pytest.mark.parametrize(("tables", "without"), [({}, False), ({"notes": "tenant"}, True)])
def test_without_a_wall_is_only_what_says_so_by_name(tables: dict[str, str], without: bool) -> None:
    with pytest.raises(ConfigInvalid, match="tables") as raised:
        SqliteWall.of("base", tables, (), without=without)
    assert "`insecure_without_wall: true`" in raised.value.hint


def test_the_wall_of_the_configuration_stands_and_is_checked(tmp_path: Path) -> None:
    with company(tmp_path / "it") as around:
        assert said("check", "-c", around.config).code == 0
        around.edit("FROM notes WHERE", "FROM main.notes WHERE")
        told = said("check", "-c", around.config)
        assert told.code == 1
        assert "uses what is not allowed" in told.out
