"""What every Ledger promises, asked of the doors to SQLite and PostgreSQL, and of the one in memory that the house's
tests stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from doors.ledger_postgres_house import Record
from house import Doors
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.ledger_postgres import PostgresLedger
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.errors import LedgerUnavailable
from onbehalf.model import AuditEntry, UnixTime
from onbehalf.ports import Ledger

ORIGIN = "gateway.example/log"


class Breaking:
    """A disk that stops working when told to."""

    def __init__(self) -> None:
        self.broken = False

    def at(self, step: str) -> None:
        if self.broken and step in ("before_commit", "signed"):
            raise OSError("no space is left")


def sqlite_ledger(path: Path) -> tuple[Ledger, Callable[[], None]]:
    disk = Breaking()
    keys = open_ledger_keys(path / "keys", origin=ORIGIN)
    ledger = SqliteLedger.open(path / "log.db", keys=keys, origin=ORIGIN, now=lambda: UnixTime(1), failpoint=disk.at)
    return ledger, lambda: setattr(disk, "broken", True)


def memory_ledger(_: Path) -> tuple[Ledger, Callable[[], None]]:
    doors = Doors()
    return doors, lambda: doors.broken.update({"ledger_full", "ledger_full_later"})


def postgres_ledger(path: Path, dsn: str) -> tuple[Ledger, Callable[[], None]]:
    disk = Breaking()
    ledger = Record(path, dsn).replica(failpoint=disk.at)
    return ledger, lambda: setattr(disk, "broken", True)


@pytest.fixture(params=["sqlite", "postgres", "memory"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Ledger, Callable[[], None]]]:
    if request.param == "postgres":
        ledger, break_it = postgres_ledger(tmp_path, request.getfixturevalue("database"))
    else:
        ledger, break_it = {"sqlite": sqlite_ledger, "memory": memory_ledger}[request.param](tmp_path)
    yield ledger, break_it
    if isinstance(ledger, SqliteLedger | PostgresLedger):
        ledger.close()


def entry(number: int) -> AuditEntry:
    return AuditEntry(kind="denial", call=f"call_{number:032x}", at=UnixTime(number), facts={"number": number})


def test_receipts_count_up_and_differ_and_followers_take_their_place(made: tuple[Ledger, Callable[[], None]]) -> None:
    ledger, _ = made

    async def write() -> list[int]:
        first = await ledger.append(entry(1))
        ledger.follow(entry(2))
        third = await ledger.append(entry(3))
        assert first.leaf != third.leaf
        assert first.leaf.startswith("sha256:")
        return [first.index, third.index]

    assert asyncio.run(write()) == [0, 2]


def test_what_cannot_be_made_durable_is_an_error_and_stays_one(made: tuple[Ledger, Callable[[], None]]) -> None:
    ledger, break_it = made

    async def write() -> None:
        await ledger.append(entry(1))
        break_it()
        for _ in range(2):
            with pytest.raises(LedgerUnavailable):
                await ledger.append(entry(2))
        with pytest.raises(LedgerUnavailable):
            ledger.follow(entry(3))

    asyncio.run(write())


def test_what_is_sent_to_one_upstream_is_numbered_without_a_hole_and_nothing_else_is(
    made: tuple[Ledger, Callable[[], None]],
) -> None:
    ledger, _ = made

    async def write() -> list[tuple[str, int]]:
        found = []
        for number, audience in enumerate(["https://a.example", "", "https://b.example", "https://a.example"]):
            intent = AuditEntry(kind="intent", call=f"call_{number}", at=UnixTime(1), facts={}, audience=audience)
            receipt = await ledger.append(intent)
            found.append((receipt.channel, receipt.number))
        return found

    first, none, other, second = asyncio.run(write())
    assert none == ("", 0)
    assert [first[1], other[1], second[1]] == [1, 1, 2]
    assert first[0] == second[0] != other[0]
