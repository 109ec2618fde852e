"""A backend's own record of calls (calls.py) in a table of its PostgreSQL, for any number of processes.

Must not connect by itself, or know what is called.

Trust: as calls.py. Give the backend's role INSERT, SELECT and UPDATE on the tables and no DELETE, and the gateway none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, LiteralString

from onbehalf.backend.calls import WINDOW, require_near, row_of, used
from onbehalf.backend.verify import VerifiedCall
from onbehalf.errors import ReplayUnknown
from onbehalf.model import Digest, UnixTime

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["CALLS_SQL", "PostgresCalls"]

CALLS_SQL: LiteralString = """
CREATE TABLE IF NOT EXISTS onbehalf_calls(
    channel text NOT NULL, n bigint NOT NULL, token text NOT NULL UNIQUE, call text NOT NULL, tool text NOT NULL,
    arguments text NOT NULL, record bigint NOT NULL, leaf text NOT NULL, at bigint NOT NULL,
    answer text NOT NULL DEFAULT '', status integer NOT NULL DEFAULT 0, PRIMARY KEY (channel, n));
CREATE TABLE IF NOT EXISTS onbehalf_channels(
    channel text PRIMARY KEY, first bigint NOT NULL, highest bigint NOT NULL);
"""
"""The tables, made by who owns the schema. Columns are those of calls.py."""
_ACCEPT: LiteralString = (
    "INSERT INTO onbehalf_calls VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING 1"
)
_HIGHEST: LiteralString = (
    "INSERT INTO onbehalf_channels AS c VALUES (%s, %s, %s) ON CONFLICT (channel) DO UPDATE"
    " SET first = least(c.first, excluded.first), highest = greatest(c.highest, excluded.highest) RETURNING highest"
)


class PostgresCalls:
    """The record in `onbehalf_calls`. `connect` gives a psycopg connection in no transaction, such as of a pool."""

    def __init__(self, connect: Callable[[], AbstractContextManager[Connection[Any]]], *, window: int = WINDOW) -> None:
        self._connect = connect
        self._window = window

    def accept(self, call: VerifiedCall, *, now: UnixTime) -> None:
        """Take a proven call. Raises CallTokenReplayed, ReplayUnknown, CallTokenRefused."""
        from psycopg import Error

        row = row_of(call, now=now)
        try:
            with self._connect() as connection, connection.transaction():
                # the channel's row first: whoever has it locked is alone with the channel until the end
                found = connection.execute(_HIGHEST, [row[0], row[1], row[1]]).fetchone()
                assert found is not None
                require_near(call.record.number, int(found[0]), self._window)
                if connection.execute(_ACCEPT, row).fetchone() is None:
                    raise used()
        except Error as error:
            raise ReplayUnknown("the record of calls cannot be written") from error

    def answered(self, call: VerifiedCall, *, answer: Digest, status: int) -> None:
        """Add what was answered. Raises ReplayUnknown."""
        from psycopg import Error

        try:
            with self._connect() as connection, connection.transaction():
                connection.execute(
                    "UPDATE onbehalf_calls SET answer = %s, status = %s WHERE token = %s AND answer = ''",
                    [answer, status, call.token_id],
                )
        except Error as error:
            raise ReplayUnknown("the record of calls cannot be written") from error
