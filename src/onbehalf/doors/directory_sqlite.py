"""The directory in one SQLite file: who is who, with the closure of positions and groups made when people are loaded.

What must not be is impossible by constraint (directory_sqlite_schema.py). What somebody wrote by hand within the
constraints is believed until the next load. Every slice is seen to be whole as it is read, so none is served that its
own rows contradict. What was written by other hands is also looked through as a whole (directory_sqlite_look.py), and
a directory that is found damaged answers nobody until a look finds it whole. Answers are kept as long as no row in
force is written. Must not hold how people get in: directory_sqlite_write.py and directory_load.py do.

Trust: whoever can write this file decides who is whose manager. Keep it as safe as what it is made from.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import orjson

from onbehalf.doors.directory_sqlite_check import require_pages, require_whole
from onbehalf.doors.directory_sqlite_look import Look
from onbehalf.doors.directory_sqlite_schema import (
    Standing,
    books,
    connected,
    prepare,
    require_tables,
    standing,
)
from onbehalf.doors.directory_sqlite_slice import login, user
from onbehalf.doors.directory_sqlite_write import CLAIMS, YAML, replace_all
from onbehalf.errors import DirectoryInvalid, DirectoryUnavailable, PersonUnknown
from onbehalf.model import Caller, Entity, Person, Ref, UnixTime
from onbehalf.validate.people import People

__all__ = ["SqliteDirectory"]

Key = TypeVar("Key")
Value = TypeVar("Value")
_KEPT = 20_000
_MENDED_SECONDS = 10.0
_LARGE = 50_000
"""From so many people on, a file is looked through after it is opened instead of before."""


class SqliteDirectory:
    """The Directory port on one file. Made by `open`; may be used from several threads."""

    def __init__(self, path: Path, connection: sqlite3.Connection, fresh_seconds: float, lag_budget_s: int) -> None:
        """Only for `open`."""
        self._fresh_seconds = fresh_seconds
        self._lag_budget_s = lag_budget_s
        self._fresh_until = 0.0
        self._path = path
        self._connection = connection
        self._file = _identity(path)
        self._lock = threading.Lock()
        self._closed = False
        self._version = -1
        self._tables = -1
        self._standing = Standing(revision=0, touched=-1, unsealed=0)
        self._books: dict[str, int] = {}
        self._until: dict[str, UnixTime] = {}
        self._persons: _Kept[tuple[str, str, str], Person] = _Kept()
        self._users: _Kept[tuple[str, str], tuple[Entity, ...]] = _Kept()
        self._look = Look(path)

    @classmethod
    def open(cls, path: Path, *, fresh_seconds: float = 0.0, lag_budget_s: int = 0) -> SqliteDirectory:
        """The directory at `path`, made where there is none. Raises DirectoryUnavailable, also for a damaged one.

        For `fresh_seconds` after a look at the file, what is kept is given without another: by so much later is
        noticed what another process wrote, or that the file is gone. Its own `load` is noticed at once. A file of
        more than 50,000 people is looked through while it is served already. People of a tenant with a feed are fresh
        for `lag_budget_s` after its last success; 0 is for ever.
        """
        with contextlib.ExitStack() as stack:
            try:
                connection = connected(path)
                stack.callback(connection.close)
                path.chmod(0o600)
                connection.execute("PRAGMA journal_mode = WAL")
                prepare(connection)
                opened = cls(path, connection, fresh_seconds, lag_budget_s)
                if connection.execute("SELECT 1 FROM person LIMIT 1 OFFSET ?", (_LARGE,)).fetchone() is None:
                    require_pages(connection)
                    require_whole(connection)
                else:
                    opened._look.start(standing(connection), all_of_it=True)
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
            return self._standing.revision

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def close(self) -> None:
        """Close the file; answers after this are DirectoryUnavailable."""
        with self._lock:
            self._closed, self._fresh_until = True, 0.0
            self._connection.close()
        self._look.stop()

    def settled(self, seconds: float) -> bool:
        """Whether, within `seconds`, no look through the whole file is under way any more."""
        return self._look.ended(seconds)

    def load(self, people: People, *, source: str = YAML, now: UnixTime | None = None) -> int:
        """Replace every tenant of this source, in one transaction; the revision after it. Small tenants only.

        Tenants of other sources stay as they are. With `now`, the source counts as having succeeded then; one beside
        people.yaml that never did makes nobody fresh.

        The same content changes nothing. Those who ask meanwhile get the old content and do not wait. Raises
        DirectoryInvalid for what a constraint refuses and for a tenant of another source, DirectoryUnavailable where
        nothing can be written.
        """
        hint = "nothing was changed; see that the file is there and can be written"
        try:
            self._require_there()
            with contextlib.closing(connected(self._path, constraints=False)) as writing:
                revision = replace_all(writing, people, source=source, now=now)
                self._look.start(standing(writing))
            if self._look.closed:  # it may have mended what was found: who loads waits for that, nobody else
                self._look.ended(_MENDED_SECONDS)
            return revision
        except sqlite3.IntegrityError as error:
            raise DirectoryInvalid(f"the directory cannot be as {source} says: {error}", hint=hint) from error
        except (sqlite3.Error, OSError) as error:
            raise DirectoryUnavailable(f"the directory cannot be written: {error}", hint=hint) from error
        finally:
            self.forget()

    def forget(self) -> None:
        """Look at the file before the next answer, however fresh the last look is: somebody here has written."""
        with self._lock:  # a reader that looked before a write would else call what it saw fresh after it
            self._fresh_until = 0.0

    async def person(self, caller: Caller) -> Person:
        """The caller's own slice. The same object as long as nothing is written.

        Raises PersonUnknown, DirectoryUnavailable. Somebody who left is returned with `active` False, which the
        generated wall denies everything.
        """
        if caller.kind != "person":  # whatever login is called so is somebody else's
            raise PersonUnknown("a service is no person of the directory", hint="let it be known as a service")
        key = (caller.tenant, caller.evidence.issuer, caller.subject)
        kept = self._persons.get(key, self._stamp(caller.tenant))
        if kept is not None and time.monotonic() < self._fresh_until:
            return kept
        with self._reading():
            found = self._persons.get(key, self._stamp(caller.tenant))
            if found is None:
                found = self._person(*key)
                self._persons.put(key, self._stamp(caller.tenant), found)
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
        """One reader at a time, in one transaction, on content that is known to be the newest."""
        with self._lock:
            try:
                self._require_there()
                self._connection.execute("BEGIN")  # else a load between two questions would mix old and new
                try:
                    # counts commits by other connections, those of `load` among them
                    (version,) = self._connection.execute("PRAGMA data_version").fetchone()
                    if version != self._version:
                        self._renew(version)
                    self._look.require_passed()
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
        """Somebody wrote: keep nothing that they may have changed. A load that is only under way changes nothing."""
        self._version, self._fresh_until = -1, 0.0
        (tables,) = self._connection.execute("PRAGMA schema_version").fetchone()
        if tables != self._tables:
            require_tables(self._connection)
        found = standing(self._connection)
        self._books = books(self._connection)
        self._until = _fresh_until(self._connection, self._lag_budget_s)
        self._look.start(found)
        self._tables, self._standing, self._version = tables, found, version

    def _stamp(self, tenant: str) -> object:
        """What a kept Person must have been made of to be what would be made now."""
        return self._standing.touched, self._until.get(tenant)

    def _require_there(self) -> None:
        # a file that was removed or replaced can still be read, and no load would ever reach it
        if self._closed or _identity(self._path) != self._file:
            raise DirectoryUnavailable(
                "the directory is closed, or another file is in its place", hint="start the gateway again"
            )

    def _person(self, tenant: str, issuer: str, subject: str) -> Person:
        book = self._books.get(tenant)
        found = None if book is None else login(self._connection, book, issuer, subject)
        if found is None:
            raise PersonUnknown(
                "the directory of your company has no person with this login",
                hint="ask whoever looks after the directory to add your login",
            )
        id_, name, active, attributes = found
        return Person(
            ref=Ref(type="User", id=f"{tenant}/{id_}"), tenant=tenant, name=name, active=active,
            attributes=attributes, entities=self._user(tenant, id_), revision=self._standing.revision,
            fresh_until=self._until.get(tenant),
        )  # fmt: skip

    def _user(self, tenant: str, id_: str) -> tuple[Entity, ...]:
        book = self._books.get(tenant)
        if book is None:
            return ()
        kept = self._users.get((tenant, id_), self._standing.touched)
        if kept is None:
            kept = user(self._connection, tenant, book, id_)
            if kept:
                self._users.put((tenant, id_), self._standing.touched, kept)
        return kept


class _Kept(Generic[Key, Value]):
    """Answers, each good for one content. One by one the oldest makes room: to drop all at once would take long."""

    def __init__(self) -> None:
        self._answers: dict[Key, tuple[object, Value]] = {}

    def get(self, key: Key, stamp: object) -> Value | None:
        """The answer of this content, or None."""
        found = self._answers.get(key)
        return found[1] if found is not None and found[0] == stamp else None

    def put(self, key: Key, stamp: object, value: Value) -> None:
        """Keep an answer."""
        self._answers.pop(key, None)
        if len(self._answers) >= _KEPT:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = (stamp, value)


def _fresh_until(connection: sqlite3.Connection, lag_budget_s: int) -> dict[str, UnixTime]:
    """Tenant with a feed to when its people are no longer fresh; a feed that never succeeded makes nobody fresh."""
    if lag_budget_s == 0:
        return {}
    query = (
        "SELECT t.id, coalesce(f.succeeded, 0) FROM tenant t "
        "LEFT JOIN feed f ON f.tenant = t.id AND f.source = t.source WHERE t.source NOT IN (?, ?)"
    )
    return {tenant: UnixTime(at + lag_budget_s) for tenant, at in connection.execute(query, (YAML, CLAIMS))}


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
