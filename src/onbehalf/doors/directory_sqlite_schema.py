"""The tables of the directory, and how a change to them becomes a revision.

What a tenant's people are is one `book`: every row is keyed by a book and refers within it, and a tenant points to
the one book that is in force. A new book is written beside the old one and put in force by one UPDATE. Edges can make
no circle and no more than 64 levels: triggers walk the edges themselves, so the closure need not be trusted for it.
Every write to a row in force is counted in `meta.touched`; who writes by `changing` seals that count, so that what was
written by other hands is told apart. `heard` says when the token was issued by which a person was last told. Must not
hold who reads or what is written.

Trust: whoever can write the file can drop these constraints; other tables than these are refused, and
directory_sqlite_check.py finds what they no longer kept out.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from onbehalf.errors import DirectoryUnavailable

__all__ = [
    "DAMAGED", "KINDS", "MAX_LEVELS", "SCHEMA", "TABLES", "Standing", "books", "changing", "connected", "prepare",
    "require_tables", "standing", "transaction",
]  # fmt: skip

KINDS = ("position", "grouping")
MAX_LEVELS = 64
DAMAGED = "stop the gateway and remove the file: it is made anew from people.yaml, and feeds are loaded again"
TABLES = {
    "login": "subject",
    "membership": "person",
    "person": "id",
    **{f"{kind}{part}": key for kind in KINDS for part, key in (("_above", "below"), ("_edge", "below"), ("", "id"))},
}
"""Every table that is keyed by a book, children before what they refer to, each with the column next in its key."""
_VERSION = 3
_CACHE_KIB = 64 * 1024

# `{kind}_edge` is what somebody said, `{kind}_above` its closure. For a book in force triggers keep the closure; for
# one that is still being written it is made at the end, in one go (directory_sqlite_check.py).
_HIERARCHY = """
CREATE TABLE {kind} (
  book INTEGER NOT NULL REFERENCES book (id), id TEXT NOT NULL CHECK (id <> '' AND instr(id, '/') = 0),
  PRIMARY KEY (book, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE {kind}_edge (
  book INTEGER NOT NULL, below TEXT NOT NULL, above TEXT NOT NULL CHECK (above <> below),
  PRIMARY KEY (book, below, above),
  FOREIGN KEY (book, below) REFERENCES {kind} (book, id), FOREIGN KEY (book, above) REFERENCES {kind} (book, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX {kind}_edge_by ON {kind}_edge (book, above);
CREATE TABLE {kind}_above (
  book INTEGER NOT NULL, below TEXT NOT NULL, above TEXT NOT NULL CHECK (above <> below),
  PRIMARY KEY (book, below, above)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER {kind}_circle BEFORE INSERT ON {kind}_edge BEGIN
  SELECT CASE WHEN id = NEW.below THEN RAISE(ABORT, 'a {kind} would be above itself')
              WHEN n >= {levels} THEN RAISE(ABORT, 'a {kind} would have more than {levels} levels above it') END
  FROM (WITH RECURSIVE up(id, n) AS (
          SELECT NEW.above, 1 UNION SELECT e.above, up.n + 1 FROM up CROSS JOIN {kind}_edge e
          WHERE e.book = NEW.book AND e.below = up.id AND up.n < {levels} AND up.id <> NEW.below)
        SELECT id, n FROM up WHERE id = NEW.below OR n >= {levels} LIMIT 1);
END;
CREATE TRIGGER {kind}_deep BEFORE INSERT ON {kind}_edge WHEN EXISTS (SELECT 1 FROM tenant WHERE book = NEW.book) BEGIN
  SELECT RAISE(ABORT, 'a {kind} would have more than {levels} levels above it')
  WHERE (SELECT max(n) FROM (WITH RECURSIVE up(id, n) AS (
           SELECT NEW.above, 1 UNION SELECT e.above, up.n + 1 FROM up CROSS JOIN {kind}_edge e
           WHERE e.book = NEW.book AND e.below = up.id AND up.n < {levels}) SELECT n FROM up))
      + (SELECT max(n) FROM (WITH RECURSIVE down(id, n) AS (
           SELECT NEW.below, 0 UNION SELECT e.below, down.n + 1 FROM down CROSS JOIN {kind}_edge e
           WHERE e.book = NEW.book AND e.above = down.id AND down.n < {levels}) SELECT n FROM down)) > {levels};
END;
CREATE TRIGGER {kind}_close AFTER INSERT ON {kind}_edge WHEN EXISTS (SELECT 1 FROM tenant WHERE book = NEW.book) BEGIN
  INSERT OR IGNORE INTO {kind}_above SELECT NEW.book, lower.id, upper.id
  FROM (WITH RECURSIVE down(id) AS (
          SELECT NEW.below UNION SELECT e.below FROM down CROSS JOIN {kind}_edge e
          WHERE e.book = NEW.book AND e.above = down.id) SELECT id FROM down) lower,
       (WITH RECURSIVE up(id) AS (
          SELECT NEW.above UNION SELECT e.above FROM up CROSS JOIN {kind}_edge e
          WHERE e.book = NEW.book AND e.below = up.id) SELECT id FROM up) upper;
END;
CREATE TRIGGER {kind}_open AFTER DELETE ON {kind}_edge WHEN EXISTS (SELECT 1 FROM tenant WHERE book = OLD.book) BEGIN
  DELETE FROM {kind}_above WHERE book = OLD.book AND below IN (WITH RECURSIVE down(id) AS (
    SELECT OLD.below UNION SELECT e.below FROM down CROSS JOIN {kind}_edge e
    WHERE e.book = OLD.book AND e.above = down.id) SELECT id FROM down);
  INSERT INTO {kind}_above SELECT OLD.book, start, id FROM (WITH RECURSIVE down(id) AS (
      SELECT OLD.below UNION SELECT e.below FROM down CROSS JOIN {kind}_edge e
      WHERE e.book = OLD.book AND e.above = down.id),
    walk(start, id) AS (
      SELECT down.id, e.above FROM down CROSS JOIN {kind}_edge e WHERE e.book = OLD.book AND e.below = down.id
      UNION SELECT walk.start, e.above FROM walk CROSS JOIN {kind}_edge e
      WHERE e.book = OLD.book AND e.below = walk.id) SELECT start, id FROM walk);
END;
CREATE TRIGGER {kind}_fixed BEFORE UPDATE ON {kind}_edge
BEGIN SELECT RAISE(ABORT, 'an edge is removed and another one added, never changed'); END;
CREATE TRIGGER {kind}_above_fixed BEFORE UPDATE ON {kind}_above
BEGIN SELECT RAISE(ABORT, 'the closure is made, not changed'); END;
"""
_COUNTED = """
CREATE TRIGGER {table}_added AFTER INSERT ON {table} WHEN EXISTS (SELECT 1 FROM tenant WHERE book = NEW.book)
BEGIN UPDATE meta SET touched = touched + 1; END;
CREATE TRIGGER {table}_changed AFTER UPDATE ON {table}
WHEN EXISTS (SELECT 1 FROM tenant WHERE book IN (OLD.book, NEW.book))
BEGIN UPDATE meta SET touched = touched + 1; END;
CREATE TRIGGER {table}_removed AFTER DELETE ON {table} WHEN EXISTS (SELECT 1 FROM tenant WHERE book = OLD.book)
BEGIN UPDATE meta SET touched = touched + 1; END;
"""
SCHEMA = (
    f"PRAGMA user_version = {_VERSION};"  # noqa: S608
    """
CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, touched INTEGER NOT NULL, sealed INTEGER NOT NULL
) STRICT;
INSERT INTO meta VALUES (1, 0, 0, 0);
CREATE TABLE book (
  id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL CHECK (tenant <> '' AND instr(tenant, '/') = 0),
  source TEXT NOT NULL, mark TEXT NOT NULL, stage TEXT NOT NULL, cursor TEXT NOT NULL, done INTEGER NOT NULL,
  owner TEXT NOT NULL, UNIQUE (id, tenant)
) STRICT;
CREATE TABLE tenant (
  id TEXT PRIMARY KEY, book INTEGER NOT NULL UNIQUE, source TEXT NOT NULL CHECK (source <> ''),
  FOREIGN KEY (book, id) REFERENCES book (id, tenant)
) STRICT, WITHOUT ROWID;
CREATE TABLE heard (
  tenant TEXT NOT NULL, person TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (tenant, person)
) STRICT, WITHOUT ROWID;
CREATE TABLE feed (
  tenant TEXT PRIMARY KEY, source TEXT NOT NULL, tried INTEGER NOT NULL, succeeded INTEGER, problem TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""
    + "".join(_HIERARCHY.format(kind=kind, levels=MAX_LEVELS) for kind in KINDS)
    + """
CREATE TABLE person (
  book INTEGER NOT NULL REFERENCES book (id), id TEXT NOT NULL CHECK (id <> '' AND instr(id, '/') = 0),
  name TEXT NOT NULL, position TEXT, active INTEGER NOT NULL CHECK (active IN (0, 1)),
  attributes TEXT NOT NULL CHECK (json_valid(attributes) AND json_type(attributes) = 'object'),
  PRIMARY KEY (book, id), FOREIGN KEY (book, position) REFERENCES position (book, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX person_holds ON person (book, position) WHERE active = 1 AND position IS NOT NULL;
CREATE TABLE membership (
  book INTEGER NOT NULL, person TEXT NOT NULL, grouping TEXT NOT NULL, PRIMARY KEY (book, person, grouping),
  FOREIGN KEY (book, person) REFERENCES person (book, id),
  FOREIGN KEY (book, grouping) REFERENCES grouping (book, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX membership_of ON membership (book, grouping);
CREATE TABLE login (
  book INTEGER NOT NULL, subject TEXT NOT NULL CHECK (subject <> ''), issuer TEXT NOT NULL CHECK (issuer <> ''),
  person TEXT NOT NULL,
  PRIMARY KEY (book, subject, issuer), FOREIGN KEY (book, person) REFERENCES person (book, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX login_of ON login (book, person);
CREATE TRIGGER tenant_added AFTER INSERT ON tenant BEGIN UPDATE meta SET touched = touched + 1; END;
CREATE TRIGGER tenant_changed AFTER UPDATE ON tenant BEGIN UPDATE meta SET touched = touched + 1; END;
CREATE TRIGGER tenant_removed AFTER DELETE ON tenant BEGIN UPDATE meta SET touched = touched + 1; END;
"""
    + "".join(_COUNTED.format(table=table) for table in TABLES)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Which content stands. `unsealed` counts the writes to it by other hands that nobody has looked at yet."""

    revision: int
    touched: int
    unsealed: int


def connected(path: Path, *, constraints: bool = True) -> sqlite3.Connection:
    """A connection. Without `constraints` references are not checked row by row: who writes so checks the book."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    connection.execute(f"PRAGMA foreign_keys = {constraints:d}")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables where there are none, else see that they are these. Raises DirectoryUnavailable."""
    with transaction(connection):  # or two that start at once would both make them
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            for statement in _statements(SCHEMA):
                connection.execute(statement)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            raise DirectoryUnavailable(
                f"the directory has version {_VERSION} here, and this file version {version}", hint=DAMAGED
            )
        require_tables(connection)
        standing(connection)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction that may write. What fails in it changes nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def changing(connection: sqlite3.Connection) -> Iterator[None]:
    """One transaction, and one revision more where it changed a row in force. What fails changes nothing."""
    with transaction(connection):
        before = standing(connection)
        yield
        # what other hands wrote before stays unsealed: it is still to be checked
        connection.execute(
            "UPDATE meta SET revision = revision + 1, sealed = sealed + touched - ? WHERE touched <> ?",
            (before.touched, before.touched),
        )


def standing(connection: sqlite3.Connection) -> Standing:
    """Which content stands now. Every row that other hands wrote counts as a revision of its own.

    Raises DirectoryUnavailable where somebody removed it.
    """
    found = connection.execute("SELECT revision, touched, sealed FROM meta").fetchone()
    if found is None:
        raise DirectoryUnavailable("the directory does not say its revision", hint=DAMAGED)
    revision, touched, sealed = found
    return Standing(revision=revision + touched - sealed, touched=touched, unsealed=touched - sealed)


def books(connection: sqlite3.Connection) -> dict[str, int]:
    """Tenant to the book in force. Raises DirectoryUnavailable where a tenant has the book of another one."""
    found: dict[str, int] = {}
    for tenant, book, own in connection.execute(
        "SELECT t.id, t.book, b.tenant FROM tenant t LEFT JOIN book b ON b.id = t.book"
    ):
        if tenant != own or not tenant or "/" in tenant or book in found.values():
            raise DirectoryUnavailable("the directory is damaged: a tenant has the book of another one", hint=DAMAGED)
        found[tenant] = book
    return found


def require_tables(connection: sqlite3.Connection) -> None:
    """See that tables, indexes and triggers are these and no others. Raises DirectoryUnavailable."""
    own = sqlite3.connect(":memory:")
    try:
        own.executescript(SCHEMA)
        if _definitions(own) != _definitions(connection):
            raise DirectoryUnavailable("the tables of the directory are not the gateway's own", hint=DAMAGED)
    finally:
        own.close()


def _definitions(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    # without what SQLite keeps for itself, such as the statistics of ANALYZE
    return set(
        connection.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
    )


def _statements(script: str) -> list[str]:
    """One by one: executescript would commit the transaction it runs in."""
    found, part = [], ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            found.append(part)
            part = ""
    return found
