"""Who is stopped, in one SQLite file: people, clients, logins and whole tenants, until somebody lets them go on.

Written by `onbehalf revoke` and by security events (revocations_signalled.py), read by the gateway, which is told of a
change by SQLite itself. Nothing is ever deleted: what was lifted stays, for the tokens from before it are worth nothing
for good. A login's name is its issuer, a blank, and its subject. Must not know how a call is refused
(directory_revoked.py).

Trust: whoever can write this file can stop anybody, and let go whom others stopped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onbehalf.doors.revocations_schema import opened
from onbehalf.model import UnixTime

__all__ = ["Ended", "Kind", "Revocation", "Revocations"]

Kind = Literal["person", "client", "tenant", "login"]

_COLUMNS = "id, kind, tenant, name, at, blocks, by, reason, lifted, lifted_by, noted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """Tokens of a person, of a client in a tenant or of a tenant that were issued until `at` are worth nothing; while
    it `blocks` and is not `lifted`, neither are others. `noted` says how much of it is on record: 2 is all."""

    id: int
    kind: Kind
    tenant: str
    name: str
    at: UnixTime
    blocks: bool
    by: str
    reason: str
    lifted: UnixTime | None
    lifted_by: str
    noted: int

    @property
    def stops(self) -> bool:
        """Whether it refuses whatever token."""
        return self.blocks and self.lifted is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Tokens that were issued until `at` ended by a security event. `seq` counts such changes."""

    seq: int
    kind: Kind
    tenant: str
    name: str
    at: UnixTime


class Revocations:
    """The file. Made by `open`; every method raises sqlite3.Error where it cannot be read or written."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Only for `open`."""
        self._path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path, *, busy_seconds: float = 5.0) -> Revocations:
        """The file, made where there is none. For `busy_seconds` it is waited for who writes. Raises ConfigInvalid."""
        return cls(path, opened(path, busy_seconds=busy_seconds))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def version(self) -> tuple[int, int, int]:
        """Another value whenever another process has written, or another file is in its place. Raises OSError too."""
        found = self._path.stat()
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return version, found.st_dev, found.st_ino

    def marks(self) -> tuple[int, ...]:
        """Other values whenever `all` is other than before; quicker than that."""
        query = "SELECT coalesce(max(id), 0), count(lifted), coalesce(sum(noted), 0) FROM revocation"
        return tuple(self._connection.execute(query).fetchone())

    def all(self) -> Sequence[Revocation]:
        """Every one that ever was, in order."""
        rows = self._connection.execute(f"SELECT {_COLUMNS} FROM revocation ORDER BY id")  # noqa: S608
        return [_revocation(row) for row in rows]

    def ended(self, *, after: int) -> Sequence[Ended]:
        """What security events ended, or ended anew, after the change of this number, in order."""
        rows = self._connection.execute(
            "SELECT seq, kind, tenant, name, ended FROM signalled WHERE seq > ? ORDER BY seq", (after,)
        )
        return [Ended(seq=seq, kind=kind, tenant=tenant, name=name, at=at) for seq, kind, tenant, name, at in rows]

    def add(
        self, kind: Kind, tenant: str, name: str, *, at: UnixTime, blocks: bool, by: str, reason: str
    ) -> Revocation:
        """Stop somebody; on disk when this returns."""
        row = self._connection.execute(
            "INSERT INTO revocation (kind, tenant, name, at, blocks, by, reason) VALUES (?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
            f"RETURNING {_COLUMNS}",
            (kind, tenant, name, at, int(blocks), by, reason),
        ).fetchall()[0]
        return _revocation(row)

    def lift(self, id_: int, *, at: UnixTime, by: str) -> Revocation | None:
        """Let go on; None where there is none of that number that stops anybody."""
        rows = self._connection.execute(
            "UPDATE revocation SET lifted = ?, lifted_by = ? WHERE id = ? AND blocks = 1 AND lifted IS NULL "  # noqa: S608
            f"RETURNING {_COLUMNS}",
            (at, by, id_),
        ).fetchall()
        return _revocation(rows[0]) if rows else None

    def note(self, id_: int, noted: int) -> None:
        """Keep that so much of it is on record."""
        self._connection.execute("UPDATE revocation SET noted = ? WHERE id = ?", (noted, id_))


def _revocation(row: Any) -> Revocation:  # a row of a STRICT table: columns are what they are
    id_, kind, tenant, name, at, blocks, by, reason, lifted, lifted_by, noted = row
    return Revocation(
        id=id_, kind=kind, tenant=tenant, name=name, at=at, blocks=blocks == 1, by=by, reason=reason, lifted=lifted,
        lifted_by=lifted_by, noted=noted,
    )  # fmt: skip
