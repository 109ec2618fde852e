"""Heads of the SQLite ledger for those who cosign them: the newest one, proofs from earlier ones, what was signed.

Reads the ledger on a connection of its own, and keeps cosignatures in a file beside it (`heads.db`: synced before a
call counts as witnessed). Blocks, so whoever waits for it runs it in a thread. After a start the tree up to the first
head that is asked about is computed from the leaves, some 1 s for a million. Must not ask a witness.

Trust: who can write `heads.db` can take cosignatures away, or put in what will not verify; not make one.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from onbehalf.doors.ledger_followed import followed
from onbehalf.doors.ledger_store import SqliteView
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.checkpoint import Checkpoint, Head, NoteVerifier

__all__ = ["OWN", "LedgerHeads"]

OWN = "the log"
"""By whom the log's own line is kept; no witness of a policy can have a name with a blank."""
_KEPT_TREES = 16
_LANDMARK = 262_144
"""Trees of these sizes stay: whatever size is asked about, no more hashes are read, once it has been come by."""
_KEPT_HEADS = 10_000
"""How many signed heads stay, some 3.5 kB for each signature. The newest says all that former ones say but when."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS head(size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS cosig(size INTEGER NOT NULL, name TEXT NOT NULL, at INTEGER NOT NULL, line TEXT NOT NULL,
    PRIMARY KEY (size, name)) STRICT;
"""


