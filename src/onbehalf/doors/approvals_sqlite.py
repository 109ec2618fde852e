"""What people were asked to approve, who said yes, and that it was refused or used: in one SQLite file.

Each change is one statement or one transaction, durable (WAL, `synchronous=FULL`) when it returns; of two calls that
use one approval at once, one does. What an approval is about is sealed by AES-256-GCM under a key made from the
gateway's secret, bound to the row it is in, and goes when the row does. Must not know who may approve
(validate/approval.py).

Trust: whoever can write this file can withhold approvals, or add a vote in another's name, though not one that the
record knows of; what calls are about can be read by those who hold the secret.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import orjson

from onbehalf.doors.row_seal import RowSeal, SealBroken
from onbehalf.errors import ApprovalsUnavailable, ConfigInvalid, TooManyApprovals
from onbehalf.model import Approval, CallId, Digest, Json, UnixTime, Vote

__all__ = ["MOST_OPEN", "SEAL", "SqliteApprovals"]

Found = TypeVar("Found")

SEAL = b"onbehalf/approvals/v1"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS approval(
    id TEXT PRIMARY KEY, binding TEXT NOT NULL, tenant TEXT NOT NULL, person TEXT NOT NULL, call TEXT NOT NULL,
    approvers TEXT NOT NULL, at INTEGER NOT NULL, until INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'refused', 'used')), about BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS approval_binding ON approval(binding) WHERE state <> 'used';
CREATE INDEX IF NOT EXISTS approval_person ON approval(tenant, person);
CREATE INDEX IF NOT EXISTS approval_until ON approval(until);
CREATE TABLE IF NOT EXISTS vote(
    approval TEXT NOT NULL REFERENCES approval(id) ON DELETE CASCADE, person TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (approval, person)
) STRICT, WITHOUT ROWID;
"""
_BUSY_SECONDS = 5.0
MOST_OPEN = 20
"""Of one person's calls, how many may wait at once: a model must not bury one that matters under a hundred."""
_COLUMNS = "id, binding, tenant, person, call, approvers, at, until, state"


class SqliteApprovals:
    """The port Approvals on one file. Made by `open`, ended by `close`. One thread does it all, in order."""

    def __init__(self, connection: sqlite3.Connection, secret: bytes) -> None:
        self._connection = connection
        self._seal = RowSeal(secret, SEAL)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="approvals")

    @classmethod
    def open(cls, path: Path, *, secret: bytes) -> SqliteApprovals:
        """The file, made where it is missing. `secret` is the gateway's, of 32 bytes. Raises ConfigInvalid."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigInvalid(f"`{path}` cannot be used: {error}", hint="move it away; it is made anew") from error
        return cls(connection, secret)

    async def ask(self, new: Approval, about: Json) -> Approval:
        """The one of the same binding that is not over or used; else `new`, kept. Raises TooManyApprovals."""
        return await self._in_thread(lambda: self._ask(new, about))

    async def find(self, id: str, *, now: UnixTime) -> tuple[Approval, Json] | None:
        """One that is not over or used, with what it is about."""
        return await self._in_thread(lambda: self._find(id, now))

    async def approve(self, id: str, vote: Vote) -> bool:
        """Keep a vote; whether it is one more, of one that is not over, used or refused."""
        statement = (
            "INSERT INTO vote SELECT id, ?2, ?3 FROM approval WHERE id = ?1 AND state = 'open' AND until > ?3"
            " ON CONFLICT DO NOTHING"
        )
        return await self._changed(statement, (id, vote.person, vote.at))

    async def refuse(self, id: str, *, now: UnixTime) -> bool:
        """Refuse it for good; whether that changed anything."""
        return await self._changed(
            "UPDATE approval SET state = 'refused' WHERE id = ? AND state = 'open' AND until > ?", (id, now)
        )

    async def take(self, id: str, *, now: UnixTime) -> bool:
        """Use it; whether it was neither used, refused nor over."""
        return await self._changed(
            "UPDATE approval SET state = 'used' WHERE id = ? AND state = 'open' AND until > ?", (id, now)
        )

    def close(self) -> None:
        """End the thread and the connection, after what is under way."""
        self._thread.shutdown()
        self._connection.close()

    def _ask(self, new: Approval, about: Json) -> Approval:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")  # between looking and keeping nobody else writes
        try:
            run("DELETE FROM approval WHERE until <= ?", (new.at,))
            query = f"SELECT {_COLUMNS} FROM approval WHERE binding = ? AND state <> 'used'"  # noqa: S608
            kept = run(query, (new.binding,)).fetchone()
            if kept is not None:
                return self._read(kept)
            (waiting,) = run(
                "SELECT count(*) FROM approval WHERE tenant = ? AND person = ? AND state = 'open'",
                (new.tenant, new.person),
            ).fetchone()
            if waiting >= MOST_OPEN:
                raise TooManyApprovals(
                    f"{MOST_OPEN} calls of yours wait for approval already",
                    hint="have some of them approved or refused first, or wait until they are over",
                )
            row = (
                new.id, new.binding, new.tenant, new.person, new.call, ",".join(sorted(new.approvers)), new.at,
                new.until, self._seal.seal(orjson.dumps(about), new.id, new.binding),
            )  # fmt: skip
            run("INSERT INTO approval VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'open', ?)", row)
            return new
        finally:
            run("COMMIT")

    def _find(self, id: str, now: UnixTime) -> tuple[Approval, Json] | None:
        query = f"SELECT {_COLUMNS}, about FROM approval WHERE id = ? AND until > ? AND state <> 'used'"  # noqa: S608
        found = self._connection.execute(query, (id, now)).fetchone()
        if found is None:
            return None
        return self._read(found[:-1]), orjson.loads(self._seal.open(found[-1], id, found[1]))

    def _read(self, row: tuple[Any, ...]) -> Approval:  # Any: SQLite's columns, whose types the table checks
        id, binding, tenant, person, call, approvers, at, until, state = row
        votes = self._connection.execute("SELECT person, at FROM vote WHERE approval = ? ORDER BY at, person", (id,))
        return Approval(
            id=id, binding=Digest(binding), tenant=tenant, person=person, call=CallId(call),
            approvers=frozenset(approvers.split(",")), at=UnixTime(at), until=UnixTime(until),
            refused=state == "refused", votes=tuple(Vote(person=who, at=UnixTime(when)) for who, when in votes),
        )  # fmt: skip

    async def _changed(self, statement: str, values: tuple[str | int, ...]) -> bool:
        return await self._in_thread(lambda: self._connection.execute(statement, values).rowcount == 1)

    async def _in_thread(self, work: Callable[[], Found]) -> Found:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        # RuntimeError: the thread is ended; ValueError and SealBroken: another hand wrote
        except (sqlite3.Error, RuntimeError, ValueError, SealBroken) as error:
            raise ApprovalsUnavailable(
                f"it cannot be told what was approved ({type(error).__name__})",
                hint="nothing was done; try again later",
            ) from error
