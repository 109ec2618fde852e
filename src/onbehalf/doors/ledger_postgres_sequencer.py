"""One replica's part in the shared log: its tree over all leaves, and one transaction at a time that appends to it.

Each transaction locks the head, takes over what other replicas appended, checks that it is under a head that the log's
key signed, appends its own, signs and commits. A commit whose answer was lost is looked for under the next lock: it is
there as a whole, or it never will be. Must not know who waits for an entry (ledger_postgres.py).

Trust: the lock on the head only orders replicas. That none writes over another is kept by the primary key of leaves,
and by functions of the database that append at the head's own size and epoch or do nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from onbehalf.doors.ledger_postgres_session import Head, KeyGone, Lost, Session
from onbehalf.doors.ledger_reader import OpenIntent, Scan
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import checkpoint, entries, tree
from onbehalf.explain.channel import Numbers
from onbehalf.explain.leaf import Spelled, make, read, spell
from onbehalf.explain.seal import NONCE_BYTES, LedgerKeys
from onbehalf.model import UnixTime

__all__ = ["Entry", "Sequencer"]

_SEALINGS = 3
_REKEYED = "if the log's keys were changed, this gateway needs the new ones: docs/replicas.md"
_VERIFY = "keep the database as it is; `onbehalf audit verify` lists what does not hold"


@dataclass(slots=True, eq=False)
class Entry:
    """An entry on its way into the log. Its id and salt are its own from the start; its leaf is made anew at each try,
    for it may have a number. `index` is -1 until it is on record."""

    spelled: Spelled
    fresh: bytes = field(default_factory=lambda: os.urandom(32 + 16), repr=False)
    hash: bytes = b""
    place: tuple[str, int] = ("", 0)
    index: int = -1


class Sequencer:
    """Used by one thread, but for `sendings`. `connect` gives a new session; `scanned` is the log as it was checked."""

    def __init__(
        self, connect: Callable[[], Session], scanned: Scan, *, keys: LedgerKeys, failpoint: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._connect = connect
        self._frontier = scanned.frontier
        self._last = scanned.numbers
        """The last number of each channel in the leaves of `frontier`; replaced as a whole, never changed."""
        self.keys = keys
        self._failpoint = failpoint
        self._session: Session | None = None
        self._earlier: tuple[int, Any] | None = None
        self._doubt: list[bytes] = []
        """Leaf hashes that were sent to be committed at the end of `frontier`, without an answer so far."""
        self._found = -1
        """Where a batch was found on record whose answer was lost."""
        self._open: dict[int, None] = {}
        """This replica's intents without outcome, in order."""
        self.me = 0
        self.head = ""
        """The newest head that this replica saw committed, "" before its first."""

    def join(self, name: str) -> int:
        """Become a new replica; its number. Raises Lost, Fenced."""
        session = self._connect()
        self._session = session
        self.me = session.join(name)
        if not session.hold(self.me):
            raise Lost("another session has this replica's number")
        return self.me

    def drop(self) -> None:
        """Give up the connection; the next step makes a new one."""
        if self._session is not None:
            self._earlier = self._session.backend
            self._session.close()
            self._session = None

    def write(self, batch: Sequence[Entry]) -> None:
        """Put a batch on record, as one transaction. Raises Lost, after which the same batch must be tried again, or
        Fenced or LedgerCorrupt, after which nothing may be.

        Where a person's keys were destroyed since they were looked for, what is about them is sealed with a new one.
        """
        for _ in range(_SEALINGS):
            with _keys_told():
                self.keys.sealer.ready(each.spelled.about for each in batch)
            self._failpoint("ready")
            try:
                return self._write(batch)
            except KeyGone:
                self._doubt = []
                if self._session is not None:
                    self._session.leave()
                self.keys.sealer.forget()
        raise Lost("keys of people are destroyed as soon as they are made")

    def _write(self, batch: Sequence[Entry]) -> None:
        session, head, unseen = self._locked()
        self._failpoint("locked")
        if self._doubt and [each.hash for each in unseen[: len(self._doubt)]] == self._doubt:
            self._found = self._frontier.size
        self._doubt = []
        self._take_over(head, unseen)
        if self._found >= 0:
            # its server may have stopped waiting for a standby: what is committed now is durable together with it
            session.settle(self.me)
            first, self._found = self._found, -1
            self.head = head.note
        else:
            first = head.size
            self._enter(session, head, batch, epoch=head.epoch)
            self._doubt = []
        self._failpoint("committed")
        self._number(batch, first)

    def sendings(self, audience: str) -> int:
        """How many intents to send to an upstream have a number in what this replica has seen of the log."""
        return Numbers(self.keys.signer.name, self._last).last(audience)

    def look(self) -> tuple[int, ...]:
        """Replicas that seem to be gone; and see that one's own session stands. Raises Lost, Fenced."""
        return self._ready().absent(self.me)

    def recover(self, other: int, *, at: Callable[[], UnixTime]) -> tuple[OpenIntent, ...]:
        """Fence a replica whose session has ended, and put its open intents on record as unknown, as one transaction.

        If we stop before, or it fails, nothing has happened. Raises Present, Lost, Fenced, LedgerCorrupt.
        """
        session, head, unseen = self._locked()
        self._take_over(head, unseen)
        low = session.fence(self.me, other)
        if low is None:  # it was done before
            session.leave()
            return ()
        found = _open_of(session.leaves_of(other, low))
        batch = _unknown(found, at)
        try:
            if batch:
                self._enter(session, head, batch, epoch=head.epoch + 1)
            else:
                session.settle(self.me)
        finally:
            self._doubt = []  # nobody waits for these: whether they are there is seen when they are taken over
        return found

    def leave(self, *, at: Callable[[], UnixTime]) -> None:
        """End this replica: what it has open goes on record as unknown, and nobody need look for it.

        If we stop before, the others find it gone. Raises Lost, Fenced, LedgerCorrupt.
        """
        session, head, unseen = self._locked()
        self._take_over(head, unseen)
        found = _open_of(session.leaves_of(self.me, self._low((), head.size)))
        session.leave()
        if found:
            self.write(_unknown(found, at))
        session, _, _ = self._locked()
        session.fence(self.me, self.me)
        session.settle(self.me)

    def _ready(self) -> Session:
        """A session that shows that this replica is there."""
        if self._session is None:
            try:
                session = self._connect()
            except ConfigInvalid as error:  # it was good at the start, so it may become good again
                raise Lost(error.message) from error
            self._session = session
            if self._earlier is not None:
                session.end_earlier(self._earlier)
            if not session.hold(self.me):
                raise Lost("the server still holds an earlier session of this replica")
            self._earlier = None
        return self._session

    def _locked(self) -> tuple[Session, Head, list[_Seen]]:
        """The head, locked, and what there is to know of all leaves after those of the tree."""
        session, unseen = self._ready(), list[_Seen]()
        while True:
            head = session.lock(self.me, self._frontier.size + len(unseen))
            unseen += map(_seen, head.leaves)
            if not head.leaves or self._frontier.size + len(unseen) >= head.size:
                return session, head, unseen
            session.leave()  # they are many: others need not wait until all are read

    def _take_over(self, head: Head, unseen: Sequence[_Seen]) -> None:
        """See that the log has only grown since, and that all of it was signed for. Raises LedgerCorrupt."""
        size = self._frontier.size
        if head.size < size:
            raise LedgerCorrupt(f"the log has {head.size} leaves, and had {size}: it was put back", hint=_VERIFY)
        after, last = self._frontier, self._last
        if unseen:
            signed = _read(head.note, self.keys)
            if (signed.size, signed.root) != (head.size, head.root):
                raise LedgerCorrupt("the head's columns say another size or root than its signed note", hint=_VERIFY)
            after, last = deepcopy(after), dict(last)
            for each in unseen:
                after.append(each.hash)
                if each.channel:
                    if each.number != last.get(each.channel, 0) + 1:
                        raise LedgerCorrupt(f"number {each.number} of a channel is out of its turn", hint=_VERIFY)
                    last[each.channel] = each.number
        if after.size != head.size or after.root() != head.root:
            raise LedgerCorrupt(f"the leaves from {size} on are not those that were signed for", hint=_VERIFY)
        self._frontier, self._last = after, last

    def _enter(self, session: Session, head: Head, batch: Sequence[Entry], *, epoch: int) -> None:
        # INVARIANT: numbers of channels, like indices, are given under the lock on the head: dense over all replicas
        frontier, last = deepcopy(self._frontier), dict(self._last)
        numbers = Numbers(self.keys.signer.name, last)
        leaves: list[bytes] = []
        sealed: list[bytes] = []
        for index, each in enumerate(batch, start=head.size):
            each.place = numbers.next(each.spelled.audience)
            numbers.gave(*each.place)
            made = make(each.spelled, id_=each.fresh[32:].hex(), salt=each.fresh[:32], place=each.place)
            each.hash = tree.leaf_hash(made.leaf)
            frontier.append(each.hash)
            leaves.append(made.leaf)
            sealed.append(self._sealed(each, made.payload, index))
        with _keys_told():
            self.keys.sealer.settle()  # INVARIANT: no payload is on record before the key that opens it
        root = frontier.root()
        signed = checkpoint.Checkpoint(origin=self.keys.signer.name, size=frontier.size, root=root)
        note = checkpoint.write(signed, self.keys.signer)
        self._failpoint("signed")
        self._doubt = [each.hash for each in batch]
        session.enter(self.me, (epoch, head.size), (leaves, sealed), (root, note), self._low(batch, head.size))
        self._frontier, self._last, self.head = frontier, last, note

    def _sealed(self, entry: Entry, payload: bytes, index: int) -> bytes:
        about, nonce = entry.spelled.about, os.urandom(NONCE_BYTES)
        with _keys_told():
            return self.keys.sealer.seal(payload, about=about, nonce=nonce, index=index, leaf=entry.hash)

    def _low(self, batch: Sequence[Entry], first: int) -> int:
        """From which index on this replica may have open intents, once the batch is on record."""
        ended = {each.spelled.of for each in batch}
        still = next((index for index in self._open if index not in ended), None)
        return first if still is None else still

    def _number(self, batch: Iterable[Entry], first: int) -> None:
        for index, each in enumerate(batch, start=first):
            each.index = index
            if each.spelled.kind == "intent":
                self._open[index] = None
            elif each.spelled.of >= 0:
                self._open.pop(each.spelled.of, None)


