"""Processes that examine blocks of leaves, in the order in which they are given: several at once, or this one alone.

Other processes are started as Python itself, and spoken to through their standard input and output, so nothing is
needed that a small container lacks. Where they cannot be started, this process does it alone. One that ends or hangs
on the way makes the bundle unusable: there is never a report about leaves that nobody looked at. At most a few blocks
are under way, however long the log.
"""

from __future__ import annotations

import json
import marshal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Waited
from typing import IO

from onbehalf.verifier.leaves import Run
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.runs import Examined, examined

__all__ = ["MOST_JOBS", "crew", "serve"]

MOST_JOBS = 16
_CODE = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from onbehalf.verifier.crew import serve; serve()"
_HELLO = b"onbehalf-verify\n"
_START_S = 60.0
_HANG_S = 600.0
_ASKED, _TOLD = struct.Struct("<QI"), struct.Struct("<I")
Block = tuple[int, bytes]


def serve() -> None:
    """What such a process does: examine blocks until there are no more."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(_HELLO)
    sink.flush()
    while head := source.read(_ASKED.size):
        start, length = _ASKED.unpack(head)
        found = examined(start, source.read(length))
        runs = [(*run[:1], dict(run.kinds), *run[2:9], dict(run.channels), run.uncounted) for run in found.runs]
        said = marshal.dumps((found.pieces, runs, found.too_long))
        sink.write(_TOLD.pack(len(said)) + said)
        sink.flush()


def crew(blocks: Iterator[Block], *, jobs: int) -> Iterator[tuple[int, bytes, Examined]]:
    """Each block with what was found, in order, by so many processes besides this one; by this one where it is 1.

    Raises Unusable where one of them ends before its time or says nothing for ten minutes.
    """
    workers = _started(min(jobs, MOST_JOBS)) if jobs > 1 else []
    if not workers:
        for start, data in blocks:
            yield start, data, examined(start, data)
        return
    threads = ThreadPoolExecutor(len(workers))
    try:
        yield from _shared(blocks, workers, threads)
    finally:
        for each in workers:
            each.kill()
        threads.shutdown(cancel_futures=True)
        for each in workers:
            each.wait()
            _closed(each)


def _shared(
    blocks: Iterator[Block], workers: list[subprocess.Popen[bytes]], threads: ThreadPoolExecutor
) -> Iterator[tuple[int, bytes, Examined]]:
    """Each thread has one process to speak to. So many blocks more are ready as there are processes."""
    free, mine = [*workers], threading.local()

    def asked(start: int, data: bytes) -> Examined:
        if not hasattr(mine, "worker"):
            mine.worker = free.pop()
        return _examined_by(mine.worker, start, data)

    waiting: deque[tuple[int, bytes, Future[Examined]]] = deque()
    for start, data in blocks:
        waiting.append((start, data, threads.submit(asked, start, data)))
        if len(waiting) > 2 * len(workers):
            yield _told(*waiting.popleft())
    while waiting:
        yield _told(*waiting.popleft())


def _told(start: int, data: bytes, future: Future[Examined]) -> tuple[int, bytes, Examined]:
    try:
        return start, data, future.result(timeout=_HANG_S)
    except Waited as error:
        raise Unusable(f"a process that checks leaves said nothing for {_HANG_S:.0f} s; try --jobs 1") from error
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise Unusable("a process that checks leaves ended before its time; try --jobs 1") from error


def _examined_by(worker: subprocess.Popen[bytes], start: int, data: bytes) -> Examined:
    """Raises OSError and EOFError."""
    sink, source = _ends(worker)
    sink.write(_ASKED.pack(start, len(data)))
    sink.write(data)
    sink.flush()
    (length,) = _TOLD.unpack(_exactly(source, _TOLD.size))
    pieces, runs, too_long = marshal.loads(_exactly(source, length))  # noqa: S302  # what our own process wrote
    return Examined(pieces, [Run(*each) for each in runs], too_long)


def _exactly(source: IO[bytes], length: int) -> bytes:
    data = source.read(length)
    if len(data) != length:
        raise EOFError
    return data


def _started(jobs: int) -> list[subprocess.Popen[bytes]]:
    """So many processes that are ready; none where one of them could not be started."""
    if not sys.executable:
        return []
    made: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(jobs):
            made.append(
                subprocess.Popen(  # noqa: S603  # this Python with our own code, no shell
                    [sys.executable, "-I", "-c", _CODE, json.dumps(sys.path)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                )
            )  # fmt: skip
        if all(_ready(each) for each in made):
            return made
    except OSError:
        pass
    for each in made:
        each.kill()
        each.wait()
        _closed(each)
    return []


def _ready(worker: subprocess.Popen[bytes]) -> bool:
    late = threading.Timer(_START_S, worker.kill)
    late.start()
    try:
        return _ends(worker)[1].read(len(_HELLO)) == _HELLO
    finally:
        late.cancel()


def _ends(worker: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if worker.stdin is None or worker.stdout is None:
        raise EOFError
    return worker.stdin, worker.stdout


def _closed(worker: subprocess.Popen[bytes]) -> None:
    for end in (worker.stdin, worker.stdout):
        try:
            if end is not None:
                end.close()
        except OSError:  # it holds what a process that is gone did not take
            pass
