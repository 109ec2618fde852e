"""A record in PostgreSQL with payloads of several people, for tests that erase some of them."""

from __future__ import annotations

import asyncio

from doors.erase_house import ALICE, BOB, entry
from doors.ledger_postgres_house import Record
from onbehalf.doors.ledger_postgres import PostgresLedger
from onbehalf.doors.ledger_reader import VerifyReport
from onbehalf.explain.leaf import Record as Told
from onbehalf.model import AuditEntry, UnixTime

__all__ = ["erased", "report", "sealed", "told", "with_people", "written"]


def with_people(record: Record) -> Record:
    """The record with ten entries, of Alice and Bob in turn, between two of nobody."""
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


def report(record: Record) -> VerifyReport:
    """What a check of the whole record finds."""
    reader = record.reader()
    try:
        return reader.verify()
    finally:
        reader.close()
