"""What can be erased of a record in SQLite, by the process that writes it. Must not decide what is (ledger_erase.py).

Trust: as ledger_subjects.py says.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onbehalf.doors.ledger_erasable import HEADS, STEP, Span
from onbehalf.doors.ledger_erase import size_of
from onbehalf.doors.ledger_sealing import SubjectSealing
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.ledger_store import SqliteStore
from onbehalf.doors.ledger_subjects import truncated
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable
from onbehalf.model import AuditEntry, Receipt

__all__ = ["SqliteErasable"]

_SETTLE_SECONDS = 30.0
_PROGRESS = """CREATE TABLE IF NOT EXISTS erasing(id BLOB PRIMARY KEY, next INTEGER NOT NULL, count INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL) STRICT"""


class SqliteErasable:
    """The Erasable of one file, beside the ledger that writes it."""

    def __init__(self, ledger: SqliteLedger, path: Path, sealing: SubjectSealing) -> None:
        """`path` is the ledger's."""
        self._ledger, self._path, self._sealing = ledger, path, sealing
        self.store = SqliteStore(path)

    def close(self) -> None:
        """Each step closes what it opened."""

    @contextlib.asynccontextmanager
    async def apart(self, labels: Sequence[bytes]) -> AsyncIterator[set[bytes]]:
        with self._sealing.renewed(labels) as fresh:
            await self._settled()
            yield fresh

    async def append(self, entry: AuditEntry, *, once: str) -> Receipt:
        """There is one writer, which has looked for it: `once` is not needed."""
        return await self._ledger.append(entry)

    def step(self, id_: bytes, chosen: Callable[[Sequence[tuple[Any, ...]]], list[int]]) -> int:
        with self._writing() as connection:
            connection.execute(_PROGRESS)
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute("INSERT OR IGNORE INTO erasing VALUES (?, 0, 0, -1, -1)", (id_,))
                start = connection.execute("SELECT next FROM erasing WHERE id = ?", (id_,)).fetchone()[0]
                old = chosen(connection.execute(HEADS, (start, start + STEP)).fetchall())
                connection.executemany("DELETE FROM payload WHERE idx = ?", [(each,) for each in old])
                connection.execute(
                    "UPDATE erasing SET next = ?, count = count + ?, last = max(last, ?), "
                    "first = CASE WHEN first < 0 THEN ? ELSE first END WHERE id = ?",
                    (start + STEP, len(old), old[-1] if old else -1, old[0] if old else -1, id_),
                )
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        return int(start + STEP)

    def deleted(self, id_: bytes) -> Span:
        with self._writing() as connection:
            truncated(connection, self._path)
            query = "SELECT count, first, last FROM erasing WHERE id = ?"
            count, first, last = connection.execute(query, (id_,)).fetchone()
        return Span(count=count, first=first, last=last)

    def forget(self, id_: bytes) -> None:
        with self._writing() as connection:
            connection.execute("DELETE FROM erasing WHERE id = ?", (id_,))

    async def _settled(self) -> None:
        """Wait until everything that was taken so far is committed. Raises LedgerUnavailable."""
        taken, until = self._ledger.taken, time.monotonic() + _SETTLE_SECONDS
        while await asyncio.to_thread(size_of, self.store) < taken:
            if self._ledger.closed or time.monotonic() > until:
                raise LedgerUnavailable(self._ledger.closed or "the ledger does not come to rest")
            await asyncio.sleep(0.01)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, closed at the end. Raises LedgerUnavailable, LedgerCorrupt."""
        try:
            uri = f"{self._path.absolute().as_uri()}?mode=rw"
            with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA secure_delete = ON")
                yield connection
        except sqlite3.OperationalError as error:
            raise LedgerUnavailable(f"the ledger at `{self._path}` cannot be used now: {error}") from error
        except sqlite3.Error as error:
            raise LedgerCorrupt(f"the ledger at `{self._path}` cannot be read: {error}") from error
