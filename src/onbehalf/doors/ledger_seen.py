"""Checkpoints that clients bring back: is each a beginning of the log as it is now? One that is not is an alarm.

One after another, in a thread, a few a second; what does not fit in a short queue is dropped and counted. A checkpoint
that the log's key did not sign says nothing and leaves no record; one that it signed, and that the log does not
continue, proves a second history, or a log that was put back. Must not know how clients speak.

Trust: a client can have us read 262,144 hashes, some 0.2 s of one thread, a few times a second at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable, OnbehalfError
from onbehalf.explain.checkpoint import Checkpoint
from onbehalf.model import Json

__all__ = ["SeenCheckpoints", "Verdict"]

Verdict = Literal["agrees", "unsigned", "split", "dropped"]
_log = logging.getLogger(__name__)
_QUEUE = 64
_PAUSE_S = 0.1
_REMEMBERED = 1024
_ALARMS = 100
"""Records at most, since the start: each is about another head, and one is enough to know."""


class SeenCheckpoints:
    """Looks at what clients bring. Used on one event loop; looks only while `run` runs. `heads` is its own."""

    def __init__(
        self, heads: LedgerHeads, *, count: Callable[[Verdict], None], alarm: Callable[[dict[str, Json]], None]
    ) -> None:
        """`count` is told each verdict, `alarm` the facts of a split view, which go on record."""
        self._heads = heads
        self._count = count
        self._alarm = alarm
        self._queue: asyncio.Queue[str] = asyncio.Queue(_QUEUE)
        self._known: OrderedDict[str, Verdict] = OrderedDict()
        self._alarmed: set[tuple[int, bytes]] = set()

    def offer(self, note: str) -> None:
        """Look at a note soon, unless there are too many."""
        known = self._known.get(note)
        if known is not None:
            self._known.move_to_end(note)
            self._count(known)
            return
        try:
            self._queue.put_nowait(note)
        except asyncio.QueueFull:
            self._count("dropped")

    async def run(self) -> None:
        """Look at what was offered, until cancelled."""
        while True:
            note = await self._queue.get()
            try:
                verdict = await asyncio.to_thread(self._judged, note)
            except OnbehalfError as error:  # the ledger cannot be read now: that says nothing about the note
                _log.warning("a client's checkpoint cannot be looked at: %s", error.message)
                self._count("dropped")
            else:
                self._remember(note, verdict)
                self._count(verdict)
            await asyncio.sleep(_PAUSE_S)

    def _remember(self, note: str, verdict: Verdict) -> None:
        self._known[note] = verdict
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _judged(self, note: str) -> Verdict:
        try:
            seen = self._heads.signed(note)
        except LedgerCorrupt:
            late = self._heads.signed_late(note)
            if late is None or self._heads.begins_with(late):
                return "unsigned"
            seen = late  # somebody has a key that the log gave up, and tells another history
        if self._heads.begins_with(seen):
            return "agrees"
        self._split(note, seen)
        return "split"

    def _split(self, note: str, seen: Checkpoint) -> None:
        key = (seen.size, seen.root)
        if key in self._alarmed or len(self._alarmed) >= _ALARMS:
            return
        self._alarmed.add(key)
        ours = self._heads.newest()
        _log.critical("a client holds a head of %d leaves that this log of %d does not continue", seen.size, ours.size)
        try:
            self._alarm({"brought": note, "ours": ours.note})
        except LedgerUnavailable as error:
            _log.error("a split view is not on record: %s", error.message)
