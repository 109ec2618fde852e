"""Tests that are collected once and run for one mutant after another, each in a forked process with a function changed.

The code of a function is exchanged in the very function that everybody has imported already. What was made with it, or
taken from the module, at an import is as it was, so a mutant that is not seen here is tried once more alone.
"""

from __future__ import annotations

import gc
import os
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

__all__ = ["PATIENCE", "Collected", "collected", "exchanged", "waited"]

PATIENCE = (20, 60)
"""So many times the processor time that it may use, and what only waits is ended: once more, as the machine may have
been busy with other things."""
_PLAIN = (int, bytes, str, tuple, frozenset, set, dict, list, re.Pattern)


def exchanged(path: str, functions: Sequence[FunctionType], module: CodeType) -> bool:
    """Give all `functions` of a file the code that `module` has for them, and the file its plain values; whether that
    could be done. Who took a value from the module by name has the old one."""
    new = {(each.co_qualname, each.co_firstlineno): each for each in _outer(module)}
    for each in functions:
        code = new.get((each.__code__.co_qualname, each.__code__.co_firstlineno))
        if code is not None:
            try:
                each.__code__ = code
            except ValueError:  # it needs other variables of what is around it
                return False
    for live in [each for each in sys.modules.values() if getattr(each, "__file__", None) == path]:
        fresh: dict[str, Any] = {"__name__": live.__name__, "__file__": path}
        exec(module, fresh)
        live.__dict__.update({name: each for name, each in fresh.items() if type(each) in _PLAIN and name[:2] != "__"})
    return True


def waited(status: int) -> bool:
    """Whether a process was ended because it only waited."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM


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
        self._functions = [
            each for each in gc.get_objects() if type(each) is FunctionType and each.__code__.co_filename == path
        ]

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
        status, place = 0, b""
        for patience in PATIENCE:
            ours, theirs = os.pipe()
            child = os.fork()
            if not child:
                self._run(items, module, (seconds, patience * seconds), theirs)
            os.close(theirs)
            with os.fdopen(ours, "rb") as told:
                place = told.read()
            status = os.waitpid(child, 0)[1]
            if not waited(status):
                break
        return status != 0, int(place or b"-1")

    def _run(self, items: Sequence[Any], module: CodeType | None, limits: tuple[int, int], told: int) -> None:
        code = 0
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (limits[0], limits[0]))
            signal.alarm(limits[1])
            if module is not None and not exchanged(self._path, self._functions, module):
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
        tests = Collected(session, self._path)
        gc.freeze()  # a child then copies less
        self._ask(tests)
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
