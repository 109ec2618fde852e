"""Killed at any step, an erasure is not begun, or is finished by the next start: gone, and on record once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from doors.erase_house import asked, entry, erase, files_with, key_bytes, reader, requests, written

ALICE, BOB = "acme/alice", "acme/bob"
CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from doors.erase_house import begun, entry, opened
from onbehalf.errors import LedgerUnavailable

path, stop_at, after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
seen = 0

def failpoint(name):
    global seen
    if name == stop_at:
        seen += 1
        if seen > after:
            os.kill(os.getpid(), signal.SIGKILL)

async def calls(ledger, whom):
    for number in range(1000, 100_000):
        await ledger.append(entry(whom, number, at=5000))
        if number % 50 == 0:
            await asyncio.sleep(0.01)

async def main():
    with opened(path, failpoint) as (ledger, erasing):
        working = [asyncio.create_task(calls(ledger, whom)) for whom in ("acme/alice", "acme/bob", "acme/carol")]
        print("ready", flush=True)
        await begun(erasing)
        print("done", flush=True)
        await asyncio.sleep(60 if stop_at == "never" else 0)
        os._exit(0)

asyncio.run(main())
"""


def child(path: Path, stop_at: str, after: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(path), stop_at, str(after)]
    tests = Path(__file__).parents[1]
    source = "import sys; sys.path.insert(0, sys.argv.pop(1));"
    command[2:4] = [source + CHILD, str(tests), str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def killed(path: Path, stop_at: str, after: int = 0) -> None:
    process = child(path, stop_at, after)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, f"it was not stopped at `{stop_at}`"


def filled(path: Path) -> None:
    written(path, [entry(ALICE if number % 2 else BOB, number, at=1000 + number) for number in range(1200)])


def told(path: Path) -> tuple[list[int], list[int]]:
    """Alice's and Bob's records of before that are erased. The whole record verifies."""
    found = reader(path)
    report = found.verify()
    assert report.ok, report.findings[:3]
    erased = [index for index in range(0, 1200, 7) if found.record(index).erased]
    found.close()
    return [each for each in erased if each % 2], [each for each in erased if not each % 2]


@pytest.mark.parametrize("step", ["asked", "renewed", "destroyed", "scrubbed", "recorded", "done"])
def test_an_erasure_that_is_killed_is_nothing_or_is_finished_by_the_next_start(tmp_path: Path, step: str) -> None:
    filled(tmp_path)
    [label, wrapped] = key_bytes(tmp_path, ALICE)
    request = asked(tmp_path, "erase", ALICE)
    killed(tmp_path, step)
    found = reader(tmp_path)
    gone = found.record(1).erased
    found.close()
    assert gone == (step not in ("asked", "renewed"))
    erase(tmp_path)
    assert told(tmp_path) == ([*range(7, 1200, 14)], [])
    erasures = reader(tmp_path).verify().erasures
    assert [each.id for each in erasures] == [request.id]
    assert erasures[0].count >= 600
    assert requests(tmp_path).find(request.id).result["leaf"] == erasures[0].leaf
    assert files_with(tmp_path, wrapped) == []
    if gone:
        assert erasures[0].count < 1200, "what was written after the keys were renewed is not erased"
    assert key_bytes(tmp_path, ALICE) == [label] or gone


@pytest.mark.parametrize(("step", "after"), [("asked", 0), ("step", 0), ("step", 1), ("deleted", 0), ("scrubbed", 0),
                                             ("recorded", 0), ("done", 0)])  # fmt: skip
def test_a_retention_that_is_killed_is_finished_by_the_next_start_with_the_right_count(
    tmp_path: Path, step: str, after: int
) -> None:
    filled(tmp_path)
    request = asked(tmp_path, "retain", before=1900)
    killed(tmp_path, step, after)
    erase(tmp_path)
    alice, bob = told(tmp_path)
    assert sorted(alice + bob) == [*range(0, 900, 7)]
    [erasure] = reader(tmp_path).verify().erasures
    assert (erasure.id, erasure.count, erasure.first, erasure.last) == (request.id, 900, 0, 899)


@pytest.mark.parametrize("step", ["asked", "recorded", "done"])
def test_a_hold_that_is_killed_stands_and_is_on_record_once(tmp_path: Path, step: str) -> None:
    filled(tmp_path)
    asked(tmp_path, "hold", ALICE)
    asked(tmp_path, "erase", ALICE)
    killed(tmp_path, step)
    erase(tmp_path)
    assert told(tmp_path) == ([], [])
    assert reader(tmp_path).verify().kinds["legal_hold"] == 1
    assert len(requests(tmp_path).holds()) == 1


def test_killed_at_random_moments_while_people_call_the_record_says_what_is_gone(tmp_path: Path) -> None:
    moments = random.Random(11)
    filled(tmp_path)
    for round_ in range(8):
        whom = (ALICE, BOB)[round_ % 2]
        asked(tmp_path, "erase", whom)
        process = child(tmp_path, "never")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.0, 0.2))
        process.kill()
        assert process.wait(30) == -signal.SIGKILL
        process.stdout.close()
        erase(tmp_path)
        report = reader(tmp_path).verify()
        assert report.ok, report.findings[:3]
        assert requests(tmp_path).pending() == ()
        assert report.kinds["erased"] == len(report.erasures) == round_ + 1
        assert report.erased == sum(each.count for each in report.erasures)
