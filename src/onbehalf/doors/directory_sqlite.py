"""The directory in one SQLite file: who is who, with the closure of positions and groups made when people are loaded.

What must not be is impossible by constraint (directory_sqlite_schema.py). Content that another connection wrote is
checked before it is believed: other tables, an edge to another tenant, a circle, or a closure that its edges do not say
make the directory unavailable, while it runs and at the next start. What somebody wrote by hand within the constraints
is believed until the next load, which puts back what people.yaml says; a row that only a CHECK forbids, written with
CHECKs off, is noticed at the next start. Answers are kept as long as nobody writes (`PRAGMA data_version`).

Trust: whoever can write this file decides who is whose manager. It is made from `people.yaml`; keep both as safe.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from onbehalf.doors.directory_sqlite_schema import KINDS, prepare, require_whole, standing
from onbehalf.errors import DirectoryInvalid, DirectoryUnavailable, PersonUnknown
from onbehalf.model import Caller, Entity, Json, Person, Ref
from onbehalf.validate.people import People, ancestors

__all__ = ["SqliteDirectory"]

_KEPT = 20_000
_TYPES = {"position": "Position", "grouping": "Group"}

_WRITTEN = (
    "tenant",
    *(f"{kind}{part}" for kind in KINDS for part in ("", "_edge")),
    "person",
    "membership",
    "login",
)
_EMPTY = (
    "login",
    "membership",
    "person",
    *(f"{kind}{part}" for kind in KINDS for part in ("_above", "_edge", "")),
    "tenant",
)


class SqliteDirectory:
    """The Directory port on one file. Made by `open`; may be used from several threads."""

    def __init__(self, path: Path, connection: sqlite3.Connection, fresh_seconds: float) -> None:
        """Only for `open`."""
        self._fresh_seconds = fresh_seconds
        self._fresh_until = 0.0
        self._path = path
        self._connection = connection
        self._file = _identity(path)
        self._lock = threading.Lock()
        self._closed = False
        self._version = -1
        self._revision = 0
        self._persons: dict[tuple[str, str, str], Person] = {}
        self._users: dict[tuple[str, str], tuple[Entity, ...]] = {}

    @classmethod
    def open(cls, path: Path, *, fresh_seconds: float = 0.0) -> SqliteDirectory:
        """The directory at `path`, made where there is none. Raises DirectoryUnavailable, also for a damaged one.

        For `fresh_seconds` after a look at the file, what is kept is given without another: by so much later is
        noticed what another process wrote, or that the file is gone. Its own `load` is noticed at once.
        """
        with contextlib.ExitStack() as stack:
            try:
                connection = _connected(path)
                stack.callback(connection.close)
                path.chmod(0o600)
                connection.execute("PRAGMA journal_mode = WAL")
                prepare(connection)
                opened = cls(path, connection, fresh_seconds)
            except (sqlite3.Error, OSError) as error:
                raise DirectoryUnavailable(
                    f"the directory at `{path}` cannot be used: {error}",
                    hint="see that its folder is there and can be written; a damaged file is made anew once removed",
                ) from error
            stack.pop_all()
        return opened

    @property
    def revision(self) -> int:
        """How often the content has changed. Raises DirectoryUnavailable."""
        with self._reading():
            return self._revision

    def close(self) -> None:
        """Close the file; answers after this are DirectoryUnavailable."""
        with self._lock:
            self._closed, self._fresh_until = True, 0.0
            self._connection.close()

    def load(self, people: People) -> int:
        """Replace everything, in one transaction; the revision after it. The same content changes nothing.

        Those who ask meanwhile get the old content and do not wait. Raises DirectoryInvalid for what a constraint
        refuses, DirectoryUnavailable where nothing can be written.
        """
        hint = "nothing was changed; see that the file is there and can be written"
        try:
            self._require_there()
            with contextlib.closing(_connected(self._path)) as writing:
                return _loaded(writing, people)  # closing it undoes what is not committed
        except sqlite3.IntegrityError as error:
            raise DirectoryInvalid(f"the directory cannot be as people.yaml says: {error}", hint=hint) from error
        except (sqlite3.Error, OSError) as error:
            raise DirectoryUnavailable(f"the directory cannot be written: {error}", hint=hint) from error
        finally:
            with self._lock:  # a reader that looked before the load would else call what it saw fresh after it
                self._fresh_until = 0.0

    async def person(self, caller: Caller) -> Person:
        """The caller's own slice. The same object as long as nothing is written.

        Raises PersonUnknown, DirectoryUnavailable. Somebody who left is returned with `active` False, which the
        generated wall denies everything.
        """
        key = (caller.tenant, caller.evidence.issuer, caller.subject)
        kept = self._persons.get(key)
        if kept is not None and time.monotonic() < self._fresh_until:
            return kept
        with self._reading():
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
        """One reader at a time, in one transaction, on content that is known to be the newest and whole."""
        with self._lock:
            try:
                self._require_there()
                self._connection.execute("BEGIN")  # else a load between two questions would mix old and new
                try:
                    # counts commits by other connections, those of `load` among them
                    (version,) = self._connection.execute("PRAGMA data_version").fetchone()
                    if version != self._version:
                        self._renew(version)
                    self._fresh_until = time.monotonic() + self._fresh_seconds
                    yield
                finally:
                    if self._connection.in_transaction:
                        self._connection.execute("COMMIT")
            except (sqlite3.Error, OSError, orjson.JSONDecodeError) as error:
                self._version, self._fresh_until = -1, 0.0
                raise DirectoryUnavailable(
                    f"the directory cannot be read: {error}", hint="nothing was done; tell whoever runs the gateway"
                ) from error

    def _renew(self, version: int) -> None:
        self._version = -1
        self._persons.clear()
        self._users.clear()
        require_whole(self._connection)
        self._revision, _ = standing(self._connection)
        self._version = version

    def _require_there(self) -> None:
        # a file that was removed or replaced can still be read, and no load would ever reach it
        if self._closed or _identity(self._path) != self._file:
            raise DirectoryUnavailable(
                "the directory is closed, or another file is in its place", hint="start the gateway again"
            )

    def _person(self, key: tuple[str, str, str]) -> Person:
        row = self._first(
            "SELECT p.id, p.name, p.active, p.attributes "
            "FROM login l JOIN person p ON p.tenant = l.tenant AND p.id = l.person "
            "WHERE l.tenant = ? AND l.issuer = ? AND l.subject = ?",
            key,
        )
        if row is None:
            raise PersonUnknown(
                "the directory of your company has no person with this login",
                hint="ask whoever looks after the directory to add your login",
            )
        id_, name, active, text = row
        tenant, attributes = key[0], orjson.loads(text)
        if not isinstance(attributes, dict):  # a CHECK says so, and CHECKs can be off for whoever writes
            raise DirectoryUnavailable(
                "the directory is damaged: a person's attributes are no object", hint="load people.yaml again"
            )
        return Person(
            ref=Ref(type="User", id=f"{tenant}/{id_}"), tenant=tenant, name=name, active=active == 1,
            attributes=attributes, entities=self._user(tenant, id_), revision=self._revision,
        )  # fmt: skip

    def _user(self, tenant: str, id_: str) -> tuple[Entity, ...]:
        """A User with its Tenant, Position and Groups and all above them; empty for an unknown id."""
        kept = self._users.get((tenant, id_))
        if kept is not None:
            return kept
        row = self._first("SELECT name, position, active FROM person WHERE tenant = ? AND id = ?", (tenant, id_))
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

    def _first(self, query: str, values: tuple[str, ...]) -> Any:  # SQLite's columns are what they are
        try:
            return self._connection.execute(query, values).fetchone()
        except UnicodeEncodeError:  # a lone surrogate, which stands in no row
            return None

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


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _loaded(writing: sqlite3.Connection, people: People) -> int:
    """The revision after making the content what `people` says."""
    tables = _rows(people)
    writing.execute("BEGIN IMMEDIATE")
    revision, digest = standing(writing)
    # the rows are compared as well as the digest: what was written by hand is not what people.yaml says
    if digest != people.digest or any(set(rows) != set(_all(writing, table)) for table, rows in tables.items()):
        revision += 1
        for table in _EMPTY:
            writing.execute(f"DELETE FROM {table}")  # noqa: S608
        for table, rows in tables.items():
            if rows:
                writing.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)  # noqa: S608
        writing.execute("UPDATE meta SET revision = ?, digest = ?", (revision, people.digest))
        require_whole(writing)
    writing.execute("COMMIT")
    return int(revision)


def _all(connection: sqlite3.Connection, table: str) -> Iterator[tuple[str | int | None, ...]]:
    yield from connection.execute(f"SELECT * FROM {table}")  # noqa: S608


def _rows(people: People) -> dict[str, list[tuple[str | int | None, ...]]]:
    """Table to its rows, in the order to write them."""
    tables: dict[str, list[tuple[str | int | None, ...]]] = {table: [] for table in _WRITTEN}
    for tenant, each in people.tenants.items():
        tables["tenant"].append((tenant,))
        for kind, edges in (("position", each.positions), ("grouping", each.groups)):
            tables[kind] += [(tenant, name) for name in edges]
            # from the top down, so that the trigger extends short closures: each edge costs what is above it
            levels = {name: max(ancestors(edges, name).values(), default=0) for name in edges}
            order = sorted(edges, key=levels.__getitem__)
            tables[f"{kind}_edge"] += [(tenant, below, above) for below in order for above in edges[below]]
        for p in each.people.values():
            attributes = orjson.dumps(dict(p.attributes)).decode()
            tables["person"].append((tenant, p.id, p.name, p.position or None, int(p.active), attributes))
            tables["membership"] += [(tenant, p.id, group) for group in p.groups]
            tables["login"] += [(tenant, login.issuer, login.subject, p.id) for login in p.logins]
    return tables


_ABOVE = {kind: f"SELECT above FROM {kind}_above WHERE tenant = ? AND below = ?" for kind in KINDS}  # noqa: S608
_EDGES = {kind: f"SELECT above FROM {kind}_edge WHERE tenant = ? AND below = ?" for kind in KINDS}  # noqa: S608
_GROUPS = "SELECT grouping FROM membership WHERE tenant = ? AND person = ? ORDER BY grouping"
