"""Heads of a ledger for those who cosign them: the newest one, proofs from earlier ones, what was signed.

Reads the ledger where it is written, and has cosignatures kept (ledger_heads_kept.py) before a call counts as
witnessed. Blocks, so whoever waits for it runs it in a thread. After a start the tree up to the first head that is
asked about is computed from the leaves, some 1 s for a million. Must not ask a witness.

Trust: whoever can write what is kept can take cosignatures away, or put in what will not verify; not make one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from onbehalf.doors.ledger_followed import followed
from onbehalf.doors.ledger_heads_kept import MOST_LEAVES, OWN, HeadsFile, KeptHeads
from onbehalf.doors.ledger_store import LedgerStore, SqliteStore, View
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.checkpoint import Checkpoint, Head, NoteVerifier

__all__ = ["OWN", "LedgerHeads"]

_KEPT_TREES = 16
_LANDMARK = 262_144
"""Trees of these sizes stay: whatever size is asked about, no more hashes are read, once it has been come by."""
_SECONDS = 2


class LedgerHeads:
    """Used from any thread, one at a time."""

    def __init__(self, ledger: Path | LedgerStore, kept: Path | KeptHeads, *, verifier: NoteVerifier) -> None:
        """`ledger` and `kept` are closed by this; a path is a file of SQLite. `verifier` is any key of the log.

        Raises LedgerUnavailable where one cannot be opened, LedgerCorrupt.
        """
        self._gate = threading.Lock()
        self._trees: dict[int, tree.Frontier] = {0: tree.Frontier()}
        self._ledger: LedgerStore | None = SqliteStore(ledger, seconds=_SECONDS) if isinstance(ledger, Path) else ledger
        with self._reading() as view:
            view.execute("SELECT 1 FROM leaf LIMIT 1")
            self._verifier = followed(view, verifier)
        self._kept = HeadsFile(kept) if isinstance(kept, Path) else kept

    def release(self) -> None:
        """Let the ledger go: only what is kept can be had from now on."""
        with self._gate:
            if self._ledger is not None:
                self._ledger.close()
                self._ledger = None

    def close(self) -> None:
        """Let both go."""
        self.release()
        self._kept.close()

    def newest(self) -> Head:
        """The newest head, its signature checked. Raises LedgerUnavailable, LedgerCorrupt."""
        with self._reading() as view:
            row = view.execute("SELECT note FROM head").fetchone()
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
        with self._reading() as view:
            return self._tree(view, head.size).root() == head.root

    def proof(self, old: int, size: int) -> list[bytes]:
        """The consistency proof between two sizes that the log has reached (RFC 6962 section 2.1.2)."""
        with self._reading() as view:
            peaks = self._tree(view, old).peaks()
            found = [
                peaks[span] if span[1] <= old else tree.root(_hashes(view, *span))
                for span in tree.consistency_spans(old, size)
            ]
            self._tree(view, size)  # what is asked about next
        return found

    def last_kept(self) -> Head | None:
        """The newest head that somebody cosigned. Raises LedgerCorrupt where it is not this log's."""
        kept = [self._head(note) for note in self._kept.last()]
        return max(kept, key=lambda each: each.size, default=None)

    def require_continued(self) -> None:
        """See that the last cosigned head is a beginning of the log as it is now. Raises LedgerCorrupt."""
        for kept in map(self._head, self._kept.last()):
            if not self.begins_with(kept.checkpoint):
                size = self.newest().size
                raise LedgerCorrupt(
                    f"a head of {kept.size} leaves was signed and kept, and is no beginning of this log of {size} "
                    "leaves",
                    hint="the ledger was put back to an older state, or is another one: keep it, and `heads.db`",
                )

    def keep(self, head: Head, lines: Mapping[str, tuple[int, str]]) -> None:
        """Keep signature lines, by who signed, with when. Synced when it returns.

        Raises LedgerUnavailable, also where another head of this size is kept: one of them is no beginning of this log.
        """
        self._kept.keep(head, lines)

    def recent(self, more: int, most: int = MOST_LEAVES) -> list[tuple[Head, dict[str, str]]]:
        """Kept heads of more leaves, up to `most`, with lines by who signed, newest first; also what others cosigned.

        Neither the lines are checked, nor whether the log continues the heads. Raises LedgerUnavailable, LedgerCorrupt.
        """
        return [(self._head(note), lines) for note, lines in self._kept.recent(more, most)]

    def cosignatures(self, head: Head) -> dict[str, str]:
        """The signature lines that are kept of a head, by who signed. Raises LedgerUnavailable."""
        return self._kept.cosignatures(head)

    def cosigned(self, first: int, last: int) -> list[tuple[int, int]]:
        """Size and time of cosigning, in seconds since 1970, of the heads of `first` to `last` leaves that a witness
        cosigned and that are kept, by size. Raises LedgerUnavailable."""
        return self._kept.cosigned(first, last)

    def noted(self, size: int) -> str:
        """The note of a kept head with all its signature lines. Raises LedgerUnavailable."""
        note, lines = self._kept.noted(size)
        return "".join((note, *lines))

    def _head(self, note: str) -> Head:
        return Head(checkpoint=checkpoint.read(note, self._verifier, origin=self._verifier.name), note=note)

    def _tree(self, view: View, size: int) -> tree.Frontier:
        """The tree over the first `size` leaves, grown from the nearest one that is at hand."""
        found = self._trees.pop(size, None)
        if found is None:
            found = self._trees[max(each for each in self._trees if each <= size)].copy()
            for hash_ in _hashes(view, found.size, size):
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
    def _reading(self) -> Iterator[View]:
        with self._gate:
            if self._ledger is None:
                raise LedgerUnavailable("the ledger is closed")
            with self._ledger.reading() as view:
                yield view


def _hashes(view: View, start: int, end: int) -> Iterator[bytes]:
    rows = view.walk("SELECT hash FROM leaf WHERE idx >= ? AND idx < ? ORDER BY idx", (start, end))
    return (row[0] for row in rows)
