"""Builds that are broken on purpose, each of which the checker must see; and the build that is not, which it must pass.

The faults are planted by load.py into the process that it starts, never in the source. What the checker says is part of
each test: a fault that is seen for another reason is not seen.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.checker import judge, read_log
from faults.fault_house import LOAD, Place, needs_strace
from faults.load import BROKEN
from faults.recorded import Recording

SEEN_AFTER_A_KILL: dict[str, tuple[tuple[str, ...], str]] = {
    "send_before_intent": (("--stop-at", "before_commit", "--after", "4"), "was done and is not on record"),
    "outcome_before_intent": (("--stop-at", "before_send", "--after", "6"), "which is no earlier intent of its call"),
    "sent_twice": (("--stop-at", "outcome", "--after", "30"), "was done 2 times"),
    "woken_before_commit": (("--stop-at", "before_commit", "--after", "60"), "was acknowledged and is not on record"),
    "head_without_its_last_leaf": (("--stop-at", "committed", "--after", "4"), "the signed head is of"),
    "head_of_another_history": (("--stop-at", "committed", "--after", "4"), "is not of this log"),
}
SEEN_AFTER_A_RESTART: dict[str, str] = {
    "no_recovery": "still open",
    "recovery_of_everything": "has a second end",
    "tail_is_repaired": "leaves from before the restart changed or are gone",
}
SEEN_AFTER_A_LOSS_OF_POWER = ("fsync_off", "not_settled")


def test_every_planted_fault_has_a_test() -> None:
    assert {*BROKEN} == {*SEEN_AFTER_A_KILL, *SEEN_AFTER_A_RESTART, *SEEN_AFTER_A_LOSS_OF_POWER}


@pytest.mark.parametrize("name", SEEN_AFTER_A_KILL)
def test_a_broken_build_is_seen_after_a_kill(tmp_path: Path, name: str) -> None:
    """At a step where the fault shows, or, of those that are a race, in one of a few kills."""
    stop, said = SEEN_AFTER_A_KILL[name]
    found: list[str] = []
    for attempt in range(6):
        place = Place.at(tmp_path / str(attempt))
        place.run(*stop, "--broken", name)
        found += _judged(place)
        if any(said in each for each in found):
            return
    pytest.fail(f"not seen: {found}")


@pytest.mark.parametrize("name", SEEN_AFTER_A_RESTART)
def test_a_broken_recovery_is_seen(tmp_path: Path, name: str) -> None:
    place = Place.at(tmp_path)
    place.killed("--stop-at", "sent", "--after", "20")
    found = place.restarted("--broken", name)
    assert any(SEEN_AFTER_A_RESTART[name] in each for each in found), found


def test_the_build_that_is_not_broken_is_passed_at_all_of_these_steps(tmp_path: Path) -> None:
    for number, (stop, _) in enumerate(SEEN_AFTER_A_KILL.values()):
        place = Place.at(tmp_path / str(number))
        place.killed(*stop)
        assert place.restarted() == []


@needs_strace
def test_a_build_that_does_not_sync_is_seen_when_power_is_lost(tmp_path: Path) -> None:
    """SIGKILL alone would never show it: what was written is then in the kernel's hands."""
    found = _power_lost(tmp_path, "--broken", "fsync_off")
    assert any("was acknowledged and is not on record" in each for each in found), found
    assert any("was done and is not on record" in each for each in found), found


@needs_strace
def test_a_build_that_builds_on_what_a_failed_sync_left_is_seen_when_power_is_lost(tmp_path: Path) -> None:
    place = Place.at(tmp_path)
    recording = Recording(place.directory)
    recording.run(LOAD, str(tmp_path), "--calls", "0")
    failing = ["fdatasync:error=EIO:when=3"]
    recording.run(LOAD, str(tmp_path), "--calls", "3", "--tasks", "1", "--die-on-error", inject=failing, code=-9)
    recording.run(LOAD, str(tmp_path), "--calls", "2", "--tasks", "1", "--leave", "--broken", "not_settled")
    end = len(recording.ops)
    found = place.after_power_loss(recording.disk(end, recording.doubtful(end)))
    assert any("is not on record" in each or "refused: the write-ahead log is damaged" in each for each in found), found


def _power_lost(place: Path, *arguments: str) -> list[str]:
    made = Place.at(place)
    recording = Recording(made.directory)
    recording.run(LOAD, str(place), "--calls", "3", "--tasks", "2", "--leave", *arguments)
    end = len(recording.ops)
    return made.after_power_loss(recording.disk(end, recording.doubtful(end)))


def _judged(place: Place) -> list[str]:
    return judge(read_log(place.database), place.seen(), place.vkey)
