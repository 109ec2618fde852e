"""A SQLite database as an upstream: each tool is one SELECT that the configuration fixed, its values bound by name.

Nothing a model sends is ever a part of a statement. A value is bound as it is; a list of plain values is bound as its
JSON text, for `json_each(:ids)`; a parameter that was not sent is NULL. One call is one hop to one of a few threads,
each with a connection of its own. Must not decide which rows may be shown, nor know configuration files.

Trust: whoever can write this database decides what people read; nobody reaches another file or a write through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias

import orjson

from onbehalf.doors.upstream_sql_statement import Compiled, compile_statement, connect
from onbehalf.doors.wall_sqlite import SqliteWall
from onbehalf.errors import ConfigInvalid
from onbehalf.model import CallToken, Done, Failed, Json, Outcome, ToolCall
from onbehalf.validate.paging import ALIAS as PAGED
from onbehalf.validate.pushdown_sql import ALIAS

__all__ = ["SqliteUpstream", "Statement"]

Statement: TypeAlias = str
"""One SELECT, or WITH ... SELECT, with `:named` parameters."""

_Scalar = str | int | float | bool | None

_THREADS = 4
_WAITING = 256
_MAX_BYTES = 4 * 2**20
_CHECK_EVERY = 2000
"""Steps of SQLite's machine between two looks at the deadline: some 100 microseconds."""
_GRACE_SECONDS = 0.5
"""How long past the deadline a thread may take to notice; then the caller is answered without it."""
_LOST = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_AT = ("rows",)


class _Refused(Exception):
    """The answer, or an argument, cannot go on; `failed` says why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.failed = _failed(code, message)


@dataclass(slots=True, kw_only=True)
class _Job:
    """One call on its way through a thread. `stopped` is how the thread learns that nobody waits any more."""

    text: str
    values: dict[str, _Scalar]
    at: tuple[str, ...]
    tenant: str
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Outcome]
    stopped: bool = False

    def over(self) -> bool:
        return self.stopped or time.monotonic() > self.deadline

    def finish(self, outcome: Outcome) -> None:
        """In the loop's own thread."""
        if not self.future.done():
            self.future.set_result(outcome)


@dataclass(slots=True, kw_only=True)
class _Reader:
    """One thread's connection, opened at need and again when the file is another one or cannot be read."""

    path: Path
    max_rows: int
    wall: SqliteWall | None = None
    connection: sqlite3.Connection | None = None
    stamp: tuple[int, int] = (0, 0)
    job: _Job | None = None

    def run(self, job: _Job) -> Outcome:
        if job.over():
            return _TIMED_OUT
        self.job = job
        try:
            return self._read(self._connection(), job)
        except _Refused as error:
            return error.failed
        except (OverflowError, UnicodeError):
            return _failed("arguments_refused", "an argument has no spelling in SQL")
        except sqlite3.Error as error:
            return _TIMED_OUT if job.over() else self._mishap(error)
        except OSError as error:
            return _failed("upstream_unavailable", f"the database cannot be opened: {type(error).__name__}")
        except Exception as error:  # the thread must outlive what nobody thought of; the failure goes on record
            return _failed("upstream_error", f"the statement failed: {type(error).__name__}")
        finally:
            self.job = None

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _connection(self) -> sqlite3.Connection:
        found = os.stat(self.path)
        stamp = (found.st_dev, found.st_ino)
        if self.connection is None or stamp != self.stamp:  # an export that was put in place of the old file
            self.close()
            self.connection = connect(self.path, max_bytes=_MAX_BYTES, wall=self.wall, tenant=self._tenant)
            self.stamp = stamp
            self.connection.set_progress_handler(self._interrupt, _CHECK_EVERY)
        return self.connection

    def _tenant(self) -> str | None:
        return None if self.job is None else self.job.tenant

    def _interrupt(self) -> bool:
        return self.job is None or self.job.over()

    def _mishap(self, error: sqlite3.Error) -> Failed:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _LOST:
            self.close()
            return _failed("upstream_unavailable", f"the database cannot be read: {error}")
        return _failed("upstream_error", f"the statement failed: {error}")

    def _read(self, connection: sqlite3.Connection, job: _Job) -> Outcome:
        cursor = connection.execute(job.text, job.values)
        try:
            names = [column[0] for column in cursor.description]
            if len(set(names)) != len(names):
                raise _Refused("result_refused", "two columns have one name")
            rows: list[Json] = []
            size = 0
            for values in cursor:
                if len(rows) == self.max_rows:
                    raise _Refused("too_many_rows", f"more than {self.max_rows} rows; nothing is cut off silently")
                size += _size(values)
                if size > _MAX_BYTES:
                    raise _too_large()
                rows.append(dict(zip(names, values, strict=True)))
        finally:
            cursor.close()  # or the rows that nobody fetched would hold the read lock
        return _done(rows, job.at)


