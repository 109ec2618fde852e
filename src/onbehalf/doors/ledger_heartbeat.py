"""Says at a fixed pace, on record, that the gateway lives and how much it has sent: silence is then a statement.

Where a heartbeat is missing, the gateway did not live, or leaves are missing. Must not know what else is on record.

Trust: the pace is by this process's monotonic clock and the time in the leaf by the system's; whoever stops the process
makes a gap, which shows, and whoever sets the clock wrong times, which do not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from onbehalf.errors import LedgerUnavailable
from onbehalf.explain.channel import channel_of
from onbehalf.model import AuditEntry, Json
from onbehalf.ports import Clock, Ledger

__all__ = ["Heart"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heart:
    """Beats each `every` seconds. `sendings` says how much was ever sent to an upstream of `audiences`; `origin` is the
    log's name."""

    every: int
    audiences: Iterable[str]
    sendings: Callable[[str], int]
    origin: str
    ledger: Ledger
    clock: Clock

    async def beat(self) -> None:
        """Put heartbeats on record until cancelled. Where the ledger takes none, the next one may be taken."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self.every, loop.time())  # after the machine slept, one and not all that were missed
            await asyncio.sleep(due - loop.time())
            try:
                self.ledger.follow(self._entry("heartbeat"))
            except LedgerUnavailable as error:
                _log.error("a heartbeat is not on record: %s", error.message)

    async def stop(self) -> None:
        """Put on record that the gateway ends as it should; what was killed has no such record."""
        try:
            await self.ledger.append(self._entry("stop"))
        except LedgerUnavailable as error:
            _log.error("the end is not on record: %s", error.message)

    def _entry(self, kind: str) -> AuditEntry:
        sent: dict[str, Json] = {
            each: {"channel": channel_of(self.origin, each), "n": self.sendings(each)}
            for each in sorted(self.audiences)
        }
        return AuditEntry(kind=kind, call="", at=self.clock(), facts={"every": self.every, "sent": sent})
