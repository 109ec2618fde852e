"""A database that gateways remember in, made as `onbehalf db state` makes it; what the tests of it share."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from onbehalf.doors.state_postgres import State
from onbehalf.doors.state_schema import state_sql
from postgres import fresh, run

__all__ = ["SilentProxy", "opened", "state_database", "two"]

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


class SilentProxy:
    """A way to the server that stops carrying anything, and closes nothing."""

    def __init__(self, dsn: str) -> None:
        found = conninfo_to_dict(dsn)
        self._dsn, self._to = dsn, (str(found["host"]), int(str(found["port"])))
        self._silence = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> tuple[str, asyncio.Event]:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return make_conninfo(self._dsn, port=port, sslmode="disable"), self._silence

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for each in self._tasks:
            each.cancel()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._to)
        self._tasks += [asyncio.create_task(self._pipe(reader, back)), asyncio.create_task(self._pipe(there, writer))]

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self._silence.is_set():
                await asyncio.sleep(3600)
            writer.write(data)
            await writer.drain()
        writer.close()
