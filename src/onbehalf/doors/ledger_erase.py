"""Carries out what was asked to be erased of the record, in the process that writes it, while calls go on.

In this order, so that a crash leaves either nothing or what the next start finishes: 1 the request is durable; 2 new
records of that person get new keys, and all with old ones are committed; 3 the old keys are destroyed, in the
transaction that saw no legal hold; 4 their bytes stand in no file; 5 an `erased` leaf says what was erased; 6 the
request is done. What is too old is deleted in steps, each with its count, before 4. At each start the record's own
`erased` leaves are held against the key store: an older copy of it that was put back brings nothing back.

Trust: as ledger_subjects.py says. Copies that were made before, and what others were sent, are out of its reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onbehalf.doors.ledger_requests import Request, Requests, erasures
from onbehalf.doors.ledger_sealing import SubjectSealing
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.ledger_subjects import marks, truncated
from onbehalf.errors import ErasureRefused, LedgerCorrupt, LedgerUnavailable, OnbehalfError
from onbehalf.explain import tree
from onbehalf.explain.erasure import KEPT, Erasure, erased_entry, hold_entry, scope_of
from onbehalf.explain.leaf import Leaf, open_payload, read
from onbehalf.explain.seal import key_id
from onbehalf.model import Json, UnixTime

__all__ = ["Erasing", "Span", "old_span", "size_of", "span_of", "without_own_key"]

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_SETTLE_SECONDS = 30.0
_STEP = 500
_SPAN_STEP = 50_000
_ROWS = (
    "SELECT l.idx, l.entry, p.sealed FROM leaf l CROSS JOIN payload p USING (idx)"  # leaves are looked through first
)
_HEADS = (
    "SELECT l.idx, l.entry, substr(p.sealed, 1, 17) FROM leaf l JOIN payload p USING (idx) "
    "WHERE l.idx >= ? AND l.idx < ? ORDER BY l.idx"
)
_PROGRESS = """CREATE TABLE IF NOT EXISTS erasing(id BLOB PRIMARY KEY, next INTEGER NOT NULL, count INTEGER NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL) STRICT"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """How many records, and the first and the last of them; -1 for none."""

    count: int
    first: int
    last: int


def _pass(_: str) -> None:
    return None


class Erasing:
    """Everything that was asked for of one ledger. Used in one event loop."""

    def __init__(
        self, ledger: SqliteLedger, path: Path, *, now: Callable[[], UnixTime], failpoint: Callable[[str], None] = _pass
    ) -> None:
        """`path` is the ledger's. `failpoint` is called with the name of each step, for tests that stop there."""
        sealing = ledger.keys.sealer
        assert isinstance(sealing, SubjectSealing)  # INVARIANT: ledger_keys.py makes no other
        self._ledger, self._path, self._now, self._failpoint = ledger, path, now, failpoint
        self._sealing = sealing
        self._requests = Requests(sealing.store, sealing.wrapping)
        self._to_scrub = self._stopping = False

    def close(self) -> None:
        """Forget all keys and close their store. A deletion under way stops after its step; the next start goes on."""
        self._stopping = True
        self._sealing.close()

    async def begin(self) -> None:
        """What comes before any call: what the record says is erased is so. Raises LedgerUnavailable, LedgerCorrupt."""
        self._to_scrub = await asyncio.to_thread(self._reassert)

    async def watch(self, problems: dict[str, str]) -> None:
        """Carry out what is asked for while this runs. What goes wrong stands in `problems`, and is tried again."""
        while True:
            try:
                await self.carry_out()
                problems.pop("erasure", None)
            except Exception as error:  # whatever it is, what was asked for stays asked for
                said = error.message if isinstance(error, OnbehalfError) else f"{type(error).__name__}: {error}"
                if problems.get("erasure") != said:
                    _log.error("what is to be erased is not yet: %s", said)
                problems["erasure"] = said
            await asyncio.sleep(_LOOK_SECONDS)

    async def carry_out(self) -> None:
        """Do all that is asked for, in order; what cannot be done now keeps nothing after it from being done.

        Raises LedgerUnavailable, LedgerCorrupt where something is still to be done.
        """
        if self._to_scrub:
            await asyncio.to_thread(self._sealing.store.scrub)
            self._to_scrub = False
        failed: OnbehalfError | None = None
        for request in await asyncio.to_thread(self._requests.pending):
            self._failpoint("asked")
            try:
                await self._one(request)
            except ErasureRefused as error:
                await asyncio.to_thread(self._requests.refused, request, error.message)
            except OnbehalfError as error:
                failed = failed or error
            self._failpoint("done")
        if failed is not None:
            raise failed

    async def _one(self, request: Request) -> None:
        if request.kind == "erase":
            await self._erase(request)
        elif request.kind == "retain":
            await self._retain(request)
        else:
            await self._hold(request)

    async def _erase(self, request: Request) -> None:
        if request.state == "asked":
            labels = [bytes.fromhex(str(each)) for each in _list(request.said.get("labels"))]
            with self._sealing.renewed(labels) as fresh:
                await self._settled()
                self._failpoint("renewed")
                request = await asyncio.to_thread(lambda: self._requests.destroyed(request, besides=fresh))
        self._failpoint("destroyed")
        await asyncio.to_thread(self._sealing.store.scrub)
        self._failpoint("scrubbed")
        keys = frozenset(str(each) for each in _list(request.said.get("keys")))
        span = await asyncio.to_thread(span_of, self._path, [bytes.fromhex(each) for each in keys])
        await self._recorded(request, self._erasure(request, span, keys=keys))

    async def _retain(self, request: Request) -> None:
        before = _whole(request.said.get("before"))
        span = await asyncio.to_thread(self._delete, bytes.fromhex(request.id), before)
        self._failpoint("scrubbed")
        if span.count:
            await self._recorded(request, self._erasure(request, span, before=before))
        await asyncio.to_thread(self._forget_progress, bytes.fromhex(request.id))
        if span.count == 0:
            raise ErasureRefused("nothing on record is that old", hint="nothing was erased")

    def _erasure(self, request: Request, span: Span, *, keys: frozenset[str] = frozenset(), before: int = 0) -> Erasure:
        return Erasure(
            id=request.id, leaf=-1, at=self._now(), keys=keys, before=before, count=span.count, first=span.first,
            last=span.last,
        )  # fmt: skip

    async def _recorded(self, request: Request, of: Erasure) -> None:
        """The `erased` leaf, once; a crash may have come between it and taking note of it."""
        found = await asyncio.to_thread(self._on_record, "erased", "erasure", request)
        if found is None:
            basis, by = str(request.said.get("basis")), str(request.said.get("by"))
            receipt = await self._ledger.append(erased_entry(of, basis=basis, by=by))
            of = replace(of, leaf=receipt.index)
        else:
            of = replace(of, leaf=found[0], at=UnixTime(found[1].at))
        self._failpoint("recorded")
        await asyncio.to_thread(self._requests.erased, request, of)

    async def _hold(self, request: Request) -> None:
        said, lifts = request.said, request.kind == "lift"
        found = await asyncio.to_thread(self._on_record, "legal_hold", "hold", request)
        index = found[0] if found is not None else -1
        if found is None:
            action = "lifted" if lifts else "added"
            entry = hold_entry(
                str(said.get("whom")), id_=request.id, action=action, reason=str(said.get("reason")),
                by=str(said.get("by")), at=self._now(),
            )  # fmt: skip
            index = (await self._ledger.append(entry)).index
        self._failpoint("recorded")
        number = _whole(said.get("number")) if lifts else 0
        await asyncio.to_thread(lambda: self._requests.done(request, {"leaf": index}, lifts=number))

    async def _settled(self) -> None:
        """Wait until everything that was taken so far is committed. Raises LedgerUnavailable."""
        taken, until = self._ledger.taken, time.monotonic() + _SETTLE_SECONDS
        while await asyncio.to_thread(size_of, self._path) < taken:
            if self._ledger.closed or time.monotonic() > until:
                raise LedgerUnavailable(self._ledger.closed or "the ledger does not come to rest")
            await asyncio.sleep(0.01)

    def _reassert(self) -> bool:
        """Have everything be erased that the record says is; whether something was not."""
        known, again = {each.id for each in erasures(self._sealing.store)}, False
        for index, leaf, facts in self._leaves("erased", 0):
            of = scope_of(facts, leaf=index, at=UnixTime(leaf.at))
            if of is None or not _is_id(of.id):
                continue
            living = any(self._sealing.store.wrapped(bytes.fromhex(each)) for each in of.keys if _is_id(each))
            if living or of.id not in known:
                again |= self._requests.destroy_again(of)
        return again

    def _on_record(self, kind: str, fact: str, request: Request) -> tuple[int, Leaf] | None:
        """The leaf that says that this request was carried out."""
        for index, leaf, facts in self._leaves(kind, _whole(request.said.get("from"))):
            told = facts.get(fact)
            if isinstance(told, dict) and told.get("id") == request.id:
                return index, leaf
        return None

    def _leaves(self, kind: str, start: int) -> Iterator[tuple[int, Leaf, Mapping[str, Json]]]:
        """The records of a kind from `start` on, opened."""
        query = f"{_ROWS} WHERE l.idx >= ? AND instr(l.entry, ?)"
        with _reading(self._path) as connection:
            rows = connection.execute(query, (start, f'"kind":"{kind}"'.encode())).fetchall()
        for index, entry, sealed in rows:
            leaf = read(entry)
            payload = self._sealing.open(sealed, index=index, leaf=tree.leaf_hash(entry))
            if leaf.kind == kind and payload is not None:
                yield index, leaf, open_payload(leaf, payload)

    def _delete(self, id_: bytes, before: int) -> Span:
        """Delete the payloads of records from before that time, in steps that other writers get between."""
        with _writing(self._path) as connection:
            connection.execute(_PROGRESS)
            connection.execute("INSERT OR IGNORE INTO erasing VALUES (?, 0, 0, -1, -1)", (id_,))
            size = connection.execute("SELECT size FROM head").fetchone()[0]
            while (next_ := self._step(connection, id_, before)) < size:
                self._failpoint("step")
                if self._stopping:
                    raise LedgerUnavailable("the gateway stops")
                time.sleep(0.01)
            self._failpoint("deleted")
            truncated(connection, self._path)
            count, first, last = connection.execute(
                "SELECT count, first, last FROM erasing WHERE id = ?", (id_,)
            ).fetchone()
        assert next_ >= size
        return Span(count=count, first=first, last=last)

    def _step(self, connection: sqlite3.Connection, id_: bytes, before: int) -> int:
        """One step, with what it deleted added up, in one transaction. The index that the next one begins at."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            start = connection.execute("SELECT next FROM erasing WHERE id = ?", (id_,)).fetchone()[0]
            any_hold, held = self._requests.any_hold(), self._requests.held_keys()
            rows = connection.execute(_HEADS, (start, start + _STEP)).fetchall()
            old = [index for index, entry, head in rows if _old(read(entry), head, before, held, any_hold=any_hold)]
            connection.executemany("DELETE FROM payload WHERE idx = ?", [(each,) for each in old])
            connection.execute(
                "UPDATE erasing SET next = ?, count = count + ?, first = CASE WHEN first < 0 THEN ? ELSE first END, "
                "last = max(last, ?) WHERE id = ?",
                (start + _STEP, len(old), old[0] if old else -1, old[-1] if old else -1, id_),
            )
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return int(start + _STEP)

    def _forget_progress(self, id_: bytes) -> None:
        with _writing(self._path) as connection:
            connection.execute("DELETE FROM erasing WHERE id = ?", (id_,))


def span_of(path: Path, keys: Sequence[bytes]) -> Span:
    """How many payloads are sealed with these keys, and where they begin and end. Raises LedgerUnavailable."""
    heads = [b"\x02" + each for each in keys]
    count, first, last = 0, -1, -1
    query = (
        "SELECT count(*), min(idx), max(idx) FROM payload WHERE idx >= ? AND idx < ? "  # noqa: S608  # question marks only
        f"AND substr(sealed, 1, 17) IN ({marks(heads)})"
    )
    with _reading(path) as connection:
        size = connection.execute("SELECT size FROM head").fetchone()[0]
        for start in range(0, size, _SPAN_STEP):
            some, low, high = connection.execute(query, (start, start + _SPAN_STEP, *heads)).fetchone()
            if some:
                count, first, last = count + some, low if first < 0 else first, high
    return Span(count=count, first=first, last=last)


def old_span(path: Path, requests: Requests, before: int) -> Span:
    """What a retention that ends at `before` would delete now."""
    any_hold, held = requests.any_hold(), requests.held_keys()
    count, first, last = 0, -1, -1
    with _reading(path) as connection:
        size = connection.execute("SELECT size FROM head").fetchone()[0]
        for start in range(0, size, _STEP):
            for index, entry, head in connection.execute(_HEADS, (start, start + _STEP)).fetchall():
                if _old(read(entry), head, before, held, any_hold=any_hold):
                    count, first, last = count + 1, index if first < 0 else first, index
    return Span(count=count, first=first, last=last)


def without_own_key(path: Path) -> int:
    """How many records of calls were sealed before people had keys of their own, and are reached by retention only."""
    query = (
        "SELECT count(*) FROM leaf l JOIN payload p USING (idx) WHERE substr(p.sealed, 1, 1) = x'01' "
        "AND instr(l.entry, ?) AND NOT instr(l.entry, ?)"
    )
    with _reading(path) as connection:
        return int(connection.execute(query, (b'"call":"call_', b'"kind":"unknown"')).fetchone()[0])


def size_of(path: Path) -> int:
    """How many records are under the signed head. Raises LedgerUnavailable."""
    with _reading(path) as connection:
        return int(connection.execute("SELECT size FROM head").fetchone()[0])


def _old(leaf: Leaf, head: bytes, before: int, held: frozenset[bytes], *, any_hold: bool) -> bool:
    """Whether a payload is to be deleted. What was sealed before people had keys of their own may be about anybody."""
    if leaf.at >= before or leaf.kind in KEPT:
        return False
    key = key_id(head)
    return key not in held if key else not (any_hold and leaf.call)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with _using(path, f"{path.absolute().as_uri()}?mode=ro") as connection:
        yield connection


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    with _using(path, f"{path.absolute().as_uri()}?mode=rw") as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        yield connection


@contextlib.contextmanager
def _using(path: Path, uri: str) -> Iterator[sqlite3.Connection]:
    """A connection of its own, closed at the end. Raises LedgerUnavailable, LedgerCorrupt."""
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)) as connection:
            yield connection
    except sqlite3.OperationalError as error:
        raise LedgerUnavailable(f"the ledger at `{path}` cannot be used now: {error}") from error
    except sqlite3.Error as error:
        raise LedgerCorrupt(f"the ledger at `{path}` cannot be read: {error}") from error


def _is_id(text: str) -> bool:
    return len(text) == 32 and all(each in "0123456789abcdef" for each in text)


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list) else ()


def _whole(value: Json) -> int:
    return value if isinstance(value, int) else 0
