"""The ledger in one SQLite file, for writing: one thread, group commit, closed for good after any error.

An entry is spelled where it is handed in, so that later changes of its facts cannot matter. It becomes leaf and sealed
payload there too, or, where nobody waits for it, a moment later: an answer need not wait for its outcome's leaf. The
writer drains the queue, extends the tree, and commits leaves, payloads and the new signed head as one statement (WAL,
`synchronous=FULL`); only then are callers woken, once a batch. Reading is ledger_reader.py's, which this door
uses for the start-up check.

Trust: whoever can write this file and `log.key` can write another history; without the key they can destroy the log,
but not change it unseen. A commit that failed may still be on disk: it shows as `unknown` after the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from queue import SimpleQueue

from onbehalf.doors.ledger_file import RESTORE, checked, connect, lock_file, row, signed
from onbehalf.doors.ledger_reader import LedgerReader, OpenIntent, Scan
from onbehalf.doors.ledger_settled import settle
from onbehalf.doors.ledger_waiting import RIDE_SECONDS, Waiter, spelled_entry, wake
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import entries
from onbehalf.explain.channel import Numbers
from onbehalf.explain.leaf import Spelled
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import AuditEntry, Receipt, UnixTime
from onbehalf.model_value import Value

__all__ = ["LedgerReader", "SqliteLedger"]

_QUEUE = 4096
_BATCH = 1024
_GATHER_SECONDS = 0.002
"""How long the writer waits for more where several callers wait: each commit costs as much for one entry as for ten."""


class _Item(Value, frozen=True):
    index: int
    hash: bytes
    entry: bytes
    sealed: bytes
    waiter: Waiter | None
    place: tuple[str, int] = ("", 0)


def _pass(_: str) -> None:
    return None


class SqliteLedger:
    """The Ledger port on one file. Made by `open`, used from any number of event loops, ended by `close`."""

    def __init__(
        self, connection: sqlite3.Connection, scanned: Scan, *, keys: LedgerKeys, lock: int,
        failpoint: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Only for `open`, which has checked the log that was `scanned`."""
        self._connection = connection
        self._frontier = scanned.frontier
        self._next = scanned.frontier.size
        self._numbers = Numbers(keys.signer.name, scanned.numbers)
        self._keys = keys
        self._lock_handle = lock
        self._failpoint = failpoint
        self._gate = threading.Lock()
        self._waiting: list[_Item] = []
        self._following: list[Spelled] = []
        self._called = False
        self._calls: SimpleQueue[bool] = SimpleQueue()
        """What the writer sleeps on: True for a batch to write, False to end after it."""
        self._riding = False
        self._crowded = False
        """Whether several callers waited for the last batch."""
        self._closed = ""
        self.head = ""
        """The newest signed head, "" before the first commit."""
        self.keyed = -1
        """The leaf that said last, when this was opened, which keys are in force; -1 for none."""
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self.recovered: tuple[OpenIntent, ...] = ()
        """The intents found without outcome at start-up, now on record as `unknown`."""

    @classmethod
    def open(
        cls, path: Path, *, keys: LedgerKeys, origin: str, now: Callable[[], UnixTime],
        failpoint: Callable[[str], None] = _pass,
    ) -> SqliteLedger:  # fmt: skip
        """Check the whole log at `path`, put every open intent on record as `unknown`, and take entries.

        Makes the ledger where there is none. `now` is asked once, and only for those records. `failpoint` is called
        with the name of each step of a commit, for tests that stop the process there.
        Raises LedgerCorrupt saying where, LedgerUnavailable where another process writes it.
        """
        if origin != keys.signer.name:
            raise LedgerUnavailable(f"the log's key is for `{keys.signer.name}`, this log is `{origin}`")
        try:
            lock = lock_file(path)
        except OSError as error:
            raise LedgerUnavailable(f"the ledger at `{path}` cannot be made: {error.strerror}") from error
        connection: sqlite3.Connection | None = None
        try:
            settle(path)
            connection = connect(path, keys)
            scanned = checked(connection, keys)
            ledger = cls(connection, scanned, keys=keys, lock=lock, failpoint=failpoint)
            ledger.keyed = scanned.keyed
            ledger._recover(scanned.open.values(), now)
        except BaseException as error:
            if connection is not None:
                connection.close()
            os.close(lock)
            if isinstance(error, sqlite3.DatabaseError | OSError | UnicodeDecodeError):
                raise LedgerCorrupt(f"the ledger at `{path}` cannot be read: {error}", hint=RESTORE) from error
            raise
        ledger._thread.start()
        return ledger

    @property
    def keys(self) -> LedgerKeys:
        """What it signs and seals with."""
        return self._keys

    @property
    def taken(self) -> int:
        """How many entries there are, those included that are not durable yet."""
        with self._gate:
            return self._next + len(self._following)

    @property
    def closed(self) -> str:
        """Why no entry is taken any more; "" while they are."""
        return self._closed

    @property
    def unready(self) -> str:
        """Why an entry would be refused now."""
        return self._closed

    def sendings(self, audience: str) -> int:
        """How many intents to send to an upstream were ever given a number."""
        with self._gate:
            return self._numbers.last(audience)

    async def append(self, entry: AuditEntry) -> Receipt:
        """Make the entry durable, then say where it is. A caller that is cancelled does not undo the entry.

        An intent whose caller is cancelled here was never acted on: it gets its outcome, `not_sent`, at once.
        """
        spelled = spelled_entry(entry)
        if self._crowded:  # let others come as far: leaves that are made one after the other find the caches warm
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Receipt] = loop.create_future()
        item = self._offer(spelled, (loop, future))
        try:
            return await future
        except asyncio.CancelledError:
            if entry.kind == "intent":
                # where this fails it stays open, and is `unknown` after the next start
                with contextlib.suppress(LedgerUnavailable):
                    told = entries.not_sent(
                        entry.call, at=entry.at, index=item.index, leaf=item.hash, about=entry.about
                    )
                    self._offer(spelled_entry(told), None)
            raise

    def follow(self, entry: AuditEntry) -> None:
        """Queue an entry for the next commit without waiting, and call for one soon if nobody else does.

        Its leaf is made once what the loop is at has ended: an answer need not wait for it.
        """
        spelled = spelled_entry(entry)
        with self._gate:
            self._require_room()
            self._following.append(spelled)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # not in a loop: there is no later
            self._followed()
            self._call()
            return
        loop.call_soon(self._followed)
        if not self._riding:
            loop.call_later(RIDE_SECONDS, self._ride_ends)
            self._riding = True

    def _followed(self, closing: str = "") -> None:
        """Make leaves of what follows. If we stop before, an outcome is `unknown` after the next start."""
        try:
            with self._gate:
                self._enter_following()
                self._closed = self._closed or closing
        except Exception as error:  # an entry that was taken and cannot be kept: nothing after it may be
            self._fail([], error)

    def _ride_ends(self) -> None:
        self._riding = False
        self._call()

    def _call(self) -> None:
        """Wake the writer, unless it is called already: each waking costs the caller as much as the writer."""
        with self._gate:
            if self._waiting and not self._called:
                self._called = True
                self._calls.put(True)

    def stop(self, last: AuditEntry, why: str) -> None:
        """Take no entry after `last` any more, and say why: what is queued is written, and nothing else ever."""
        with contextlib.suppress(LedgerUnavailable):
            self.follow(last)
        self._followed(closing=why)
        self._call()

    def close(self) -> None:
        """Commit what is queued, then close. Later entries are refused. Blocks until done."""
        self._followed(closing="the ledger is closed")
        self._calls.put(False)
        self._thread.join()

    def _offer(self, spelled: Spelled, waiter: Waiter | None) -> _Item:
        with self._gate:
            self._require_room()
            self._enter_following()
            item = self._enter(spelled, waiter)
            if waiter is not None and not self._called:
                self._called = True
                self._calls.put(True)
        return item

    def _require_room(self) -> None:
        if self._closed:
            raise LedgerUnavailable(self._closed, hint="restart the gateway; it checks the log first")
        if len(self._waiting) + len(self._following) >= _QUEUE:
            raise LedgerUnavailable(f"{_QUEUE} entries wait to be written", hint="the disk is too slow; try later")

    def _enter_following(self) -> None:
        while self._following:
            self._enter(self._following[0], None)
            del self._following[0]

    def _enter(self, spelled: Spelled, waiter: Waiter | None) -> _Item:
        # INVARIANT: indices, and numbers of channels, are given out in queue order, because the gate is held from
        # giving one to queueing it
        item = self._item(self._next, spelled, waiter)
        self._waiting.append(item)
        self._next += 1
        self._numbers.gave(*item.place)
        self._failpoint("queued")
        return item

    def _item(self, index: int, spelled: Spelled, waiter: Waiter | None) -> _Item:
        place = self._numbers.next(spelled.audience)
        made, hash_, sealed = row(spelled, self._keys, index=index, place=place)
        return _Item(index, hash_, made.leaf, sealed, waiter, place)

    def _recover(self, open_intents: Iterable[OpenIntent], now: Callable[[], UnixTime]) -> None:
        """One transaction of `unknown` records. If we stop here, the next start finds the same open intents."""
        self.recovered = tuple(open_intents)
        at = now() if self.recovered else UnixTime(0)
        items = []
        for index, each in enumerate(self.recovered, start=self._next):
            told = entries.unknown(each.call, at=at, index=each.index, leaf=each.leaf)
            items.append(self._item(index, spelled_entry(told), None))
        if items:
            self._commit(items)
            self._next += len(items)

    def _run(self) -> None:
        """The writer: one batch after another until told to stop or something fails."""
        _never_preempt()
        batch: list[_Item] = []
        try:
            running = True
            while running:
                running = self._calls.get()
                if running and self._crowded:
                    time.sleep(_GATHER_SECONDS)
                batch = self._drain()
                while batch:
                    self._commit(batch)
                    wake(batch)
                    self._crowded = sum(item.waiter is not None for item in batch) > 1
                    self._failpoint("woken")
                    batch = [] if running else self._drain()
        except BaseException as error:  # whatever ends the writer, nobody may wait for it, nor count as recorded
            self._fail(batch, error)
        finally:
            try:
                self._connection.close()
            finally:
                os.close(self._lock_handle)

    def _drain(self) -> list[_Item]:
        """What waits, up to a batch; for the rest the writer is called again."""
        with self._gate:
            batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            self._called = bool(self._waiting)
            if self._called:
                self._calls.put(True)
        return batch

    def _commit(self, batch: list[_Item]) -> None:
        """All of a batch and the head over it, as one statement: each statement gives up the interpreter and waits
        for it again, while calls are under way."""
        frontier = self._frontier
        for item in batch:
            frontier.append(item.hash)
        head, note = signed(frontier, self._keys)
        values: list[int | bytearray | str] = []
        for item in batch:
            values += (item.index, bytearray(item.hash), bytearray(item.entry), bytearray(item.sealed), "", "")
        values[-2:] = (bytearray(head.root), note)
        rows = _at_least(len(batch))
        values += ("",) * (6 * (rows - len(batch)))
        self._keys.sealer.settle()  # INVARIANT: no payload is on disk before the key that opens it
        self._failpoint("before_commit")
        self._connection.execute(_entering(rows), values)
        self.head = note
        self._failpoint("committed")

    def _fail(self, batch: list[_Item], error: BaseException) -> None:
        """Close for good and refuse everyone who waits: after a failed fsync nobody knows what the disk holds."""
        with self._gate:
            self._closed = f"the record could not be written ({error})"
            batch, self._waiting, self._following = [*batch, *self._waiting], [], []
        wake(batch, LedgerUnavailable(self._closed, hint="mend the disk, then restart the gateway; it checks the log"))


def _at_least(rows: int) -> int:
    """A power of two. A statement is kept with the values it had last, so there must be few of them."""
    return 1 << (rows - 1).bit_length()


@cache
def _entering(rows: int) -> str:
    """The statement for so many rows; those without an index are left out.

    What is not there is "", and bytes come as a bytearray: for each None and each bytes, sqlite3 looks for an adapter
    in vain, and raises and catches an exception for it.
    """
    places = ",".join(["(?,?,?,?,?,?)"] * rows)
    signed = "NULLIF(column5, ''), NULLIF(column6, '')"
    entered = f"SELECT column1, column2, column3, column4, {signed} FROM (VALUES {places})"  # noqa: S608  # question marks
    return f"INSERT INTO entering {entered} WHERE column1 <> ''"


def _never_preempt() -> None:
    """Where both share a core, a waking writer that takes it from the event loop would only wait for its lock."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
