"""The wall in a real PostgreSQL, against somebody who has the gateway's password and writes any SQL they like."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doors.postgres_house import FOREIGN, KEY, OWN, asked, build, logged_in, raw
from onbehalf.doors.wall_postgres import BEGIN_SQL
from onbehalf.validate.wall import key_sql
from onbehalf.validate.wall_claim import claim_key, signed_claim
from postgres import run

COUNT = "SELECT count(*) FROM reviews"
OTHER_KEY = claim_key(b"somebody else's key, as long as ours")
LATER = 60_000_000


@pytest.fixture
def base(database: str) -> str:
    build(database)
    return database


@contextmanager
def begun(dsn: str, role: str = "gw_ro") -> Iterator[tuple[Any, int, int]]:
    """A transaction of the role, rolled back at the end: its connection, backend and start."""
    with raw(dsn, role) as connection:
        connection.execute("BEGIN")
        pid, started = connection.execute(BEGIN_SQL).fetchone()
        yield connection, pid, started


def claim(pid: int, started: int, **changes: Any) -> str:
    good = {"tenant": "acme", "principal": "bob", "pid": pid, "started": started, "expires": started + LATER}
    return signed_claim(changes.pop("key", KEY), **{**good, **changes})


def shown(connection: Any, text: str, *, local: bool = True) -> None:
    connection.execute("SELECT set_config('onbehalf.claim', $1, $2)", [text, local])


def count(connection: Any) -> int:
    (found,) = connection.execute(COUNT).fetchone()
    assert isinstance(found, int)
    return found


def test_without_a_claim_there_is_no_row(base: str) -> None:
    with begun(base) as (connection, _, _):
        assert count(connection) == 0
        assert connection.execute("SELECT onbehalf.tenant(), onbehalf.principal()").fetchone() == (None, None)


@pytest.mark.parametrize(("tenant", "rows"), [("acme", OWN), ("globex", FOREIGN), ("ACME", 0), ("acme ", 0)])
@pytest.mark.parametrize("role", ["gw_ro", "gw_rw"])
def test_with_a_claim_exactly_its_tenants_rows_are_there(base: str, role: str, tenant: str, rows: int) -> None:
    with begun(base, role) as (connection, pid, started):
        shown(connection, claim(pid, started, tenant=tenant))
        assert count(connection) == rows
        assert connection.execute("SELECT onbehalf.principal()").fetchone() == ("bob",)


def test_a_claim_is_gone_with_its_transaction(base: str) -> None:
    with begun(base) as (connection, pid, started):
        shown(connection, claim(pid, started))
        connection.execute("COMMIT")
        assert count(connection) == 0


def test_a_claim_left_for_the_session_shows_the_next_one_nothing(base: str) -> None:
    with begun(base) as (connection, pid, started):
        shown(connection, claim(pid, started), local=False)
        assert count(connection) == OWN
        connection.execute("COMMIT")
        assert connection.execute("SELECT length(current_setting('onbehalf.claim'))").fetchone()[0] > 100
        assert count(connection) == 0


def test_a_claim_of_this_backend_is_none_in_its_next_transaction(base: str) -> None:
    with begun(base) as (connection, pid, started):
        taken = claim(pid, started)
        connection.execute("COMMIT")
        connection.execute("BEGIN")
        shown(connection, taken)
        assert count(connection) == 0


def test_a_claim_of_another_backend_is_none(base: str) -> None:
    with begun(base) as (first, pid, started), begun(base) as (second, own_pid, own_started):
        taken = claim(pid, started)
        shown(first, taken)
        shown(second, taken)
        assert (count(first), count(second)) == (OWN, 0)
        shown(second, claim(pid, own_started))
        assert count(second) == 0
        shown(second, claim(own_pid, started))
        assert count(second) == 0
        shown(second, claim(own_pid, own_started))
        assert count(second) == OWN


def test_a_claim_ends_within_its_transaction(base: str) -> None:
    with begun(base) as (connection, pid, started):
        shown(connection, claim(pid, started, expires=started))
        assert count(connection) == 0
        shown(connection, claim(pid, started, expires=started + 1_500_000))
        assert count(connection) == OWN
        time.sleep(1.6)
        assert count(connection) == 0


def test_a_claim_that_was_changed_anywhere_is_none(base: str) -> None:
    with begun(base) as (connection, pid, started):
        good = claim(pid, started)
        for at, old in enumerate(good):
            changed = good[:at] + ("1" if old != "1" else "2") + good[at + 1 :]
            shown(connection, changed)
            assert count(connection) == 0, at
        shown(connection, good)
        assert count(connection) == OWN


def test_a_claim_signed_with_another_key_is_none(base: str) -> None:
    with begun(base) as (connection, pid, started):
        for key in (OTHER_KEY, replace(OTHER_KEY, id=KEY.id)):
            shown(connection, claim(pid, started, key=key))
            assert count(connection) == 0


def test_a_key_that_was_taken_away_signs_nothing(base: str) -> None:
    run(base, "DELETE FROM onbehalf.keys")
    with begun(base) as (connection, pid, started):
        shown(connection, claim(pid, started))
        assert count(connection) == 0


def test_two_keys_are_believed_while_one_takes_the_place_of_the_other(base: str) -> None:
    run(base, key_sql(OTHER_KEY))
    with begun(base) as (connection, pid, started):
        for key, other in ((KEY, OTHER_KEY), (OTHER_KEY, KEY)):
            shown(connection, claim(pid, started, key=key))
            assert count(connection) == OWN
            shown(connection, claim(pid, started, key=replace(key, id=other.id)))
            assert count(connection) == 0


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_other_text_is_a_claim_or_an_error(opened_once: tuple[Any, int, int], data: st.DataObject) -> None:
    connection, pid, started = opened_once
    parts = claim(pid, started, tenant="globex").split("|")
    text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
    odd = st.one_of(text, st.sampled_from([*parts, "", "|", "1" * 18, "9" * 19, "-1", "é" * 32, "0" * 64]))
    place = data.draw(st.integers(0, len(parts) - 1))
    mixed = st.tuples(*(odd if at == place else st.one_of(st.just(part), odd) for at, part in enumerate(parts)))
    told = data.draw(st.one_of(text, mixed.map("|".join)))
    if told != "|".join(parts):
        shown(connection, told)
        assert count(connection) == 0


@pytest.fixture
def opened_once(base: str) -> Iterator[tuple[Any, int, int]]:
    with begun(base) as found:
        yield found


def test_set_config_inside_the_statement_gives_nothing(base: str) -> None:
    with begun(base) as (connection, pid, started):
        good, forged = claim(pid, started), claim(pid, started, tenant="globex", key=replace(OTHER_KEY, id=KEY.id))
        for text in (
            "SELECT count(*) FROM reviews, (SELECT set_config('onbehalf.claim', $1, true)) s WHERE tenant_id <> 'acme'",
            "WITH s AS MATERIALIZED (SELECT set_config('onbehalf.claim', $1, true) AS c) "
            "SELECT count(*) FROM s, reviews WHERE tenant_id <> 'acme' AND c <> ''",
            "SELECT count(*) FROM reviews WHERE tenant_id <> 'acme' AND set_config('onbehalf.claim', $1, true) <> ''",
        ):
            shown(connection, good)
            assert connection.execute(text, [forged]).fetchone() == (0,)


def test_the_key_cannot_be_read_nor_another_put_beside_it(base: str) -> None:
    for text in (
        "SELECT * FROM onbehalf.keys", "SELECT count(*) FROM onbehalf.keys", "SELECT id FROM onbehalf.keys",
        "INSERT INTO onbehalf.keys VALUES ('0123456789abcdef', '', '')", "DELETE FROM onbehalf.keys",
        "COPY onbehalf.keys TO STDOUT", "CREATE TABLE onbehalf.more (id text)", "ALTER TABLE onbehalf.keys RENAME TO k",
        "CREATE OR REPLACE FUNCTION onbehalf.tenant() RETURNS text LANGUAGE sql STABLE AS 'SELECT ''globex'''",
    ):  # fmt: skip
        for role in ("gw_ro", "gw_rw"):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)):
                asked(base, role, text)
    source = str(run(base, "SELECT string_agg(prosrc, '') FROM pg_proc WHERE pronamespace = 'onbehalf'::regnamespace"))
    assert all(secret not in source for secret in (KEY.inner.hex(), KEY.outer.hex(), KEY.secret.decode()))


@pytest.mark.parametrize("role", ["gw_ro", "gw_rw"])
@pytest.mark.parametrize(
    "text",
    ["SET ROLE hr_app", "SET ROLE onbehalf_owner", "SET SESSION AUTHORIZATION hr_app",
     "ALTER ROLE CURRENT_USER BYPASSRLS", "ALTER TABLE reviews DISABLE ROW LEVEL SECURITY",
     "DROP POLICY onbehalf_wall ON reviews", "TRUNCATE reviews",
     "SET row_security = off; SELECT count(*) FROM reviews", "SELECT pg_read_file('/etc/passwd')",
     "SELECT set_config('role', 'hr_app', false)", "COPY (SELECT 1) TO PROGRAM 'true'"],
)  # fmt: skip
def test_a_role_of_the_gateway_cannot_take_the_wall_down_or_pass_by(base: str, role: str, text: str) -> None:
    with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)):
        asked(base, role, text)


def test_a_view_of_the_tables_owner_shows_what_the_claim_shows(base: str) -> None:
    run(base, "SET ROLE hr_app; CREATE VIEW all_reviews AS SELECT * FROM reviews; GRANT SELECT ON all_reviews TO gw_ro")
    with begun(base) as (connection, pid, started):
        shown(connection, claim(pid, started))
        assert connection.execute("SELECT count(*) FROM all_reviews").fetchone() == (OWN,)


def test_without_force_a_view_of_the_tables_owner_would_show_everything(base: str) -> None:
    run(base, "SET ROLE hr_app; CREATE VIEW all_reviews AS SELECT * FROM reviews; GRANT SELECT ON all_reviews TO gw_ro")
    run(base, "ALTER TABLE reviews NO FORCE ROW LEVEL SECURITY")
    assert asked(base, "gw_ro", "SELECT count(*) FROM all_reviews") == [(OWN + FOREIGN,)]


def test_a_function_of_the_tables_owner_sees_what_the_claim_shows(base: str) -> None:
    run(base, "SET ROLE hr_app; CREATE FUNCTION every() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
        " AS 'SELECT count(*) FROM public.reviews'")  # fmt: skip
    assert asked(base, "gw_ro", "SELECT every()") == [(0,)]


TELLTALE = """
CREATE FUNCTION telltale(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 {mark}
AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$
"""


def told(base: str) -> set[str]:
    """What a cheap function in the statement is shown, before or behind the wall."""
    heard: set[str] = set()
    with begun(base) as (connection, pid, started):
        connection.add_notice_handler(lambda each: heard.add(str(each.message_primary).split()[0]))
        shown(connection, claim(pid, started))
        connection.execute("SELECT count(*) FROM reviews WHERE telltale(note)")
    return heard


def test_a_cheap_function_is_shown_no_row_before_the_wall(base: str) -> None:
    run(base, TELLTALE.format(mark=""))
    assert told(base) == {"ours"}


def test_a_function_marked_leakproof_would_be_shown_the_rows_of_others(base: str) -> None:
    run(base, TELLTALE.format(mark="LEAKPROOF"))
    assert "theirs" in told(base)


def test_the_planners_statistics_are_not_told(base: str) -> None:
    run(base, "ANALYZE reviews")
    own = "SELECT count(*) FROM pg_stats WHERE tablename = 'reviews'"
    assert run(base, own) != [(0,)]
    assert asked(base, "gw_ro", own) == [(0,)]


def test_where_keys_begin_with_the_tenant_a_row_of_another_costs_what_an_absent_one_costs(base: str) -> None:
    run(base, "INSERT INTO people SELECT 'globex', 'p' || n, 'p' || n FROM generate_series(1, 2000) n")
    run(base, "INSERT INTO people SELECT 'acme', 'q' || n, 'q' || n FROM generate_series(1, 2000) n")
    run(base, "VACUUM ANALYZE people")

    def read(key: str) -> tuple[int, int]:
        with begun(base) as (connection, pid, started):
            shown(connection, claim(pid, started))
            lookup = f"SELECT tenant_id FROM people WHERE id = '{key}' AND tenant_id = 'acme'"
            connection.execute(lookup)  # what a backend reads once for itself is not counted
            plan = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {lookup}").fetchone()[0][0]["Plan"]
            return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]), int(plan["Actual Rows"])

    own, foreign, absent = read("q7"), read("p7"), read("p7000")
    assert (own[1], foreign[1], absent[1]) == (1, 0, 0)
    assert foreign == absent


def test_the_claim_is_checked_once_a_statement_and_not_once_a_row(base: str) -> None:
    with begun(base) as (connection, pid, started):
        shown(connection, claim(pid, started))
        plan = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {COUNT}").fetchone()[0][0]["Plan"]
    loops = [node["Actual Loops"] for node in _nodes(plan) if node.get("Subplan Name", "").startswith("InitPlan")]
    assert loops
    assert max(loops) == 1


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", []):
        yield from _nodes(each)


def test_a_row_of_another_tenant_is_neither_written_nor_changed_nor_given_away(base: str) -> None:
    with begun(base, "gw_rw") as (connection, pid, started):
        shown(connection, claim(pid, started))
        for text in ("UPDATE reviews SET score = 0 WHERE id > 1000", "DELETE FROM reviews WHERE id > 1000"):
            assert connection.execute(text).rowcount == 0
        assert connection.execute("UPDATE reviews SET score = 0").rowcount == OWN
        for text in (
            "UPDATE reviews SET tenant_id = 'globex' WHERE id = 1",
            "INSERT INTO reviews VALUES (5000, 'globex', 'x', 1, 'x')",
            "INSERT INTO reviews VALUES (1001, 'acme', 'x', 1, 'x') ON CONFLICT (id) DO UPDATE SET tenant_id = 'acme'",
        ):
            connection.execute("SAVEPOINT here")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(text)
            connection.execute("ROLLBACK TO here")
    assert run(base, "SELECT count(*) FROM reviews WHERE tenant_id = 'globex'") == [(FOREIGN,)]


def test_the_role_that_reads_writes_nothing(base: str) -> None:
    with raw(base, "gw_ro") as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE reviews SET score = 0")


def test_the_companys_own_program_works_as_before(base: str) -> None:
    with psycopg.connect(logged_in(base, "hr_app"), autocommit=True) as connection:
        assert connection.execute(COUNT.encode()).fetchone() == (OWN + FOREIGN,)
        connection.execute("INSERT INTO reviews VALUES (7000, 'globex', 'eve', 1, 'new')")
        assert connection.execute("UPDATE reviews SET score = 1 WHERE id = 7000").rowcount == 1
        assert connection.execute("DELETE FROM reviews WHERE id = 7000").rowcount == 1


def test_anybody_else_who_may_read_the_tables_sees_no_row(base: str) -> None:
    run(base, "GRANT SELECT ON reviews TO onbehalf_owner")
    assert run(base, f"SET ROLE onbehalf_owner; {COUNT}") == [(0,)]
