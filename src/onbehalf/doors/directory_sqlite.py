"""The directory in one SQLite file: who is who, with the closure of positions and groups made when people are loaded.

What must not be is impossible by constraint: every table is keyed by tenant and refers within it, the closure tables
forbid a place above itself, triggers refuse an edge that would make one, and one position has one active holder.
Answers are kept as long as nobody writes the file (`PRAGMA data_version`).

Trust: whoever can write this file decides who is whose manager. It is made from `people.yaml`; keep both as safe.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import orjson

from onbehalf.errors import DirectoryInvalid, DirectoryUnavailable, PersonUnknown
from onbehalf.model import Caller, Entity, Json, Person, Ref
from onbehalf.validate.people import People, TenantPeople, ancestors

__all__ = ["SqliteDirectory"]

_KEPT = 20_000
_KINDS = ("position", "grouping")
_TYPES = {"position": "Position", "grouping": "Group"}

# `{kind}_edge` is what a person wrote, `{kind}_above` its closure, made by the triggers below and by nothing else.
_HIERARCHY = """
CREATE TABLE {kind} (
  tenant TEXT NOT NULL REFERENCES tenant, id TEXT NOT NULL, PRIMARY KEY (tenant, id)
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
"""
_SCHEMA = (
    """
CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL, digest TEXT NOT NULL) STRICT;
INSERT INTO meta VALUES (1, 0, '');
CREATE TABLE tenant (id TEXT PRIMARY KEY CHECK (id <> '' AND instr(id, '/') = 0)) STRICT, WITHOUT ROWID;
"""
    + "".join(_HIERARCHY.format(kind=kind) for kind in _KINDS)
    + """