def _read(note: str, keys: LedgerKeys) -> checkpoint.Checkpoint:
    """What the head says. This replica's key is the one it began with, which may be a former one by now."""
    try:
        return checkpoint.read(note, keys.signer.verifier, origin=keys.signer.name)
    except LedgerCorrupt as error:
        said = f"the head is not signed by the `log.key` that this replica has ({error.message})"
        raise LedgerCorrupt(said, hint=_REKEYED) from error


@contextlib.contextmanager
def _keys_told() -> Iterator[None]:
    """Without somebody's key nothing is written until it can be had, or the store is mended."""
    try:
        yield
    except (LedgerUnavailable, LedgerCorrupt) as error:
        raise Lost(error.message) from error


@dataclass(frozen=True, slots=True)
class _Seen:
    """A leaf that another replica appended, or one's own whose answer was lost."""

    hash: bytes
    channel: str
    number: int


def _seen(entry: bytes) -> _Seen:
    leaf = read(entry)
    return _Seen(tree.leaf_hash(entry), leaf.ch, leaf.n)


def _open_of(leaves: Iterable[tuple[int, bytes]]) -> tuple[OpenIntent, ...]:
    """The intents among one replica's leaves that have no outcome among them."""
    found: dict[int, OpenIntent] = {}
    for index, entry in leaves:
        leaf = read(entry)
        found.pop(leaf.of, None)
        if leaf.kind == "intent":
            hash_ = tree.leaf_hash(entry)
            found[index] = OpenIntent(index=index, leaf=hash_, call=leaf.call, at=UnixTime(leaf.at))
    return tuple(found.values())


def _unknown(found: Sequence[OpenIntent], at: Callable[[], UnixTime]) -> list[Entry]:
    now = at() if found else UnixTime(0)
    told = [entries.unknown(each.call, at=now, index=each.index, leaf=each.leaf) for each in found]
    return [Entry(spelled=spell(entry)) for entry in told]