class SqliteUpstream:
    """The Upstream port on one database. Made by `open`, ended by `aclose`."""

    def __init__(
        self,
        path: Path,
        compiled: Mapping[str, tuple[Statement, Compiled]],
        *,
        audience: str,
        timeout: float,
        max_rows: int,
        wall: SqliteWall | None = None,
    ) -> None:
        self._compiled = dict(compiled)
        self._audience = audience
        self._timeout = timeout
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        for _ in range(_THREADS):
            reader = _Reader(path=path, max_rows=max_rows, wall=wall)
            threading.Thread(target=_serve, args=(self._jobs, reader), name="onbehalf-sql", daemon=True).start()

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        audience: str,
        statements: Mapping[str, Statement],
        timeout: float,
        max_rows: int,
        wall: SqliteWall | None = None,
    ) -> SqliteUpstream:
        """Try every statement (by the tools' remote names) without running it. Raises ConfigInvalid.

        With a `wall` no statement sees a row of another tenant than the caller's. `timeout` is in seconds. More than
        `max_rows` rows, or 4 MiB, are a failure and never cut.
        """
        try:
            connection = connect(path, max_bytes=_MAX_BYTES, wall=wall)
        except (OSError, sqlite3.Error) as error:
            raise ConfigInvalid(
                f"the database `{path.name}` cannot be read: {error}",
                hint="name a SQLite file that this process may read",
            ) from error
        with contextlib.closing(connection):
            compiled = {name: (text, compile_statement(connection, name, text)) for name, text in statements.items()}
        return cls(path, compiled, audience=audience, timeout=timeout, max_rows=max_rows, wall=wall)

    @property
    def audience(self) -> str:
        return self._audience

    def parameters(self, remote: str) -> tuple[str, ...]:
        """Names of the parameters that this tool's statement uses, as SQLite compiled it."""
        return self._compiled[remote][1].parameters

    def columns(self, remote: str) -> tuple[str, ...]:
        """Names of the columns that this tool's statement gives, in their order."""
        return self._compiled[remote][1].columns

    async def send(self, call: ToolCall, token: CallToken) -> Outcome:
        """Run the tool's statement once. `token` stays here: a file cannot check one. Nothing is ever written,
        so no failure leaves an effect unknown."""
        found = self._compiled.get(call.tool.remote)
        if found is None:
            return _failed("unknown_tool", "no statement of that name")
        granted = token.grant.allow.call
        if token.grant.audience != self._audience or (granted.id, granted.digest) != (call.id, call.digest):
            return _failed("wrong_grant", "the call token is not for this call here")
        if self._closed or self._jobs.qsize() >= _WAITING:
            return _failed("upstream_busy", "closed, or too many calls waiting")
        text = found[0]
        try:
            if call.tool.explores is not None:
                text, values = _explored(call)
            else:
                values = _values(call.arguments, found[1].parameters)
            if call.tool.scoped:
                text, more = _narrowed(text, call)
                values |= more
            if call.tool.pages is not None:
                text, more = _paged(text, call)
                values |= more
        except _Refused as error:
            return error.failed
        at = call.tool.rows.at if call.tool.rows is not None else _AT
        outcome = await self._done_in_thread(text, values, at, call.caller.tenant)
        unfit = isinstance(outcome, Failed) and outcome.code in _UNFIT
        return _FAILED_QUERY if call.tool.explores is not None and unfit else outcome

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    def close(self) -> None:
        """End the threads; what is running ends at its deadline."""
        if not self._closed:
            self._closed = True
            for _ in range(_THREADS):
                self._jobs.put(None)

    async def _done_in_thread(self, text: str, values: dict[str, _Scalar], at: tuple[str, ...], tenant: str) -> Outcome:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        deadline = time.monotonic() + self._timeout
        job = _Job(text=text, values=values, at=at, tenant=tenant, deadline=deadline, loop=loop, future=future)
        timer = loop.call_later(self._timeout + _GRACE_SECONDS, job.finish, _TIMED_OUT)
        self._jobs.put(job)
        try:
            return await future
        finally:
            # if we were cancelled, the thread stops at its next look
            job.stopped = True
            timer.cancel()


