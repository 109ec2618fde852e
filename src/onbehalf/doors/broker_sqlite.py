"""What the sign-in broker keeps, in one SQLite file: clients that registered, grants, and what was used once.

Codes and refresh tokens are kept as digests only. Each change is one transaction, durable (WAL, `synchronous=FULL`)
when it returns; of two that show one code or refresh token at once, one is first, and the second ends the grant (RFC
9700 section 4.14.2). Must not know who may have a grant or how a token is signed.

Trust: whoever can write this file can give a client that they have another person's grant; whoever reads it learns who
uses which client, and can act as nobody.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import orjson

from onbehalf.broker.grant import Code, Granted, Reused
from onbehalf.broker.refused import BrokerUnavailable, OauthRefused
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json, UnixTime

__all__ = ["IDLE_S", "MOST_CLIENTS", "UNUSED_S", "SqliteBroker", "digest", "granted", "too_many"]

Found = TypeVar("Found")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS client(
    id TEXT PRIMARY KEY, metadata BLOB NOT NULL, at INTEGER NOT NULL, used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS client_used ON client(used);
CREATE TABLE IF NOT EXISTS granted(
    family TEXT PRIMARY KEY, client TEXT NOT NULL, subject TEXT NOT NULL, tenant TEXT NOT NULL, resource TEXT NOT NULL,
    scope TEXT NOT NULL, at INTEGER NOT NULL, until INTEGER NOT NULL, told BLOB NOT NULL, ended TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS granted_until ON granted(until);
CREATE TABLE IF NOT EXISTS code(
    digest BLOB PRIMARY KEY, family TEXT NOT NULL REFERENCES granted(family) ON DELETE CASCADE, until INTEGER NOT NULL,
    redirect_uri TEXT NOT NULL, challenge TEXT NOT NULL, used INTEGER NOT NULL CHECK (used IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refresh(
    digest BLOB PRIMARY KEY, family TEXT NOT NULL REFERENCES granted(family) ON DELETE CASCADE,
    used INTEGER NOT NULL CHECK (used IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS refresh_family ON refresh(family);
CREATE INDEX IF NOT EXISTS code_family ON code(family);
CREATE TABLE IF NOT EXISTS once(
    issuer TEXT NOT NULL, id TEXT NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (issuer, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS once_until ON once(until);
"""
_LATER = (("granted", "key"), ("code", "key"))
"""Columns that files from before tokens could be bound to keys have not."""
_BUSY_SECONDS = 5.0
MOST_CLIENTS = 5000
UNUSED_S = 86_400
IDLE_S = 90 * 86_400
_GRANT = "granted.family, client, subject, tenant, resource, scope, at, granted.until, told, ended, granted.key"


