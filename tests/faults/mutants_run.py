"""Tests that are collected once and run for one mutant after another, each in a forked process with a function changed.

Only for changes within a function: its code is exchanged in the function that everybody has imported already. What a
test module made of it when it was imported is as it was, so a mutant that is not seen here is tried once more alone.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

__all__ = ["Collected", "collected", "exchanged"]

_Ask = tuple[CodeType | None, int]


def exchanged(path: str, module: CodeType) -> bool:
    """Give every function of the file the code that it has in `module`; whether that could be done."""
    new = {(each.co_qualname, each.co_firstlineno): each for each in _outer(module)}
    for each in gc.get_objects():
        if type(each) is not FunctionType or each.__code__.co_filename != path:
            continue
        code = new.get((each.__code__.co_qualname, each.__code__.co_firstlineno))
        if code is not None:
            try:
                each.__code__ = code
            except ValueError:  # it needs other variables of what is around it
                return False
    return True


def _outer(code: CodeType) -> Iterator[CodeType]:
    """Functions and methods, without those that are made within functions."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_flags & 2:  # a function, which has optimized variables; a class body has none
                yield each
            else:
                yield from _outer(each)


class Collected:
    """The tests of one file. Lives in a process of its own and is asked through `seen`."""

    def __init__(self, session: Any, path: str) -> None:
        self._items: list[Any] = [*session.items]
        self._first: list[Any] = []
        self._session, self._path = session, path

    def seen(self, module: CodeType | None, seconds: int) -> bool:
        """Whether a test fails with this code, or does not end within so many seconds of a processor."""
        failed, place = self._forked(self._items, module, seconds)
        if place > 0:  # what saw one sees the next, so it goes first, if it needs no other test before it
            item = self._items[place]
            if item not in self._first and not self._forked([item], None, seconds)[0]:
                self._first.append(item)
            if item in self._first:
                self._items.insert(0, self._items.pop(place))
        return failed

    def _forked(self, items: Sequence[Any], module: CodeType | None, seconds: int) -> tuple[bool, int]:
        """Whether one fails, and which, -1 where it is not known."""
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            self._run(items, module, seconds, theirs)
        os.close(theirs)
        with os.fdopen(ours, "rb") as told:
            place = told.read()
        return os.waitpid(child, 0)[1] != 0, int(place or b"-1")

    def _run(self, items: Sequence[Any], module: CodeType | None, seconds: int, told: int) -> None:
        code = 0
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            signal.alarm(20 * seconds)
            if module is not None and not exchanged(self._path, module):
                os._exit(0)
            code = 1
            for place, item in enumerate(items):
                following = items[place + 1] if place + 1 < len(items) else None
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if self._session.testsfailed:
                    os.write(told, b"%d" % place)
                    os._exit(1)
            code = 0
        finally:
            os._exit(code)


class _Plugin:
    def __init__(self, path: str, ask: Callable[[Collected], None]) -> None:
        self._path, self._ask = path, ask

    def pytest_runtestloop(self, session: Any) -> bool:
        gc.collect()
        gc.freeze()
        self._ask(Collected(session, self._path))
        return True


def collected(path: Path, options: Sequence[str], asked: Sequence[CodeType], *, slower: int) -> Iterator[bool | None]:
    """For each code whether it was seen, in order. First comes None where the unchanged tests do not pass, and the end.

    Must be asked for by a process that has imported nothing of what is tested.
    """
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.close(ours)
        _serve(path, options, asked, slower, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as told:
        while letter := told.read(1):
            yield {b"1": True, b"0": False}.get(letter)
    os.waitpid(child, 0)


def _serve(path: Path, options: Sequence[str], asked: Sequence[CodeType], slower: int, told: int) -> None:
    import pytest

    def ask(tests: Collected) -> None:
        before = _spent()
        if tests.seen(None, 600):
            os.write(told, b"x")
            return
        seconds = 3 + int(slower * (_spent() - before))
        for each in asked:
            os.write(told, b"1" if tests.seen(each, seconds) else b"0")

    try:
        with _silent(), tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as place:
            pytest.main([*options, f"--basetemp={place}/it"], plugins=[_Plugin(str(path), ask)])
    finally:
        os._exit(0)


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def _silent() -> Iterator[None]:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    yield
