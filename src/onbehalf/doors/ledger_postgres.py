"""The ledger in PostgreSQL, which several replicas write: the same leaves, tree and heads as in SQLite, one log.

Entries are spelled where they are handed in, and wait for this replica's writer, a thread that puts what waits on
record as one transaction (ledger_postgres_sequencer.py). An entry is answered once it is under a signed head that is
committed, and not before. While the database cannot be reached, callers are refused after a while, and what was taken
stays queued: an intent that comes on record after its caller was refused is followed by `not_sent`. Closed for good
only where the log is not what this replica signed, another replica took this one for gone, its keys were changed, or a
witness disowned it.

Trust: as ledger_postgres_schema.py. All replicas hold the same `log.key` and `payload.key`; each can sign any history.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from onbehalf.doors.ledger_followed import require_newest
from onbehalf.doors.ledger_postgres_replica import Replica
from onbehalf.doors.ledger_postgres_sequencer import Entry, Sequencer
from onbehalf.doors.ledger_postgres_session import Demands, Fenced, Lost, Present, open_session
from onbehalf.doors.ledger_postgres_store import PostgresStore
from onbehalf.doors.ledger_reader import OpenIntent, Scan, scan
from onbehalf.doors.ledger_waiting import RIDE_SECONDS, Waiter, require_whole, spelled_entry, wake
from onbehalf.errors import LedgerUnavailable, OnbehalfError
from onbehalf.explain import entries
from onbehalf.explain.leaf import Spelled
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import AuditEntry, Receipt, UnixTime

__all__ = ["Patience", "PostgresLedger"]

_log = logging.getLogger(__name__)
_QUEUE = 4096
_BATCH = 512
_BATCH_BYTES = 32 * 2**20
_RESTART = "restart the gateway; it checks the log first"
_VERIFY = "keep the database as it is, and see that this replica has the keys of the others: docs/replicas.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait, in seconds: for a record before its caller is refused, between two tries, between two looks at
    the other replicas, and for one whose session has ended before its open intents are said to be unknown."""

    record: float = 5.0
    again: float = 0.2
    look: float = 3.0
    gone: float = 15.0


@dataclass(slots=True, eq=False)
class _Item(Entry):
    waiter: Waiter | None = None
    done: bool = False
    given_up: bool = False
    last: bool = False
    """Nothing is written after it, by any replica that is there: the database sees to that."""


