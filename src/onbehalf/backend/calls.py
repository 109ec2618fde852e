"""A backend's own record of the calls it took: one row each, with the number that the gateway gave it.

The gateway numbers all that it sends to one backend, without a hole (`record.channel`, `record.number`). A number is
taken once; calls overtake each other, so numbers may come out of order, but not from further back than a window. What
never came can be asked for. This record is what the gateway's is held against (docs/completeness.md), so let nobody who
runs the gateway write it. Must not hold arguments or answers, only their digests.

Trust: whoever can delete rows here can hide a call from the comparison; who can add some can accuse the gateway of one.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import orjson

from onbehalf.backend.verify import VerifiedCall
from onbehalf.errors import CallTokenRefused, CallTokenReplayed, ConfigInvalid, ReplayUnknown
from onbehalf.model import Digest, Json, UnixTime, digest

__all__ = ["COLUMNS", "WINDOW", "Calls", "SqliteCalls", "note_answer", "result_digest", "row_of"]

WINDOW = 4096
"""How many numbers a call may be behind the newest one and still be taken."""
COLUMNS = ("channel", "n", "token", "call", "tool", "arguments", "record", "leaf", "at", "answer", "status")
"""Of a row, in a table as in an export."""
_BUSY_SECONDS = 2.0
_log = logging.getLogger(__name__)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS onbehalf_calls(
    channel TEXT NOT NULL, n INTEGER NOT NULL, token TEXT NOT NULL UNIQUE, call TEXT NOT NULL, tool TEXT NOT NULL,
    arguments TEXT NOT NULL, record INTEGER NOT NULL, leaf TEXT NOT NULL, at INTEGER NOT NULL,
    answer TEXT NOT NULL DEFAULT '', status INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (channel, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS onbehalf_channels(
    channel TEXT PRIMARY KEY, first INTEGER NOT NULL, highest INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""


class Calls(Protocol):
    """Keeps one row for each call that is taken, in one step with looking whether it may be."""

    def accept(self, call: VerifiedCall, *, now: UnixTime) -> None:
        """Take a proven call. Raises CallTokenReplayed where its number was taken before, ReplayUnknown where that
        cannot be told or kept, CallTokenRefused where it has no number."""
        ...

    def answered(self, call: VerifiedCall, *, answer: Digest, status: int) -> None:
        """Add to its row what was answered: the digest, and the HTTP status (200 for an MCP result).

        Raises ReplayUnknown where it could not be kept.
        """
        ...


def row_of(call: VerifiedCall, *, now: UnixTime) -> tuple[str | int, ...]:
    """The row of a call that is taken `now`, in the order of `COLUMNS`. Raises CallTokenRefused."""
    place = call.record
    if not place.channel:
        raise CallTokenRefused(
            "the call token has no number, which this backend keeps", hint="upgrade the gateway: it numbers its calls"
        )
    return (
        place.channel, place.number, call.token_id, call.call, call.tool, call.arguments, place.index, place.leaf, now,
        "", 0,
    )  # fmt: skip


def result_digest(result: Mapping[str, Json]) -> Digest:
    """The digest of an MCP result, as the gateway's record has it: of its content, whatever else it says.

    Raises TypeError for what has no spelling, such as half a character.
    """
    members: dict[str, Json] = {"content": result.get("content", []), "isError": result.get("isError", False)}
    if "structuredContent" in result:
        members["structuredContent"] = result["structuredContent"]
    return digest(orjson.dumps(members, option=orjson.OPT_SORT_KEYS))


def note_answer(calls: Calls, call: VerifiedCall, *, answer: Digest, status: int) -> None:
    """Keep what was answered, or say in the log that it could not be: what is done is done, and may be answered."""
    try:
        calls.answered(call, answer=answer, status=status)
    except ReplayUnknown as error:
        _log.error("the answer to %s is not on record: %s", call.token_id, error.message)


class SqliteCalls:
    """The record in one SQLite file, for any number of threads and processes of one machine.

    Each call is on disk (WAL, `synchronous=FULL`) before it is taken. `window` is how far a number may be behind.
    """

    def __init__(self, path: Path, *, window: int = WINDOW) -> None:
        """The file, made where it is missing. Raises ConfigInvalid."""
        if window < 1:
            raise ConfigInvalid(f"a window of {window} calls lets none overtake another")
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigInvalid(f"the record of calls at `{path}` cannot be used: {error}") from error
        self._window = window
        self._lock = threading.Lock()

    def accept(self, call: VerifiedCall, *, now: UnixTime) -> None:
        """Take a proven call. Raises CallTokenReplayed, ReplayUnknown, CallTokenRefused."""
        row = row_of(call, now=now)
        with self._transaction() as connection:
            found = connection.execute(
                "SELECT highest FROM onbehalf_channels WHERE channel = ?", (call.record.channel,)
            ).fetchone()
            require_near(call.record.number, found[0] if found else 0, self._window)
            try:
                connection.execute(f"INSERT INTO onbehalf_calls VALUES ({','.join('?' * len(COLUMNS))})", row)  # noqa: S608  # question marks only
            except sqlite3.IntegrityError as error:
                raise used() from error
            connection.execute(
                "INSERT INTO onbehalf_channels VALUES (?1, ?2, ?2) ON CONFLICT DO UPDATE"
                " SET first = min(first, ?2), highest = max(highest, ?2)",
                row[:2],
            )

    def answered(self, call: VerifiedCall, *, answer: Digest, status: int) -> None:
        """Add what was answered. Raises ReplayUnknown."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE onbehalf_calls SET answer = ?, status = ? WHERE token = ? AND answer = ''",
                (answer, status, call.token_id),
            )

    def rows(self) -> Iterator[dict[str, Json]]:
        """All rows, by channel and number: written one a line as JSON, they are what `audit reconcile` reads."""
        with self._lock:
            found = self._connection.execute("SELECT * FROM onbehalf_calls ORDER BY channel, n").fetchall()
        for row in found:
            yield dict(zip(COLUMNS, row, strict=True))

    def gaps(self) -> list[tuple[str, int, int]]:
        """The numbers that never came, as channel, first and last, between the first and the highest that did."""
        query = (
            "SELECT channel, n + 1, next - 1 FROM (SELECT channel, n, lead(n) OVER (PARTITION BY channel ORDER BY n)"
            " AS next FROM onbehalf_calls) WHERE next > n + 1 ORDER BY channel, n"
        )
        with self._lock:
            return self._connection.execute(query).fetchall()

    def forget(self, *, before: UnixTime) -> int:
        """Delete rows from before then, but for those within the window; how many."""
        with self._transaction() as connection:
            return connection.execute(
                "DELETE FROM onbehalf_calls WHERE at < ?1 AND n <= (SELECT highest - ?2 FROM onbehalf_channels c"
                " WHERE c.channel = onbehalf_calls.channel)",
                (before, self._window),
            ).rowcount

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise ReplayUnknown("the record of calls cannot be written") from error


def used() -> CallTokenReplayed:
    """That a number or a token was taken before."""
    return CallTokenReplayed("the call's number was used before", hint="call again through the gateway")


def require_near(number: int, highest: int, window: int) -> None:
    """See that a number is not so far behind that its row may be gone. Raises ReplayUnknown."""
    if number <= highest - window:
        raise ReplayUnknown(
            f"the call's number is {highest - number} behind the newest one", hint="call again through the gateway"
        )