class LedgerHeads:
    """Used from any thread, one at a time."""

    def __init__(self, ledger: Path, kept: Path, *, verifier: NoteVerifier) -> None:
        """`verifier` is any key of the log. Raises LedgerUnavailable where a file cannot be opened, LedgerCorrupt."""
        self._gate = threading.Lock()
        self._trees: dict[int, tree.Frontier] = {0: tree.Frontier()}
        try:
            self._ledger = sqlite3.connect(
                f"file:{quote(str(ledger.absolute()))}?mode=ro", uri=True, isolation_level=None,
                check_same_thread=False, timeout=2,
            )  # fmt: skip
            self._ledger.execute("SELECT 1 FROM leaf LIMIT 1")
            self._verifier = followed(SqliteView(self._ledger), verifier)
            os.close(os.open(kept, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._kept = sqlite3.connect(kept, isolation_level=None, check_same_thread=False, timeout=2)
            self._kept.execute("PRAGMA journal_mode = WAL")
            self._kept.execute("PRAGMA synchronous = FULL")
            self._kept.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise LedgerUnavailable(f"heads of `{ledger}` cannot be kept in `{kept}`: {error}") from error

    def release(self) -> None:
        """Let the ledger's file go: only what is kept can be had from now on."""
        with self._gate:
            self._ledger.close()

    def close(self) -> None:
        """Let both files go."""
        with self._gate:
            self._ledger.close()
            self._kept.close()

    def newest(self) -> Head:
        """The newest head, its signature checked. Raises LedgerUnavailable, LedgerCorrupt."""
        with self._reading() as connection:
            row = connection.execute("SELECT note FROM head").fetchone()
        if row is None:
            raise LedgerUnavailable("the log has no signed head")
        return self._head(row[0])

    def signed(self, note: str) -> Checkpoint:
        """The checkpoint in a note of this log's. Raises LedgerCorrupt."""
        return self._head(note).checkpoint

    def signed_late(self, note: str) -> Checkpoint | None:
        """The checkpoint in a note by a former key of the log that no longer signs heads of that size; else None."""
        for _, key in self._verifier.former:
            with suppress(LedgerCorrupt):
                return checkpoint.read(note, key, origin=key.name)
        return None

    def begins_with(self, head: Checkpoint) -> bool:
        """Whether the log, as it is now, has that root over so many leaves."""
        if head.size > self.newest().size:
            return False
        with self._reading() as connection:
            return self._tree(connection, head.size).root() == head.root

    def proof(self, old: int, size: int) -> list[bytes]:
        """The consistency proof between two sizes that the log has reached (RFC 6962 section 2.1.2)."""
        with self._reading() as connection:
            peaks = self._tree(connection, old).peaks()
            found = [
                peaks[span] if span[1] <= old else tree.root(_hashes(connection, *span))
                for span in tree.consistency_spans(old, size)
            ]
            self._tree(connection, size)  # what is asked about next
        return found

    def last_kept(self) -> Head | None:
        """The newest head that somebody cosigned. Raises LedgerCorrupt where it is not this log's."""
        with self._gate:
            try:
                row = self._kept.execute("SELECT note FROM head ORDER BY size DESC LIMIT 1").fetchone()
            except sqlite3.Error as error:
                raise LedgerUnavailable(f"cosignatures cannot be read: {error}") from error
        return self._head(row[0]) if row is not None else None

    def require_continued(self) -> None:
        """See that the last cosigned head is a beginning of the log as it is now. Raises LedgerCorrupt."""
        kept = self.last_kept()
        if kept is not None and not self.begins_with(kept.checkpoint):
            size = self.newest().size
            raise LedgerCorrupt(
                f"a head of {kept.size} leaves was signed and kept, and is no beginning of this log of {size} leaves",
                hint="the ledger was put back to an older state, or is another one: keep it, and `heads.db`",
            )

    def keep(self, head: Head, lines: Mapping[str, tuple[int, str]]) -> None:
        """Keep signature lines, by who signed, with when. Synced when it returns.

        Raises LedgerUnavailable, also where another head of this size is kept: one of them is no beginning of this log.
        """
        with self._gate:
            try:
                self._kept.execute("BEGIN IMMEDIATE")
                self._kept.execute("INSERT OR IGNORE INTO head VALUES (?, ?)", (head.size, head.note))
                if self._kept.execute("SELECT note FROM head WHERE size = ?", (head.size,)).fetchone()[0] != head.note:
                    raise sqlite3.IntegrityError(f"another head of {head.size} leaves is kept")
                for name, (at, line) in lines.items():
                    self._kept.execute("INSERT OR REPLACE INTO cosig VALUES (?, ?, ?, ?)", (head.size, name, at, line))
                row = self._kept.execute(
                    "SELECT size FROM head ORDER BY size DESC LIMIT 1 OFFSET ?", (_KEPT_HEADS,)
                ).fetchone()
                if row is not None:
                    self._kept.execute("DELETE FROM cosig WHERE size <= ?", row)
                    self._kept.execute("DELETE FROM head WHERE size <= ?", row)
                self._kept.execute("COMMIT")
            except sqlite3.Error as error:
                if self._kept.in_transaction:
                    self._kept.execute("ROLLBACK")
                raise LedgerUnavailable(f"cosignatures cannot be kept: {error}") from error

    def cosignatures(self, head: Head) -> dict[str, str]:
        """The signature lines that are kept of a head, by who signed. Raises LedgerUnavailable."""
        query = "SELECT name, line FROM cosig JOIN head USING (size) WHERE size = ? AND note = ? ORDER BY name"
        with self._gate:
            try:
                return dict(self._kept.execute(query, (head.size, head.note)).fetchall())
            except sqlite3.Error as error:
                raise LedgerUnavailable(f"cosignatures cannot be read: {error}") from error

    def cosigned(self, first: int, last: int) -> list[tuple[int, int]]:
        """Size and time of cosigning, in seconds since 1970, of the heads of `first` to `last` leaves that a witness
        cosigned and that are kept, by size. Raises LedgerUnavailable."""
        query = "SELECT size, max(at) FROM cosig WHERE name != ? AND size BETWEEN ? AND ? GROUP BY size ORDER BY size"
        with self._gate:
            try:
                return self._kept.execute(query, (OWN, first, last)).fetchall()
            except sqlite3.Error as error:
                raise LedgerUnavailable(f"cosignatures cannot be read: {error}") from error

    def noted(self, size: int) -> str:
        """The note of a kept head with all its signature lines. Raises LedgerUnavailable."""
        with self._gate:
            try:
                row = self._kept.execute("SELECT note FROM head WHERE size = ?", (size,)).fetchone()
                lines = self._kept.execute("SELECT line FROM cosig WHERE size = ? ORDER BY name", (size,)).fetchall()
            except sqlite3.Error as error:
                raise LedgerUnavailable(f"cosignatures cannot be read: {error}") from error
        if row is None:
            raise LedgerUnavailable(f"no head of {size} leaves is kept")
        return "".join((row[0], *(line for (line,) in lines)))

    def _head(self, note: str) -> Head:
        return Head(checkpoint=checkpoint.read(note, self._verifier, origin=self._verifier.name), note=note)

    def _tree(self, connection: sqlite3.Connection, size: int) -> tree.Frontier:
        """The tree over the first `size` leaves, grown from the nearest one that is at hand."""
        found = self._trees.pop(size, None)
        if found is None:
            found = self._trees[max(each for each in self._trees if each <= size)].copy()
            for hash_ in _hashes(connection, found.size, size):
                found.append(hash_)
                if found.size % _LANDMARK == 0:
                    self._trees[found.size] = found.copy()
            if found.size != size:
                raise LedgerUnavailable(f"the log has no {size} leaves")
        self._trees[size] = found  # the last one used stands last
        passing = [each for each in self._trees if each % _LANDMARK]
        for each in passing[:-_KEPT_TREES]:
            del self._trees[each]
        return found

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._gate:
            try:
                yield self._ledger
            except sqlite3.Error as error:
                raise LedgerUnavailable(f"the ledger cannot be read now: {error}") from error


def _hashes(connection: sqlite3.Connection, start: int, end: int) -> Iterator[bytes]:
    rows = connection.execute("SELECT hash FROM leaf WHERE idx >= ? AND idx < ? ORDER BY idx", (start, end))
    return (row[0] for row in rows)
