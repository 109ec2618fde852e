"""`onbehalf serve` with one thing planted into its process: that it kills itself at a step, or a fault.

    python planted_gateway.py WHAT AFTER serve --config FILE

WHAT is a step of STEPS, passed AFTER times before, or a fault of FAULTS. Steps count from the first intent on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any

from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.ledger_waiting import spelled_entry
from onbehalf.doors.upstream_mcp import McpUpstreamServer
from onbehalf.explain import reply
from onbehalf.model import AuditEntry, Digest, Receipt

STEPS = (
    "intent", "queued", "before_commit", "committed", "woken", "recorded", "send", "replied", "outcome",
    "outcome_queued", "answering", "answered",
)  # fmt: skip
FAULTS = ("intent_not_awaited",)


class _Steps:
    """Counts what is passed."""

    def __init__(self, at: str, after: int) -> None:
        self._at = at
        self._left = after
        self.begun = False

    def passed(self, name: str) -> None:
        if name != self._at or not self.begun:
            return
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _plant(steps: _Steps, fault: str) -> None:
    append, follow, send, made = SqliteLedger.append, SqliteLedger.follow, McpUpstreamServer.send, reply.answered
    open_, enter = SqliteLedger.open.__func__, SqliteLedger._enter  # type: ignore[attr-defined]

    def opened(cls: type[SqliteLedger], *arguments: Any, **named: Any) -> SqliteLedger:
        return open_(cls, *arguments, **named, failpoint=steps.passed)

    async def appended(self: SqliteLedger, entry: AuditEntry) -> Receipt:
        if entry.kind != "intent":
            return await append(self, entry)
        steps.begun = True
        steps.passed("intent")
        if fault == "intent_not_awaited":
            return _promised(self, entry)
        receipt = await append(self, entry)
        steps.passed("recorded")
        return receipt

    def followed(self: SqliteLedger, entry: AuditEntry) -> None:
        steps.passed("outcome")
        follow(self, entry)

    def entered(self: SqliteLedger, spelled: Any, waiter: Any) -> Any:
        item = enter(self, spelled, waiter)
        if spelled.kind == "outcome":
            steps.passed("outcome_queued")
        return item

    async def sent(self: McpUpstreamServer, *arguments: Any) -> Any:
        steps.passed("send")
        result = await send(self, *arguments)
        steps.passed("replied")
        return result

    def answered(*arguments: Any, **named: Any) -> Any:
        steps.passed("answering")
        asyncio.get_running_loop().call_later(0.003, steps.passed, "answered")
        return made(*arguments, **named)

    SqliteLedger.open = classmethod(opened)  # type: ignore[method-assign,assignment]
    SqliteLedger.append = appended  # type: ignore[method-assign]
    SqliteLedger.follow = followed  # type: ignore[method-assign]
    SqliteLedger._enter = entered  # type: ignore[method-assign]
    McpUpstreamServer.send = sent  # type: ignore[method-assign]
    reply.answered = answered


def _promised(ledger: SqliteLedger, entry: AuditEntry) -> Receipt:
    """A place in the queue, given out as if it were on the disk; and the disk is slow."""
    commit = SqliteLedger._commit
    if commit.__name__ != "slowly":

        def slowly(self: SqliteLedger, batch: list[Any]) -> None:
            time.sleep(20)  # it is killed before
            commit(self, batch)

        SqliteLedger._commit = slowly  # type: ignore[method-assign]
    item = ledger._offer(spelled_entry(entry), None)
    ledger._call()
    return Receipt(index=item.index, leaf=Digest("sha256:" + item.hash.hex()))


if __name__ == "__main__":
    what, after = sys.argv[1], int(sys.argv[2])
    assert what in (*STEPS, *FAULTS), what
    _plant(_Steps(what, after), what if what in FAULTS else "")
    from onbehalf.cli.main import run

    sys.argv[1:3] = []
    run()
