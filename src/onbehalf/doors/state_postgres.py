"""The database that several gateways remember in: its connections, one bounded statement at a time, and its failures.

A statement is a transaction of its own and durable (`synchronous_commit`) when it returns, or nobody may count on it.
Each connection is looked at when it is made: the right tables, a server that takes writes, a role that cannot change
the tables, and a clock that is ours. All times are compared with the caller's clock, so the gateways' clocks must
agree; what is over is kept a minute longer for those that do not quite. Must not know what is remembered.

Trust: whoever can write this database can let anything be done twice, and log in as anybody whose row they make. A
server that loses what it acknowledged (a failover to a standby that was behind) forgets with it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from psycopg import AsyncConnection, AsyncRawCursor, Error, OperationalError
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests
from psycopg_pool.errors import PoolClosed

from onbehalf.doors.state_schema import VERSION
from onbehalf.errors import ConfigInvalid

__all__ = ["KEPT_S", "SKEW_S", "State", "StateDown"]

KEPT_S = 60
"""For so long rows that are over are kept, by the database's clock."""
SKEW_S = 10
"""By more than this no gateway's clock may differ from the database's."""
_Connection = AsyncConnection[TupleRow]
_Rows = list[tuple[Any, ...]]  # Any: PostgreSQL's columns, whose types the tables check
_GRACE_SECONDS = 0.5
_OPEN_SECONDS = 20.0
_LIFETIME_SECONDS = 600.0
_WAITING = 1024
_SETTINGS = """SELECT set_config('statement_timeout', $1, false), set_config('lock_timeout', $1, false),
set_config('idle_in_transaction_session_timeout', $1, false), set_config('search_path', 'pg_catalog, pg_temp', false),
set_config('default_transaction_isolation', 'read committed', false), set_config('TimeZone', 'UTC', false),
set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply'
  ELSE 'on' END, false)"""
_LOOK = """SELECT current_setting('synchronous_commit') IN ('on', 'remote_apply'),
pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean,
has_schema_privilege('onbehalf_state', 'CREATE'), extract(epoch FROM clock_timestamp())::float8,
(SELECT max(number) FROM onbehalf_state.version)"""
_HINT = "onbehalf db state prints the tables and the role, and makes them with --apply"
_MISSING = frozenset({"3F000", "42P01", "42501", "42703"})


class StateDown(Exception):
    """The database did not do it, or nobody knows whether it did. The message is a clause for a person."""


class State:
    """Made by `open` on the loop that it serves, ended by `aclose`."""

    def __init__(self, dsn: str, *, connections: int, seconds: float) -> None:
        """Only for `open`."""
        self._seconds = seconds
        self._problem = ""
        self._under_way: set[asyncio.Task[_Rows]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._pool: AsyncConnectionPool[_Connection] = AsyncConnectionPool(
            dsn, connection_class=AsyncConnection[TupleRow],
            kwargs={"autocommit": True, "cursor_factory": AsyncRawCursor}, min_size=connections, max_size=connections,
            max_waiting=_WAITING, max_lifetime=_LIFETIME_SECONDS, timeout=seconds, reconnect_timeout=seconds,
            open=False, configure=self._configured,
        )  # fmt: skip

    @classmethod
    async def open(cls, dsn: str, *, connections: int, seconds: float) -> State:
        """The database, looked at and connected to. `seconds` bounds one statement with all its waiting.

        Raises ConfigInvalid, which never holds the DSN.
        """
        made = cls(dsn, connections=connections, seconds=seconds)
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                async with await AsyncConnection.connect(
                    dsn, autocommit=True, cursor_factory=AsyncRawCursor
                ) as connection:
                    await made._configured(connection)
                await made._pool.open(wait=True, timeout=_OPEN_SECONDS)
        except StateDown as error:
            raise ConfigInvalid(f"`gateway.state` cannot be used: {error}", hint=_HINT) from error
        except (Error, TimeoutError, PoolTimeout) as error:
            await made.aclose()
            raise ConfigInvalid(
                f"the database of `gateway.state` cannot be reached: {type(error).__name__}",
                hint="look at its DSN, its server and the role's password",
            ) from error
        return made

    async def run(self, text: str, *values: object) -> _Rows:
        """The rows of one statement, done and durable. Whoever asked may go away: it is done all the same.

        Raises StateDown, after which it may have been done.
        """
        work = asyncio.create_task(self._run(text, values))
        self._under_way.add(work)
        work.add_done_callback(self._over)
        done, _ = await asyncio.wait({work}, timeout=self._seconds + _GRACE_SECONDS)
        if not done:  # a server that answers nothing does not stop a statement either
            work.cancel()
            raise StateDown("the database does not answer in time")
        return work.result()

    async def aclose(self) -> None:
        """End all connections, after what is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._seconds + _GRACE_SECONDS)
        if self._looking is not None:
            self._looking.cancel()
        await self._pool.close(timeout=_GRACE_SECONDS)

    async def _run(self, text: str, values: tuple[object, ...]) -> _Rows:
        try:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(text, values)
                return await cursor.fetchall() if cursor.description else []
        except (PoolTimeout, TooManyRequests, PoolClosed) as error:
            raise StateDown(self._problem or "no connection to the database came free") from error
        except UnicodeError as error:
            raise StateDown("a value is no text") from error
        except Error as error:
            if isinstance(error, OperationalError) and (self._looking is None or self._looking.done()):
                self._looking = asyncio.create_task(self._pool.check())  # the others may be dead too
            raise StateDown(f"the database failed ({error.sqlstate or 'connection lost'})") from error

    def _over(self, work: asyncio.Task[_Rows]) -> None:
        self._under_way.discard(work)
        if not work.cancelled():
            work.exception()  # told to whoever waits, where somebody still does

    async def _configured(self, connection: _Connection) -> None:
        """Set and look at a new connection. Raises StateDown."""
        try:
            async with asyncio.timeout(self._seconds):
                await connection.execute(_SETTINGS, [f"{int(self._seconds * 1000)}ms"])
                before = time.time()
                row = await (await connection.execute(_LOOK, prepare=False)).fetchone()
            self._problem = _problem(row or (), (before + time.time()) / 2)
        except Error as error:
            missing = error.sqlstate in _MISSING
            self._problem = "its tables are not there for this role" if missing else f"it failed ({error.sqlstate})"
        except TimeoutError:
            self._problem = "it does not answer in time"
        if self._problem:
            raise StateDown(self._problem)


def _problem(row: tuple[Any, ...], now: float) -> str:
    """What is wrong with a database that says this of itself."""
    durable, read_only, may_create, clock, version = row
    if version != VERSION:
        return f"its tables are of version {version}, expected {VERSION}"
    if read_only:
        return "it takes no writes"
    if may_create:
        return "its role may change the tables: use one that may not"
    if not durable:
        return "`synchronous_commit` cannot be turned on"
    if abs(clock - now) > SKEW_S:
        return f"its clock and this machine's differ by {abs(clock - now):.0f} s, and may by {SKEW_S}"
    return ""
