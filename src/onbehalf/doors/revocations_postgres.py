"""Who is stopped, for all gateways on one database: people, clients and whole tenants, until somebody lets them go on.

`RevocationTable` is for `onbehalf revoke`, which writes; `PostgresRevocations` is what a gateway last heard of it
(state_watch.py). Nothing is ever deleted, and the gateway's role could not. Must not know how a call is refused
(directory_revoked.py).

Trust: whoever can write this database can stop anybody, and let go whom others stopped.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from onbehalf.doors.revocations_signalled import StreamTold
from onbehalf.doors.revocations_sqlite import Ended, Kind, Revocation
from onbehalf.doors.state_postgres import State, StateDown
from onbehalf.doors.state_schema import VERSION
from onbehalf.errors import ConfigInvalid
from onbehalf.model import UnixTime

__all__ = ["ALL", "ENDED", "PostgresRevocations", "RevocationTable"]

_log = logging.getLogger(__name__)
_COLUMNS = "id, kind, tenant, name, at, blocks, by, reason, lifted, lifted_by, noted"
ENDED = """SELECT kind, tenant, name, ended FROM onbehalf_state.signalled
WHERE changed_in >= $1::text::xid8 AND ended > 0"""
ALL = f"SELECT {_COLUMNS} FROM onbehalf_state.revocation ORDER BY id"  # noqa: S608
_ADD = f"""INSERT INTO onbehalf_state.revocation (kind, tenant, name, at, blocks, by, reason)
VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}"""  # noqa: S608
_LIFT = f"""UPDATE onbehalf_state.revocation SET lifted = %s, lifted_by = %s, changed_in = pg_current_xact_id()
WHERE id = %s AND blocks AND lifted IS NULL RETURNING {_COLUMNS}"""  # noqa: S608
_NOTE = """UPDATE onbehalf_state.revocation SET noted = greatest(noted, $2::integer), changed_in = pg_current_xact_id()
WHERE id = $1"""
_STREAMS = "SELECT name, heard, status FROM onbehalf_state.stream WHERE heard > 0"
_STALE_SECONDS = 2.0
_SECONDS = 5


class PostgresRevocations:
    """What directory_revoked.py asks, of what was heard last. Used in one event loop, ended by `aclose`."""

    def __init__(self, state: State, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._state = state
        self._monotonic = monotonic
        self._found: tuple[Revocation, ...] = ()
        self._ended: dict[tuple[str, str, str], Ended] = {}
        self._version = self._marks = self._seq = 0
        self.streams: Mapping[str, UnixTime] = {}
        """When streams of security events were heard last, by their names."""
        self._heard = float("-inf")
        self._noting: set[asyncio.Task[None]] = set()

    def heard(self, *, asked: float) -> None:
        """All that was written before `asked`, by the monotonic clock, is known."""
        self._heard = max(self._heard, asked)

    def unheard(self) -> None:
        """Something was written that is not known: nothing may be told until it is."""
        self._heard = float("-inf")

    def take(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """All there are, as ALL gives them."""
        found = tuple(_revocation(row) for row in rows)
        self._marks += found != self._found
        self._version += found != self._found
        self._found = found

    def take_ended(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """What security events ended, as ENDED gives it: what changed, and perhaps more."""
        for kind, tenant, name, at in rows:
            known = self._ended.pop((kind, tenant, name), None)
            if known is None or known.at < at:
                self._seq += 1
                self._version += 1
                known = Ended(seq=self._seq, kind=kind, tenant=tenant, name=name, at=at)
            self._ended[kind, tenant, name] = known

    def version(self) -> tuple[int, int, int]:
        """Another value whenever something changed. Raises TimeoutError where nothing was heard for two seconds."""
        if self._monotonic() - self._heard > _STALE_SECONDS:
            raise TimeoutError("the database did not say lately who is")
        return self._version, 0, 0

    def marks(self) -> tuple[int, ...]:
        """Another value whenever `all` is other than before."""
        return (self._marks,)

    def all(self) -> Sequence[Revocation]:
        """Every one that ever was, in order."""
        return self._found

    def ended(self, *, after: int) -> Sequence[Ended]:
        """What security events ended, or ended anew, after the change of this number, in order."""
        found = (each for each in self._ended.values() if each.seq > after)
        return sorted(found, key=lambda each: each.seq)

    def note(self, id_: int, noted: int) -> None:
        """Keep that so much of it is on record. Where that fails it is put there once more after the next start."""
        work = asyncio.create_task(self._note(id_, noted))
        self._noting.add(work)
        work.add_done_callback(self._noting.discard)

    async def aclose(self) -> None:
        """Let what is under way come to its end."""
        if self._noting:
            await asyncio.wait(self._noting)

    async def _note(self, id_: int, noted: int) -> None:
        try:
            await self._state.run(_NOTE, id_, noted)
        except StateDown as error:
            _log.error("that revocation %d is on record could not be kept: %s", id_, error)


class RevocationTable:
    """The table for a command. Made by `open`; every method raises psycopg.Error where it cannot be read or written."""

    def __init__(self, connection: psycopg.Connection[TupleRow]) -> None:
        """Only for `open`."""
        self._connection = connection

    @classmethod
    def open(cls, dsn: str) -> RevocationTable:
        """Connected as the gateway's own role. Raises ConfigInvalid."""
        try:
            connection = psycopg.connect(
                dsn, autocommit=True, options=f"-c statement_timeout={_SECONDS}s -c synchronous_commit=on"
            )
            row = connection.execute("SELECT max(number) FROM onbehalf_state.version").fetchone()
        except psycopg.Error as error:
            raise ConfigInvalid(
                f"the database of `gateway.state` cannot be used: {type(error).__name__}",
                hint="without it nobody can be stopped; look at its DSN, its server and `onbehalf db state`",
            ) from error
        if row != (VERSION,):
            raise ConfigInvalid("the tables of `gateway.state` are of another version", hint="see `onbehalf db state`")
        return cls(connection)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def all(self) -> Sequence[Revocation]:
        """Every one that ever was, in order."""
        return [_revocation(row) for row in self._connection.execute(ALL.encode())]

    def streams(self) -> Mapping[str, StreamTold]:
        """Every stream of security events that was ever heard, by name."""
        rows = self._connection.execute(_STREAMS.encode())
        return {name: StreamTold(name=name, heard=UnixTime(heard), status=status) for name, heard, status in rows}

    def add(
        self, kind: Kind, tenant: str, name: str, *, at: UnixTime, blocks: bool, by: str, reason: str
    ) -> Revocation:
        """Stop somebody; durable when this returns."""
        (row,) = self._connection.execute(_ADD.encode(), (kind, tenant, name, at, blocks, by, reason)).fetchall()
        return _revocation(row)

    def lift(self, id_: int, *, at: UnixTime, by: str) -> Revocation | None:
        """Let go on; None where there is none of that number that stops anybody."""
        rows = self._connection.execute(_LIFT.encode(), (at, by, id_)).fetchall()
        return _revocation(rows[0]) if rows else None


def _revocation(row: tuple[Any, ...]) -> Revocation:  # Any: columns, whose types the table checks
    id_, kind, tenant, name, at, blocks, by, reason, lifted, lifted_by, noted = row
    return Revocation(
        id=id_, kind=kind, tenant=tenant, name=name, at=at, blocks=blocks, by=by, reason=reason, lifted=lifted,
        lifted_by=lifted_by, noted=noted,
    )  # fmt: skip
