"""People from a query on a company's own tables, in SQLite or PostgreSQL, a row a person.

The query runs read-only and is cut off when its time is up. It cannot be read on from the middle, so a load that was
cut off begins anew. Must not hold what becomes of the rows, or what their columns mean (directory_columns.py).

Trust: whoever can write these tables, or this query, decides who is whose manager in its tenant. One value of
PostgreSQL is not bounded in size before it arrives.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from onbehalf.doors.directory_columns import reader
from onbehalf.doors.directory_load import Batch
from onbehalf.errors import DirectoryInvalid, DirectoryUnavailable

__all__ = ["SOURCE", "PostgresFeed", "SqliteFeed"]

SOURCE = "query"
_ROWS = 5_000
_MOST_ROWS = 20_000_000
_VALUE_BYTES = 1 * 2**20
_STEPS = 10_000
_HINT = "nothing was changed; run the query by hand and see what it gives"


class SqliteFeed:
    """The Feed of a query on a SQLite file."""

    source = SOURCE
    mark = ""
    total = 0

    def __init__(self, path: Path, query: str, *, seconds: float) -> None:
        """`seconds` bound the whole query."""
        self._path, self._query, self._seconds = path, query, seconds

    def batches(self, cursor: str, done: int) -> Iterator[Batch]:
        """Every row. Raises DirectoryInvalid, DirectoryUnavailable."""
        until = time.monotonic() + self._seconds
        try:
            # `immutable` is not said: the company goes on writing
            with contextlib.closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as source:
                source.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _VALUE_BYTES)
                source.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
                source.execute("PRAGMA query_only = 1")
                source.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
                found = source.execute(self._query)
                if found.description is None:
                    raise DirectoryInvalid("the query gives no rows at all", hint="write one SELECT")
                yield from _batches([each[0] for each in found.description], iter(lambda: found.fetchmany(_ROWS), []))
        except (sqlite3.Error, sqlite3.Warning, OSError, UnicodeError) as error:
            raise DirectoryUnavailable(f"the query on `{self._path}` failed: {error}", hint=_HINT) from error


class PostgresFeed:
    """The Feed of a query on PostgreSQL. The DSN is a safe one already (upstream_postgres_dsn.py)."""

    source = SOURCE
    mark = ""
    total = 0

    def __init__(self, dsn: str, query: str, *, seconds: float) -> None:
        """`seconds` bound the whole query."""
        self._dsn, self._query, self._seconds = dsn, query, seconds

    def batches(self, cursor: str, done: int) -> Iterator[Batch]:
        """Every row. Raises DirectoryInvalid, DirectoryUnavailable; neither holds the DSN."""
        import psycopg  # a gateway without such a feed does without

        try:
            with psycopg.connect(self._dsn) as connection:
                connection.read_only = True
                connection.execute(
                    "SELECT set_config('statement_timeout', %s, true)", (str(int(self._seconds * 1000)),)
                )
                # a cursor of the server's: rows come in parts, and only one statement can be its query
                with connection.cursor(name="people") as found:
                    found.execute(self._query.encode())
                    until = time.monotonic() + self._seconds
                    parts = _until(until, iter(lambda: found.fetchmany(_ROWS), []))
                    first = next(parts, [])
                    yield from _batches(
                        [each.name for each in found.description or ()], itertools.chain([first], parts)
                    )
        except psycopg.Error as error:
            said = error.diag.message_primary or type(error).__name__  # a connection's own error can hold its DSN
            raise DirectoryUnavailable(f"the query failed: {said}", hint=_HINT) from error


def _until(until: float, parts: Iterator[Sequence[Sequence[object]]]) -> Iterator[Sequence[Sequence[object]]]:
    for part in parts:
        if time.monotonic() > until:
            raise DirectoryUnavailable("the query took too long", hint=_HINT)
        yield part


def _batches(header: Sequence[str], parts: Iterator[Sequence[Sequence[object]]]) -> Iterator[Batch]:
    read, done = reader(header), 0
    for part in parts:
        records = [read(row, f"row {done + n}") for n, row in enumerate(part, 1)]
        done += len(records)
        if done > _MOST_ROWS:
            raise DirectoryInvalid(f"the query gives more than {_MOST_ROWS} rows", hint="one row a person")
        yield Batch(records=records, cursor=str(done), done=done)
