"""The record as its followers read it: from a durable cursor on, in order, each read ended before anything is sent.

Reads one view of the ledger for each batch: no transaction is held while a sink takes its time, so a store's own log
can always be folded in, and a file that was replaced is seen. The cursor is the index of the next record and
the root of the tree over all before it: a record that was cut, rolled back or rewritten since is noticed, and nothing
more is sent. Must not know where records go.

Trust: the log's signature and this cursor together. Whoever can write the cursor's file can have records sent again,
or left out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from copy import deepcopy
from pathlib import Path

import msgspec

from onbehalf.doors.folder_sync import sync_folder
from onbehalf.doors.ledger_store import VERIFY as _VERIFY
from onbehalf.doors.ledger_store import LedgerStore, View, store_of
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, SinkUnavailable
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.leaf import Leaf, open_payload, read
from onbehalf.explain.seal import LedgerKeys
from onbehalf.explain.views import View as Said
from onbehalf.explain.views import view
from onbehalf.explain.views_batch import Batch
from onbehalf.model import Json

__all__ = ["Cursor", "Source", "opened_facts"]

_ROW = "SELECT idx, entry, (SELECT sealed FROM payload p WHERE p.idx = leaf.idx) FROM leaf"
_MAX_CURSOR_BYTES = 4096


class _Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    log: str
    next: int
    root: str


class Cursor:
    """How far one sink has come, in a file that is replaced whole. One process at a time holds it."""

    def __init__(self, path: Path, *, log: str) -> None:
        """Raises SinkUnavailable where another process sends to this sink, ConfigInvalid for a file that is none."""
        self._path, self._log = path, log
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SinkUnavailable(f"`{path.parent}` cannot hold a cursor: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.next, self.root = self._read()
        except BlockingIOError as error:
            os.close(self._lock)
            raise SinkUnavailable(
                f"another process sends to the sink `{path.stem}`", hint="one `onbehalf audit send` a sink"
            ) from error
        except BaseException:
            os.close(self._lock)
            raise

    @classmethod
    def look(cls, path: Path) -> int:
        """How far it has come, as the file says; 0 where there is none. Takes no lock."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(path.read_bytes()[:_MAX_CURSOR_BYTES], type=_Place).next
        return 0

    def _read(self) -> tuple[int, bytes]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return 0, tree.EMPTY_ROOT
        except OSError as error:
            raise SinkUnavailable(f"the cursor `{self._path}` cannot be read: {error.strerror}") from error
        try:
            place = msgspec.json.decode(data[: _MAX_CURSOR_BYTES + 1], type=_Place)
            root = bytes.fromhex(place.root)
        except (msgspec.DecodeError, ValueError) as error:
            raise ConfigInvalid(
                f"`{self._path}` is no cursor: {error}", hint="remove it, and everything is sent again"
            ) from error
        if place.log != self._log or place.next < 0:
            raise ConfigInvalid(
                f"`{self._path}` is the cursor of the log `{place.log}`, this one is `{self._log}`",
                hint="give the sink another name; it begins anew then",
            )
        return place.next, root

    def move(self, next_: int, root: bytes) -> None:
        """Say durably that all before `next_` was delivered. If we stop before, it is delivered again."""
        data = msgspec.json.encode(_Place(log=self._log, next=next_, root=root.hex()))
        beside = self._path.with_suffix(".new")
        try:
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise SinkUnavailable(f"the cursor `{self._path}` cannot be written: {error.strerror}") from error
        self.next, self.root = next_, root

    def close(self) -> None:
        os.close(self._lock)


