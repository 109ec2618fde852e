"""Processes killed, stopped and resumed at any step: the three logs agree, before and after the next start.

A ledger's own process is cheap, and is killed often; the whole gateway is killed at each step of its corridor, with
clients, a backend and a record of their own. `make soak` kills the gateway a thousand times (soak.py).
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from faults.fault_house import Place
from faults.soak import STEPS, Round, Sample, Told, growing, soak, walked

KILLS = 8
LEDGER_STEPS = ("queued", "before_commit", "committed", "woken", "before_send", "sent", "outcome")


def test_a_ledger_that_is_killed_at_random_moments_under_load_agrees_with_what_was_seen(tmp_path: Path) -> None:
    chance = random.Random()
    place = Place.at(tmp_path)
    for _ in range(KILLS):
        process = place.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):  # the wait is the random moment
            process.wait(chance.uniform(0.01, 0.3))
        process.kill()
        process.communicate(timeout=30)
        assert place.restarted() == []
    assert place.seen().effects


@pytest.mark.parametrize("step", LEDGER_STEPS)
def test_a_ledger_that_is_killed_at_each_step_agrees_with_what_was_seen(tmp_path: Path, step: str) -> None:
    place = Place.at(tmp_path)
    for after in (0, 5):
        place.killed("--stop-at", step, "--after", str(after))
        assert place.restarted() == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", ["before_commit", "committed", "sent"])
def test_a_process_that_is_stopped_at_a_step_and_resumed_keeps_the_ledger_to_itself(tmp_path: Path, step: str) -> None:
    """A process that sleeps still holds the lock, however long it sleeps: no second writer begins behind its back."""
    place = Place.at(tmp_path)
    arguments = ("--stop-at", step, "--after", "5", "--stop-by", str(int(signal.SIGSTOP)), "--calls", "20")
    process = place.start(*arguments)
    try:
        _wait_until_stopped(process.pid)
        second = place.run("--calls", "1", code=1)
        assert second == ""
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=200)[0] == "ready\n"
        assert process.returncode == 0
    finally:
        process.kill()
    assert place.restarted() == []


def _wait_until_stopped(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "T":
        time.sleep(0.02)


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """A gateway killed at each step of a call, one after another on one record."""
    told = walked(tmp_path_factory.mktemp("rounds"), [Round(step=step) for step in STEPS])
    return dict(zip(STEPS, told, strict=True))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("step", STEPS)
def test_a_gateway_that_is_killed_at_each_step_of_a_call_agrees_with_what_was_seen(
    rounds: dict[str, Told], step: str
) -> None:
    assert rounds[step].faults == []
    assert rounds[step].leaves


def test_a_gateway_that_sends_before_its_intent_is_durable_is_seen(tmp_path: Path) -> None:
    """The negative oracle of the whole gateway: the checker must see this build, or it sees nothing."""
    [told] = walked(tmp_path, [Round(step="intent_not_awaited")])
    assert any("was done and is not on record" in each for each in told.faults), told


def test_a_gateway_that_is_killed_at_random_moments_under_load_agrees_with_what_was_seen(tmp_path: Path) -> None:
    told = soak(tmp_path, kills=3, seed=random.randrange(1 << 30))
    assert told.faults == []
    assert told.acked
    assert told.effects


def test_what_grows_without_end_is_seen() -> None:
    flat = [Sample(files=30, memory_kb=90_000 + number % 7, disk=10, leaves=number * 50) for number in range(30)]
    assert growing(flat) == []
    assert growing([replace(each, files=30 + number) for number, each in enumerate(flat)])
    assert growing([replace(each, memory_kb=90_000 + 2000 * number) for number, each in enumerate(flat)])
    assert growing([replace(each, disk=number * 50_000_000, leaves=3000) for number, each in enumerate(flat)])
