"""Tools that write in PostgreSQL: in the caller's tenant, all or nothing, and known or said not to be known."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from doors.postgres_house import FOREIGN, OWN, build, code_of, logged_in, opened, rows_of, sent
from doors.upstream_house import AUDIENCE
from onbehalf.doors.upstream_postgres import PostgresUpstream, Role, Statement
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Failed, Json, Outcome
from postgres import run

COUNT = "SELECT count(*)::int AS n FROM reviews"


@pytest.fixture
def base(database: str) -> str:
    build(database)
    return database


def write(dsn: str, statement: str, arguments: Json = None, *, tenant: str = "acme", **options: Any) -> Outcome:
    """What one writing tool answers."""

    async def walk() -> Outcome:
        async with opened(dsn, {"w": statement}, writing=["w"], **options) as door:
            return await sent(door, "w", arguments, tenant=tenant)

    return asyncio.run(walk())


def refused(dsn: str, statement: str) -> str:
    with pytest.raises(ConfigInvalid) as found:
        write(dsn, statement)
    assert found.value.hint
    return found.value.message


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE reviews SET score = 1", "does not say what it wrote"),
        ("EXPLAIN ANALYZE UPDATE reviews SET score = 1 RETURNING id", "is not one INSERT"),
        ("DROP TABLE reviews", "is not one INSERT"),
        ("TRUNCATE reviews", "is not one INSERT"),
        ("DELETE FROM reviews RETURNING id; DELETE FROM people", "is not one INSERT"),
        ("GRANT SELECT ON onbehalf.keys TO gw_ro", "is not one INSERT"),
    ],
)
def test_a_statement_that_writes_is_one_that_says_what_it_wrote(base: str, statement: str, told: str) -> None:
    assert told in refused(base, statement)
    assert run(base, COUNT) == [(OWN + FOREIGN,)]


def test_a_tool_that_writes_needs_a_role_that_may(base: str) -> None:
    async def walk() -> None:
        await PostgresUpstream.open(
            Role(dsn=logged_in(base, "gw_ro"), wall=None), None, audience=AUDIENCE, timeout=5, max_rows=5,
            statements={"w": Statement(text="DELETE FROM reviews RETURNING id", writes=True)},
        )  # fmt: skip

    with pytest.raises(ConfigInvalid, match="`w` writes, and no role may"):
        asyncio.run(walk())


def test_a_write_is_done_in_the_callers_tenant_and_says_what_it_wrote(base: str) -> None:
    told = write(base, "UPDATE reviews SET note = :note WHERE id = ANY (:ids) RETURNING id, note",
                 {"note": "new", "ids": [1, 2, 1001]})  # fmt: skip
    assert rows_of(told) == [{"id": 1, "note": "new"}, {"id": 2, "note": "new"}]
    assert run(base, "SELECT array_agg(id ORDER BY id) FROM reviews WHERE note = 'new'") == [([1, 2],)]


def test_a_write_for_another_tenant_is_refused_in_the_same_words_as_one_that_meets_a_foreign_key(base: str) -> None:
    insert = "INSERT INTO people VALUES (:tenant, :id, :email) RETURNING id"
    other = write(base, insert, {"tenant": "globex", "id": "new", "email": "new@x.example"})
    taken = write(base, insert, {"tenant": "acme", "id": "new", "email": "eve@globex.example"})
    own = write(base, insert, {"tenant": "acme", "id": None, "email": "x@x.example"})
    assert other == taken == own
    assert code_of(other) == "upstream_refused"
    assert run(base, "SELECT count(*) FROM people") == [(2,)]


def test_a_write_that_changes_more_rows_than_may_be_shown_changes_none(base: str) -> None:
    told = write(base, "UPDATE reviews SET note = 'new' RETURNING id", max_rows=OWN - 1)
    assert code_of(told) == "too_many_rows"
    assert run(base, "SELECT count(*) FROM reviews WHERE note = 'new'") == [(0,)]


def test_a_write_whose_commit_got_no_answer_is_not_known(base: str) -> None:
    """The server dies in the middle of the commit: whether the row is there, nobody can say."""
    run(base, "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END $$;"
        " REVOKE ALL ON FUNCTION die() FROM PUBLIC;"
        " CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON reviews DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION die()")  # fmt: skip
    told = write(base, "UPDATE reviews SET note = 'new' WHERE id = 1 RETURNING id")
    assert isinstance(told, Failed)
    assert (told.code, told.unknown) == ("upstream_unavailable", True)


def test_a_write_that_is_stopped_before_its_commit_is_known_not_to_be(base: str) -> None:
    told = write(base, "UPDATE reviews SET note = 'new' FROM pg_sleep(5) RETURNING id", timeout=0.3)
    assert code_of(told) == "upstream_timed_out"
    assert run(base, "SELECT count(*) FROM reviews WHERE note = 'new'") == [(0,)]
