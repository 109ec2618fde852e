"""The store of people's keys in PostgreSQL, in the schema `onbehalf_keys` of the database that holds the record.

Read, and given new keys, as whoever reads or writes the record; changed as the eraser, by commands alone. A key that
was kept is visible before a payload that it opens is appended, and stands before it in the server's own log: whatever
state of the database survives has the key if it has the payload. Must not decide what is erased (ledger_erase.py).

Trust: as ledger_postgres_keys.py. What was destroyed is gone from the table once `scrub` was; it may stand in the
server's log files, standbys and backups for as long as those are kept.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from onbehalf.doors.ledger_erasable import Kind, State, held, nothing_left
from onbehalf.doors.ledger_postgres_keys import HELD
from onbehalf.doors.ledger_postgres_session import ALIVE
from onbehalf.errors import LedgerUnavailable

__all__ = ["Eraser", "PostgresSubjects"]

_LOCK_SPACE = 0x6F62656B
_SCRUB_SECONDS = 10.0
_SETTINGS = "SET search_path = onbehalf_keys, pg_catalog; SET statement_timeout = '30s'; SET lock_timeout = '10s'"
_REACH = "see that it can be reached, and that `onbehalf db ledger` was applied: docs/replicas.md"
_NO_ERASER = "`gateway.ledger.postgres.eraser` names a login in `onbehalf_log_eraser`: docs/replicas.md"


class _Line:
    """A connection that is made when it is needed, and anew after it was lost. Used by one thread at a time."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        with self._lock:
            self._drop()

    def read(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """What a question gives; asked once more where the connection was lost meanwhile. Raises LedgerUnavailable."""
        with self._lock, self._told():
            if self._connection is not None:
                try:
                    return self._connection.cursor(binary=True).execute(query.encode(), values).fetchall()
                except psycopg.OperationalError:
                    self._drop()
            return self._ready().cursor(binary=True).execute(query.encode(), values).fetchall()

    @contextlib.contextmanager
    def using(self) -> Iterator[psycopg.Connection[Any]]:
        """The connection, which commits each statement. Raises LedgerUnavailable."""
        with self._lock, self._told():
            yield self._ready()

    def _ready(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(make_conninfo(self._dsn, **ALIVE), autocommit=True)
            self._connection.execute(_SETTINGS.encode())
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            if error.sqlstate == HELD:
                raise held() from error
            self._drop()
            said = error.diag.message_primary or str(error).strip().split("\n")[0]
            raise LedgerUnavailable(f"the keys of people in PostgreSQL cannot be used: {said}", hint=_REACH) from error


class Eraser:
    """The login that erases, for as long as it is the only one that does. Ended by `close`."""

    def __init__(self, dsn: str) -> None:
        self._line = _Line(dsn)
        self._alone: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        self._line.close()
        self._alone = None

    def alone(self) -> None:
        """See that no other command erases, until this one ends. Raises LedgerUnavailable."""
        with self._line.using() as connection:
            if self._alone is not connection:
                query = "SELECT pg_try_advisory_lock(%s, 0)"
                found = connection.execute(query, (_LOCK_SPACE,)).fetchone()
                if found is None or not found[0]:
                    raise LedgerUnavailable("another command erases now", hint="let it end; it is tried again")
                self._alone = connection

    def run(self, query: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        """Change something by one of the functions of ledger_postgres_keys.py; what it gives."""
        with self._line.using() as connection:
            found = connection.execute(query.encode(), values).fetchone()
            return () if found is None else tuple(found)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        with self._line.using() as connection, connection.transaction():
            yield connection


class PostgresSubjects:
    """The KeyStore of a record in PostgreSQL. `dsn` reads and, where it is a gateway's, keeps; without an `eraser`
    nothing else is changed."""

    where = "the schema `onbehalf_keys`"

    def __init__(self, dsn: str, *, eraser: Eraser | None = None) -> None:
        self._line, self._by = _Line(dsn), eraser

    def close(self) -> None:
        self._line.close()
        if self._by is not None:
            self._by.close()

    def version(self) -> int:
        return int(self.rows("SELECT number FROM change")[0][0])

    def rows(self, query: str, values: Sequence[bytes] = ()) -> list[tuple[Any, ...]]:
        return self._line.read(query.replace("?", "%s"), values)

    def keep(self, keys: Iterable[tuple[bytes, bytes, bytes]]) -> None:
        """Keys that are there stay as they are: what was lost on the way can be said again."""
        ids, labels, wrapped = map(list, zip(*keys, strict=True))
        self._line.read("SELECT onbehalf_keys.keep(%s, %s, %s)", (ids, labels, wrapped))

    def scrub(self) -> None:
        until = time.monotonic() + _SCRUB_SECONDS
        while not self._eraser.run("SELECT scrub()")[0]:
            if time.monotonic() > until:
                raise LedgerUnavailable(
                    "the keys of people are being read, and so what was erased still stands in their table",
                    hint="end what reads that database for long (an export, a check, a dump); it is tried again",
                )
            time.sleep(0.2)

    def ask(self, id_: bytes, kind: Kind, said: bytes, *, hold: Sequence[bytes]) -> int:
        return int(self._eraser.run("SELECT ask(%s, %s, %s, %s::bytea[])", (id_, kind, said, [*hold]))[0])

    def destroy(
        self, id_: bytes, labels: Sequence[bytes], *, besides: set[bytes], said: Callable[[Sequence[bytes]], bytes]
    ) -> None:
        with self._eraser.transaction() as connection:
            found = connection.execute("SELECT dying(%s::bytea[])", ([*labels],)).fetchall()
            ids = sorted({bytes(row[0]) for row in found} - besides)
            if not ids:
                raise nothing_left()
            connection.execute("SELECT destroy(%s, %s, %s)", (id_, ids, said(ids)))

    def destroy_again(self, id_: bytes, kind: Kind, keys: Sequence[bytes], *, result: str) -> bool:
        query = "SELECT destroy_again(%s, %s, %s::bytea[], %s)"
        return bool(self._eraser.run(query, (id_, kind, [*keys], result))[0])

    def note(self, id_: bytes, state: State, *, said: bytes, result: str, lifts: int = 0) -> None:
        self._eraser.run("SELECT note(%s, %s, %s, %s, %s)", (id_, state, said, result, lifts))

    @property
    def _eraser(self) -> Eraser:
        if self._by is None:
            raise LedgerUnavailable("this command may not erase", hint=_NO_ERASER)
        return self._by
