"""What security events did, in the file of revocations: each event taken once, with all that came of it.

An event, its effects and what is to go on record of it are one transaction, on disk when `take` returns. An event that
is older than another about the same account does not undo it, so that one that comes twice, or late, changes nothing.
One thread does it all, in order. Must not know what an event means (validate/signals.py) or who sent it.

Trust: as revocations_sqlite.py. A transmitter can add one row for each name it makes up, and is kept to that.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson

from onbehalf.doors.revocations_schema import opened
from onbehalf.errors import SignalsUnavailable
from onbehalf.model import Json, UnixTime
from onbehalf.model_signals import Effect, Target

__all__ = ["SignalStore", "StreamTold", "streams_told"]

Found = TypeVar("Found")
_BUSY_SECONDS = 5.0
_KEPT = 200_000
"""So many events of a stream are known again. One that is not changes nothing either: it is older than what it did."""
_TIDY_EVERY = 256
_LIFTED = "account-disabled"
"""Only what this did is over with `account-enabled`: an account that was purged is not the one that is enabled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamTold:
    """When a stream was last heard, and what it said of itself: `enabled`, `paused` or `disabled` (SSF 1.0)."""

    name: str
    heard: UnixTime
    status: str


class SignalStore:
    """The file. Made by `open`, ended by `close`; all else raises SignalsUnavailable."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Only for `open`."""
        self._connection = connection
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="signals")
        self._taken = 0
        self._asked: dict[str, str] = {}

    @classmethod
    def open(cls, path: Path) -> SignalStore:
        """The file, made where there is none. Raises ConfigInvalid."""
        return cls(opened(path, busy_seconds=_BUSY_SECONDS))

    def close(self) -> None:
        """End the thread and the connection, after what is under way."""
        self._thread.shutdown()
        self._connection.close()

    async def take(
        self, stream: str, id: str, effects: Sequence[Effect], *, facts: Mapping[str, Json], now: UnixTime,
        until: UnixTime,
    ) -> bool:  # fmt: skip
        """Do what an event comes to, unless it was taken before: then False, and nothing changed.

        `facts` are what `pending` gives until `noted`; after `until` the event need not be known again.
        """
        return await self._in_thread(lambda: self._take(stream, id, effects, facts, now, until))

    async def pending(self) -> list[tuple[str, str, dict[str, Json]]]:
        """Stream, id and facts of all events that are not on record."""

        def read() -> list[tuple[str, str, dict[str, Json]]]:
            rows = self._connection.execute("SELECT stream, id, facts FROM signal WHERE noted = 0")
            return [(stream, id_, orjson.loads(facts)) for stream, id_, facts in rows]

        return await self._in_thread(read)

    async def noted(self, stream: str, id: str) -> None:
        """It is on record."""
        await self._in_thread(
            lambda: self._connection.execute(
                "UPDATE signal SET noted = 1, facts = '' WHERE stream = ? AND id = ?", (stream, id)
            )
        )

    async def heard(self, stream: str, *, now: UnixTime, status: str = "") -> None:
        """Keep when a stream was heard, and what it said of itself if it did."""
        await self._in_thread(
            lambda: self._connection.execute(
                "INSERT INTO stream (name, heard, status) VALUES (?1, ?2, coalesce(nullif(?3, ''), 'enabled')) "
                "ON CONFLICT (name) DO UPDATE SET heard = max(heard, ?2), "
                "status = CASE ?3 WHEN '' THEN status ELSE ?3 END",
                (stream, now, status),
            )
        )

    async def told(self) -> Mapping[str, StreamTold]:
        """Every stream that was ever heard, by name."""
        return await self._in_thread(lambda: _told(self._connection))

    async def in_force(self) -> None:
        """It is, for whoever looks at the file."""

    def last_heard(self, stream: str) -> UnixTime:
        """Never, by any other gateway: there is none."""
        return UnixTime(0)

    async def ask(self, stream: str, state: str) -> None:
        """Keep, for this process, what the next verification event must say; "" for anything."""
        self._asked[stream] = state

    async def asked(self, stream: str) -> str:
        """What the next verification event must say; "" for anything."""
        return self._asked.get(stream, "")

    def _take(
        self, stream: str, id_: str, effects: Sequence[Effect], facts: Mapping[str, Json], now: UnixTime,
        until: UnixTime,
    ) -> bool:  # fmt: skip
        with _Transaction(self._connection):
            made = self._connection.execute(
                "INSERT INTO signal VALUES (?, ?, ?, ?, 0) ON CONFLICT DO NOTHING RETURNING 1",
                (stream, id_, until, orjson.dumps(facts).decode()),
            ).fetchall()
            if not made:
                return False
            for effect in effects:
                for target in effect.targets:
                    self._do(stream, id_, effect, target, now)
            self._taken += 1
            if self._taken % _TIDY_EVERY == 1:
                self._tidy(stream, now)
        return True

    def _do(self, stream: str, id_: str, effect: Effect, target: Target, now: UnixTime) -> None:
        who = (target.kind, target.tenant, target.name, stream)
        found = self._connection.execute(
            "SELECT ended, account FROM signalled WHERE kind = ? AND tenant = ? AND name = ? AND stream = ?", who
        ).fetchone()
        ended, account = found or (0, 0)
        of_account = effect.does in ("block", "let_go")
        if of_account and effect.at < account:
            return  # something newer was said of this account
        if effect.does == "block":
            self._block(who, effect, id_)
        elif effect.does == "let_go":
            self._let_go(who, effect, now)
        self._connection.execute(
            "INSERT OR REPLACE INTO signalled (kind, tenant, name, stream, ended, account, seq) "
            "VALUES (?, ?, ?, ?, ?, ?, (SELECT coalesce(max(seq), 0) + 1 FROM signalled))",
            (*who, ended if effect.does == "let_go" else max(ended, effect.at), effect.at if of_account else account),
        )

    def _block(self, who: tuple[str, str, str, str], effect: Effect, id_: str) -> None:
        *target, stream = who
        what = effect.event.rpartition("/")[2]
        stands = self._connection.execute(
            "SELECT 1 FROM revocation WHERE kind = ? AND tenant = ? AND name = ? AND by = ? AND blocks = 1 "
            "AND lifted IS NULL AND reason LIKE ? LIMIT 1",
            (*target, _by(stream), f"{what} %"),
        ).fetchone()
        if stands is None:
            self._connection.execute(
                "INSERT INTO revocation (kind, tenant, name, at, blocks, by, reason) VALUES (?, ?, ?, ?, 1, ?, ?)",
                (*target, effect.at, _by(stream), f"{what} {id_}"),
            )

    def _let_go(self, who: tuple[str, str, str, str], effect: Effect, now: UnixTime) -> None:
        *target, stream = who
        self._connection.execute(
            "UPDATE revocation SET lifted = ?, lifted_by = ? WHERE kind = ? AND tenant = ? AND name = ? AND by = ? "
            "AND blocks = 1 AND lifted IS NULL AND at <= ? AND reason LIKE ?",
            (now, _by(stream), *target, _by(stream), effect.at, f"{_LIFTED} %"),
        )

    def _tidy(self, stream: str, now: UnixTime) -> None:
        """Forget events that are refused for their age alone, and the oldest where there are too many."""
        self._connection.execute("DELETE FROM signal WHERE stream = ? AND until < ? AND noted = 1", (stream, now))
        self._connection.execute(
            "DELETE FROM signal WHERE stream = ?1 AND noted = 1 AND until <= "
            "(SELECT until FROM signal WHERE stream = ?1 ORDER BY until DESC LIMIT 1 OFFSET ?2)",
            (stream, _KEPT),
        )

    async def _in_thread(self, work: Callable[[], Found]) -> Found:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, RuntimeError) as error:  # RuntimeError: the thread is ended
            raise SignalsUnavailable(
                f"the event could not be kept ({type(error).__name__})", hint="nothing was taken; send it again later"
            ) from error


class _Transaction:
    """All of it or nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self._connection.execute("COMMIT" if kind is None else "ROLLBACK")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):  # some failures have rolled back already
                self._connection.execute("ROLLBACK")
            raise


def streams_told(path: Path) -> Mapping[str, StreamTold]:
    """Every stream that was ever heard, for people who look after it. Raises ConfigInvalid, sqlite3.Error."""
    if not path.is_file():
        return {}
    connection = opened(path, busy_seconds=_BUSY_SECONDS)
    try:
        return _told(connection)
    finally:
        connection.close()


def _told(connection: sqlite3.Connection) -> Mapping[str, StreamTold]:
    rows = connection.execute("SELECT name, heard, status FROM stream")
    return {name: StreamTold(name=name, heard=UnixTime(heard), status=status) for name, heard, status in rows}


def _by(stream: str) -> str:
    return f"signal {stream}"
