"""What can be erased of a record in PostgreSQL, by a command beside the replicas that write it.

The `erased` leaf is appended by a replica of the command's own, which is there for that long; deleting is the eraser's.
Must not decide what is erased (ledger_erase.py).

Trust: as ledger_postgres_keys.py. Deleted rows stand in the server's files until its vacuum has been there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from onbehalf.doors.ledger_erasable import HEADS, STEP, Span
from onbehalf.doors.ledger_postgres import PostgresLedger
from onbehalf.doors.ledger_postgres_store import PostgresStore
from onbehalf.doors.ledger_postgres_subjects import Eraser
from onbehalf.errors import ErasureRefused, LedgerUnavailable
from onbehalf.model import AuditEntry, Receipt

__all__ = ["PostgresErasable"]


class PostgresErasable:
    """The Erasable of one database. `store` reads it where it is written, and `writing` opens it to be written."""

    def __init__(self, store: PostgresStore, eraser: Eraser, *, writing: Callable[[], PostgresLedger]) -> None:
        self.store = store
        self._eraser, self._writing = eraser, writing
        self._ledger: PostgresLedger | None = None

    def close(self) -> None:
        """Leave the replicas, if this was one. Blocks until done."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        self.store.close()

    @contextlib.asynccontextmanager
    async def apart(self, labels: Sequence[bytes]) -> AsyncIterator[set[bytes]]:
        """What is sealed with a key that is destroyed before it is appended is refused, and sealed with a new one."""
        await asyncio.to_thread(self._eraser.alone)
        yield set()

    async def append(self, entry: AuditEntry, *, once: str) -> Receipt:
        await asyncio.to_thread(self._eraser.alone)
        if self._ledger is None:
            self._ledger = await asyncio.to_thread(self._writing)
        try:
            return await self._ledger.append(entry, id_=bytes.fromhex(once))
        except LedgerUnavailable:  # where it is there already, this replica would try for ever
            ledger, self._ledger = self._ledger, None
            await asyncio.to_thread(ledger.close)
            raise

    def step(self, id_: bytes, chosen: Callable[[Sequence[tuple[Any, ...]]], list[int]]) -> int:
        self._eraser.alone()
        found = self._eraser.run("SELECT next FROM erasing WHERE id = %s", (id_,))
        start = int(found[0]) if found else 0
        with self.store.reading() as view:
            rows = view.execute(HEADS, (start, start + STEP)).fetchall()
        try:
            query = "SELECT erase_payloads(%s, %s::bigint, %s::bigint, %s::bigint[])"
            self._eraser.run(query, (id_, start, start + STEP, chosen(rows)))
        except ErasureRefused as error:  # it was asked for after we looked, and counts from now on
            raise LedgerUnavailable("a legal hold came between", hint="it is tried again, and leaves that") from error
        return start + STEP

    def deleted(self, id_: bytes) -> Span:
        count, first, last = self._eraser.run("SELECT count, first, last FROM erasing WHERE id = %s", (id_,))
        return Span(count=count, first=first, last=last)

    def forget(self, id_: bytes) -> None:
        self._eraser.run("SELECT erasing_done(%s)", (id_,))
