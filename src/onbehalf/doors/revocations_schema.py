"""The file of revocations: its tables, and how it is opened by whoever stops somebody or looks who is stopped.

`revocation` is who was stopped and let go, and is never deleted. `signalled` is until when tokens ended by security
events, one row for each whom a stream ever named; `signal` which events came, so that none counts twice; `stream` when
a stream was last heard. Must not hold what a row means (revocations_sqlite.py, revocations_signalled.py).

Trust: as revocations_sqlite.py.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from onbehalf.errors import ConfigInvalid

__all__ = ["opened"]

_REVOCATION = """
CREATE TABLE IF NOT EXISTS revocation (
  id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL CHECK (kind IN ('person', 'client', 'tenant', 'login')),
  tenant TEXT NOT NULL CHECK (tenant <> ''), name TEXT NOT NULL CHECK ((name = '') = (kind = 'tenant')),
  at INTEGER NOT NULL, blocks INTEGER NOT NULL CHECK (blocks IN (0, 1)), by TEXT NOT NULL, reason TEXT NOT NULL,
  lifted INTEGER, lifted_by TEXT NOT NULL DEFAULT '', noted INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TRIGGER IF NOT EXISTS revocation_kept BEFORE DELETE ON revocation
BEGIN SELECT RAISE(ABORT, 'a revocation is lifted, never removed'); END;
"""
_SIGNALS = """
CREATE TABLE IF NOT EXISTS signalled (
  kind TEXT NOT NULL CHECK (kind IN ('person', 'tenant', 'login')), tenant TEXT NOT NULL CHECK (tenant <> ''),
  name TEXT NOT NULL CHECK ((name = '') = (kind = 'tenant')), stream TEXT NOT NULL,
  ended INTEGER NOT NULL, account INTEGER NOT NULL, seq INTEGER NOT NULL,
  PRIMARY KEY (kind, tenant, name, stream)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS signalled_seq ON signalled (seq);
CREATE TABLE IF NOT EXISTS signal (
  stream TEXT NOT NULL, id TEXT NOT NULL, until INTEGER NOT NULL, facts TEXT NOT NULL, noted INTEGER NOT NULL,
  PRIMARY KEY (stream, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS signal_until ON signal (stream, until);
CREATE INDEX IF NOT EXISTS signal_open ON signal (noted) WHERE noted = 0;
CREATE TABLE IF NOT EXISTS stream (
  name TEXT PRIMARY KEY, heard INTEGER NOT NULL, status TEXT NOT NULL DEFAULT 'enabled'
) STRICT, WITHOUT ROWID;
"""


def opened(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """A connection to the file, made where there is none. For `busy_seconds` it is waited for who writes.

    Raises ConfigInvalid.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=busy_seconds)
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_REVOCATION)
        _widen(connection)
        connection.executescript(_SIGNALS)
    except (OSError, sqlite3.Error) as error:
        raise ConfigInvalid(
            f"`{path}` cannot be used: {error}", hint="without it nobody can be stopped; see that it can be written"
        ) from error
    return connection


def _widen(connection: sqlite3.Connection) -> None:
    """Let a file from before there were signals stop logins. Whoever opens it at the same time waits."""
    (made,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'revocation'").fetchone()
    if "'login'" in made:
        return
    connection.executescript(
        "BEGIN IMMEDIATE; DROP TRIGGER revocation_kept; ALTER TABLE revocation RENAME TO revocation_narrow; "  # noqa: S608
        + _REVOCATION
        + "INSERT INTO revocation SELECT * FROM revocation_narrow; DROP TABLE revocation_narrow; COMMIT;"
    )
