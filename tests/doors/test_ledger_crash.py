"""Killed at any moment, nothing is off the record: log, effects and recovery are checked by an independent reader."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.model import UnixTime

ORIGIN = "gateway.example/log"
CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.errors import LedgerUnavailable
from onbehalf.model import AuditEntry, UnixTime

path, stop_at, after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
seen = 0
def failpoint(name):
    global seen
    if name == stop_at:
        seen += 1
        if seen > after:
            os.kill(os.getpid(), signal.SIGKILL)

def entry(kind, call, **facts):
    about = f"acme/{call[-2:]}" if call else ""  # of many people, new ones among them
    return AuditEntry(kind=kind, call=call, at=UnixTime(1), facts=facts, about=about)

async def work(ledger, effects, task):
    for number in range(100_000):
        call = f"call_{os.getpid()}_{task}_{number}"
        receipt = await ledger.append(entry("intent", call, arguments={"n": number}))
        os.write(effects, f"{receipt.index} {call}\\n".encode())
        os.fdatasync(effects)
        done = entry("outcome", call, intent={"index": receipt.index, "leaf": receipt.leaf}, outcome={"status": "done"})
        if number % 2:
            ledger.follow(done)
        else:
            await ledger.append(done)

async def main():
    keys = open_ledger_keys(path / "keys", origin="gateway.example/log")
    now = lambda: UnixTime(2)
    ledger = SqliteLedger.open(path / "log.db", keys=keys, origin=keys.signer.name, now=now, failpoint=failpoint)
    effects = os.open(path / "effects", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    print("ready", flush=True)
    try:
        await asyncio.gather(*(work(ledger, effects, task) for task in range(6)))
    except LedgerUnavailable as error:
        try:
            ledger.follow(entry("start", ""))
        except LedgerUnavailable:
            print("refused", error, flush=True)
asyncio.run(main())
"""


def child(path: Path, stop_at: str = "", after: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), stop_at, str(after)], stdout=subprocess.PIPE, text=True
    )


def check(path: Path) -> tuple[int, int]:
    """Reopen as a gateway would and compare log, effects and recovery. Answers effects and recovered intents."""
    keys = read_ledger_keys(path / "keys", origin=ORIGIN)
    reader = LedgerReader(path / "log.db", keys=keys)
    before = reader.verify()
    assert before.ok, before.findings[:3]
    expected = {intent.index: intent.call for intent in before.open_intents}
    ledger = SqliteLedger.open(path / "log.db", keys=keys, origin=ORIGIN, now=lambda: UnixTime(3))
    assert {intent.index: intent.call for intent in ledger.recovered} == expected
    ledger.close()
    after = reader.verify()
    assert after.ok
    assert after.open_intents == ()
    assert after.size == before.size + len(expected)
    effects = (
        [line.split() for line in (path / "effects").read_text().splitlines()] if (path / "effects").exists() else []
    )
    assert len({index for index, _ in effects}) == len(effects)
    for index, call in effects:
        record = reader.record(int(index))
        assert (record.kind, record.call) == ("intent", call)
    reader.close()
    return len(effects), len(expected)


def test_killed_at_random_moments_nothing_is_off_the_record(tmp_path: Path) -> None:
    moments = random.Random(7)
    total = 0
    for _ in range(12):
        process = child(tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):  # the wait is the random moment: the child never ends by itself
            process.wait(moments.uniform(0.01, 0.25))
        process.kill()
        assert process.wait(30) == -signal.SIGKILL
        process.stdout.close()
        total, _ = check(tmp_path)
    assert total > 0


@pytest.mark.parametrize("name", ["queued", "before_commit", "committed", "woken"])
def test_killed_at_each_step_of_a_commit_nothing_is_off_the_record(tmp_path: Path, name: str) -> None:
    for after in (0, 7):
        process = child(tmp_path, name, after)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        check(tmp_path)


def test_file_that_cannot_grow_refuses_now_and_later(tmp_path: Path) -> None:
    open_ledger_keys(tmp_path / "keys", origin=ORIGIN)
    ignoring = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"  # so that the write fails with EFBIG
    process = subprocess.Popen(
        [sys.executable, "-c", ignoring + CHILD, str(tmp_path), "", "0"],
        stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )  # fmt: skip
    printed, _ = process.communicate(timeout=60)
    assert "refused" in printed
    check(tmp_path)


def test_torn_end_of_the_write_ahead_log_leaves_a_log_that_verifies(tmp_path: Path) -> None:
    process = child(tmp_path, "committed", 5)
    process.communicate(timeout=60)
    log = tmp_path / "log.db-wal"
    os.truncate(log, log.stat().st_size - 100)
    reader = LedgerReader(tmp_path / "log.db", keys=read_ledger_keys(tmp_path / "keys", origin=ORIGIN))
    assert reader.verify().ok
