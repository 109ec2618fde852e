"""Who acts, told to a real PostgreSQL for one transaction: rows are theirs, and nothing stays in the connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from act.granted import ARGUMENTS, AUDIENCE, ISSUER, NOW
from backend.forging import KEY, KID, forged
from doors.postgres_house import plain
from onbehalf.backend import MemoryReplay, VerifiedCall, verify_call
from onbehalf.backend.postgres import SET_SQL, acting, acting_async, claim_key, claims_sql, key_sql, settings
from onbehalf.errors import ConfigInvalid
from onbehalf.validate.wall_claim import CLAIM_SETTING
from postgres import database, postgres, run  # noqa: F401  # fixtures

PASSWORD = "for tests only"
CLAIM_KEY = claim_key(b"a key of these tests, and long enough")
TABLES = f"""
CREATE ROLE kit_app LOGIN PASSWORD '{PASSWORD}' NOSUPERUSER NOBYPASSRLS;
CREATE TABLE orders (id integer PRIMARY KEY, tenant text NOT NULL, owner_id text NOT NULL, state text);
INSERT INTO orders VALUES (1, 'acme', 'alice', 'open'), (2, 'acme', 'bob', 'open'), (3, 'globex', 'alice', 'open'),
  (4, '', '', 'nobody');
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders FORCE ROW LEVEL SECURITY;
GRANT SELECT, UPDATE ON orders TO kit_app;
"""
SET_POLICY = """
CREATE POLICY own ON orders TO kit_app
  USING (tenant = nullif(current_setting('onbehalf.tenant', true), '')
     AND owner_id = nullif(current_setting('onbehalf.person', true), ''))
"""
SIGNED_POLICY = """
CREATE POLICY own ON orders TO kit_app
  USING (tenant = (SELECT onbehalf.tenant()) AND owner_id = (SELECT onbehalf.principal()))