def _serve(jobs: SimpleQueue[_Job | None], reader: _Reader) -> None:
    while (job := jobs.get()) is not None:
        outcome = reader.run(job)
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody is left to tell
            job.loop.call_soon_threadsafe(job.finish, outcome)
        del job, outcome  # or the last answer would be kept for as long as nobody calls
    reader.close()


def _values(arguments: bytes, parameters: tuple[str, ...]) -> dict[str, _Scalar]:
    """The bound values. An argument that the statement does not use is refused: it was meant to narrow something."""
    sent = orjson.loads(arguments)
    if not isinstance(sent, dict) or not sent.keys() <= set(parameters):
        raise _Refused("arguments_refused", "an argument is not a parameter of the statement")
    return {name: _bindable(sent.get(name)) for name in parameters}


def _narrowed(text: str, call: ToolCall) -> tuple[str, dict[str, _Scalar]]:
    """The statement on the rows that the call's predicate lets through, and what the predicate binds."""
    where = call.where
    if where is None:
        raise _Refused("unscoped", "a scoped tool was called without its predicate")
    body = f"SELECT * FROM (\n{text.rstrip().rstrip(';')}\n) AS {ALIAS} WHERE {where.sql}"  # noqa: S608  # no values in it
    return body, {name: _bindable(value) for name, value in where.parameters.items()}


def _paged(text: str, call: ToolCall) -> tuple[str, dict[str, _Scalar]]:
    """The statement for one page of its rows, and what that binds."""
    tail = call.page.tail if call.page is not None else None
    if tail is None:
        raise _Refused("unpaged", "a tool with pages was called without one")
    body = f"SELECT * FROM (\n{text.rstrip().rstrip(';')}\n) AS {PAGED} {tail.sql}"  # noqa: S608  # no values in it
    return body, {name: _bindable(value) for name, value in tail.parameters.items()}


def _explored(call: ToolCall) -> tuple[str, dict[str, _Scalar]]:
    """The statement that was written from the model's, with what it binds."""
    where = call.where
    if where is None:
        raise _Refused("unscoped", "an exploring tool was called without its statement")
    return where.sql, {name: _bindable(value) for name, value in where.parameters.items()}


def _bindable(value: Json) -> _Scalar:
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return orjson.dumps(value).decode()
    if isinstance(value, list | dict):
        raise _Refused("arguments_refused", "an argument is neither a plain value nor a list of them")
    return value


def _size(values: tuple[object, ...]) -> int:
    """About how many bytes a row takes as JSON. Raises _Refused for what JSON cannot say."""
    size = 0
    for value in values:
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, bytes):
            raise _Refused("result_refused", "a column holds bytes, which JSON cannot say")
        elif isinstance(value, float) and not isfinite(value):
            raise _Refused("result_refused", "a column holds an infinite number, which JSON cannot say")
        size += 16
    return size


def _done(rows: list[Json], at: tuple[str, ...]) -> Done:
    """The rows as an MCP result, at the place where the tool's row mapping looks for them; by default under `rows`."""
    value: Json = rows
    for key in reversed(at):
        value = {key: value}
    text = orjson.dumps(value)
    if len(text) > _MAX_BYTES:
        raise _too_large()
    return Done(
        content={
            "content": [{"type": "text", "text": text.decode()}],
            "structuredContent": value,
            "isError": False,
        }
    )


def _too_large() -> _Refused:
    return _Refused("result_too_large", f"more than {_MAX_BYTES} bytes; nothing is cut off silently")


def _failed(code: str, message: str) -> Failed:
    return Failed(code=code, message=message[:300], unknown=False)


_UNFIT = frozenset({"upstream_error", "arguments_refused", "result_refused"})
_FAILED_QUERY = _failed("query_failed", "the database did not take the query as it is, or could not compute it")
"""One sentence for all: the database's own words could quote what they are about."""
_TIMED_OUT = _failed("upstream_timed_out", "the statement took too long and was stopped")