CREATE TABLE person (
  tenant TEXT NOT NULL REFERENCES tenant, id TEXT NOT NULL CHECK (id <> '' AND instr(id, '/') = 0),
  name TEXT NOT NULL, position TEXT, active INTEGER NOT NULL CHECK (active IN (0, 1)), attributes TEXT NOT NULL,
  PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, position) REFERENCES position (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX person_holds ON person (tenant, position) WHERE active = 1 AND position IS NOT NULL;
CREATE TABLE membership (
  tenant TEXT NOT NULL, person TEXT NOT NULL, grouping TEXT NOT NULL, PRIMARY KEY (tenant, person, grouping),
  FOREIGN KEY (tenant, person) REFERENCES person (tenant, id),
  FOREIGN KEY (tenant, grouping) REFERENCES grouping (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE login (
  tenant TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL, person TEXT NOT NULL,
  PRIMARY KEY (tenant, issuer, subject), FOREIGN KEY (tenant, person) REFERENCES person (tenant, id)
) STRICT, WITHOUT ROWID;
"""
)
_EMPTY = (
    "login",
    "membership",
    "person",
    *(f"{kind}{part}" for kind in _KINDS for part in ("_above", "_edge", "")),
    "tenant",
)


class SqliteDirectory:
    """The Directory port on one file. Made by `open`; may be used from several threads."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Only for `open`."""
        self._connection = connection
        self._lock = threading.Lock()
        self._version = -1
        self._revision = 0
        self._persons: dict[tuple[str, str, str], Person] = {}
        self._users: dict[tuple[str, str], tuple[Entity, ...]] = {}

    @classmethod
    def open(cls, path: Path) -> SqliteDirectory:
        """The directory at `path`, made where there is none. Raises DirectoryUnavailable, also for a damaged one."""
        try:
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        except sqlite3.Error as error:
            raise DirectoryUnavailable(f"the directory at `{path}` cannot be opened: {error}") from error
        try:
            path.chmod(0o600)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                connection.executescript("BEGIN IMMEDIATE;" + _SCHEMA + "COMMIT;")
            _require_whole(connection)
        except (sqlite3.Error, OSError) as error:
            connection.close()
            raise DirectoryUnavailable(
                f"the directory at `{path}` cannot be used: {error}", hint="remove it; it is made anew from people.yaml"
            ) from error
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    @property
    def revision(self) -> int:
        """How often the content has changed. Raises DirectoryUnavailable."""
        with self._reading():
            return self._revision

    def close(self) -> None:
        """Close the file; answers after this are DirectoryUnavailable."""
        with self._lock:
            self._connection.close()

    def load(self, people: People) -> int:
        """Replace everything, in one transaction; the revision after it. The same content changes nothing.

        Raises DirectoryInvalid for what a constraint refuses, DirectoryUnavailable where nothing can be written.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                revision, digest = self._connection.execute("SELECT revision, digest FROM meta").fetchone()
                if digest != people.digest:
                    revision += 1
                    self._replace(people, revision)
                    _require_whole(self._connection)
                self._connection.execute("COMMIT")
            except sqlite3.IntegrityError as error:
                self._undo()
                raise DirectoryInvalid(f"the directory cannot be as people.yaml says: {error}") from error
            except sqlite3.Error as error:
                self._undo()
                raise DirectoryUnavailable(f"the directory cannot be written: {error}") from error
            except BaseException:
                self._undo()
                raise
            self._version = -1
        return int(revision)

    async def person(self, caller: Caller) -> Person:
        """The caller's own slice. The same object as long as nothing is written.

        Raises PersonUnknown, DirectoryUnavailable. Somebody who left is returned with `active` False, which the
        generated wall denies everything.
        """
        with self._reading():
            key = (caller.tenant, caller.evidence.issuer, caller.subject)
            found = self._persons.get(key)
            if found is None:
                found = self._person(key)
                if len(self._persons) >= _KEPT:
                    self._persons.clear()
                self._persons[key] = found
            return found

    async def people(self, tenant: str, ids: Iterable[str]) -> Sequence[Entity]:
        """User entities of these ids with what they are in; unknown ids are left out. Raises DirectoryUnavailable."""
        with self._reading():
            found: dict[Ref, Entity] = {}
            for id_ in ids:
                for entity in self._user(tenant, id_):
                    found[entity.ref] = entity
            return tuple(found.values())

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """One reader at a time on content that is known to be the newest."""
        with self._lock:
            try:
                # counts commits by other connections; our own set it to -1
                (version,) = self._connection.execute("PRAGMA data_version").fetchone()
                if version != self._version:
                    self._persons.clear()
                    self._users.clear()
                    (self._revision,) = self._connection.execute("SELECT revision FROM meta").fetchone()
                    self._version = version
                yield
            except sqlite3.Error as error:
                self._version = -1
                raise DirectoryUnavailable(
                    f"the directory cannot be read: {error}", hint="nothing was done; tell whoever runs the gateway"
                ) from error

    def _person(self, key: tuple[str, str, str]) -> Person:
        row = self._connection.execute(
            "SELECT p.id, p.name, p.active, p.attributes "
            "FROM login l JOIN person p ON p.tenant = l.tenant AND p.id = l.person "
            "WHERE l.tenant = ? AND l.issuer = ? AND l.subject = ?",
            key,
        ).fetchone()
        if row is None:
            raise PersonUnknown(
                "the directory of your company has no person with this login",
                hint="ask whoever looks after the directory to add your login",
            )
        id_, name, active, attributes = row
        tenant = key[0]
        return Person(
            ref=Ref(type="User", id=f"{tenant}/{id_}"), tenant=tenant, name=name, active=active == 1,
            attributes=orjson.loads(attributes), entities=self._user(tenant, id_), revision=self._revision,
        )  # fmt: skip

    def _user(self, tenant: str, id_: str) -> tuple[Entity, ...]:
        """A User with its Tenant, Position and Groups and all above them; empty for an unknown id."""
        kept = self._users.get((tenant, id_))
        if kept is not None:
            return kept
        row = self._connection.execute(
            "SELECT name, position, active FROM person WHERE tenant = ? AND id = ?", (tenant, id_)
        ).fetchone()
        if row is None:
            return ()
        name, position, active = row
        wall = Ref(type="Tenant", id=tenant)
        attributes: dict[str, Json | Ref] = {"tenant": wall, "name": name, "active": active == 1}
        if position is not None:
            attributes["position"] = Ref(type="Position", id=f"{tenant}/{position}")
        groups = [each for (each,) in self._connection.execute(_GROUPS, (tenant, id_))]
        user = Entity(
            ref=Ref(type="User", id=f"{tenant}/{id_}"),
            attributes=attributes,
            parents=tuple(Ref(type="Group", id=f"{tenant}/{each}") for each in groups),
        )
        places = self._places("position", tenant, [position] if position is not None else [])
        circles = self._places("grouping", tenant, groups)
        made = (user, Entity(ref=wall, attributes={}, parents=()), *places, *circles)
        if len(self._users) >= _KEPT:
            self._users.clear()
        self._users[tenant, id_] = made
        return made

    def _places(self, kind: str, tenant: str, starts: Sequence[str]) -> list[Entity]:
        """Positions or groups with all above them, each with the edges it has itself."""
        names = dict.fromkeys(starts)
        for start in starts:
            names |= dict.fromkeys(each for (each,) in self._connection.execute(_ABOVE[kind], (tenant, start)))
        made: list[Entity] = []
        for name in names:
            edges = self._connection.execute(_EDGES[kind], (tenant, name))
            made.append(
                Entity(
                    ref=Ref(type=_TYPES[kind], id=f"{tenant}/{name}"),
                    attributes={"tenant": Ref(type="Tenant", id=tenant)},
                    parents=tuple(Ref(type=_TYPES[kind], id=f"{tenant}/{each}") for (each,) in edges),
                )
            )
        return made

    def _replace(self, people: People, revision: int) -> None:
        for table in _EMPTY:
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608
        for tenant, each in people.tenants.items():
            self._insert(tenant, each)
        self._connection.execute("UPDATE meta SET revision = ?, digest = ?", (revision, people.digest))

    def _insert(self, tenant: str, each: TenantPeople) -> None:
        many = self._connection.executemany
        self._connection.execute("INSERT INTO tenant VALUES (?)", (tenant,))
        for kind, edges in (("position", each.positions), ("grouping", each.groups)):
            many(f"INSERT INTO {kind} VALUES (?, ?)", [(tenant, name) for name in edges])  # noqa: S608
            # from the top down, so that the trigger extends short closures: each edge costs what is above it
            order = sorted(edges, key=lambda name: max(ancestors(edges, name).values(), default=0))
            rows = [(tenant, below, above) for below in order for above in edges[below]]
            many(f"INSERT INTO {kind}_edge VALUES (?, ?, ?)", rows)  # noqa: S608
        people = each.people.values()
        many(
            "INSERT INTO person VALUES (?, ?, ?, ?, ?, ?)",
            [
                (tenant, p.id, p.name, p.position or None, int(p.active), orjson.dumps(dict(p.attributes)).decode())
                for p in people
            ],
        )
        many("INSERT INTO membership VALUES (?, ?, ?)", [(tenant, p.id, group) for p in people for group in p.groups])
        many(
            "INSERT INTO login VALUES (?, ?, ?, ?)",
            [(tenant, login.issuer, login.subject, p.id) for p in people for login in p.logins],
        )

    def _undo(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")


_ABOVE = {kind: f"SELECT above FROM {kind}_above WHERE tenant = ? AND below = ?" for kind in _KINDS}  # noqa: S608
_EDGES = {kind: f"SELECT above FROM {kind}_edge WHERE tenant = ? AND below = ?" for kind in _KINDS}  # noqa: S608
_GROUPS = "SELECT grouping FROM membership WHERE tenant = ? AND person = ? ORDER BY grouping"


def _require_whole(connection: sqlite3.Connection) -> None:
    """See that constraints hold: somebody may have written with foreign keys off. Raises DirectoryUnavailable."""
    broken = connection.execute("PRAGMA foreign_key_check").fetchone()
    damaged = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if broken is not None or damaged != "ok":
        what = f"table `{broken[0]}` refers to what is not there" if broken is not None else damaged
        raise DirectoryUnavailable(
            f"the directory is damaged: {what}", hint="remove the file; it is made anew from people.yaml"
        )
    for kind in _KINDS:
        if _closure(connection, kind) != set(connection.execute(f"SELECT tenant, below, above FROM {kind}_above")):  # noqa: S608
            raise DirectoryUnavailable(
                f"the closure of `{kind}` is not what its edges say", hint="remove the file; it is made anew"
            )


def _closure(connection: sqlite3.Connection, kind: str) -> set[tuple[str, str, str]]:
    """The closure, worked out from the edges alone."""
    query = (
        f"WITH RECURSIVE c(tenant, below, above) AS (SELECT tenant, below, above FROM {kind}_edge UNION "  # noqa: S608
        f"SELECT c.tenant, c.below, e.above FROM c JOIN {kind}_edge e ON e.tenant = c.tenant AND e.below = c.above) "
        "SELECT tenant, below, above FROM c"
    )
    return set(connection.execute(query))
