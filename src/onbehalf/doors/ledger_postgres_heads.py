"""Cosigned heads of a record in PostgreSQL: kept in its database for all replicas, and the newest beside this one.

The file beside it is what this machine remembers by itself: a database that was put back to an older state has no line
of its own about that. Every step can be done again, so it is, where a connection was lost. Must not read the ledger, or
check a signature (ledger_heads.py does).

Trust: as ledger_postgres_heads_schema.py.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from onbehalf.doors.ledger_heads_kept import OWN, RECENT, HeadsFile
from onbehalf.doors.ledger_postgres_session import ALIVE
from onbehalf.errors import LedgerUnavailable
from onbehalf.explain.checkpoint import Head

__all__ = ["SharedHeads"]

_SETTINGS = """
SET statement_timeout = '5s'; SET lock_timeout = '3s'; SET client_min_messages = error;
SELECT set_config('synchronous_commit', 'on', false)
  WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')
"""
_REACH = "see that its database can be reached, and that `onbehalf db ledger` was applied: docs/replicas.md"


class SharedHeads:
    """The KeptHeads of one database. With `beside` heads can be kept, else they can only be read."""

    def __init__(self, dsn: str, beside: HeadsFile | None) -> None:
        """Connects when it is first asked. `beside` is closed with this."""
        self._dsn = make_conninfo(dsn, **ALIVE, **({"target_session_attrs": "primary"} if beside else {}))
        self._beside = beside
        self._gate = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        with self._gate:
            self._drop()
        if self._beside is not None:
            self._beside.close()

    def last(self) -> Sequence[str]:
        shared = [note for (note,) in self._run("SELECT note FROM onbehalf_log.kept_head ORDER BY size DESC LIMIT 1")]
        return [*shared, *(self._beside.last() if self._beside is not None else ())]

    def keep(self, head: Head, lines: Mapping[str, tuple[int, str]]) -> None:
        if self._beside is None:
            raise LedgerUnavailable("cosignatures can only be read here", hint="with the login of a gateway")
        names, ats, said = [*lines], [at for at, _ in lines.values()], [line for _, line in lines.values()]
        call = "SELECT onbehalf_log.keep_head(%s::bigint, %s, %s::text[], %s::bigint[], %s::text[])"
        self._run(call, (head.size, head.note, names, ats, said))
        self._beside.keep(head, {})

    def cosignatures(self, head: Head) -> dict[str, str]:
        query = "SELECT c.name, c.line FROM onbehalf_log.cosignature c JOIN onbehalf_log.kept_head k USING (size)"
        return dict(self._run(f"{query} WHERE c.size = %s AND k.note = %s ORDER BY 1", (head.size, head.note)))

    def cosigned(self, first: int, last: int) -> list[tuple[int, int]]:
        query = "SELECT size, max(at) FROM onbehalf_log.cosignature WHERE name <> %s AND size BETWEEN %s AND %s"
        return self._run(f"{query} GROUP BY size ORDER BY size", (OWN, first, last))

    def noted(self, size: int) -> tuple[str, list[str]]:
        notes = self._run("SELECT note FROM onbehalf_log.kept_head WHERE size = %s", (size,))
        lines = self._run("SELECT line FROM onbehalf_log.cosignature WHERE size = %s ORDER BY name", (size,))
        if not notes:
            raise LedgerUnavailable(f"no head of {size} leaves is kept")
        return notes[0][0], [line for (line,) in lines]

    def recent(self, more: int, most: int) -> list[tuple[str, dict[str, str]]]:
        query = (
            "SELECT size, note FROM onbehalf_log.kept_head WHERE size > %s AND size <= %s ORDER BY size DESC LIMIT %s"
        )
        notes = self._run(query, (more, most, RECENT))
        found: dict[int, dict[str, str]] = {size: {} for size, _ in notes}
        query = "SELECT size, name, line FROM onbehalf_log.cosignature WHERE size = ANY (%s)"
        for size, name, line in self._run(query, ([*found],)):
            found[size][name] = line
        return [(note, found[size]) for size, note in notes]

    def _run(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._gate:
            had = self._connection is not None
            try:
                return self._once(query, values)
            except psycopg.OperationalError as error:  # a connection that was kept may have been lost meanwhile
                self._drop()
                if not had or isinstance(error, psycopg.errors.QueryCanceled | psycopg.errors.LockNotAvailable):
                    raise _unavailable(error) from error
            except psycopg.Error as error:
                self._drop()
                raise _unavailable(error) from error
            try:
                return self._once(query, values)
            except psycopg.Error as error:
                self._drop()
                raise _unavailable(error) from error

    def _once(self, query: str, values: Sequence[Any]) -> list[Any]:
        if self._connection is None:
            self._connection = psycopg.connect(self._dsn, autocommit=True)
            self._connection.execute(_SETTINGS)
        return self._connection.execute(query.encode(), values).fetchall()

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


def _unavailable(error: psycopg.Error) -> LedgerUnavailable:
    said = error.diag.message_primary or str(error).strip().split("\n")[0]
    return LedgerUnavailable(f"cosignatures cannot be had or kept in the ledger's database: {said}", hint=_REACH)
