"""A disk that fails or is full: whoever waits is refused, all that was acknowledged is there, and it goes on after."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.fault_house import Place, needs_strace
from faults.recorded import strace

LONG = "ONBEHALF_SOAK" in os.environ
CHANCE = random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID"))  # all workers of a run must choose alike
MANY = 12 if LONG else 2


def injected(fault: str, tmp_path: Path, *, refused: bool = True) -> Place:
    """A load in whose process a system call fails. It is opened once before, so that the fault hits its writer."""
    place = Place.at(tmp_path)
    place.opened().close()
    command = strace("-o", os.devnull, "-e", f"trace={fault.partition(':')[0]}", f"--inject={fault}")
    printed = place.run("--calls", "40", "--tasks", "3", before=tuple(command))
    not_begun = "ready" not in printed  # the fault hit its start, which is refused as a whole
    assert (not_begun or "refused the record could not be written" in printed) == refused, printed
    return place


@needs_strace
@pytest.mark.parametrize("nth", sorted({1, *CHANCE.sample(range(3, 30), MANY)}))
def test_when_the_nth_sync_fails_nothing_more_is_taken_and_nothing_acknowledged_is_gone(
    tmp_path: Path, nth: int
) -> None:
    assert injected(f"fdatasync:error=EIO:when={nth}", tmp_path).restarted() == []


@needs_strace
def test_a_failed_sync_of_the_folder_is_no_error_of_sqlites_and_need_be_none(tmp_path: Path) -> None:
    """It is the writer's second. The log's name was made durable before SQLite opened it, where an error counts."""
    assert injected("fdatasync:error=EIO:when=2", tmp_path, refused=False).restarted() == []


@needs_strace
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EROFS", "EIO"])
@pytest.mark.parametrize("nth", CHANCE.sample(range(1, 60), MANY))
def test_when_the_nth_write_fails_nothing_more_is_taken_and_nothing_acknowledged_is_gone(
    tmp_path: Path, error: str, nth: int
) -> None:
    """A full disk, a used quota, a file system that was made read-only, a broken one."""
    assert injected(f"pwrite64:error={error}:when={nth}+", tmp_path).restarted() == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 640 kB, where one may be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip("nothing can be mounted here")
    if done.returncode:
        pytest.skip("nothing may be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_disk_that_is_really_full_refuses_and_with_room_made_goes_on(small: Path) -> None:
    (small / "room").write_bytes(bytes(200_000))
    place = Place.at(small)
    printed = place.run("--calls", "500", "--tasks", "2", "--pad", "2000")
    assert "refused the record could not be written" in printed
    (small / "room").unlink()
    assert place.restarted() == []
