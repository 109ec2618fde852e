"""A ledger's start: what stands before it, what it puts on record of a process that was ended, and what it leaves where
it cannot start."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onbehalf.doors import ledger_sqlite
from onbehalf.doors.ledger_file import lock_file
from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import AuditEntry, Receipt, UnixTime

ORIGIN = "gateway.example/log"


@pytest.fixture
def keys(tmp_path: Path) -> LedgerKeys:
    return open_ledger_keys(tmp_path / "keys", origin=ORIGIN)


def opened(
    path: Path, keys: LedgerKeys, *, origin: str = ORIGIN, now: Callable[[], int] = lambda: 5000,
    failpoint: Callable[[str], None] = lambda _: None,
) -> SqliteLedger:  # fmt: skip
    return SqliteLedger.open(
        path / "log.db", keys=keys, origin=origin, now=lambda: UnixTime(now()), failpoint=failpoint
    )


def intent(number: int) -> AuditEntry:
    return AuditEntry(kind="intent", call=f"call_{number}", at=UnixTime(1000), facts={"n": number})


def written(ledger: SqliteLedger, *entries: AuditEntry) -> list[Receipt]:
    async def write() -> list[Receipt]:
        return [await asyncio.wait_for(ledger.append(each), 20) for each in entries]

    return asyncio.run(write())


def free(path: Path) -> bool:
    """Whether nobody holds the ledger's lock."""
    try:
        handle = lock_file(path / "log.db")
    except LedgerUnavailable:
        return False
    ledger_sqlite.os.close(handle)
    return True


def test_intents_without_an_end_are_on_record_as_unknown_before_anything_else_is_taken(
    tmp_path: Path, keys: LedgerKeys
) -> None:
    steps: list[str] = []
    ledger = opened(tmp_path, keys)
    receipts = written(ledger, *map(intent, range(3)))
    told = AuditEntry(
        kind="outcome", call="call_1", at=UnixTime(1001), facts={"intent": {"index": 1, "leaf": receipts[1].leaf}}
    )
    written(ledger, told)
    ledger.close()
    asked: list[int] = []
    ledger = opened(tmp_path, keys, now=lambda: asked.append(1) or 5000, failpoint=steps.append)
    assert [(each.index, each.call) for each in ledger.recovered] == [(0, "call_0"), (2, "call_2")]
    assert (ledger.taken, asked, steps) == (6, [1], ["before_commit", "committed"])
    assert ledger.head.startswith(f"{ORIGIN}\n6\n")
    (receipt,) = written(ledger, intent(9))
    assert (receipt.index, ledger.taken) == (6, 7)
    ledger.close()
    reader = LedgerReader(tmp_path / "log.db", keys=read_ledger_keys(tmp_path / "keys", origin=ORIGIN))
    assert reader.verify().ok
    for index, number in ((4, 0), (5, 2)):
        record = reader.record(index)
        assert (record.kind, record.call, record.at) == ("unknown", f"call_{number}", 5000)
        assert record.facts["intent"] == {"index": number, "leaf": receipts[number].leaf}


def test_where_every_intent_has_its_end_nothing_is_put_on_record(tmp_path: Path, keys: LedgerKeys) -> None:
    steps: list[str] = []
    asked: list[int] = []
    for _ in range(2):
        ledger = opened(tmp_path, keys, now=lambda: asked.append(1) or 5000, failpoint=steps.append)
        assert (ledger.recovered, ledger.taken, ledger.keyed, ledger.head) == ((), 0, -1, "")
        ledger.close()
    assert (asked, steps) == ([], [])
    ledger = opened(tmp_path, keys)
    written(ledger, AuditEntry(kind="start", call="", at=UnixTime(1), facts={"key_set": {}}), intent(1))
    ledger.close()
    ledger = opened(tmp_path, keys)
    assert ledger.keyed == 0
    ledger.close()


def test_what_the_last_process_left_is_settled_before_the_file_is_opened(
    tmp_path: Path, keys: LedgerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[Any] = []
    for name in ("settle", "connect", "checked"):
        real = getattr(ledger_sqlite, name)
        monkeypatch.setattr(
            ledger_sqlite, name, lambda *given, name=name, real=real: steps.append((name, given[0])) or real(*given)
        )
    opened(tmp_path, keys).close()
    assert [name for name, _ in steps] == ["settle", "connect", "checked"]
    assert steps[0][1] == steps[1][1] == tmp_path / "log.db"


def test_a_log_of_another_origin_and_one_that_cannot_be_made_are_refused(tmp_path: Path, keys: LedgerKeys) -> None:
    with pytest.raises(LedgerUnavailable, match=r"the log's key is for .*, this log is `other`"):
        opened(tmp_path, keys, origin="other")
    assert not (tmp_path / "log.db").exists()
    with pytest.raises(LedgerUnavailable, match="cannot be made: No such file or directory"):
        opened(tmp_path / "nowhere", keys)


@pytest.mark.parametrize("step", ["settle", "connect", "checked"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (sqlite3.DatabaseError("x"), "cannot be read: x"), (OSError("x"), "cannot be read: x"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), "cannot be read: 'utf-8'"), (KeyError("x"), ""),
    ],
)  # fmt: skip
def test_a_ledger_that_cannot_start_leaves_neither_lock_nor_connection(
    tmp_path: Path, keys: LedgerKeys, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception, told: str
) -> None:
    opened(tmp_path, keys).close()
    made: list[sqlite3.Connection] = []
    real = ledger_sqlite.connect

    def connect(path: Path, keys: LedgerKeys) -> sqlite3.Connection:
        made.append(real(path, keys))
        return made[-1]

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(ledger_sqlite, "connect", connect)
    monkeypatch.setattr(ledger_sqlite, step, failing)
    with pytest.raises(LedgerCorrupt if told else KeyError, match=told or "x"):
        opened(tmp_path, keys)
    assert free(tmp_path)
    assert len(made) == (step == "checked")
    for each in made:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            each.execute("SELECT 1")


def test_a_commit_has_its_peoples_keys_on_disk_first_and_its_head_over_all_of_it(
    tmp_path: Path, keys: LedgerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    ledger = opened(tmp_path, keys, failpoint=steps.append)
    monkeypatch.setattr(keys.sealer, "settle", lambda: steps.append("settled"))
    written(ledger, intent(1))
    ledger.close()
    assert steps == ["queued", "settled", "before_commit", "committed", "woken"]


def test_after_a_commit_that_failed_nothing_is_taken_and_nobody_waits(tmp_path: Path, keys: LedgerKeys) -> None:
    def failing(step: str) -> None:
        if step == "before_commit":
            raise OSError("no room")

    ledger = opened(tmp_path, keys, failpoint=failing)

    async def write() -> list[Any]:
        entries = [intent(each) for each in range(5)]
        ledger.follow(intent(7))
        return await asyncio.wait_for(asyncio.gather(*map(ledger.append, entries), return_exceptions=True), 20)

    for each in asyncio.run(write()):
        assert isinstance(each, LedgerUnavailable)
        assert each.message == "the record could not be written (no room)"
    assert ledger.closed == "the record could not be written (no room)"
    ledger.close()
    assert ledger.closed == "the record could not be written (no room)"
    with pytest.raises(LedgerUnavailable, match="no room"):
        written(ledger, intent(8))
    assert free(tmp_path)
