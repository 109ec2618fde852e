"""People's own logins at upstreams, in one SQLite file: one for each tenant, person and upstream, and sealed.

AES-256-GCM under a key made from the gateway's secret, bound to whose it is: what is moved to another row does not
open. Durable (WAL, `synchronous=FULL`) when it returns; what is deleted is overwritten. Must not know what a token is
good for or when it is renewed.

Trust: whoever has this file and the gateway's keys can act as these people at the upstreams; the file alone tells who
has a login where.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from onbehalf.connecting import Account, Owner
from onbehalf.doors.row_seal import RowSeal, SealBroken
from onbehalf.errors import ConfigInvalid, VaultUnavailable
from onbehalf.model import UnixTime

__all__ = ["SEAL", "SqliteVault", "whose"]

Found = TypeVar("Found")

SEAL = b"onbehalf/vault/v1"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS account(
    tenant TEXT NOT NULL, person TEXT NOT NULL, upstream TEXT NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (tenant, person, upstream)
) STRICT, WITHOUT ROWID;
"""
_BUSY_SECONDS = 5.0
_WHOSE = "tenant = ? AND person = ? AND upstream = ?"


class SqliteVault:
    """The port Vault on one file. Made by `open`, ended by `close`. One thread does it all, in order."""

    def __init__(self, connection: sqlite3.Connection, secret: bytes) -> None:
        self._connection = connection
        self._seal = RowSeal(secret, SEAL)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vault")

    @classmethod
    def open(cls, path: Path, *, secret: bytes) -> SqliteVault:
        """The file, made where it is missing. `secret` is the gateway's, of 32 bytes. Raises ConfigInvalid."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigInvalid(
                f"`{path}` cannot be used: {error}", hint="move it away: people then connect anew"
            ) from error
        return cls(connection, secret)

    async def find(self, owner: Owner) -> Account | None:
        """A person's login at an upstream. Raises VaultUnavailable."""
        return await self._in_thread(lambda: self._find(owner))

    async def keep(self, owner: Owner, account: Account) -> None:
        """Keep it in place of what there was. Raises VaultUnavailable."""
        sealed = self._seal.seal(msgspec.json.encode(account), *whose(owner))
        row = (*whose(owner), sealed)
        await self._in_thread(
            lambda: self._connection.execute("INSERT OR REPLACE INTO account VALUES (?, ?, ?, ?)", row)
        )

    async def renewing(self, owner: Owner, *, now: UnixTime, until: UnixTime) -> bool:
        """Whether no other gateway renews it: on one file there is none."""
        return True

    async def drop(self, owner: Owner) -> bool:
        """Forget it; whether there was one. Raises VaultUnavailable."""
        statement = f"DELETE FROM account WHERE {_WHOSE}"  # noqa: S608
        return await self._in_thread(lambda: self._connection.execute(statement, whose(owner)).rowcount == 1)

    def close(self) -> None:
        """End the thread and the connection, after what is under way."""
        self._thread.shutdown()
        self._connection.close()

    def _find(self, owner: Owner) -> Account | None:
        query = f"SELECT sealed FROM account WHERE {_WHOSE}"  # noqa: S608
        found = self._connection.execute(query, whose(owner)).fetchone()
        if found is None:
            return None
        return msgspec.json.decode(self._seal.open(found[0], *whose(owner)), type=Account)

    async def _in_thread(self, work: Callable[[], Found]) -> Found:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        # RuntimeError: the thread is ended; ValueError and SealBroken: another hand wrote
        except (sqlite3.Error, RuntimeError, ValueError, SealBroken) as error:
            raise VaultUnavailable(
                f"people's logins at upstreams cannot be read or kept ({type(error).__name__})",
                hint="nothing was done; try again later",
            ) from error


def whose(owner: Owner) -> tuple[str, str, str]:
    """What identifies a row."""
    return owner.tenant, owner.person, owner.upstream
