"""The ledger in PostgreSQL, for reading: one connection, and for each view a transaction that sees one moment.

A standby that may be read serves as well; it shows the record as far as it has it. Must not write.

Trust: as ledger_store.py. The server chooses which moment it shows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from onbehalf.doors.ledger_store import Rows, View
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable

__all__ = ["PostgresStore", "PostgresView"]

_VERIFY = "keep the database as it is; `onbehalf audit verify` lists all that does not hold"
_ROWS_A_STEP = 1000
_ALIVE = {
    "connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}  # fmt: skip
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = onbehalf_log, pg_catalog"


class PostgresView:
    """A connection within its transaction."""

    call = 'call COLLATE "C"'
    at = "at"
    contains = "position(? in entry) > 0"

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._walks = 0

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Rows:
        return self._connection.cursor(binary=True).execute(_said(query), values)

    def walk(self, query: str, values: Sequence[Any] = (), /) -> Rows:
        self._walks += 1
        cursor = self._connection.cursor(f"walk_{self._walks}")
        cursor.itersize = _ROWS_A_STEP
        return cursor.execute(_said(query), values, binary=True)

    def has(self, table: str) -> bool:
        found = self._connection.execute("SELECT to_regclass(%s) IS NOT NULL", (f"onbehalf_log.{table}",)).fetchone()
        return found is not None and bool(found[0])

    def check(self) -> None:
        """A server looks at its own pages where it keeps checksums: nothing to ask."""


class PostgresStore:
    """A database, read through one connection that is made when it is needed, and anew after it was lost."""

    def __init__(self, dsn: str, *, primary: bool = False) -> None:
        """With `primary` only a server that is no standby, whichever hosts the DSN names."""
        self._dsn = dsn
        self._demands: dict[str, str | int] = {**_ALIVE, **({"target_session_attrs": "primary"} if primary else {})}
        self._connection: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[View]:
        try:
            connection = self._begun()
            try:
                yield PostgresView(connection)
            finally:
                if not connection.closed:
                    connection.execute("ROLLBACK")
        except psycopg.Error as error:
            self.close()
            said = error.diag.message_primary or str(error).strip().split("\n")[0]
            if isinstance(error, psycopg.errors.DataCorrupted | psycopg.errors.IndexCorrupted):
                raise LedgerCorrupt(f"the database cannot be read: {said}", hint=_VERIFY) from error
            raise LedgerUnavailable(f"the ledger's database cannot be read now: {said}", hint=_REACH) from error

    def _begun(self) -> psycopg.Connection[Any]:
        if self._connection is not None:
            try:
                self._connection.execute(_BEGIN)
                return self._connection
            except psycopg.OperationalError:  # it was lost meanwhile
                self.close()
        self._connection = psycopg.connect(make_conninfo(self._dsn, **self._demands), autocommit=True)
        self._connection.execute(_BEGIN)
        return self._connection


_REACH = "see that it can be reached, and that `onbehalf db ledger` was applied: docs/replicas.md"


def _said(query: str) -> bytes:
    return query.replace("?", "%s").encode()
