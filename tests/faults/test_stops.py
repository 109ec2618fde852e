"""A writer that hangs, is slow or dies, and clocks that lie: callers are refused or answered late and never hang."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.checker import judge, read_log
from faults.fault_house import ORIGIN, Place
from onbehalf.doors.ledger_keys import read_ledger_keys
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.errors import LedgerUnavailable
from onbehalf.model import AuditEntry, UnixTime


def opened(place: Place, failpoint: Callable[[str], None], at: int = 3) -> SqliteLedger:
    keys = read_ledger_keys(place.directory / "keys", origin=ORIGIN)
    return SqliteLedger.open(
        place.database, keys=keys, origin=ORIGIN, now=lambda: UnixTime(at), failpoint=failpoint
    )  # fmt: skip


def entry(kind: str, number: int, at: int = 1) -> AuditEntry:
    call = "" if kind == "start" else f"call_{number:032x}"
    return AuditEntry(kind=kind, call=call, at=UnixTime(at), facts={})


@pytest.mark.parametrize("death", [SystemExit, MemoryError, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("step", ["before_commit", "committed", "woken"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_when_the_writer_dies_whoever_waits_and_whoever_comes_is_refused(
    tmp_path: Path, death: type[BaseException], step: str
) -> None:
    def dying(name: str) -> None:
        if name == step:
            raise death("the writer is gone")

    place = Place.at(tmp_path)
    ledger = opened(place, dying)

    async def several() -> None:
        for number in range(3):  # a writer that died after it had answered takes no second one
            await asyncio.wait_for(ledger.append(entry("start", number)), 20)

    async def call() -> None:
        with pytest.raises(LedgerUnavailable, match="could not be written"):
            await several()
        with pytest.raises(LedgerUnavailable):
            await asyncio.wait_for(ledger.append(entry("start", 9)), 20)
        with pytest.raises(LedgerUnavailable):
            ledger.follow(entry("start", 9))

    asyncio.run(call())
    ledger.close()
    assert place.restarted() == []


def test_a_slow_disk_makes_callers_wait_and_loses_nobody(tmp_path: Path) -> None:
    """One commit in forty takes half a second: worse than a disk whose 99th percentile that is."""
    commits = 0

    def slow(name: str) -> None:
        nonlocal commits
        if name == "before_commit":
            commits += 1
            time.sleep(0.5 if commits % 40 == 20 else 0)

    place = Place.at(tmp_path)
    ledger = opened(place, slow)

    async def call(task: int) -> list[int]:
        return [(await ledger.append(entry("start", task))).index for _ in range(40)]

    async def everybody() -> list[list[int]]:
        return await asyncio.gather(*(call(task) for task in range(8)))

    found = asyncio.run(everybody())
    ledger.close()
    assert sorted(index for each in found for index in each) == list(range(320))
    assert commits >= 20
    assert place.restarted() == []


def test_a_disk_that_hangs_costs_a_caller_its_own_time_limit_and_no_more(tmp_path: Path) -> None:
    go_on = threading.Event()
    place = Place.at(tmp_path)
    ledger = opened(place, lambda name: (go_on.wait(30), None)[1] if name == "before_commit" else None)

    async def call() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ledger.append(entry("intent", 1)), 0.2)
        go_on.set()
        await asyncio.wait_for(ledger.append(entry("start", 2)), 30)

    asyncio.run(call())
    ledger.close()
    log = read_log(place.database)
    assert [leaf["kind"] for leaf in log.said()] == ["intent", "outcome", "start"]
    assert judge(log, place.seen(), place.vkey) == []


def test_clocks_that_jump_run_backwards_or_stand_still_change_no_order(tmp_path: Path) -> None:
    """Order is the index; what a clock said is one more fact."""
    place = Place.at(tmp_path)
    times = [10_000, 13_600, 6_400, 6_400, 6_400, 0, 10_001]
    random.shuffle(times)

    async def call(ledger: SqliteLedger) -> list[int]:
        return [(await ledger.append(entry("intent", number, at))).index for number, at in enumerate(times)]

    ledger = opened(place, lambda _: None)
    assert asyncio.run(call(ledger)) == list(range(len(times)))
    ledger.close()
    assert [leaf["at"] for leaf in read_log(place.database).said()] == times
    opened(place, lambda _: None, at=5).close()  # a start in the past
    after = read_log(place.database)
    assert [leaf["of"] for leaf in after.said()[len(times) :]] == list(range(len(times)))
    assert place.reader().verify().ok
    assert judge(after, place.seen(), place.vkey) == []
