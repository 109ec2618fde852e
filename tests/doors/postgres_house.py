"""A database of two companies behind the wall, in a real PostgreSQL: what the tests of it share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import RawCursor, connect
from psycopg.conninfo import make_conninfo

from doors.upstream_house import AUDIENCE, a_call, a_token
from onbehalf.doors.upstream_postgres import PostgresUpstream, Role, Statement
from onbehalf.doors.wall_postgres import Wall
from onbehalf.model import Done, Failed, Json, Outcome, ToolCall
from onbehalf.validate.wall import Plan, Walled, key_sql, wall_sql
from onbehalf.validate.wall_claim import ClaimKey, claim_key
from onbehalf.validate.wall_standing import Standing
from postgres import run
from replacing import replace

KEY = claim_key(b"a key of the tests, and long enough")
PASSWORD = "for tests only"
OWN = 20
FOREIGN = 180
TABLES = f"""
CREATE ROLE hr_app LOGIN PASSWORD '{PASSWORD}';
GRANT CREATE, USAGE ON SCHEMA public TO hr_app;
SET ROLE hr_app;
CREATE TABLE reviews (id integer PRIMARY KEY, tenant_id text NOT NULL, subject_id text, score integer, note text);
CREATE TABLE people (tenant_id varchar(40) NOT NULL, id text NOT NULL, email text UNIQUE, PRIMARY KEY (tenant_id, id));
CREATE TABLE countries (code text PRIMARY KEY);
INSERT INTO reviews SELECT n, 'acme', 'bob', n % 5, 'ours ' || n FROM generate_series(1, {OWN}) n;
INSERT INTO reviews SELECT 1000 + n, 'globex', 'eve', n % 5, 'theirs ' || n FROM generate_series(1, {FOREIGN}) n;
INSERT INTO people VALUES ('acme', 'bob', 'bob@acme.example'), ('globex', 'eve', 'eve@globex.example');
INSERT INTO countries VALUES ('DE'), ('TR');
RESET ROLE;
"""
PLAN = Plan(
    tables=(Walled.of("reviews", "tenant_id"), Walled.of("public.people", "tenant_id")),
    shared=(Walled.of("countries", "code"),),
    own=("hr_app",),
    writer="gw_rw",
)


def build(dsn: str, *, plan: Plan = PLAN, key: ClaimKey = KEY) -> None:
    """The tables of two companies with the wall around them, as a superuser. Roles of a test before are replaced."""
    drop_roles(dsn)
    run(dsn, TABLES)
    run(dsn, plain(wall_sql(plan)))
    run(dsn, key_sql(key))
    for role in plan.gateway:
        run(dsn, f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")


def drop_roles(dsn: str) -> None:
    """Take the roles of an earlier database away; theirs is dropped already."""
    for role in ("gw_ro", "gw_rw", "hr_app", "onbehalf_owner"):
        if run(dsn, f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
            run(dsn, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def plain(text: str) -> str:
    """A script for psql as one for a server."""
    return text.replace("\\set ON_ERROR_STOP on\n", "")


def logged_in(dsn: str, role: str) -> str:
    """The DSN of one of the roles."""
    return make_conninfo(dsn, user=role, password=PASSWORD)


def asked(dsn: str, role: str, text: str) -> list[tuple[Any, ...]]:
    """What some SQL gives to one of the roles."""
    return run(logged_in(dsn, role), text)


def wall(*, writes: bool = False, plan: Plan = PLAN, key: ClaimKey = KEY) -> Wall:
    standing = Standing(tables=plan.tables, shared=plan.shared, own=plan.own, writes=writes)
    return Wall(standing=standing, key=key)


@asynccontextmanager
async def opened(
    dsn: str,
    statements: Mapping[str, str],
    *,
    writing: Sequence[str] = (),
    walled: bool = True,
    timeout: float = 5.0,
    max_rows: int = 1000,
    connections: int = 4,
) -> AsyncIterator[PostgresUpstream]:
    """The door on that database; the tools in `writing` write."""
    reader = Role(dsn=logged_in(dsn, "gw_ro"), wall=wall() if walled else None)
    writer = Role(dsn=logged_in(dsn, "gw_rw"), wall=wall(writes=True) if walled else None)
    door = await PostgresUpstream.open(
        reader, writer if writing else None, audience=AUDIENCE,
        statements={name: Statement(text=text, writes=name in writing) for name, text in statements.items()},
        timeout=timeout, max_rows=max_rows, connections=connections,
    )  # fmt: skip
    try:
        yield door
    finally:
        await door.aclose()


def of(call: ToolCall, tenant: str) -> ToolCall:
    """The same call by somebody of another tenant."""
    return replace(call, caller=replace(call.caller, tenant=tenant))


async def sent(door: PostgresUpstream, remote: str, arguments: Json = None, *, tenant: str = "acme") -> Outcome:
    """What one tool answers to somebody of that tenant."""
    call = of(a_call(remote, arguments), tenant)
    return await door.send(call, a_token(call))


def rows_of(outcome: Outcome) -> Any:
    assert isinstance(outcome, Done), outcome
    found = outcome.content["structuredContent"]
    assert isinstance(found, dict)
    return found["rows"]


def code_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Failed), outcome
    assert not outcome.unknown
    return outcome.code


def raw(dsn: str, role: str) -> Any:
    """A plain connection of one of the roles: what an attacker with its password could do."""
    return connect(logged_in(dsn, role), autocommit=True, cursor_factory=RawCursor)
