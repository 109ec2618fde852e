"""A process that writes a ledger as the gateway does, for tests that kill it, starve it or record its files.

    python load.py DIRECTORY [--stop-at STEP --after N] [--tasks N] [--calls N] [--broken NAME] ...

Every call: an intent that is awaited, an effect, an outcome. What was acknowledged goes to DIRECTORY/clients, effects
go to DIRECTORY/backend, each line synced before anything else happens. `--broken` plants one fault of BROKEN into
this process: the tests ask that the checker sees each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onbehalf.doors import ledger_sqlite, ledger_waiting
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.errors import LedgerUnavailable
from onbehalf.explain import tree
from onbehalf.model import AuditEntry, Receipt, UnixTime

ORIGIN = "gateway.example/log"


class Work:
    """Calls, one after another in each of so many tasks."""

    def __init__(self, ledger: SqliteLedger, given: argparse.Namespace, step: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._given = given
        self._step = step
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._clients, self._backend = (os.open(given.directory / name, flags) for name in ("clients", "backend"))

    async def run(self, task: int) -> None:
        for number in range(self._given.calls):
            await self._call(f"call_{os.getpid():x}_{task}_{number}", number, waits=bool((number + task) % 2))

    async def _call(self, call: str, number: int, *, waits: bool) -> None:
        intent = _entry("intent", call, arguments={"n": number, "pad": "x" * self._given.pad})
        if self._given.broken == "send_before_intent":
            self._effect(call, None)
        if self._given.broken == "outcome_before_intent":
            guessed = self._ledger._next + len(self._ledger._following) + 1
            self._ledger.follow(_entry("outcome", call, intent={"index": guessed, "leaf": "sha256:" + "0" * 64}))
        receipt = await self._ledger.append(intent)
        self._acked(call, receipt)
        self._step("before_send")
        if self._given.broken != "send_before_intent":
            self._effect(call, receipt)
        if self._given.broken == "sent_twice" and number % 3 == 2:
            self._effect(call, receipt)
        self._step("sent")
        if self._given.broken == "outcome_before_intent":
            return
        done = _entry(
            "outcome", call, intent={"index": receipt.index, "leaf": receipt.leaf}, outcome={"status": "done"}
        )
        if waits:
            self._acked(call, await self._ledger.append(done))
        else:
            self._ledger.follow(done)
        self._step("outcome")

    def _acked(self, call: str, receipt: Receipt) -> None:
        self._write(self._clients, did="ack", call=call, index=receipt.index, leaf=receipt.leaf)

    def _effect(self, call: str, receipt: Receipt | None) -> None:
        place = {"index": receipt.index, "leaf": receipt.leaf} if receipt else {}
        self._write(self._backend, did="effect", call=call, **place)

    def _write(self, file: int, **said: Any) -> None:
        os.write(file, json.dumps(said).encode() + b"\n")
        os.fsync(file)  # SQLite uses fdatasync: a fault injected into either hits one of them only


def _entry(kind: str, call: str, **facts: Any) -> AuditEntry:
    return AuditEntry(kind=kind, call=call, at=UnixTime(1), facts=facts)


def _woken_before_commit() -> None:
    commit = SqliteLedger._commit

    def early(self: SqliteLedger, batch: list[Any]) -> None:
        ledger_waiting.wake(batch)
        time.sleep(0.01)  # who was woken is quicker than the disk
        commit(self, batch)

    SqliteLedger._commit = early  # type: ignore[method-assign]


def _head_without_its_last_leaf() -> None:
    hashes: list[bytes] = []
    append, signed = tree.Frontier.append, ledger_sqlite.signed

    def late(self: tree.Frontier, hash_: bytes) -> None:
        hashes.append(hash_)
        append(self, hash_)

    tree.Frontier.append = late  # type: ignore[method-assign]

    def short(frontier: tree.Frontier, keys: Any) -> Any:
        shorter = tree.Frontier()
        for hash_ in hashes[: frontier.size - 1]:
            append(shorter, hash_)
        return signed(shorter, keys)

    ledger_sqlite.signed = short


def _head_of_another_history() -> None:
    signed = ledger_sqlite.signed

    def forked(frontier: tree.Frontier, keys: Any) -> Any:
        return signed(tree.Frontier([bytes(32)] * frontier.size), keys)

    ledger_sqlite.signed = forked


def _no_recovery() -> None:
    SqliteLedger._recover = lambda *_: None  # type: ignore[method-assign,assignment]


def _recovery_of_everything() -> None:
    """Every intent is said to be unknown, the ended ones as well."""
    checked = ledger_sqlite.checked

    def all_open(connection: sqlite3.Connection, keys: Any) -> Any:
        scanned = checked(connection, keys)
        rows = connection.execute(
            'SELECT idx, hash, entry FROM leaf WHERE CAST(entry AS TEXT) LIKE \'%"kind":"intent"%\''
        )
        found = [(index, hash_, json.loads(entry)["call"]) for index, hash_, entry in rows]
        make = ledger_sqlite.OpenIntent
        scanned.open = {i: make(index=i, leaf=h, call=c, at=UnixTime(1)) for i, h, c in found}
        return scanned

    ledger_sqlite.checked = all_open


def _tail_is_repaired() -> None:
    """What is no longer there is cut away and a head is signed over the rest, as if nothing had been."""
    checked = ledger_sqlite.checked

    def repaired(connection: sqlite3.Connection, keys: Any) -> Any:
        rows = connection.execute("SELECT hash FROM leaf ORDER BY idx").fetchall()
        kept = tree.Frontier(row[0] for row in rows[:-3])
        connection.execute("DELETE FROM leaf WHERE idx >= ?", (kept.size,))
        connection.execute("DELETE FROM payload WHERE idx >= ?", (kept.size,))
        head, note = ledger_sqlite.signed(kept, keys)
        connection.execute("UPDATE head SET size = ?, root = ?, note = ?", (head.size, head.root, note))
        return checked(connection, keys)

    ledger_sqlite.checked = repaired


def _not_settled() -> None:
    ledger_sqlite.settle = lambda _: None  # type: ignore[assignment]


BROKEN: dict[str, Callable[[], None] | None] = {
    "fsync_off": None,
    "send_before_intent": None,
    "outcome_before_intent": None,
    "sent_twice": None,
    "woken_before_commit": _woken_before_commit,
    "head_without_its_last_leaf": _head_without_its_last_leaf,
    "head_of_another_history": _head_of_another_history,
    "not_settled": _not_settled,
    "no_recovery": _no_recovery,
    "recovery_of_everything": _recovery_of_everything,
    "tail_is_repaired": _tail_is_repaired,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--stop-at", default="", help="step at which the process stops itself")
    parser.add_argument("--after", type=int, default=0, help="how often it is passed before")
    parser.add_argument("--stop-by", type=int, default=int(signal.SIGKILL))
    parser.add_argument("--tasks", type=int, default=6)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--pad", type=int, default=0, help="bytes more in each intent")
    parser.add_argument("--checkpoint-pages", type=int, default=0)
    parser.add_argument("--broken", default="", choices=["", *BROKEN])
    parser.add_argument("--die-on-error", action="store_true", help="be killed the moment that a write fails")
    parser.add_argument("--leave", action="store_true", help="end without closing the ledger")
    return parser.parse_args()


async def main() -> None:
    given = _arguments()
    passed = 0

    def step(name: str) -> None:
        nonlocal passed
        if name == given.stop_at:
            passed += 1
            if passed == given.after + 1:
                os.kill(os.getpid(), given.stop_by)

    if given.die_on_error:
        SqliteLedger._fail = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign,assignment]
    plant = BROKEN.get(given.broken)
    if plant is not None:
        plant()
    keys = open_ledger_keys(given.directory / "keys", origin=ORIGIN)
    ledger = SqliteLedger.open(
        given.directory / "log.db", keys=keys, origin=ORIGIN, now=lambda: UnixTime(2), failpoint=step
    )
    if given.broken == "fsync_off":
        ledger._connection.execute("PRAGMA synchronous = OFF")
    if given.checkpoint_pages:
        ledger._connection.execute(f"PRAGMA wal_autocheckpoint = {given.checkpoint_pages}")
    work = Work(ledger, given, step)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        await asyncio.gather(*(work.run(task) for task in range(given.tasks)))
    except LedgerUnavailable as error:
        sys.stdout.write(f"refused {error.message}\n")
    if given.leave:
        sys.stdout.flush()
        os._exit(0)
    ledger.close()


if __name__ == "__main__":
    asyncio.run(main())