class Source:
    """Batches of one ledger for one sink."""

    def __init__(self, source: Path | LedgerStore, *, keys: LedgerKeys, payload: bool, cursor: Cursor) -> None:
        """Checks that what was sent before is still what stands there. Raises LedgerCorrupt, LedgerUnavailable."""
        self._store, self._keys, self._payload, self.cursor = store_of(source), keys, payload, cursor
        self._verifier = keys.signer.verifier
        with self._store.reading() as log:
            rows = log.walk("SELECT hash FROM leaf WHERE idx < ? ORDER BY idx", (cursor.next,))
            self._frontier = tree.Frontier(row[0] for row in rows)
        if self._frontier.size != cursor.next or self._frontier.root() != cursor.root:
            raise LedgerCorrupt(f"the {cursor.next} records that were sent are not those that stand here", hint=_VERIFY)
        self._frontier_after = self._frontier
        self._checked = 0

    def batch(self, most: int) -> Batch | None:
        """The next records under a signed head, at most `most`; None where there are none.

        Raises LedgerCorrupt where they are not what was signed for, LedgerUnavailable where they cannot be read now.
        """
        first = self.cursor.next
        with self._store.reading() as log:
            note = log.execute("SELECT note FROM head").fetchone()
            head = checkpoint.read(note[0] if note else "", self._verifier, origin=self._verifier.name)
            if head.size < first:
                raise LedgerCorrupt(
                    f"{first} records were sent, and the record now ends at {head.size}: it is an older copy",
                    hint=_VERIFY,
                )
            end = min(first + most, head.size)
            rows = log.execute(f"{_ROW} WHERE idx >= ? AND idx < ? ORDER BY idx", (first, end)).fetchall()
            if [row[0] for row in rows] != [*range(first, end)]:
                raise LedgerCorrupt(f"records between {first} and {end} are missing", hint=_VERIFY)
            after = deepcopy(self._frontier)
            for _, entry, _ in rows:
                after.append(tree.leaf_hash(entry))
            self._under_head(log, after, head)
            intents: dict[int, dict[str, Json] | None] = {}
            views = tuple(self._view(log, intents, *row) for row in rows)
        self._frontier_after = after
        if not views:
            return None
        return Batch(log=head.origin, first=first, end=end, checkpoint=note[0], views=views)

    def delivered(self, batch: Batch) -> None:
        """Move the cursor behind a batch that was delivered."""
        self.cursor.move(batch.end, self._frontier_after.root())
        self._frontier = self._frontier_after

    def _under_head(self, log: View, after: tree.Frontier, head: checkpoint.Checkpoint) -> None:
        """See that the records so far are those the head was signed over, before any of them is sent."""
        if self._checked >= after.size and after.size != head.size:
            return  # a head that covers these was seen to hold when the first of them was read
        rest = deepcopy(after)
        for (entry,) in log.walk("SELECT entry FROM leaf WHERE idx >= ? ORDER BY idx", (after.size,)):
            rest.append(tree.leaf_hash(entry))
        if rest.size != head.size or rest.root() != head.root:
            raise LedgerCorrupt("the records are not those that the head was signed over", hint=_VERIFY)
        self._checked = head.size

    def _view(
        self, log: View, intents: dict[int, dict[str, Json] | None], index: int, entry: bytes,
        sealed: bytes | None,
    ) -> Said:  # fmt: skip
        """One view. `intents` are the facts of this batch's, opened already: most outcomes follow closely."""
        leaf = read(entry)
        facts = opened_facts(self._keys, index, entry, sealed)
        if leaf.kind == "intent":
            intents[index] = facts
        elif 0 <= leaf.of < index and leaf.of not in intents:
            of = log.execute(f"{_ROW} WHERE idx = ?", (leaf.of,)).fetchone()
            intents[leaf.of] = opened_facts(self._keys, *of) if of is not None else None
        intent = intents.get(leaf.of)
        return view(leaf, facts, log=self._verifier.name, index=index, payload=self._payload, intent=intent)


def opened_facts(keys: LedgerKeys, index: int, entry: bytes, sealed: bytes | None) -> dict[str, Json] | None:
    """The facts of one record, checked against its leaf; None where they are erased. Raises LedgerCorrupt."""
    if sealed is None:
        return None
    leaf: Leaf = read(entry)
    try:
        payload = keys.sealer.open(sealed, index=index, leaf=tree.leaf_hash(entry))
        return open_payload(leaf, payload) if payload is not None else None
    except LedgerCorrupt as error:
        raise LedgerCorrupt(f"record {index} is damaged: {error.message}", hint=_VERIFY) from error
