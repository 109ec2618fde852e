"""Where a ledger is read from: a file of SQLite, or whatever else shows the same three tables in one unchanging view.

Questions are SQL that all of them understand, with `?` for values: tables `leaf(idx, hash, entry)`,
`payload(idx, sealed)` and `head(size, root, note)`. Must not ask one (ledger_reader.py and its neighbours do).

Trust: what is read is believed only as far as the signed head and the leaf hashes carry it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from onbehalf.errors import LedgerCorrupt, LedgerUnavailable

__all__ = ["VERIFY", "LedgerStore", "Rows", "SqliteStore", "View", "store_of"]

VERIFY = "keep the file as it is; `onbehalf audit verify` lists all that does not hold"


class Rows(Protocol):
    """What a question gives, row by row."""

    def __iter__(self) -> Iterator[Any]: ...
    def fetchone(self) -> Any: ...
    def fetchmany(self, size: int, /) -> list[Any]: ...
    def fetchall(self) -> list[Any]: ...


class View(Protocol):
    """One unchanging view of a log, head and leaves alike. `call` and `at` are a leaf's call and time, as SQL;
    `contains` is whether bytes, as a value, stand in it."""

    call: str
    at: str
    contains: str

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Rows:
        """What a question gives that is not larger than memory."""
        ...

    def walk(self, query: str, values: Sequence[Any] = (), /) -> Rows:
        """What a question gives, read as it is used, however much it is."""
        ...

    def has(self, table: str) -> bool:
        """Whether there is such a table."""
        ...

    def check(self) -> None:
        """Let the store look at itself, where it can. Raises LedgerCorrupt."""
        ...


class LedgerStore(Protocol):
    """A ledger that can be read. Used by one thread at a time, unless `reading` makes a connection of its own."""

    def reading(self) -> AbstractContextManager[View]:
        """A view until the context ends. Raises LedgerUnavailable, LedgerCorrupt."""
        ...

    def close(self) -> None: ...


class SqliteView:
    """A connection within its transaction."""

    call = "json_extract(CAST(entry AS TEXT), '$.call')"
    at = "json_extract(CAST(entry AS TEXT), '$.at')"
    contains = "instr(entry, ?)"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Rows:
        return self._connection.execute(query, values)

    walk = execute

    def has(self, table: str) -> bool:
        found = self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,))
        return found.fetchone() is not None

    def check(self) -> None:
        for (text,) in self._connection.execute("PRAGMA integrity_check(10)").fetchall():
            if text != "ok":
                raise LedgerCorrupt(f"SQLite says: {text}")


class SqliteStore:
    """A file, opened for each reading: no handle is kept, and one that was replaced is seen."""

    def __init__(self, path: Path, *, seconds: float = 10) -> None:
        self._path, self._seconds = path, seconds

    def close(self) -> None:
        pass

    @contextlib.contextmanager
    def reading(self) -> Iterator[View]:
        try:
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=self._seconds)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise LedgerUnavailable(f"no ledger can be read at `{self._path}`: {error}") from error
        try:
            connection.execute("BEGIN")
            yield SqliteView(connection)
        except sqlite3.OperationalError as error:
            raise LedgerUnavailable(f"the ledger cannot be read now: {error}") from error
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes from a damaged file
            raise LedgerCorrupt(f"the file cannot be read: {error}", hint=VERIFY) from error
        finally:
            connection.close()


def store_of(source: Path | LedgerStore) -> LedgerStore:
    """A path is a file of SQLite."""
    return SqliteStore(source) if isinstance(source, Path) else source
