"""The tables of the directory, and the check that a file's content is what these tables allow.

Every table is keyed by tenant and refers within it. Must not hold who reads or writes them (directory_sqlite.py).

Trust: whoever can write the file can drop these constraints; `require_whole` sees that they did, or what they broke.
"""

from __future__ import annotations

import sqlite3

from onbehalf.errors import DirectoryUnavailable

__all__ = ["KINDS", "SCHEMA", "prepare", "require_whole", "standing"]

KINDS = ("position", "grouping")
_VERSION = 1
_HINT = "stop the gateway and remove the file: it is made anew from people.yaml"

# `{kind}_edge` is what a person wrote, `{kind}_above` its closure, made by the triggers below and by nothing else.
_HIERARCHY = """
CREATE TABLE {kind} (
  tenant TEXT NOT NULL REFERENCES tenant, id TEXT NOT NULL CHECK (id <> '' AND instr(id, '/') = 0),
  PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE {kind}_edge (
  tenant TEXT NOT NULL, below TEXT NOT NULL, above TEXT NOT NULL CHECK (above <> below),
  PRIMARY KEY (tenant, below, above),
  FOREIGN KEY (tenant, below) REFERENCES {kind} (tenant, id), FOREIGN KEY (tenant, above) REFERENCES {kind} (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE {kind}_above (
  tenant TEXT NOT NULL, below TEXT NOT NULL, above TEXT NOT NULL CHECK (above <> below),
  PRIMARY KEY (tenant, below, above),
  FOREIGN KEY (tenant, below) REFERENCES {kind} (tenant, id), FOREIGN KEY (tenant, above) REFERENCES {kind} (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX {kind}_above_by ON {kind}_above (tenant, above);
CREATE TRIGGER {kind}_circle BEFORE INSERT ON {kind}_edge
WHEN EXISTS (SELECT 1 FROM {kind}_above a WHERE a.tenant = NEW.tenant AND a.below = NEW.above AND a.above = NEW.below)
BEGIN SELECT RAISE(ABORT, 'a {kind} would be above itself'); END;
CREATE TRIGGER {kind}_close AFTER INSERT ON {kind}_edge BEGIN
  INSERT OR IGNORE INTO {kind}_above
  SELECT NEW.tenant, lower.id, upper.id
  FROM (SELECT NEW.below AS id UNION
        SELECT below FROM {kind}_above WHERE tenant = NEW.tenant AND above = NEW.below) lower,
       (SELECT NEW.above AS id UNION
        SELECT above FROM {kind}_above WHERE tenant = NEW.tenant AND below = NEW.above) upper;
END;
CREATE TRIGGER {kind}_fixed BEFORE UPDATE ON {kind}_edge
BEGIN SELECT RAISE(ABORT, 'edges are replaced as a whole, not changed'); END;
CREATE TRIGGER {kind}_kept BEFORE DELETE ON {kind}_edge WHEN EXISTS (SELECT 1 FROM {kind}_above)
BEGIN SELECT RAISE(ABORT, 'edges are removed all at once, after their closure'); END;
CREATE TRIGGER {kind}_above_fixed BEFORE UPDATE ON {kind}_above
BEGIN SELECT RAISE(ABORT, 'the closure is made, not changed'); END;
"""
SCHEMA = (
    """
PRAGMA user_version = 1;
CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, digest TEXT NOT NULL) STRICT;
INSERT INTO meta VALUES (1, 0, '');
CREATE TABLE tenant (id TEXT PRIMARY KEY CHECK (id <> '' AND instr(id, '/') = 0)) STRICT, WITHOUT ROWID;
"""
    + "".join(_HIERARCHY.format(kind=kind) for kind in KINDS)
    + """
CREATE TABLE person (
  tenant TEXT NOT NULL REFERENCES tenant, id TEXT NOT NULL CHECK (id <> '' AND instr(id, '/') = 0),
  name TEXT NOT NULL, position TEXT, active INTEGER NOT NULL CHECK (active IN (0, 1)),
  attributes TEXT NOT NULL CHECK (json_valid(attributes) AND json_type(attributes) = 'object'),
  PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, position) REFERENCES position (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX person_holds ON person (tenant, position) WHERE active = 1 AND position IS NOT NULL;
CREATE TABLE membership (
  tenant TEXT NOT NULL, person TEXT NOT NULL, grouping TEXT NOT NULL, PRIMARY KEY (tenant, person, grouping),
  FOREIGN KEY (tenant, person) REFERENCES person (tenant, id),
  FOREIGN KEY (tenant, grouping) REFERENCES grouping (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE login (
  tenant TEXT NOT NULL, issuer TEXT NOT NULL CHECK (issuer <> ''), subject TEXT NOT NULL CHECK (subject <> ''),
  person TEXT NOT NULL,
  PRIMARY KEY (tenant, issuer, subject), FOREIGN KEY (tenant, person) REFERENCES person (tenant, id)
) STRICT, WITHOUT ROWID;
"""
)


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables where there are none, else see that they are these. Raises DirectoryUnavailable."""
    connection.execute("BEGIN IMMEDIATE")  # or two that start at once would both make them
    try:
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            for statement in _statements(SCHEMA):
                connection.execute(statement)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != _VERSION:
            raise DirectoryUnavailable(
                f"the directory has version {_VERSION} here, and this file version {version}", hint=_HINT
            )
        require_whole(connection, quick=False)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def require_whole(connection: sqlite3.Connection, *, quick: bool = True) -> None:
    """See that constraints hold: somebody may have written without them. Raises DirectoryUnavailable.

    `quick` leaves out the reading of every page, which also checks what is within a row.
    """
    _require_tables(connection)
    standing(connection)
    broken = connection.execute("PRAGMA foreign_key_check").fetchone()
    if broken is not None:
        raise DirectoryUnavailable(
            f"the directory is damaged: table `{broken[0]}` refers to what is not there", hint=_HINT
        )
    damaged = "ok" if quick else connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damaged != "ok":
        raise DirectoryUnavailable(f"the directory is damaged: {damaged}", hint=_HINT)
    for kind in KINDS:
        said = set(connection.execute(f"SELECT tenant, below, above FROM {kind}_above"))  # noqa: S608
        if said != _closure(connection, kind) or any(below == above for _, below, above in said):
            raise DirectoryUnavailable(f"the closure of `{kind}` is not what its edges say", hint=_HINT)


def standing(connection: sqlite3.Connection) -> tuple[int, str]:
    """The revision, and the digest of what was loaded. Raises DirectoryUnavailable where somebody removed them."""
    found = connection.execute("SELECT revision, digest FROM meta").fetchone()
    if found is None:
        raise DirectoryUnavailable("the directory does not say its revision", hint=_HINT)
    revision, digest = found
    return revision, digest


def _require_tables(connection: sqlite3.Connection) -> None:
    own = sqlite3.connect(":memory:")
    try:
        own.executescript(SCHEMA)
        if _definitions(own) != _definitions(connection):
            raise DirectoryUnavailable("the tables of the directory are not the gateway's own", hint=_HINT)
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


def _closure(connection: sqlite3.Connection, kind: str) -> set[tuple[str, str, str]]:
    """The closure, worked out from the edges alone."""
    query = (
        f"WITH RECURSIVE c(tenant, below, above) AS (SELECT tenant, below, above FROM {kind}_edge UNION "  # noqa: S608
        f"SELECT c.tenant, c.below, e.above FROM c JOIN {kind}_edge e ON e.tenant = c.tenant AND e.below = c.above) "
        "SELECT tenant, below, above FROM c"
    )
    return set(connection.execute(query))
