"""Which of several gateways fetches a stream and asks it to verify: one at a time, by a lock that its session holds.

A gateway that ends, or is stopped for ten seconds, loses its session and the lock with it, and another one goes on. One
that cannot say within seconds that its session lives works no longer. Two at work for a moment do no harm: an event is
taken once. Must not know what is done in turn.

Trust: whoever can log in as the gateways' role can hold the locks, so that nothing is fetched; silence is then told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection

from psycopg import AsyncConnection, Error
from psycopg.rows import TupleRow

from onbehalf.doors.signals_watch import Working

__all__ = ["InTurn", "Turns"]

_log = logging.getLogger(__name__)
_EVERY_SECONDS = 0.5
_SECONDS = 2.0
_SETTINGS = """SELECT set_config('statement_timeout', '2s', false),
CASE WHEN current_setting('server_version_num')::int >= 140000
  THEN set_config('idle_session_timeout', '10s', false) END"""
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('onbehalf stream ' || %s, 0))"


class Turns:
    """The locks of these streams; `run` until it is cancelled."""

    def __init__(self, dsn: str, streams: Collection[str]) -> None:
        self.name = "signals: whose turn it is"
        self.problem = ""
        self._dsn = dsn
        self._streams = tuple(streams)
        self._held = {name: asyncio.Event() for name in streams}
        self._lost = {name: asyncio.Event() for name in streams}
        for each in self._lost.values():
            each.set()
        self._connection: AsyncConnection[TupleRow] | None = None

    async def begun(self, stream: str) -> None:
        """Returns once it is this gateway's turn."""
        await self._held[stream].wait()

    async def over(self, stream: str) -> None:
        """Returns once it is not."""
        await self._lost[stream].wait()

    async def run(self) -> None:
        """Hold what is free, and let go what cannot be held. Ends the session when cancelled."""
        try:
            while True:
                try:
                    async with asyncio.timeout(_SECONDS):
                        await self._look()
                    self.problem = ""
                except (Error, OSError, TimeoutError) as error:
                    await self._dropped()
                    said = f"it cannot be told: {type(error).__name__}"
                    if said != self.problem:
                        _log.error("whose turn it is with streams of events cannot be told: %s", type(error).__name__)
                    self.problem = said
                await asyncio.sleep(_EVERY_SECONDS)
        finally:
            await self._dropped()

    async def aclose(self) -> None:
        """The session ends with `run`."""

    async def _look(self) -> None:
        """Raises Error where the session is not there any more."""
        if self._connection is None:
            self._connection = await AsyncConnection.connect(self._dsn, autocommit=True)
            await self._connection.execute(_SETTINGS)
        await self._connection.execute("SELECT 1")
        for name in self._streams:
            if self._held[name].is_set():
                continue
            row = await (await self._connection.execute(_LOCK, (name,))).fetchone()
            if row is not None and row[0]:
                self._lost[name].clear()
                self._held[name].set()

    async def _dropped(self) -> None:
        """Work at nothing, and end the session so that others may at once."""
        for name in self._streams:
            self._held[name].clear()
            self._lost[name].set()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Error, OSError, TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    await connection.close()


class InTurn:
    """Work for one stream, done while it is this gateway's turn."""

    def __init__(self, work: Working, turns: Turns, stream: str) -> None:
        self.name = work.name
        self._work, self._turns, self._stream = work, turns, stream
        self._at_work = False

    @property
    def problem(self) -> str:
        """Why it does not work; "" where it does, or is another gateway's to do."""
        return self._work.problem if self._at_work else ""

    async def run(self) -> None:
        """Work for ever, whenever it is to be done here."""
        while True:
            await self._turns.begun(self._stream)
            work = asyncio.create_task(self._work.run())
            over = asyncio.create_task(self._turns.over(self._stream))
            self._at_work = True
            try:
                await asyncio.wait({work, over}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._at_work = False
                for each in (work, over):
                    each.cancel()
                await asyncio.gather(work, over, return_exceptions=True)
            if not work.cancelled() and (error := work.exception()) is not None:
                _log.error("%s failed, and begins again: %s", self.name, type(error).__name__)
                await asyncio.sleep(_EVERY_SECONDS)

    async def aclose(self) -> None:
        """End what the work holds."""
        await self._work.aclose()