class SqliteBroker:
    """The port BrokerStore on one file. Made by `open`, ended by `close`. One thread does it all, in order."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="broker")
        listed = connection.execute("SELECT family FROM granted WHERE ended <> ''")
        self.ended = {str(family) for (family,) in listed}
        """Grants that are over before their time, for whoever proves access tokens."""

    @classmethod
    def open(cls, path: Path) -> SqliteBroker:
        """The file, made where it is missing. Raises ConfigInvalid."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.executescript(_SCHEMA)
            for table, column in _LATER:
                if column not in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}:
                    connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")
            return cls(connection)
        except (OSError, sqlite3.Error) as error:
            raise ConfigInvalid(
                f"`{path}` cannot be used: {error}", hint="move it away: everybody then logs in anew"
            ) from error

    async def register(self, id: str, metadata: Mapping[str, Json], *, now: UnixTime) -> None:
        """Keep a client. Raises OauthRefused where there are too many."""
        await self._in_transaction(lambda: self._register(id, orjson.dumps(metadata), now))

    async def client(self, id: str, *, now: UnixTime) -> Mapping[str, Json] | None:
        """The metadata of a client that registered, which is used by this."""
        return await self._in_transaction(lambda: self._client(id, now))

    async def granted(self, code: str, kept: Code, *, until: UnixTime) -> None:
        """Keep a grant and its code, good until then."""
        await self._in_transaction(lambda: self._granted(code, kept, until))

    async def take_code(self, code: str, *, now: UnixTime) -> Code | Reused | None:
        """What a code stands for, once; shown again, it ends its grant. None for one that is unknown or over."""
        return await self._in_transaction(lambda: self._take_code(code, now))

    async def keep_refresh(self, refresh: str, family: str) -> None:
        """Keep the first refresh token of a grant."""
        row = (digest(refresh), family)
        await self._in_transaction(lambda: self._connection.execute("INSERT INTO refresh VALUES (?, ?, 0)", row))

    async def find_refresh(self, refresh: str, *, now: UnixTime) -> Granted | None:
        """The grant of a refresh token that is good, unused or not. None for one that is unknown or over."""
        return await self._in_transaction(lambda: self._find_refresh(refresh, now))

    async def rotate(self, refresh: str, fresh: str) -> bool:
        """Put a fresh refresh token in place of one; whether that was unused. Where not, its grant is over."""
        return await self._in_transaction(lambda: self._rotate(refresh, fresh))

    async def bind(self, family: str, key: str) -> None:
        """From now on the refresh tokens of a grant are of the key of this thumbprint, if they are of none."""
        statement, row = "UPDATE granted SET key = ? WHERE family = ? AND key = ''", (key, family)
        await self._in_transaction(lambda: self._connection.execute(statement, row))

    async def end(self, family: str, why: str) -> bool:
        """End a grant and all that follows from it; whether it was not over."""
        return await self._in_transaction(lambda: self._end(family, why))

    async def once(self, issuer: str, id: str, *, until: UnixTime, now: UnixTime) -> bool:
        """Whether an assertion is shown for the first time; then it is on disk that it was."""
        return await self._in_transaction(lambda: self._once(issuer, id, until, now))

    def close(self) -> None:
        """End the thread and the connection, after what is under way."""
        self._thread.shutdown()
        self._connection.close()

    def _register(self, id: str, metadata: bytes, now: UnixTime) -> None:
        run = self._connection.execute
        run(
            "DELETE FROM client WHERE (used = 0 AND at < ?) OR (used > 0 AND used < ?)",
            (now - UNUSED_S, now - IDLE_S),
        )
        (count,) = run("SELECT count(*) FROM client").fetchone()
        if count >= MOST_CLIENTS:
            raise too_many()
        run("INSERT INTO client VALUES (?, ?, ?, 0)", (id, metadata, now))

    def _client(self, id: str, now: UnixTime) -> Mapping[str, Json] | None:
        found = self._connection.execute("SELECT metadata, used FROM client WHERE id = ?", (id,)).fetchone()
        if found is None:
            return None
        if found[1] < now - 3600:  # often enough to know which are in use
            self._connection.execute("UPDATE client SET used = ? WHERE id = ?", (now, id))
        metadata: Mapping[str, Json] = orjson.loads(found[0])
        return metadata

    def _granted(self, code: str, kept: Code, until: UnixTime) -> None:
        run, of = self._connection.execute, kept.granted
        for (family,) in run("DELETE FROM granted WHERE until < ? RETURNING family", (of.at,)).fetchall():
            self.ended.discard(family)
        run(
            "INSERT INTO granted (family, client, subject, tenant, resource, scope, at, until, told, ended, key)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '', ?)",
            (of.family, of.client, of.subject, of.tenant, of.resource, " ".join(of.scope), of.at, of.until,
             orjson.dumps(dict(of.told)), of.key),
        )  # fmt: skip
        run(
            "INSERT INTO code (digest, family, until, redirect_uri, challenge, used, key) VALUES (?, ?, ?, ?, ?, 0, ?)",
            (digest(code), of.family, until, kept.redirect_uri, kept.challenge, kept.key),
        )

    def _take_code(self, code: str, now: UnixTime) -> Code | Reused | None:
        query = (
            f"SELECT {_GRANT}, redirect_uri, challenge, used, code.until, code.key"  # noqa: S608
            " FROM code JOIN granted USING (family) WHERE digest = ?"
        )
        found = self._connection.execute(query, (digest(code),)).fetchone()
        if found is None:
            return None
        redirect_uri, challenge, used, until, key = found[11:]
        if used:
            self._end(found[0], "its code was shown twice")
            return Reused(family=found[0])
        self._connection.execute("UPDATE code SET used = 1 WHERE digest = ?", (digest(code),))
        if until <= now or found[9]:
            return None
        return Code(granted=granted(found[:11]), redirect_uri=redirect_uri, challenge=challenge, key=key)

    def _find_refresh(self, refresh: str, now: UnixTime) -> Granted | None:
        query = f"SELECT {_GRANT} FROM refresh JOIN granted USING (family) WHERE digest = ?"  # noqa: S608
        found = self._connection.execute(query, (digest(refresh),)).fetchone()
        return granted(found) if found is not None and not found[9] and found[7] > now else None

    def _rotate(self, refresh: str, fresh: str) -> bool:
        run = self._connection.execute
        found = run("SELECT family, used FROM refresh WHERE digest = ?", (digest(refresh),)).fetchone()
        if found is None:
            return False
        family, used = found
        if used:
            self._end(family, "a refresh token was shown twice")
            return False
        run("UPDATE refresh SET used = 1 WHERE digest = ?", (digest(refresh),))
        run("INSERT INTO refresh VALUES (?, ?, 0)", (digest(fresh), family))
        return True

    def _end(self, family: str, why: str) -> bool:
        statement = "UPDATE granted SET ended = ? WHERE family = ? AND ended = ''"
        changed = self._connection.execute(statement, (why, family)).rowcount == 1
        self.ended.add(family)
        return changed

    def _once(self, issuer: str, id: str, until: UnixTime, now: UnixTime) -> bool:
        run = self._connection.execute
        run("DELETE FROM once WHERE until < ?", (now,))
        return run("INSERT INTO once VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (issuer, id, until)).rowcount == 1

    async def _in_transaction(self, work: Callable[[], Found]) -> Found:
        def done() -> Found:
            self._connection.execute("BEGIN IMMEDIATE")  # between looking and keeping nobody else writes
            try:
                result = work()
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
            return result

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, done)
        except (sqlite3.Error, RuntimeError, ValueError, TypeError) as error:  # RuntimeError: the thread is ended
            raise BrokerUnavailable(
                f"grants cannot be read or kept ({type(error).__name__})", hint="try again later"
            ) from error


def granted(row: tuple[Any, ...]) -> Granted:  # Any: a database's columns, whose types its table checks
    """What a row says that was granted, whichever database it is of."""
    family, client, subject, tenant, resource, scope, at, until, told, _, key = row
    return Granted(
        family=family, client=client, subject=subject, tenant=tenant, resource=resource,
        scope=tuple(scope.split(" ")) if scope else (), at=UnixTime(at), until=UnixTime(until), told=orjson.loads(told),
        key=key,
    )  # fmt: skip


def digest(secret: str) -> bytes:
    """What is kept in place of a code, a refresh token or an assertion."""
    return sha256(secret.encode("utf-8", "replace")).digest()


def too_many() -> OauthRefused:
    """The refusal of one more client."""
    return OauthRefused(
        "temporarily_unavailable", "too many clients registered lately", status=503,
        hint="clients that publish their metadata at a URL need no registration",
    )  # fmt: skip
