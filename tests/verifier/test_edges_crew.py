"""What is said to a process that examines blocks, and what it says: byte by byte, and what ends it."""

from __future__ import annotations

import io
import json
import marshal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from onbehalf.verifier import crew as crews
from onbehalf.verifier.crew import Block, crew, serve
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.runs import Examined, examined
from verifier.test_runs import log

HELLO = b"onbehalf-verify\n"
LINES = log(8)
DATA = b"".join(each + b"\n" for each in LINES)
FOUND = examined(5, DATA)


def asked(start: int, data: bytes) -> bytes:
    return struct.pack("<QI", start, len(data)) + data


def told(found: Examined) -> bytes:
    runs = [(*run[:1], dict(run.kinds), *run[2:9], dict(run.channels), run.uncounted) for run in found.runs]
    data = marshal.dumps((found.pieces, runs, found.too_long))
    return struct.pack("<I", len(data)) + data


class Pipe(io.BytesIO):
    """What was written and not flushed is not there yet."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed = b""

    def flush(self) -> None:
        self.flushed = self.getvalue()


class Worker:
    """A process as the crew knows it, which says what it is told to."""

    def __init__(self, *says: bytes) -> None:
        self.stdin: Any = Pipe()
        self.stdout: Any = io.BytesIO(b"".join(says))
        self.done: list[str] = []

    def kill(self) -> None:
        self.done.append("killed")

    def wait(self) -> None:
        self.done.append("waited")

    @property
    def gone(self) -> bool:
        return self.done == ["killed", "waited"] and self.stdin.closed and self.stdout.closed


def test_a_process_says_what_it_is_then_answers_each_block_and_ends_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Pipe()
    expected = [HELLO, HELLO + told(FOUND), HELLO + told(FOUND) + told(examined(0, b"{}\n"))]

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if size == 12:  # it waits for the next block: all before was answered, and sent
                assert sink.flushed == expected.pop(0)
            return super().read(size)

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=Source(asked(5, DATA) + asked(0, b"{}\n"))))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=sink))
    serve()
    assert expected == []


def test_a_block_is_asked_about_whole_and_the_answer_is_read_whole() -> None:
    for says in (told(FOUND), told(Examined([], [], True))):
        worker: Any = Worker(says, b"more")
        found = crews._examined_by(worker, 5, DATA)
        assert told(found) == says
        assert (found == FOUND) == (says == told(FOUND))
        assert (worker.stdin.flushed, worker.stdout.read()) == (asked(5, DATA), b"more")
    for cut in (0, 3, 4, len(told(FOUND)) - 1):
        worker = Worker(told(FOUND)[:cut])
        with pytest.raises(EOFError):
            crews._examined_by(worker, 5, DATA)
    worker.stdin = None
    with pytest.raises(EOFError):
        crews._examined_by(worker, 5, DATA)
    worker.stdin, worker.stdout = Pipe(), None
    with pytest.raises(EOFError):
        crews._examined_by(worker, 5, DATA)


def test_an_answer_that_does_not_come_makes_the_bundle_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    future: Future[Examined] = Future()
    monkeypatch.setattr(crews, "_HANG_S", 0.01)
    with pytest.raises(Unusable, match="said nothing for 0 s; try --jobs 1"):
        crews._told(5, DATA, future)
    for error in (OSError(), EOFError(), ValueError(), TypeError()):
        future = Future()
        future.set_exception(error)
        with pytest.raises(Unusable, match="ended before its time; try --jobs 1"):
            crews._told(5, DATA, future)
    future = Future()
    future.set_result(FOUND)
    assert crews._told(5, DATA, future) == (5, DATA, FOUND)


def started(monkeypatch: pytest.MonkeyPatch, *workers: Worker | OSError) -> list[Any]:
    """What was started instead of processes: these, one after another."""
    left, calls = [*workers], list[Any]()

    def start(arguments: Any, **named: Any) -> Any:
        calls.append((arguments, named))
        made = left.pop(0)
        if isinstance(made, OSError):
            raise made
        return made

    monkeypatch.setattr(subprocess, "Popen", start)
    return calls


def test_processes_are_this_python_alone_and_each_is_ready_when_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [Worker(HELLO), Worker(HELLO, b"more")]
    calls = started(monkeypatch, *workers)
    made: Any = crews._started(2)
    assert made == workers
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    assert calls == [([sys.executable, "-I", "-c", crews._CODE, json.dumps(sys.path)], pipes)] * 2
    assert workers[1].stdout.read() == b"more"
    assert not any(each.done for each in workers)
    monkeypatch.setattr(sys, "executable", "")
    assert crews._started(2) == []
    assert len(calls) == 2


def test_where_one_cannot_be_started_or_is_another_program_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for second in (Worker(b"hello"), Worker(), Worker(HELLO[:-1]), OSError()):
        workers = [Worker(HELLO), second]
        started(monkeypatch, *workers)
        assert crews._started(2) == []
        assert all(each.gone for each in workers if isinstance(each, Worker))


def test_a_process_that_does_not_begin_is_killed_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[Any] = []

    class Timer:
        def __init__(self, seconds: float, then: Any) -> None:
            timers.append([seconds, then])

        def start(self) -> None:
            timers[-1].append("started")

        def cancel(self) -> None:
            timers[-1].append("cancelled")

    monkeypatch.setattr(crews.threading, "Timer", Timer)
    worker: Any = Worker(HELLO)
    assert crews._ready(worker) is True
    assert timers == [[60.0, worker.kill, "started", "cancelled"]]
    worker.stdout = None
    with pytest.raises(EOFError):
        crews._ready(worker)
    assert timers[1][2:] == ["started", "cancelled"]


def test_the_ends_of_a_process_are_closed_though_it_did_not_take_all_that_was_written() -> None:
    class Broken(Pipe):
        def close(self) -> None:
            super().close()
            raise BrokenPipeError

    worker: Any = Worker()
    worker.stdin = Broken()
    crews._closed(worker)
    assert worker.stdin.closed
    assert worker.stdout.closed
    worker.stdin = worker.stdout = None
    crews._closed(worker)


def blocks(count: int) -> Iterator[Block]:
    for each in range(count):
        yield 7 * each, DATA


def test_blocks_are_shared_out_in_order_and_at_most_16_processes_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for jobs, expected in ((1, []), (2, [2]), (16, [16]), (17, [16])):
        counts, workers = list[int](), list[Worker]()

        def start(jobs: int, counts: list[int] = counts, workers: list[Worker] = workers) -> list[Any]:
            counts.append(jobs)
            workers += [Worker(*[told(FOUND)] * 9) for _ in range(2)]
            return [*workers]

        monkeypatch.setattr(crews, "_started", start)
        found = [*crew(blocks(7), jobs=jobs)]
        assert [(each, data) for each, data, _ in found] == [*blocks(7)]
        assert [each[2] for each in found] == [FOUND if expected else examined(7 * each, DATA) for each in range(7)]
        assert counts == expected
        assert all(each.gone for each in workers)


def test_no_more_blocks_are_read_ahead_than_two_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    workers: list[Any] = [Worker(*[told(FOUND)] * 20) for _ in range(3)]
    monkeypatch.setattr(crews, "_started", lambda _: workers)

    def given() -> Iterator[Block]:
        for block in blocks(20):
            read.append(block[0])
            yield block

    ahead = [len(read) - number for number, _ in enumerate(crew(given(), jobs=3))]
    assert ahead[0] == 7
    assert max(ahead) == 7


def test_a_check_that_is_broken_off_or_fails_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [Worker(told(FOUND)), Worker(told(FOUND))]
    monkeypatch.setattr(crews, "_started", lambda _: workers)
    with pytest.raises(Unusable, match="ended before its time"):
        [*crew(blocks(5), jobs=2)]
    assert all(each.gone for each in workers)


def test_what_nobody_waits_for_any_more_is_not_asked_and_no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, held = threading.Event(), threading.Semaphore(0)

    class Held(io.BytesIO):
        """Answers about the first block, then says nothing until its process is killed, and a moment longer."""

        def __init__(self, of: Worker) -> None:
            super().__init__()
            self.of = of

        def read(self, size: int | None = -1) -> bytes:
            if not self.getvalue() and self.of.stdin.getvalue() == asked(0, DATA):
                super().__init__(told(FOUND))
            data = super().read(size)
            if not data:
                held.release()
                ended.wait(60)
                time.sleep(0.3)
            return data

    workers = [Worker(), Worker()]
    for each in workers:
        each.stdout = Held(each)
        monkeypatch.setattr(each, "kill", ended.set)
    monkeypatch.setattr(crews, "_started", lambda _: workers)
    done: Any = crew(blocks(5), jobs=2)
    next(done)
    assert all(held.acquire(timeout=30) for _ in workers), "both were asked about another one"
    lengths = list[int]()
    monkeypatch.setattr(crews, "_closed", lambda each: lengths.append(len(each.stdin.getvalue())))
    done.close()
    assert sum(lengths) == 3 * len(asked(0, DATA))
    assert not [each for each in threading.enumerate() if each.name.startswith("ThreadPoolExecutor")]
