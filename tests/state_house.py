"""A database that gateways remember in, made as `onbehalf db state` makes it; what the tests of it share."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from psycopg.conninfo import make_conninfo

from onbehalf.doors.state_postgres import State
from onbehalf.doors.state_schema import state_sql
from postgres import fresh, run

__all__ = ["opened", "state_database", "two"]

_PASSWORD = "for tests only"


@contextmanager
def state_database(postgres: str) -> Iterator[str]:
    """The DSN of the gateways' role at a new database with the tables; both are dropped afterwards."""
    role = f"gw_{secrets.token_hex(4)}"
    try:
        with fresh(postgres) as owner:
            run(owner, state_sql(role=role).removeprefix("\\set ON_ERROR_STOP on\n"))
            run(owner, f"ALTER ROLE {role} PASSWORD '{_PASSWORD}'")
            yield make_conninfo(owner, user=role, password=_PASSWORD)
    finally:
        run(postgres, f"DROP ROLE IF EXISTS {role}")


@asynccontextmanager
async def opened(dsn: str, *, connections: int = 2, seconds: float = 5.0) -> AsyncIterator[State]:
    """One gateway's connections."""
    state = await State.open(dsn, connections=connections, seconds=seconds)
    try:
        yield state
    finally:
        await state.aclose()


@asynccontextmanager
async def two(dsn: str) -> AsyncIterator[tuple[State, State]]:
    """The connections of two gateways."""
    async with contextlib.AsyncExitStack() as stack:
        yield (
            await stack.enter_async_context(opened(dsn, connections=4)),
            await stack.enter_async_context(opened(dsn, connections=4)),
        )