class PostgresLedger:
    """The Ledger port on one database. Made by `open`, used from any number of event loops, ended by `close`."""

    def __init__(
        self, sequencer: Sequencer, replica: Replica, *, now: Callable[[], UnixTime], patience: Patience,
        failpoint: Callable[[str], None],
    ) -> None:  # fmt: skip
        """Only for `open`, which has checked the log."""
        self._sequencer = sequencer
        self._replica = replica
        self._now = now
        self._patience = patience
        self._failpoint = failpoint
        self._gate = threading.Lock()
        self._waiting: list[_Item] = []
        self._called = False
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._riding = False
        self._closed = self._stopped = ""
        self._trouble = ("", 0.0)
        self._look_at = time.monotonic() + patience.look
        self._absent: dict[int, float] = {}
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self.keyed = -1
        """The leaf that said last, when this was opened, which keys are in force; -1 for none."""
        self.recovered: tuple[OpenIntent, ...] = ()
        """The intents that this replica's last run left open, now on record as `unknown`."""

    @classmethod
    def open(
        cls, demands: Demands, *, keys: LedgerKeys, replica: Path, now: Callable[[], UnixTime],
        patience: Patience = Patience(), failpoint: Callable[[str], None] = lambda _: None,
    ) -> PostgresLedger:  # fmt: skip
        """Check the whole log, join the replicas, put what an earlier run in the folder of `replica` left open on
        record as `unknown`, and take entries.

        Raises LedgerCorrupt saying where, ConfigInvalid where the server is not what a record needs, and
        LedgerUnavailable where it cannot be reached, or another process uses the file `replica`.
        """
        held = Replica.hold(replica, log=keys.signer.name)
        sequencer: Sequencer | None = None
        try:
            scanned = _checked(demands, keys)
            sequencer = Sequencer(lambda: open_session(demands), scanned, keys=keys, failpoint=failpoint)
            held.become(sequencer.join(held.name))
            ledger = cls(sequencer, held, now=now, patience=patience, failpoint=failpoint)
            ledger.keyed = scanned.keyed
            if held.earlier:
                ledger._recover_own(held.earlier)
        except BaseException as error:
            if sequencer is not None:
                sequencer.drop()
            held.close()
            if isinstance(error, Lost | Fenced):
                raise LedgerUnavailable(f"the ledger's database: {error}", hint="see that it can be reached") from error
            raise
        ledger._thread.start()
        return ledger

    @property
    def keys(self) -> LedgerKeys:
        """What it signs and seals with."""
        return self._sequencer.keys

    @property
    def head(self) -> str:
        """The newest signed head that this replica committed, "" before its first."""
        return self._sequencer.head

    @property
    def closed(self) -> str:
        """Why no entry is taken any more; "" while they are."""
        return self._closed

    @property
    def unready(self) -> str:
        """Why an entry would be refused now."""
        reason, since = self._trouble
        late = reason and time.monotonic() - since > self._patience.record
        return self._closed or (f"the record cannot be written now ({reason})" if late else "")

    def sendings(self, audience: str) -> int:
        """How many intents to send to an upstream were ever given a number, by any replica as far as is seen here."""
        return self._sequencer.sendings(audience)

    async def append(self, entry: AuditEntry, *, id_: bytes = b"") -> Receipt:
        """Put the entry on record, then say where it is. With an `id_` of 16 bytes it is there once, whoever tries.

        Whoever is cancelled, or refused because it takes too long, does not undo the entry. An intent of theirs was
        never acted on: once it is on record, so is its outcome `not_sent`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Receipt] = loop.create_future()
        item = self._offer(entry, (loop, future), id_=id_)
        timer = loop.call_later(self._patience.record, _refuse, future)
        try:
            return await future
        except BaseException:
            self._give_up(item)
            raise
        finally:
            timer.cancel()

    def follow(self, entry: AuditEntry) -> None:
        """Queue an entry for the next commit without waiting, and call for one soon if nobody else does."""
        self._offer(entry, None)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # not in a loop: there is no later
            self._call()
            return
        if not self._riding:
            loop.call_later(RIDE_SECONDS, self._ride_ends)
            self._riding = True

    def stop(self, last: AuditEntry, why: str) -> None:
        """Take no entry after `last` any more, and say why: what is queued is written, and nothing else ever.

        The leaf of `last` bars the other replicas too. It is tried for as long as this process lives.
        """
        item = _Item(spelled=_spelled(last), last=True)
        with self._gate:
            if self._closed:
                return
            self._closed = self._stopped = why
            self._waiting.append(item)
        self._call()

    def close(self) -> None:
        """Put what is queued on record, then leave the replicas. Later entries are refused. Blocks until done."""
        with self._gate:
            self._closed = self._closed or "the ledger is closed"
        self._calls.put(False)
        self._thread.join()

    def _ride_ends(self) -> None:
        self._riding = False
        self._call()

    def _call(self) -> None:
        """Wake the writer, unless it is called already."""
        with self._gate:
            if self._waiting and not self._called:
                self._called = True
                self._calls.put(True)

    def _offer(self, entry: AuditEntry, waiter: Waiter | None, *, id_: bytes = b"") -> _Item:
        item = _Item(spelled=_spelled(entry), waiter=waiter)
        item.fresh = item.fresh[:32] + (id_ or item.fresh[32:])
        unready = self.unready if waiter is not None else self._closed
        with self._gate:
            if unready or self._closed:
                raise LedgerUnavailable(self._closed or unready, hint=_RESTART if self._closed else _REACH)
            if len(self._waiting) >= _QUEUE:
                raise LedgerUnavailable(f"{_QUEUE} entries wait to be written", hint=_REACH)
            self._waiting.append(item)
            if waiter is not None and not self._called:
                self._called = True
                self._calls.put(True)
        self._failpoint("queued")
        return item

    def _give_up(self, item: _Item) -> None:
        with self._gate:
            item.given_up = True
            done = item.done
        if done:
            self._not_sent(item)

    def _not_sent(self, item: _Item) -> None:
        """Where this fails the intent stays open, and is `unknown` once this replica is gone."""
        if item.spelled.kind == "intent":
            told = entries.not_sent(
                item.spelled.call, at=item.spelled.at, index=item.index, leaf=item.hash, about=item.spelled.about
            )
            with self._gate:
                self._waiting.append(_Item(spelled=_spelled(told)))
            self._call()

    def _recover_own(self, earlier: int) -> None:
        """What this folder's last run left open: its process has ended, though the server may not know yet."""
        until = time.monotonic() + self._patience.record
        while True:
            try:
                self.recovered = self._sequencer.recover(earlier, at=self._now)
                return
            except (Lost, Present) as error:
                if isinstance(error, Lost):
                    self._sequencer.drop()
                if time.monotonic() > until:
                    _log.warning("replica %d, our last run, cannot be said to be gone yet: %s", earlier, error)
                    return
                time.sleep(self._patience.again)

    def _run(self) -> None:
        """The writer: one batch after another until told to stop, or nothing may be written any more."""
        batch: list[_Item] = []
        try:
            running = True
            while running:
                running, until = self._told(), time.monotonic() + self._patience.record
                batch = self._drain()
                while batch:
                    if self._written(batch):
                        self._answered(batch)
                        self._failpoint("woken")
                        if any(each.last for each in batch):
                            return
                        batch = self._drain()
                    elif running:
                        running, until = self._pause(), time.monotonic() + self._patience.record
                    elif time.monotonic() < until:
                        time.sleep(self._patience.again)
                    else:
                        raise Lost(self._trouble[0])
                    if not self._trouble[0]:  # else the batch may be on record unseen, and nothing may come between
                        self._look()
            self._sequencer.leave(at=self._now)
        except Exception as error:  # whatever it is, nothing after it may count as recorded
            self._fail(batch, error)
        finally:
            self._sequencer.drop()
            self._replica.close()

    def _told(self) -> bool:
        """Sleep until there is something to write, looking around meanwhile; False once told to end."""
        while True:
            with contextlib.suppress(Empty):
                return self._calls.get(timeout=self._patience.again if self._trouble[0] else self._patience.look)
            self._look()

    def _pause(self) -> bool:
        """Wait before the next try; False once told to end."""
        until = time.monotonic() + self._patience.again
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(Empty):
                if not self._calls.get(timeout=left):
                    return False
        return True

    def _written(self, batch: list[_Item]) -> bool:
        """One try. Raises Fenced, LedgerCorrupt."""
        try:
            self._sequencer.write(batch)
        except Lost as error:
            self._lost(error)
            return False
        self._trouble = ("", 0.0)
        return True

    def _lost(self, error: Lost) -> None:
        self._sequencer.drop()
        if not self._trouble[0]:
            _log.warning("the ledger's database: %s", error)
        self._trouble = (str(error), self._trouble[1] if self._trouble[0] else time.monotonic())

    def _look(self) -> None:
        """From time to time: see that the database is there, and who is gone. What others left open is said to be
        unknown after a while only, for a replica may lose its session and come again."""
        now = time.monotonic()
        if now < self._look_at and not self._trouble[0]:
            return
        self._look_at = now + self._patience.look
        try:
            self._absent = {each: self._absent.get(each, now) for each in self._sequencer.look()}
            for each, since in self._absent.items():
                if now - since >= self._patience.gone:
                    with contextlib.suppress(Present):  # it came again just now
                        found = self._sequencer.recover(each, at=self._now)
                        _log.warning("replica %d is gone; %d of its calls are on record as unknown", each, len(found))
            self._trouble = ("", 0.0)
        except Lost as error:
            self._lost(error)

    def _drain(self) -> list[_Item]:
        """What waits, up to a batch. As long as it is not empty the writer comes again by itself."""
        with self._gate:
            count = size = 0
            for each in self._waiting[:_BATCH]:
                size += each.spelled.size
                if count and size > _BATCH_BYTES:
                    break
                count += 1
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
            self._called = bool(batch)
        return batch

    def _answered(self, batch: list[_Item]) -> None:
        with self._gate:  # from here on who gives up sees that it is on record
            given_up = [each for each in batch if each.given_up]
            for each in batch:
                each.done = True
        wake(batch)
        for each in given_up:
            self._not_sent(each)

    def _fail(self, batch: list[_Item], error: Exception) -> None:
        """Close for good and refuse everyone who waits."""
        with self._gate:
            said = error.message if isinstance(error, OnbehalfError) else str(error)
            self._closed = self._stopped or f"the record may not be written any more ({said})"
            batch, self._waiting = [*batch, *self._waiting], []
        _log.error("%s", self._closed)
        wake(batch, LedgerUnavailable(self._closed, hint=_RESTART))


def _checked(demands: Demands, keys: LedgerKeys) -> Scan:
    """The whole log as it stands, read once. Raises LedgerCorrupt, ConfigInvalid, LedgerUnavailable, Lost."""
    open_session(demands).close()  # says what is wrong with the server before anything long is done
    store = PostgresStore(demands.dsn)
    try:
        with store.reading() as view:
            require_newest(view, keys)
            result, _ = scan(view, keys.signer.verifier)
    finally:
        store.close()
    return require_whole(result, hint=_VERIFY)


_REACH = "see that its database can be reached and has room; nothing was done"


def _spelled(entry: AuditEntry) -> Spelled:
    spelled = spelled_entry(entry)
    if "\0" in spelled.call:  # which PostgreSQL cannot read out of a leaf, and no batch with it could be written
        raise LedgerUnavailable("the entry cannot be recorded: its call id has a zero byte")
    return spelled


def _refuse(future: asyncio.Future[Receipt]) -> None:
    if not future.done():
        future.set_exception(LedgerUnavailable("the record could not be written in time", hint=_REACH))
