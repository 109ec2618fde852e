"""A ledger with records of several people, what can be asked of it, and a search for bytes in all its files."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from onbehalf.doors.ledger_erasable import Kind
from onbehalf.doors.ledger_erase import Erasing, size_of
from onbehalf.doors.ledger_erase_sqlite import SqliteErasable
from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_requests import Request, Requests
from onbehalf.doors.ledger_sealing import SubjectSealing
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.ledger_store import SqliteStore
from onbehalf.explain.leaf import Record
from onbehalf.model import AuditEntry, Json, UnixTime

__all__ = [
    "ALICE",
    "BOB",
    "ORIGIN",
    "asked",
    "begun",
    "ended",
    "entry",
    "erase",
    "files_with",
    "filled",
    "key_bytes",
    "opened",
    "reader",
    "record",
    "requests",
    "sealing",
    "written",
]  # fmt: skip

ORIGIN = "gateway.example/log"
NOW = UnixTime(9_000)
ALICE, BOB = "acme/alice", "acme/bob"


def entry(about: str, number: int, *, at: int = 1000, kind: str = "denial") -> AuditEntry:
    facts: dict[str, Json] = {"person": {"id": about}, "arguments": {"canary": f"canary-of-{about}-{number}"}}
    return AuditEntry(kind=kind, call=f"call_{number:032x}", at=UnixTime(at), facts=facts, about=about)


def sealing(path: Path) -> SubjectSealing:
    made = read_ledger_keys(path / "keys", origin=ORIGIN).sealer
    assert isinstance(made, SubjectSealing)
    return made


@contextmanager
def opened(path: Path, failpoint: Callable[[str], None] = lambda _: None) -> Iterator[tuple[SqliteLedger, Erasing]]:
    """The ledger as a gateway opens it, and what carries out erasures in it."""
    keys = open_ledger_keys(path / "keys", origin=ORIGIN)
    ledger = SqliteLedger.open(path / "log.db", keys=keys, origin=ORIGIN, now=lambda: NOW)
    assert isinstance(keys.sealer, SubjectSealing)
    erasable = SqliteErasable(ledger, path / "log.db", keys.sealer)
    erasing = Erasing(erasable, keys.sealer, now=lambda: NOW, failpoint=failpoint)
    try:
        yield ledger, erasing
    finally:
        ledger.close()
        erasing.close()


def written(path: Path, entries: Sequence[AuditEntry]) -> list[int]:
    """The entries on record; their indices."""

    async def write(ledger: SqliteLedger) -> list[int]:
        return [receipt.index for receipt in await asyncio.gather(*(ledger.append(each) for each in entries))]

    with opened(path) as (ledger, _):
        return asyncio.run(write(ledger))


def requests(path: Path) -> Requests:
    of = sealing(path)
    return Requests(of.store, of.wrapping)


def asked(path: Path, kind: Kind, *people: str, before: int = 0, number: int = 0) -> Request:
    """A request as the command writes it."""
    labels = [sealing(path).wrapping.label(each) for each in people]
    said: dict[str, Json] = {"by": "root", "at": 5000, "from": size_of(SqliteStore(path / "log.db"))}
    if kind == "erase":
        said |= {"labels": [each.hex() for each in labels], "basis": "art. 17"}
    elif kind == "retain":
        said |= {"before": before, "basis": "over"}
    else:
        said |= {"whom": people[0], "reason": "case 7", "number": number}
    return requests(path).ask(kind, said, hold=labels if kind == "hold" else ())


def erase(path: Path) -> None:
    """What was asked for, carried out as at a gateway's start."""
    with opened(path) as (_, erasing):
        asyncio.run(begun(erasing))


async def begun(erasing: Erasing) -> None:
    """All that a start does of it."""
    await erasing.begin()
    await erasing.carry_out()


def reader(path: Path) -> LedgerReader:
    return LedgerReader(path / "log.db", keys=read_ledger_keys(path / "keys", origin=ORIGIN))


def key_bytes(path: Path, about: str) -> list[bytes]:
    """All that the key store has of somebody's living keys: ids excepted, the label, and each key wrapped."""
    label = sealing(path).wrapping.label(about)
    with closing(sqlite3.connect(path / "ledger-keys.db")) as connection:
        rows = connection.execute("SELECT wrapped FROM key WHERE label = ?", (label,)).fetchall()
    return [label, *(each for (each,) in rows)]


def files_with(path: Path, bytes_: bytes) -> list[str]:
    """The files below a folder in which these bytes stand."""
    return [each.name for each in sorted(path.rglob("*")) if each.is_file() and bytes_ in each.read_bytes()]


def filled(path: Path) -> None:
    """Ten records, of Alice and Bob in turn, between two of nobody."""
    house = AuditEntry(kind="start", call="", at=UnixTime(999), facts={"version": "1"})
    people = [entry(ALICE if number % 2 else BOB, number, at=1000 + number) for number in range(10)]
    written(path, [house, *people, house])


def record(path: Path, index: int) -> Record:
    opened_reader = reader(path)
    try:
        return opened_reader.record(index)
    finally:
        opened_reader.close()


def ended(path: Path) -> str:
    """The code of what the whole record does not hold, "" where it verifies."""
    return ", ".join(each.code for each in reader(path).verify().findings)
