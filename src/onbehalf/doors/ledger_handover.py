"""Changes the log's own keys: a leaf that names old and new, a head over it signed by both, then the new ones alone.

For a ledger that nobody else writes. In this order, each step synced: 1 the new keys, beside the old ones; 2 leaf,
head and what both signed, as one commit; 3 `log.pub`; 4 the second key; 5 `log.key`. If we stop before 2, the old keys
are in force, and the next change takes the new ones that are there. If we stop later, `finish` does the rest. Once 5
is done the old keys are nowhere. Must not know what a key is.

Trust: as ledger_sqlite.py. Who has the old `log.key` can still sign heads that are smaller than the change, and a
history of its own from there: what finds that out is in docs/witnesses.md.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from onbehalf.doors.ledger_file import checked, connect, lock_file, row, signed
from onbehalf.doors.ledger_followed import TABLE, handovers
from onbehalf.doors.ledger_keys import make_next_keys, next_keys, read_ledger_keys, take_next_keys
from onbehalf.doors.ledger_reader import Scan
from onbehalf.doors.ledger_settled import settle
from onbehalf.doors.ledger_store import SqliteView
from onbehalf.doors.ledger_waiting import spelled_entry
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import handover
from onbehalf.explain.handover import Handover
from onbehalf.explain.leaf import Made, opened_facts, read
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import UnixTime

__all__ = ["finish", "hand_over"]


def hand_over(
    ledger: Path, keys: Path, *, origin: str, by: str, at: UnixTime, failpoint: Callable[[str], None] = lambda _: None
) -> Handover:
    """Change the keys of the log at `ledger`, whose keys are in the folder `keys`. `by` is a user of this machine.

    A change that was broken off after its commit is finished, and no other made. `failpoint` is called with the name of
    each step, for tests that stop there. Raises LedgerUnavailable where a gateway writes the ledger, ConfigInvalid,
    LedgerCorrupt.
    """
    with _alone(ledger):
        broken_off = _finished(ledger, keys, origin=origin)
        if broken_off is not None:
            return broken_off
        before = read_ledger_keys(keys, origin=origin)
        after = make_next_keys(keys, origin=origin)
        failpoint("made")
        with closing(connect(ledger, before)) as connection:
            made = _commit(connection, checked(connection, before), (before, after), by=by, at=at)
        failpoint("committed")
        take_next_keys(keys, before=before.vkeys, after=after.vkeys, failpoint=failpoint)
    return made


def finish(ledger: Path, keys: Path, *, origin: str) -> Handover | None:
    """Finish a change that was broken off after its commit; None where there is none.

    Raises LedgerUnavailable where another process writes the ledger, ConfigInvalid, LedgerCorrupt.
    """
    if next_keys(keys, origin=origin) is None or not ledger.exists():
        return None
    with _alone(ledger):
        return _finished(ledger, keys, origin=origin)


def _finished(ledger: Path, keys: Path, *, origin: str) -> Handover | None:
    after = next_keys(keys, origin=origin)
    if after is None:
        return None
    with closing(connect(ledger, after)) as connection:
        done = handovers(SqliteView(connection))
    if not done:
        return None
    before, named = handover.keys_named(done[-1])
    if named[0] != after.vkeys[0]:
        return None
    take_next_keys(keys, before=before, after=named)
    return done[-1]


@contextmanager
def _alone(ledger: Path) -> Iterator[None]:
    """Nobody else writes the ledger meanwhile, and all that it says is on disk."""
    if not ledger.exists():
        raise ConfigInvalid(
            f"there is no record at `{ledger}` yet", hint="its key is made with it, by `onbehalf serve`"
        )
    try:
        lock = lock_file(ledger)
    except OSError as error:
        raise LedgerUnavailable(f"`{ledger}` cannot be locked: {error.strerror}") from error
    try:
        settle(ledger)
        yield
    except (sqlite3.DatabaseError, OSError) as error:
        raise LedgerCorrupt(f"the ledger at `{ledger}` cannot be written: {error}") from error
    finally:
        os.close(lock)


def _commit(
    connection: sqlite3.Connection, scanned: Scan, keys: tuple[LedgerKeys, LedgerKeys], *, by: str, at: UnixTime
) -> Handover:
    before, after = keys
    frontier = scanned.frontier
    index, path = frontier.size, [*frontier.peaks().values()][::-1]
    entry = spelled_entry(handover.entry(before, after, by=by, at=at))
    made, hash_, sealed = row(entry, before, index=index)
    frontier.append(hash_)
    head, note = signed(frontier, after)
    both = handover.signed_by_both(head, before, after, at=at)
    told = _told(made, index=index, path=path, note=both)
    before.sealer.settle()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(TABLE)
    connection.execute(
        "INSERT INTO entering VALUES (?,?,?,?,?,?)", (index, hash_, made.leaf, sealed, head.root, note)
    )  # fmt: skip
    connection.execute("INSERT INTO handover VALUES (?, ?)", (index, told.line().rstrip("\n")))
    connection.execute("COMMIT")
    return told


def _told(made: Made, *, index: int, path: list[bytes], note: str) -> Handover:
    json, salt = opened_facts(read(made.leaf), made.payload)[handover.FACT]
    return Handover(
        index=index, json=json, leaf=made.leaf.decode(), note=note, path=tuple(each.hex() for each in path), salt=salt
    )
