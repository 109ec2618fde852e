"""People from a company's own tables: what a query gives is read as it stands, and what goes wrong changes nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from doors.directory_house import ISSUER, person
from doors.feed_house import NOW, content, jsonl, line, loaded, opened
from onbehalf.doors.directory_load import Feed, Loaded, load
from onbehalf.doors.directory_query import PostgresFeed, SqliteFeed
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.directory_tell import tell, tenants
from onbehalf.errors import DirectoryInvalid, DirectoryUnavailable
from postgres import run

TABLE = """
CREATE TABLE staff (
  no INTEGER, name TEXT, boss INTEGER, units TEXT, employed INTEGER, mail TEXT, dept TEXT, grade INTEGER);
"""
ROW = "INSERT INTO staff VALUES ({n}, 'Person {n}', {boss}, 'unit{unit};', 1, 's{n}', 'd{dept}', 3);"
QUERY = f"""
SELECT 'e' || no AS id, name, 'e' || boss AS manager, units AS "groups", employed AS active, mail AS subject,
  '{ISSUER}' AS issuer, dept AS "attribute.department" FROM staff ORDER BY no
"""
ENDLESS = (
    "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT 'a' AS id, 'A' AS name FROM n WHERE n < 0"
)
Asked = Callable[..., Loaded]


def rows(people: int) -> str:
    return "".join(ROW.format(n=n, boss=(n - 1) // 8 if n else "NULL", unit=n % 7, dept=n % 3) for n in range(people))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "directory.db"


@pytest.fixture
def directory(path: Path) -> Iterator[SqliteDirectory]:
    made = opened(path)
    yield made
    made.close()


@pytest.fixture
def hr(tmp_path: Path) -> Path:
    made = tmp_path / "hr.db"
    with closing(sqlite3.connect(made)) as base:
        base.executescript(TABLE + rows(60))
    return made


@pytest.fixture(params=["sqlite", "postgres"])
def asked(request: pytest.FixtureRequest, directory: SqliteDirectory, hr: Path) -> Asked:
    """Loads what a query gives, from either database with the same rows in it."""
    dsn = ""
    if request.param == "postgres":
        dsn = request.getfixturevalue("database")
        run(dsn, TABLE + rows(60))

    def ask(query: str = QUERY, *, seconds: float = 30) -> Loaded:
        feed: Feed = PostgresFeed(dsn, query, seconds=seconds) if dsn else SqliteFeed(hr, query, seconds=seconds)
        return load(directory.path, "acme", feed, now=NOW)

    return ask


def test_rows_are_the_same_people_as_lines_of_a_file(asked: Asked, directory: SqliteDirectory, tmp_path: Path) -> None:
    assert asked().people == 60
    other = tmp_path / "other.db"
    opened(other).close()
    loaded(other, jsonl(tmp_path / "p.jsonl", map(line, range(60))))
    assert content(directory.path) == content(other)
    assert person(directory, "s59").attributes == {"department": "d2"}
    assert asked().revision == directory.revision == 1


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT no FROM staff", "column `no` means nothing"), ("SELECT name FROM staff", "no column `id`"),
        ("SELECT no AS id, name, 'x' AS name FROM staff", "stands twice"),
        ("SELECT 1 AS id, name FROM staff", "row 2: this person stands in the feed twice"),
        ("SELECT no AS id, NULL AS name FROM staff", "row 1, `name`"),
        ("SELECT no AS id, name, 'maybe' AS active FROM staff", "row 1: `active`"),
        ("SELECT no AS id, name, 999 AS manager FROM staff", "is said to be below `999`"),
    ],
)  # fmt: skip
def test_rows_that_leave_doubt_are_refused_and_the_old_people_stay(
    asked: Asked, directory: SqliteDirectory, query: str, said: str
) -> None:
    asked()
    before = content(directory.path)
    with pytest.raises(DirectoryInvalid) as caught:
        asked(query)
    assert said in caught.value.message
    assert content(directory.path) == before
    assert said in tenants(directory.path)[0].problem


@pytest.mark.parametrize(
    "query",
    ["DELETE FROM staff", "SELECT no AS id, name FROM nowhere", "not SQL", "SELECT 1 AS id; DELETE FROM staff",
     "SELECT no AS id, name FROM staff; DROP TABLE staff", "DROP TABLE staff", ""],
)  # fmt: skip
def test_a_query_that_is_none_changes_nothing_anywhere(asked: Asked, directory: SqliteDirectory, query: str) -> None:
    asked()
    with pytest.raises((DirectoryInvalid, DirectoryUnavailable)) as caught:
        asked(query)
    assert caught.value.hint
    assert (asked().people, directory.revision) == (60, 1)


def test_a_query_that_never_ends_is_cut_off(asked: Asked) -> None:
    with pytest.raises(DirectoryUnavailable, match=r"failed|too long"):
        asked(ENDLESS, seconds=0.3)


def test_what_a_database_says_of_its_own_never_holds_the_password(directory: SqliteDirectory) -> None:
    feed = PostgresFeed("postgresql://hr:hunter2@127.0.0.1:9/hr?connect_timeout=1", QUERY, seconds=1)
    with pytest.raises(DirectoryUnavailable) as caught:
        load(directory.path, "acme", feed, now=NOW)
    assert "hunter2" not in f"{caught.value.message}{caught.value.hint}{tenants(directory.path)}"


def test_a_company_file_that_is_not_there_is_not_made(directory: SqliteDirectory, tmp_path: Path) -> None:
    with pytest.raises(DirectoryUnavailable):
        load(directory.path, "acme", SqliteFeed(tmp_path / "no.db", QUERY, seconds=1), now=NOW)
    assert not (tmp_path / "no.db").exists()


def test_a_value_that_is_too_large_is_refused_before_it_is_read(directory: SqliteDirectory, hr: Path) -> None:
    query = "SELECT no AS id, hex(zeroblob(50000000)) AS name FROM staff"
    with pytest.raises(DirectoryUnavailable, match="too big"):
        load(directory.path, "acme", SqliteFeed(hr, query, seconds=30), now=NOW)


def test_groups_of_postgres_may_be_an_array(directory: SqliteDirectory, database: str) -> None:
    feed = PostgresFeed(database, "SELECT 'a' AS id, 'A' AS name, ARRAY['hr', 'all'] AS groups", seconds=9)
    load(directory.path, "acme", feed, now=NOW)
    told = tell(directory.path, "acme", "a")
    assert told is not None
    assert set(told.groups) == {"hr", "all"}
