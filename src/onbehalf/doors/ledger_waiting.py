"""What every ledger that writes does at both ends of its queue, whichever store it is of: spell what is handed in, and
wake who waits for it. Also how a log is refused that does not hold at the start.

Must not write, order or sign entries: the ledgers do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from onbehalf.doors.ledger_reader import Scan
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable
from onbehalf.explain.leaf import Spelled, spell
from onbehalf.model import AuditEntry, Digest, Receipt

__all__ = ["RIDE_SECONDS", "Waiter", "Waiting", "require_whole", "spelled_entry", "wake"]

RIDE_SECONDS = 0.01
"""How long an entry that nobody waits for may wait for one that somebody does."""
_MAX_FACTS_BYTES = 32 * 2**20

Waiter: TypeAlias = "tuple[asyncio.AbstractEventLoop, asyncio.Future[Receipt]]"


class Waiting(Protocol):
    """An entry that is on record by the time its waiter is woken, or never will be."""

    @property
    def index(self) -> int: ...
    @property
    def hash(self) -> bytes: ...
    @property
    def place(self) -> tuple[str, int]: ...
    @property
    def waiter(self) -> Waiter | None: ...


def spelled_entry(entry: AuditEntry) -> Spelled:
    """An entry in its one spelling. Raises LedgerUnavailable for one that cannot be recorded, or is too large."""
    try:
        spelled = spell(entry)
    except ValueError as error:
        raise LedgerUnavailable(f"the entry cannot be recorded: {error}") from error
    if spelled.size > _MAX_FACTS_BYTES:
        raise LedgerUnavailable(f"an entry has at most {_MAX_FACTS_BYTES} bytes of facts")
    return spelled


def require_whole(found: Scan, *, hint: str) -> Scan:
    """A log as it was read. Raises LedgerCorrupt where something in it does not hold."""
    if found.findings:
        more = f" (and {len(found.findings) - 1} more)" if len(found.findings) > 1 else ""
        raise LedgerCorrupt(f"{found.findings[0].text}{more}", hint=hint)
    return found


def wake(batch: Sequence[Waiting], error: LedgerUnavailable | None = None) -> None:
    """Tell everyone who waits, with one call a loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
    for item in batch:
        if item.waiter is not None:
            by_loop.setdefault(item.waiter[0], []).append(item)
    for loop, items in by_loop.items():
        with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_answer, items, error)


def _answer(items: list[Waiting], error: LedgerUnavailable | None) -> None:
    for item in items:
        if item.waiter is None or item.waiter[1].done():  # who was cancelled or refused does not wait
            continue
        if error is not None:
            item.waiter[1].set_exception(LedgerUnavailable(error.message, hint=error.hint))
        else:
            leaf, (channel, number) = Digest("sha256:" + item.hash.hex()), item.place
            item.waiter[1].set_result(Receipt(index=item.index, leaf=leaf, channel=channel, number=number))
