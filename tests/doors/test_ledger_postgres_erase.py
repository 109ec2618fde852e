"""Erasure from a record that several replicas write: the same as from a file, and nothing is lost between two of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from doors.erase_house import ALICE, BOB, entry
from doors.ledger_postgres_house import Record, sealing_of, wait_for
from onbehalf.doors.ledger_erase import resurrected
from onbehalf.doors.ledger_evidence import Asked, export
from onbehalf.doors.ledger_postgres import PostgresLedger
from onbehalf.doors.ledger_postgres_store import PostgresStore
from onbehalf.explain.leaf import Record as Told
from onbehalf.explain.seal import key_id
from onbehalf.model import AuditEntry, UnixTime
from onbehalf.verifier.check import check
from onbehalf.verifier.report import Verdict


@pytest.fixture
def record(tmp_path: Path, database: str) -> Record:
    return Record(tmp_path, database)


@pytest.fixture
def filled(record: Record) -> Record:
    """Ten records, of Alice and Bob in turn, between two of nobody."""
    house = AuditEntry(kind="start", call="", at=UnixTime(999), facts={"version": "1"})
    people = [entry(ALICE if number % 2 else BOB, number, at=1000 + number) for number in range(10)]
    ledger = record.replica()
    written(ledger, house, *people, house)
    ledger.close()
    return record


def written(ledger: PostgresLedger, *entries: AuditEntry) -> list[int]:
    async def write() -> list[int]:
        return [each.index for each in await asyncio.gather(*(ledger.append(each) for each in entries))]

    return asyncio.run(write())


def told(record: Record, index: int) -> Told:
    reader = record.reader()
    try:
        return reader.record(index)
    finally:
        reader.close()


def erased(record: Record) -> list[int]:
    reader = record.reader()
    try:
        return [index for index in range(reader.verify().size) if reader.record(index).erased]
    finally:
        reader.close()


def sealed(record: Record, index: int) -> bytes:
    [(found,)] = record.run(f"SELECT sealed FROM onbehalf_log.payload WHERE idx = {index:d}")
    return bytes(found)


def test_erasing_a_person_closes_their_payloads_and_nobody_elses(filled: Record) -> None:
    request = filled.asked("erase", ALICE)
    filled.erase()
    assert erased(filled) == [2, 4, 6, 8, 10]
    assert told(filled, 3).facts["arguments"] == {"canary": f"canary-of-{BOB}-2"}
    assert told(filled, 0).facts == {"version": "1"}
    assert filled.verified() == 13
    last = told(filled, 12)
    assert last.kind == "erased"
    assert last.facts == {
        "erasure": {"id": request.id, "count": 5, "first": 2, "last": 10, "keys": [key_id(sealed(filled, 2)).hex()]},
        "basis": "art. 17", "by": "root",
    }  # fmt: skip
    why = told(filled, 4).erasure
    assert why is not None
    assert (why.leaf, why.at) == (12, 9000)
    found = filled.requests().find(request.id)
    assert (found.state, found.said) == ("done", {})
