"""Carries out what was asked to be erased of the record, while calls go on: in the process that writes a file, or
beside the replicas that write a database.

In this order, so that a crash leaves either nothing or what the next start or command finishes: 1 the request is
durable; 2 new records of that person get new keys, and all with old ones are committed; 3 the old keys are destroyed,
in the transaction that saw no legal hold; 4 their bytes stand in no file of the store; 5 an `erased` leaf says what was
erased; 6 the request is done. What is too old is deleted in steps, each with its count, before 4. The record's own
`erased` leaves are held against the key store first: an older copy of it that was put back brings nothing back.

Trust: as ledger_subjects.py says. Copies that were made before, and what others were sent, are out of its reach.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from onbehalf.doors.ledger_erasable import HEADS, STEP, Erasable, Span, marks
from onbehalf.doors.ledger_requests import Request, Requests, erasures
from onbehalf.doors.ledger_sealing import SubjectSealing
from onbehalf.doors.ledger_store import LedgerStore
from onbehalf.errors import ErasureRefused, LedgerUnavailable, OnbehalfError
from onbehalf.explain import tree
from onbehalf.explain.erasure import KEPT, Erasure, erased_entry, hold_entry, scope_of
from onbehalf.explain.leaf import Leaf, open_payload, read
from onbehalf.explain.seal import key_id
from onbehalf.model import Json, UnixTime

__all__ = ["Erasing", "old_span", "resurrected", "size_of", "span_of", "without_own_key"]

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_SPAN_STEP = 50_000
_ROWS = "SELECT l.idx, l.entry, (SELECT p.sealed FROM payload p WHERE p.idx = l.idx) FROM leaf l"


def _pass(_: str) -> None:
    return None


class Erasing:
    """Everything that was asked for of one ledger. Used in one event loop."""

    def __init__(
        self, ledger: Erasable, sealing: SubjectSealing, *, now: Callable[[], UnixTime],
        failpoint: Callable[[str], None] = _pass,
    ) -> None:  # fmt: skip
        """`failpoint` is called with the name of each step, for tests that stop there."""
        self._ledger, self._now, self._failpoint = ledger, now, failpoint
        self._sealing = sealing
        self._requests = Requests(sealing.store, sealing.wrapping)
        self._to_scrub = self._stopping = False

    def close(self) -> None:
        """Forget all keys and close their store. A deletion under way stops after its step; the next start goes on."""
        self._stopping = True
        self._ledger.close()
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
            async with self._ledger.apart(labels) as fresh:
                self._failpoint("renewed")
                request = await asyncio.to_thread(lambda: self._requests.destroyed(request, besides=fresh))
        self._failpoint("destroyed")
        await asyncio.to_thread(self._sealing.store.scrub)
        self._failpoint("scrubbed")
        keys = frozenset(str(each) for each in _list(request.said.get("keys")))
        span = await asyncio.to_thread(span_of, self._ledger.store, [bytes.fromhex(each) for each in keys])
        await self._recorded(request, self._erasure(request, span, keys=keys))

    async def _retain(self, request: Request) -> None:
        before = _whole(request.said.get("before"))
        span = await asyncio.to_thread(self._delete, bytes.fromhex(request.id), before)
        self._failpoint("scrubbed")
        if span.count:
            await self._recorded(request, self._erasure(request, span, before=before))
        await asyncio.to_thread(self._ledger.forget, bytes.fromhex(request.id))
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
            receipt = await self._ledger.append(erased_entry(of, basis=basis, by=by), once=request.id)
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
            index = (await self._ledger.append(entry, once=request.id)).index
        self._failpoint("recorded")
        number = _whole(said.get("number")) if lifts else 0
        await asyncio.to_thread(lambda: self._requests.done(request, {"leaf": index}, lifts=number))

    def _reassert(self) -> bool:
        """Have everything be erased that the record says is; whether something was not."""
        known, again = {each.id for each in erasures(self._sealing.store)}, False
        for of, lives in _on_record_as_erased(self._ledger.store, self._sealing):
            if lives or of.id not in known:
                again |= self._requests.destroy_again(of)
        return again

    def _on_record(self, kind: str, fact: str, request: Request) -> tuple[int, Leaf] | None:
        """The leaf that says that this request was carried out."""
        start = _whole(request.said.get("from"))
        for index, leaf, facts in _leaves(self._ledger.store, self._sealing, kind, start):
            told = facts.get(fact)
            if isinstance(told, dict) and told.get("id") == request.id:
                return index, leaf
        return None

    def _delete(self, id_: bytes, before: int) -> Span:
        """Delete the payloads of records from before that time, in steps that other writers get between."""
        until = size_of(self._ledger.store)
        while self._ledger.step(id_, lambda rows: _old_of(rows, self._requests, before)) < until:
            self._failpoint("step")
            if self._stopping:
                raise LedgerUnavailable("the gateway stops")
            time.sleep(0.01)
        self._failpoint("deleted")
        return self._ledger.deleted(id_)


def resurrected(store: LedgerStore, sealing: SubjectSealing) -> Iterator[Erasure]:
    """Erasures on record whose keys live: an older copy of their store was put back. Raises LedgerUnavailable,
    LedgerCorrupt."""
    return (each for each, lives in _on_record_as_erased(store, sealing) if lives)


def _on_record_as_erased(store: LedgerStore, sealing: SubjectSealing) -> Iterator[tuple[Erasure, bool]]:
    """Erasures on record, and whether any of their keys lives."""
    for index, leaf, facts in _leaves(store, sealing, "erased", 0):
        of = scope_of(facts, leaf=index, at=UnixTime(leaf.at))
        if of is None or not _is_id(of.id):
            continue
        yield of, _any_lives(sealing, [bytes.fromhex(each) for each in of.keys if _is_id(each)])


def _any_lives(sealing: SubjectSealing, keys: Sequence[bytes]) -> bool:
    query = f"SELECT 1 FROM key WHERE id IN ({marks(keys)}) AND length(wrapped) > 0 LIMIT 1"  # noqa: S608
    return bool(keys and sealing.store.rows(query, keys))


def _leaves(
    store: LedgerStore, sealing: SubjectSealing, kind: str, start: int
) -> Iterator[tuple[int, Leaf, Mapping[str, Json]]]:
    """The records of a kind from `start` on, opened."""
    with store.reading() as view:
        query = f"{_ROWS} WHERE l.idx >= ? AND {view.contains}"
        rows = view.execute(query, (start, f'"kind":"{kind}"'.encode())).fetchall()
    for index, entry, sealed in rows:
        leaf = read(entry)
        payload = None if sealed is None else sealing.open(sealed, index=index, leaf=tree.leaf_hash(entry))
        if leaf.kind == kind and payload is not None:
            yield index, leaf, open_payload(leaf, payload)


def span_of(store: LedgerStore, keys: Sequence[bytes]) -> Span:
    """How many payloads are sealed with these keys, and where they begin and end. Raises LedgerUnavailable."""
    heads = [b"\x02" + each for each in keys]
    query = (
        "SELECT count(*), min(idx), max(idx) FROM payload WHERE idx >= ? AND idx < ? "  # noqa: S608  # question marks only
        f"AND substr(sealed, 1, 17) IN ({marks(heads)})"
    )
    count, first, last = 0, -1, -1
    for start in range(0, size_of(store), _SPAN_STEP) if keys else ():
        with store.reading() as view:
            some, low, high = view.execute(query, (start, start + _SPAN_STEP, *heads)).fetchone()
        if some:
            count, first, last = count + some, low if first < 0 else first, high
    return Span(count=count, first=first, last=last)


def old_span(store: LedgerStore, requests: Requests, before: int) -> Span:
    """What a retention that ends at `before` would delete now."""
    count, first, last = 0, -1, -1
    for start in range(0, size_of(store), STEP):
        with store.reading() as view:
            old = _old_of(view.execute(HEADS, (start, start + STEP)).fetchall(), requests, before)
        if old:
            count, first, last = count + len(old), old[0] if first < 0 else first, old[-1]
    return Span(count=count, first=first, last=last)


def without_own_key(store: LedgerStore) -> int:
    """How many records of calls were sealed before people had keys of their own, and are reached by retention only."""
    with store.reading() as view:
        query = (
            "SELECT count(*) FROM leaf l JOIN payload p USING (idx) WHERE substr(p.sealed, 1, 1) = ? "  # noqa: S608
            f"AND {view.contains} AND NOT {view.contains}"
        )
        found = view.execute(query, (b"\x01", b'"call":"call_', b'"kind":"unknown"')).fetchone()
    return int(found[0])


def size_of(store: LedgerStore) -> int:
    """How many records are under the signed head. Raises LedgerUnavailable."""
    with store.reading() as view:
        return int(view.execute("SELECT size FROM head").fetchone()[0])


def _old_of(rows: Sequence[tuple[Any, ...]], requests: Requests, before: int) -> list[int]:
    """Of rows as `HEADS` gives them: which payloads are to be deleted."""
    any_hold, held = requests.any_hold(), requests.held_keys()
    return [index for index, entry, head in rows if _old(read(entry), head, before, held, any_hold=any_hold)]


def _old(leaf: Leaf, head: bytes, before: int, held: frozenset[bytes], *, any_hold: bool) -> bool:
    """Whether a payload is to be deleted. What was sealed before people had keys of their own may be about anybody."""
    if leaf.at >= before or leaf.kind in KEPT:
        return False
    key = key_id(head)
    return key not in held if key else not (any_hold and leaf.call)


def _is_id(text: str) -> bool:
    return len(text) == 32 and all(each in "0123456789abcdef" for each in text)


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list) else ()


def _whole(value: Json) -> int:
    return value if isinstance(value, int) else 0
