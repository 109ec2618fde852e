"""Cosigned heads, as they are kept: in a file of SQLite beside the ledger (`heads.db`), synced before a call counts as
witnessed.

Must not read the ledger, or check a signature (ledger_heads.py does).

Trust: who can write `heads.db` can take cosignatures away, or put in what will not verify; not make one.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from onbehalf.errors import LedgerUnavailable
from onbehalf.explain.checkpoint import Head

__all__ = ["KEPT_HEADS", "MOST_LEAVES", "OWN", "RECENT", "HeadsFile", "KeptHeads"]

OWN = "the log"
"""By whom the log's own line is kept; no witness of a policy can have a name with a blank."""
KEPT_HEADS = 10_000
"""How many signed heads stay, some 3.5 kB for each signature. The newest says all that former ones say but when."""
RECENT = 16
MOST_LEAVES = 2**62
_SCHEMA = """
CREATE TABLE IF NOT EXISTS head(size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS cosig(size INTEGER NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, line TEXT NOT NULL,
    PRIMARY KEY (size, name)) STRICT;
"""


class KeptHeads(Protocol):
    """Where cosigned heads are kept. Used from any thread. Everything but `close` raises LedgerUnavailable."""

    def last(self) -> Sequence[str]:
        """The note of the newest one, of each place where they are kept."""
        ...

    def keep(self, head: Head, lines: Mapping[str, tuple[int, str]]) -> None:
        """Keep a head with signature lines, by who signed, with when; synced. None of another head of that size."""
        ...

    def cosignatures(self, head: Head) -> dict[str, str]:
        """The lines of a head, by who signed."""
        ...

    def cosigned(self, first: int, last: int) -> list[tuple[int, int]]:
        """Size and time of cosigning of those of `first` to `last` leaves that a witness cosigned, by size."""
        ...

    def recent(self, more: int, most: int) -> list[tuple[str, dict[str, str]]]:
        """Notes of heads of more leaves, and of at most `most`, with the lines by who signed: the newest ones first,
        no more than `RECENT`."""
        ...

    def noted(self, size: int) -> tuple[str, list[str]]:
        """The note of one, and its lines."""
        ...

    def close(self) -> None: ...


class HeadsFile:
    """The file."""

    def __init__(self, path: Path) -> None:
        """Made where there is none. Raises LedgerUnavailable."""
        self._gate = threading.Lock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise LedgerUnavailable(f"heads of the log cannot be kept in `{path}`: {error}") from error

    def close(self) -> None:
        with self._gate:
            self._connection.close()

    def last(self) -> Sequence[str]:
        with self._asked() as connection:
            return [note for (note,) in connection.execute("SELECT note FROM head ORDER BY size DESC LIMIT 1")]

    def keep(self, head: Head, lines: Mapping[str, tuple[int, str]]) -> None:
        with self._gate:
            kept = self._connection
            try:
                kept.execute("BEGIN IMMEDIATE")
                kept.execute("INSERT OR IGNORE INTO head VALUES (?, ?)", (head.size, head.note))
                if kept.execute("SELECT note FROM head WHERE size = ?", (head.size,)).fetchone()[0] != head.note:
                    raise sqlite3.IntegrityError(f"another head of {head.size} leaves is kept")
                for name, (at, line) in lines.items():
                    kept.execute("INSERT OR REPLACE INTO cosig VALUES (?, ?, ?, ?)", (head.size, name, at, line))
                over = "SELECT size FROM head ORDER BY size DESC LIMIT 1 OFFSET ?"
                row = kept.execute(over, (KEPT_HEADS,)).fetchone()
                if row is not None:
                    kept.execute("DELETE FROM cosig WHERE size <= ?", row)
                    kept.execute("DELETE FROM head WHERE size <= ?", row)
                kept.execute("COMMIT")
            except sqlite3.Error as error:
                if kept.in_transaction:
                    kept.execute("ROLLBACK")
                raise LedgerUnavailable(f"cosignatures cannot be kept: {error}") from error

    def cosignatures(self, head: Head) -> dict[str, str]:
        query = "SELECT name, line FROM cosig JOIN head USING (size) WHERE size = ? AND note = ? ORDER BY name"
        with self._asked() as connection:
            return dict(connection.execute(query, (head.size, head.note)).fetchall())

    def cosigned(self, first: int, last: int) -> list[tuple[int, int]]:
        query = "SELECT size, max(at) FROM cosig WHERE name != ? AND size BETWEEN ? AND ? GROUP BY size ORDER BY size"
        with self._asked() as connection:
            return connection.execute(query, (OWN, first, last)).fetchall()

    def recent(self, more: int, most: int) -> list[tuple[str, dict[str, str]]]:
        query = "SELECT size, note FROM head WHERE size > ? AND size <= ? ORDER BY size DESC LIMIT ?"
        with self._asked() as connection:
            return [
                (note, dict(connection.execute("SELECT name, line FROM cosig WHERE size = ?", (size,)).fetchall()))
                for size, note in connection.execute(query, (more, most, RECENT)).fetchall()
            ]

    def noted(self, size: int) -> tuple[str, list[str]]:
        with self._asked() as connection:
            row = connection.execute("SELECT note FROM head WHERE size = ?", (size,)).fetchone()
            lines = connection.execute("SELECT line FROM cosig WHERE size = ? ORDER BY name", (size,)).fetchall()
        if row is None:
            raise LedgerUnavailable(f"no head of {size} leaves is kept")
        return row[0], [line for (line,) in lines]

    @contextmanager
    def _asked(self) -> Iterator[sqlite3.Connection]:
        with self._gate:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise LedgerUnavailable(f"cosignatures cannot be read: {error}") from error
