"""Which writing calls were begun and which are done, in one SQLite file, so that none is done twice; and which change
sets were shown, so that each is made at most once.

One row a key, made durable (WAL, `synchronous=FULL`) before the call may be sent; of two that come at once, one is
first. A row that says begun after its call is over means that nobody knows the outcome. Must not know what a key is
made of (act/once.py).

Trust: whoever can delete rows here can have a call done twice; nobody reads what was asked, only digests.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from onbehalf.errors import ConfigInvalid, OnceUnavailable
from onbehalf.model import CallId, Digest, Earlier, UnixTime

__all__ = ["SqliteOnce"]

Found = TypeVar("Found")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS once(
    key TEXT PRIMARY KEY, call TEXT NOT NULL, arguments TEXT NOT NULL, at INTEGER NOT NULL, until INTEGER NOT NULL,
    done INTEGER NOT NULL CHECK (done IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS once_until ON once(until);
CREATE TABLE IF NOT EXISTS shown(change TEXT PRIMARY KEY, until INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""
_BUSY_SECONDS = 5.0


class SqliteOnce:
    """The Once and Changes ports on one file. Made by `open`, ended by `close`. One thread does it all, in order."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="once")

    @classmethod
    def open(cls, path: Path) -> SqliteOnce:
        """The file, made where it is missing. Raises ConfigInvalid."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigInvalid(f"`{path}` cannot be used: {error}", hint="move it away; it is made anew") from error
        return cls(connection)

    async def begin(
        self, key: Digest, call: CallId, arguments: Digest, *, now: UnixTime, until: UnixTime
    ) -> Earlier | None:
        """Make it durable that `call` is begun, and return None; or the earlier call of that key, with nothing changed.

        Raises OnceUnavailable, and then nothing may be sent.
        """
        return await self._in_thread(lambda: self._begin(key, call, arguments, now, until))

    async def done(self, key: Digest, call: CallId) -> None:
        """The call has had its effect. Raises OnceUnavailable; the row then goes on saying begun."""
        await self._in_thread(
            lambda: self._connection.execute("UPDATE once SET done = 1 WHERE key = ? AND call = ?", (key, call))
        )

    async def forget(self, key: Digest, call: CallId) -> None:
        """The call had no effect and may be sent again. Raises OnceUnavailable."""
        await self._in_thread(
            lambda: self._connection.execute("DELETE FROM once WHERE key = ? AND call = ?", (key, call))
        )

    async def shown(self, change: Digest, *, until: UnixTime) -> None:
        """Make it durable that a change set was shown and may be made before `until`. Raises OnceUnavailable."""
        row = (change, until)
        await self._in_thread(lambda: self._connection.execute("INSERT OR REPLACE INTO shown VALUES (?, ?)", row))

    async def take(self, change: Digest, *, now: UnixTime) -> bool:
        """Whether it was shown, is not too old, and nobody took it; then it is taken. Raises OnceUnavailable."""
        return await self._in_thread(lambda: self._take(change, now))

    def close(self) -> None:
        """End the thread and the connection, after what is under way."""
        self._thread.shutdown()
        self._connection.close()

    def _begin(self, key: Digest, call: CallId, arguments: Digest, now: UnixTime, until: UnixTime) -> Earlier | None:
        # one statement, and so one transaction: an expired row of this key counts as none
        row = (key, call, arguments, now, until)
        made = self._connection.execute(
            "INSERT INTO once VALUES (?1, ?2, ?3, ?4, ?5, 0) ON CONFLICT(key) DO UPDATE SET"
            " call = ?2, arguments = ?3, at = ?4, until = ?5, done = 0 WHERE until <= ?4 RETURNING 1",
            row,
        ).fetchall()
        if made:
            self._connection.execute("DELETE FROM once WHERE until <= ?", (now,))
            return None
        found = self._connection.execute("SELECT call, arguments, at, done FROM once WHERE key = ?", (key,)).fetchone()
        return Earlier(call=CallId(found[0]), arguments=Digest(found[1]), at=UnixTime(found[2]), done=bool(found[3]))

    def _take(self, change: Digest, now: UnixTime) -> bool:
        found = self._connection.execute("DELETE FROM shown WHERE change = ? RETURNING until", (change,)).fetchall()
        self._connection.execute("DELETE FROM shown WHERE until <= ?", (now,))
        return bool(found) and found[0][0] > now

    async def _in_thread(self, work: Callable[[], Found]) -> Found:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, RuntimeError) as error:  # RuntimeError: the thread is ended
            raise OnceUnavailable(
                f"it cannot be told whether this was done before ({type(error).__name__})",
                hint="nothing was done; try again later",
            ) from error