"""
ALICE = verify_call(
    forged(), keys={KID: bytes(KEY.verify_key)}, issuer=ISSUER, audience=AUDIENCE, tool="update_ticket",
    arguments=ARGUMENTS, now=NOW, replay=MemoryReplay(),
)  # fmt: skip
BOB = replace(ALICE, person="bob")
EVE = replace(ALICE, tenant="globex", person="eve'; DROP TABLE orders --")


@contextmanager
def orders(dsn: str, policy: str) -> Iterator[str]:
    """The application's DSN at a database with that policy."""
    for role in ("kit_app", "onbehalf_owner"):
        if run(dsn, f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
            run(dsn, f"DROP OWNED BY {role}; DROP ROLE {role}")
    run(dsn, TABLES)
    if policy == SIGNED_POLICY:
        run(dsn, plain(claims_sql(["kit_app"])))
        run(dsn, plain(claims_sql(["kit_app"])))  # again, and nothing changes
        run(dsn, key_sql(CLAIM_KEY))
    run(dsn, policy)
    yield make_conninfo(dsn, user="kit_app", password=PASSWORD)


@pytest.fixture(params=["set", "signed"])
def strength(request: pytest.FixtureRequest, database: str) -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: F811
    signed = request.param == "signed"
    with orders(database, SIGNED_POLICY if signed else SET_POLICY) as dsn:
        yield dsn, {"key": CLAIM_KEY} if signed else {}


def ids(connection: Any) -> set[int]:
    return {row[0] for row in connection.execute("SELECT id FROM orders")}


def test_everyone_has_their_own_rows_and_nobody_has_any_without_a_call(strength: tuple[str, dict[str, Any]]) -> None:
    dsn, how = strength
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert ids(connection) == set()
        for call, expected in ((ALICE, {1}), (BOB, {2}), (EVE, set())):
            with acting(connection, call, **how):
                assert ids(connection) == expected
                changed = connection.execute("UPDATE orders SET state = 'closed'").rowcount
                assert changed == len(expected)
            assert ids(connection) == set()


def test_nothing_of_a_person_stays_in_a_pooled_connection(strength: tuple[str, dict[str, Any]]) -> None:
    dsn, how = strength
    with ConnectionPool(dsn, min_size=1, max_size=1, open=True) as pool:
        for fails in (False, True):
            with contextlib.suppress(RuntimeError), pool.connection() as connection, acting(connection, ALICE, **how):
                assert ids(connection) == {1}
                if fails:
                    raise RuntimeError
            with pool.connection() as connection:
                assert ids(connection) == set()
                for name in ("tenant", "person", "sub", "claims", "claim"):
                    row = connection.execute("SELECT current_setting(%s, true)", [f"onbehalf.{name}"]).fetchone()
                    assert row is not None
                    assert row[0] in (None, "")


def test_an_error_takes_everything_back(strength: tuple[str, dict[str, Any]]) -> None:
    dsn, how = strength
    with psycopg.connect(dsn, autocommit=True) as connection:
        with pytest.raises(RuntimeError), acting(connection, ALICE, **how):  # noqa: PT012
            connection.execute("UPDATE orders SET state = 'closed'")
            raise RuntimeError
        with acting(connection, ALICE, **how):
            assert connection.execute("SELECT state FROM orders").fetchall() == [("open",)]


def test_many_at_once_over_few_connections_each_see_their_own(strength: tuple[str, dict[str, Any]]) -> None:
    dsn, how = strength

    async def one(pool: AsyncConnectionPool[AsyncConnection[Any]], call: VerifiedCall, expected: int) -> None:
        async with pool.connection() as connection, acting_async(connection, call, **how):
            await asyncio.sleep(0.002)
            found = await (await connection.execute("SELECT id FROM orders")).fetchall()
            assert found == [(expected,)]

    async def walk() -> None:
        async with AsyncConnectionPool(dsn, min_size=2, max_size=2, open=False) as pool:
            await asyncio.gather(*(one(pool, *((ALICE, 1) if n % 2 else (BOB, 2))) for n in range(60)))

    asyncio.run(asyncio.wait_for(walk(), 30))


def test_a_transaction_that_is_under_way_is_not_joined(strength: tuple[str, dict[str, Any]]) -> None:
    dsn, how = strength
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT 1")
        with pytest.raises(ConfigInvalid, match="in a transaction already"), acting(connection, ALICE, **how):
            pass
        connection.rollback()
        with acting(connection, ALICE, **how), pytest.raises(ConfigInvalid), acting(connection, BOB, **how):
            pass


def test_all_that_is_proven_can_be_asked_for(strength: tuple[str, dict[str, Any]]) -> None:
    dsn, how = strength
    with psycopg.connect(dsn, row_factory=dict_row) as connection, acting(connection, EVE, **how):
        row = connection.execute(
            "SELECT current_setting('onbehalf.sub') AS sub, current_setting('onbehalf.call') AS call,"
            " current_setting('onbehalf.claims')::json AS claims"
        ).fetchone()
        assert row is not None
        assert row["sub"] == f"globex/{EVE.person}"
        assert row["call"] == EVE.call
        assert row["claims"]["record"]["index"] == EVE.record.index
        assert row["claims"]["token_id"] == EVE.token_id


# --- signed: what SQL of somebody's own cannot do ------------------------------------------


@pytest.fixture
def signed(database: str) -> Iterator[str]:  # noqa: F811
    with orders(database, SIGNED_POLICY) as dsn:
        yield dsn


def test_sql_put_in_by_somebody_cannot_become_somebody_else(signed: str) -> None:
    with psycopg.connect(signed, autocommit=True) as connection:
        with acting(connection, ALICE, key=CLAIM_KEY):
            row = connection.execute(f"SELECT current_setting('{CLAIM_SETTING}')").fetchone()
            assert row is not None
            alices = str(row[0])
            bobs = alices.replace(b"alice".hex(), b"bob".hex())
            assert bobs != alices
            for name, value in (("person", "bob"), ("sub", "acme/bob"), ("claim", bobs)):
                connection.execute("SELECT set_config(%s, %s, true)", [f"onbehalf.{name}", value])
                assert ids(connection) <= {1}
        with connection.transaction():  # the claim of a transaction that is over
            connection.execute("SELECT set_config('onbehalf.claim', %s, true)", [alices])
            assert ids(connection) == set()


@pytest.mark.parametrize("how", [{}, {"key": claim_key(b"another key, which the database does not know")}])
def test_a_claim_that_is_not_signed_with_the_key_is_none(signed: str, how: dict[str, Any]) -> None:
    with psycopg.connect(signed) as connection, acting(connection, ALICE, **how):
        assert ids(connection) == set()


def test_a_claim_ends_though_its_transaction_goes_on(signed: str) -> None:
    with psycopg.connect(signed) as connection, acting(connection, ALICE, key=CLAIM_KEY, seconds=0.2):
        assert ids(connection) == {1}
        connection.execute("SELECT pg_sleep(0.3)")
        assert ids(connection) == set()


def test_the_key_cannot_be_read_by_the_application(signed: str) -> None:
    with psycopg.connect(signed, autocommit=True) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM onbehalf.keys")


# --- values --------------------------------------------------------------------------------


def test_each_setting_has_its_value_and_lasts_for_the_transaction_only() -> None:
    values = settings(ALICE)
    assert len(values) == SET_SQL.count("%s") == SET_SQL.count(", true)")
    assert values[:2] == ["acme", "alice"]
    assert json.loads(values[-2])["tool"] == ALICE.tool
    assert values[-1] == ""


@pytest.mark.parametrize("wrong", [{}, {"begun": (1, 2), "seconds": 0}, {"begun": (1, 2), "seconds": 3601}])
def test_a_signed_claim_without_a_beginning_or_an_end_is_not_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        settings(ALICE, key=CLAIM_KEY, **wrong)
