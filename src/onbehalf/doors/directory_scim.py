"""What identity providers pushed, in one SQLite file: users and groups by tenant, each with a version.

A change is one transaction, and ends only after the directory took it over: what was answered as done is on disk and in
force. A deleted user stays as one who left. Must not know HTTP, or what resources mean (validate/scim*.py).

Trust: whoever can write this file can make anybody a manager, or let anybody in who can log in at the issuer.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from onbehalf.doors.directory_sqlite_schema import transaction
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json, UnixTime
from onbehalf.validate.scim import Kind
from onbehalf.validate.scim_people import Pushed

__all__ = ["Kept", "ScimStore"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS resource(
    tenant TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('User', 'Group')), body TEXT NOT NULL,
    version INTEGER NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL,
    deleted INTEGER NOT NULL CHECK (deleted IN (0, 1)), PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
"""
_COLUMNS = "id, kind, body, version, created, modified, deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One resource of a tenant, with what its `meta` says."""

    id: str
    kind: Kind
    body: Mapping[str, Json] = field(repr=False)
    version: int
    created: UnixTime
    modified: UnixTime
    deleted: bool = False

    @property
    def pushed(self) -> Pushed:
        """The resource as the directory's rules see it."""
        return Pushed(id=self.id, body=self.body, deleted=self.deleted)


class ScimStore:
    """Resources of all tenants. Not for several threads at once: whoever calls takes turns. Raises sqlite3.Error."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> ScimStore:
        """The file, made where it is missing. Raises ConfigInvalid."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigInvalid(
                f"`{path}` cannot be used: {error}", hint="restore it, or move it away and let the provider push again"
            ) from error
        return cls(connection)

    def all(self, tenant: str, kind: Kind) -> list[Kept]:
        """Every resource of one kind, those deleted among them, in the order of their making."""
        query = f"SELECT {_COLUMNS} FROM resource WHERE tenant = ? AND kind = ? ORDER BY created, id"  # noqa: S608
        return [_kept(row) for row in self._connection.execute(query, (tenant, kind))]

    def get(self, tenant: str, kind: Kind, id: str) -> Kept | None:
        """One that was not deleted."""
        query = f"SELECT {_COLUMNS} FROM resource WHERE tenant = ? AND kind = ? AND id = ? AND deleted = 0"  # noqa: S608
        row = self._connection.execute(query, (tenant, kind, id)).fetchone()
        return _kept(row) if row else None

    def change(self, tenant: str, change: Callable[[ScimStore], Kept | None], taken: Callable[[], None]) -> Kept | None:
        """Do `change`, and keep it if `taken`, which has the directory take it over, does not raise."""
        with transaction(self._connection):
            made = change(self)
            taken()
        return made

    def add(self, tenant: str, kind: Kind, body: Mapping[str, Json], *, now: UnixTime, instead: Sequence[str]) -> Kept:
        """A new resource. `instead` are ids of deleted ones whose place it takes."""
        for id in instead:
            self._connection.execute("DELETE FROM resource WHERE tenant = ? AND id = ? AND deleted = 1", (tenant, id))
        made = Kept(id=str(uuid.uuid4()), kind=kind, body=body, version=1, created=now, modified=now)
        row = (tenant, made.id, kind, orjson.dumps(dict(body)).decode(), 1, now, now, 0)
        self._connection.execute("INSERT INTO resource VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return made

    def put(self, tenant: str, kept: Kept, body: Mapping[str, Json], *, now: UnixTime, deleted: bool = False) -> Kept:
        """The resource with another content, or deleted."""
        row = (orjson.dumps(dict(body)).decode(), kept.version + 1, now, int(deleted), tenant, kept.id)
        self._connection.execute(
            "UPDATE resource SET body = ?, version = ?, modified = ?, deleted = ? WHERE tenant = ? AND id = ?", row
        )
        return Kept(
            id=kept.id, kind=kept.kind, body=body, version=kept.version + 1, created=kept.created, modified=now,
            deleted=deleted,
        )  # fmt: skip

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _kept(row: tuple[Any, ...]) -> Kept:  # Any: SQLite's columns, whose types the table checks
    id, kind, body, version, created, modified, deleted = row
    return Kept(
        id=id, kind=kind, body=orjson.loads(body), version=version, created=UnixTime(created),
        modified=UnixTime(modified), deleted=bool(deleted),
    )  # fmt: skip
