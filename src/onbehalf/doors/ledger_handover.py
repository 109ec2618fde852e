"""Changes the log's own keys: a leaf that names old and new, a head over it signed by both, then the new ones alone.

For a record that nobody else writes. In this order, each step synced: 1 the new keys, beside the old ones; 2 leaf,
head and what both signed, as one commit; 3 `log.pub`; 4 the second key; 5 `log.key`. If we stop before 2, the old keys
are in force, and the next change takes the new ones that are there. If we stop later, `finish` does the rest, in each
folder that has the new keys beside the old ones. Once 5 is done the old keys are nowhere in that folder. Must not know
what a key is, or where the record is (ledger_handover_sqlite.py, ledger_postgres_handover.py).

Trust: as the record's. Who has the old `log.key` can still sign heads that are smaller than the change, and a
history of its own from there: what finds that out is in docs/witnesses.md.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from onbehalf.doors.ledger_file import row, signed
from onbehalf.doors.ledger_keys import make_next_keys, next_keys, read_ledger_keys, take_next_keys
from onbehalf.doors.ledger_reader import Scan
from onbehalf.doors.ledger_waiting import spelled_entry
from onbehalf.errors import ConfigInvalid
from onbehalf.explain import handover
from onbehalf.explain.handover import Handover
from onbehalf.explain.leaf import opened_facts, read
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import UnixTime

__all__ = ["Change", "Changeable", "Held", "Seen", "finish", "hand_over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """All that one commit puts on record: the last leaf, the new head over it, what both keys signed."""

    told: Handover
    hash: bytes
    sealed: bytes = field(repr=False)
    root: bytes
    note: str

    @property
    def leaf(self) -> bytes:
        return self.told.leaf.encode()


class Seen(Protocol):
    """A record, looked at while nobody else puts keys into this folder."""

    def handovers(self) -> tuple[Handover, ...]:
        """The changes that are on record, oldest first. Raises LedgerUnavailable, LedgerCorrupt."""
        ...

    def settle(self) -> None:
        """See that they are durable, and end what was begun. Raises LedgerUnavailable."""
        ...


class Held(Seen, Protocol):
    """A record that nobody else writes."""

    def checked(self, keys: LedgerKeys) -> Scan:
        """All leaves, read once, under a head by these keys. Raises LedgerCorrupt, ConfigInvalid."""
        ...

    def commit(self, change: Change) -> None:
        """Put it on record, durably, or raise. Raises LedgerUnavailable, LedgerCorrupt."""
        ...


class Changeable(Protocol):
    """A record whose keys can be changed."""

    def alone(self) -> AbstractContextManager[Held]:
        """Nobody else writes it meanwhile. Raises LedgerUnavailable where somebody does, ConfigInvalid."""
        ...

    def seen(self) -> AbstractContextManager[Seen]:
        """Raises LedgerUnavailable, LedgerCorrupt."""
        ...


def hand_over(
    record: Changeable, keys: Path, *, origin: str, by: str, at: UnixTime,
    failpoint: Callable[[str], None] = lambda _: None,
) -> Handover:  # fmt: skip
    """Change the keys of a record, which are in the folder `keys`. `by` is a user of this machine.

    A change that was broken off after its commit is finished, and no other made. `failpoint` is called with the name of
    each step, for tests that stop there. Raises LedgerUnavailable where a gateway writes the record, ConfigInvalid,
    LedgerCorrupt.
    """
    with record.alone() as held:
        broken_off = _finished(held, keys, origin=origin)
        if broken_off is not None:
            return broken_off
        before = read_ledger_keys(keys, origin=origin)
        scanned = held.checked(before)
        after = make_next_keys(keys, origin=origin)
        _require_new(after, held.handovers())
        failpoint("made")
        change = _change(scanned, (before, after), by=by, at=at)
        held.commit(change)
        failpoint("committed")
        take_next_keys(keys, before=before.vkeys, after=after.vkeys, failpoint=failpoint)
    return change.told


def finish(record: Changeable, keys: Path, *, origin: str) -> Handover | None:
    """Take the new keys in the folder `keys` where the record was handed over to them; None where it was not.

    Raises LedgerUnavailable where another process is at it, ConfigInvalid, LedgerCorrupt.
    """
    if next_keys(keys, origin=origin) is None:
        return None
    with record.seen() as seen:
        return _finished(seen, keys, origin=origin)


def _finished(record: Seen, keys: Path, *, origin: str) -> Handover | None:
    after = next_keys(keys, origin=origin)
    done = record.handovers() if after is not None else ()
    if after is None or not done:
        return None
    before, named = handover.keys_named(done[-1])
    if named[0] != after.vkeys[0]:
        return None
    _require_second(keys, after, named, origin=origin)
    record.settle()  # INVARIANT: no old key is given up for a change that may yet be lost
    take_next_keys(keys, before=before, after=named)
    return done[-1]


def _require_second(folder: Path, after: LedgerKeys, named: tuple[str, ...], *, origin: str) -> None:
    """The second key is there too, or was put in place already: it may be that not all files were copied here."""
    second = after.vkeys[1:] or read_ledger_keys(folder, origin=origin).vkeys[1:]
    if second and named[1:] and second != named[1:]:
        raise ConfigInvalid(
            f"the new second key of the log is not in `{folder}`",
            hint="copy `log-ml-dsa.key.next` from where `log.key.next` comes from",
        )


def _require_new(after: LedgerKeys, changes: tuple[Handover, ...]) -> None:
    """A folder may have kept keys that were made for a change which was then made elsewhere."""
    if any(after.vkeys[0] in named for each in changes for named in handover.keys_named(each)):
        raise ConfigInvalid(
            "`log.key.next` is a key that this log had before", hint="delete the `*.next` files, and try again"
        )


def _change(scanned: Scan, keys: tuple[LedgerKeys, LedgerKeys], *, by: str, at: UnixTime) -> Change:
    before, after = keys
    frontier = scanned.frontier
    index, path = frontier.size, [*frontier.peaks().values()][::-1]
    entry = spelled_entry(handover.entry(before, after, by=by, at=at))
    made, hash_, sealed = row(entry, before, index=index)
    frontier.append(hash_)
    head, note = signed(frontier, after)
    json, salt = opened_facts(read(made.leaf), made.payload)[handover.FACT]
    told = Handover(
        index=index, json=json, leaf=made.leaf.decode(), note=handover.signed_by_both(head, before, after, at=at),
        path=tuple(each.hex() for each in path), salt=salt,
    )  # fmt: skip
    return Change(told=told, hash=hash_, sealed=sealed, root=head.root, note=note)
