"""Several processes give what one gives; one that is gone, or hangs, ends the check without a word about the record."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from onbehalf.verifier import crew as crews
from onbehalf.verifier import walk
from onbehalf.verifier.check import check
from onbehalf.verifier.command import main
from onbehalf.verifier.crew import Block, crew
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.runs import examined
from verifier.bundle_house import Bundle, bundled
from verifier.test_runs import log


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundled(tmp_path_factory.mktemp("bundle"), everything=False)


LINES = log(60)


def blocks(size: int = 7) -> Iterator[Block]:
    for start in range(0, len(LINES), size):
        yield start, b"".join(each + b"\n" for each in LINES[start : start + size])


def test_two_processes_find_what_one_finds_and_in_order() -> None:
    assert [*crew(blocks(), jobs=2)] == [(start, data, examined(start, data)) for start, data in blocks()]


def test_a_bundle_checked_by_two_processes_has_the_report_of_one(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk, "_WORTH_IT", 0)
    asked: list[int] = []
    monkeypatch.setattr(crews, "_started", lambda jobs: asked.append(jobs) or _STARTED(jobs))
    assert check(bundle.path, key=bundle.vkey, jobs=2) == check(bundle.path, key=bundle.vkey)
    assert asked == [2]


_STARTED = crews._started


def started_and(monkeypatch: pytest.MonkeyPatch, signal_: int) -> list[subprocess.Popen[bytes]]:
    """Processes that get this signal once they are ready."""
    made: list[subprocess.Popen[bytes]] = []

    def started(jobs: int) -> list[subprocess.Popen[bytes]]:
        made.extend(_STARTED(jobs))
        for each in made:
            os.kill(each.pid, signal_)
        return [*made]

    monkeypatch.setattr(crews, "_started", started)
    monkeypatch.setattr(walk, "_WORTH_IT", 0)
    return made


def test_a_process_that_is_killed_makes_the_bundle_unusable_and_none_is_left(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = started_and(monkeypatch, signal.SIGKILL)
    assert main([str(bundle.path), "--key", bundle.vkey, "--jobs", "2"]) == 2
    assert "ended before its time; try --jobs 1" in capsys.readouterr().err
    assert len(made) == 2
    assert all(each.returncode is not None for each in made)


def test_a_process_that_hangs_makes_the_bundle_unusable_and_none_is_left(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = started_and(monkeypatch, signal.SIGSTOP)
    monkeypatch.setattr(crews, "_HANG_S", 0.2)
    assert main([str(bundle.path), "--key", bundle.vkey, "--jobs", "2"]) == 2
    assert "said nothing for" in capsys.readouterr().err
    assert all(each.returncode is not None for each in made)


def test_a_process_that_answers_nonsense_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "_CODE", "import sys; sys.stdout.write('onbehalf-verify\\n\\x01\\0\\0\\0?'); input()")
    with pytest.raises(Unusable, match="ended before its time"):
        list(crew(blocks(), jobs=2))


@pytest.mark.parametrize("executable", ["", "/nowhere/python", "/bin/false"])
def test_where_no_process_can_be_started_this_one_does_it_alone(
    monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr("sys.executable", executable)
    assert [*crew(blocks(), jobs=2)] == [(start, data, examined(start, data)) for start, data in blocks()]


@pytest.mark.parametrize("jobs", ["0", "-1", "17", "two", ""])
def test_a_number_of_processes_that_is_none_is_refused(bundle: Bundle, jobs: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(bundle.path), f"--jobs={jobs}"])
    assert ended.value.code == 2


def test_blocks_are_not_read_ahead_of_the_processes_by_more_than_a_few() -> None:
    taken = 0

    def counted() -> Iterator[Block]:
        nonlocal taken
        for block in blocks(1):
            taken += 1
            yield block

    done = crew(counted(), jobs=2)
    for given, _ in enumerate(done, start=1):
        assert taken <= given + 5
    assert taken == len(LINES) > 100


def test_a_check_that_is_broken_off_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(crews, "_started", lambda jobs: made.extend(_STARTED(jobs)) or [*made])
    done = crew(blocks(), jobs=2)
    next(done)
    done.close()  # type: ignore[attr-defined]  # a generator
    assert len(made) == 2
    assert all(each.returncode is not None for each in made)
