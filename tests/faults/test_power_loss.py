"""Power lost at any moment: every disk that it may leave begins a ledger with all that was acknowledged.

A recorded run is cut before each sync; what no sync had settled is lost or kept in every combination, also in part.
`make soak` tries all of them, a plain run a share.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest

from faults.fault_house import LOAD, Place, needs_strace
from faults.recorded import Disk, Recording, disks

LONG = "ONBEHALF_SOAK" in os.environ
SHARE = 25

pytestmark = needs_strace


def some(found: Iterable[Disk]) -> list[Disk]:
    """All of them in the long form; else a share, another one in every run."""
    every = list(found)
    assert len(every) > SHARE
    return every if LONG else random.sample(every, SHARE)


def nothing_lost(place: Place, found: Iterable[Disk]) -> None:
    for disk in found:
        assert place.after_power_loss(disk) == [], (disk.how, place.directory)


def work(place: Place, *arguments: str) -> tuple[str, ...]:
    return (LOAD, str(place.directory), *arguments)


@pytest.mark.timeout(3600 if LONG else 120)
def test_a_ledger_that_is_begun_written_checkpointed_and_closed_survives_every_loss_of_power(tmp_path: Path) -> None:
    """The log is copied into the file and begun anew on the way, every 12 pages instead of every 4,000."""
    place = Place.at(tmp_path)
    recording = Recording(place.directory)
    recording.run(*work(place, "--calls", "3", "--tasks", "2", "--checkpoint-pages", "12"))
    assert {op.what for op in recording.ops} == {"link", "unlink", "write", "truncate", "sync"}
    assert len(recording.points()) > 20
    nothing_lost(place, some(disks(recording, chance=random.Random(1), sample=40 if LONG else 5)))


@pytest.mark.timeout(3600 if LONG else 120)
def test_a_ledger_that_was_killed_and_recovered_survives_every_loss_of_power(tmp_path: Path) -> None:
    place = Place.at(tmp_path)
    recording = Recording(place.directory)
    recording.run(*work(place, "--calls", "9", "--tasks", "2", "--stop-at", "sent", "--after", "5"), code=-9)
    since = len(recording.ops)
    recording.run(*work(place, "--calls", "1", "--tasks", "2"))
    nothing_lost(place, some(disks(recording, chance=random.Random(2), sample=40 if LONG else 5, since=since)))


@pytest.mark.timeout(3600 if LONG else 120)
@pytest.mark.parametrize("nth", range(1, 7) if LONG else [1, 3])
def test_what_a_failed_sync_left_in_memory_is_settled_before_anything_is_built_on_it(tmp_path: Path, nth: int) -> None:
    """The n-th sync of the writer fails and the process is killed there. The kernel shows pages that are on no disk and
    reports no more errors; the next process reads them and goes on, and then power is lost."""
    place = Place.at(tmp_path)
    recording = Recording(place.directory)
    recording.run(*work(place, "--calls", "0"))
    failing = [f"fdatasync:error=EIO:when={nth}"]
    recording.run(*work(place, "--calls", "3", "--tasks", "1", "--die-on-error"), inject=failing, code=None)
    assert "failed" in {op.what for op in recording.ops}
    since = len(recording.ops)
    recording.run(*work(place, "--calls", "2", "--tasks", "1", "--leave"))
    nothing_lost(place, some(disks(recording, chance=random.Random(3), sample=40 if LONG else 5, since=since)))


def test_all_that_was_not_synced_is_lost_and_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """As LazyFS has it: a crash leaves what was synced, and nothing else."""
    place = Place.at(tmp_path)
    recording = Recording(place.directory)
    recording.run(*work(place, "--calls", "4", "--tasks", "3", "--checkpoint-pages", "12"))
    nothing_lost(place, (recording.disk(point, recording.doubtful(point)) for point in recording.points()))


def test_the_disks_are_what_the_recorder_says_they_are(tmp_path: Path) -> None:
    """With nothing lost at the end, they are the very files; with everything lost, only what was synced."""
    place = Place.at(tmp_path)
    recording = Recording(place.directory)
    recording.run(*work(place, "--calls", "3", "--tasks", "2", "--leave"))
    disk = recording.disk(len(recording.ops))
    for name in ("log.db", "log.db-wal"):
        assert disk.files[name] == (place.directory / name).read_bytes()
    seen = place.seen()
    assert len(disk.told) == len(seen.acked) + len(seen.effects)
    assert recording.disk(0).files == {}
    assert [point for point in recording.points() if len(recording.doubtful(point)) > 1]
    assert len(list(islice(disks(recording, chance=random.Random(1), sample=1), 300))) == 300
