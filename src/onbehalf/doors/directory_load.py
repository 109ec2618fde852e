"""A feed of any size becomes a tenant's book: read in parts, looked through as a whole, put in force in one step.

1 read: lines become rows of a book that is not in force, with the cursor in the same transaction; 2 complete: who is
no longer there is kept as inactive, references are looked up, and a feed that would deactivate too many is refused;
3 close: the closure is made, part by part; 4 switch: one UPDATE, one revision; 5 sweep: the old rows go. A crash
at any step leaves the old book in force, and the next load of the same file goes on where this one stopped. Must not
know how a feed is read: directory_file.py and directory_query.py do.

Trust: whoever owns the feed decides who is whose manager in its one tenant, and in no other.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from onbehalf.doors.directory_load_sql import (
    carry_over,
    counted,
    is_same,
    remove_part,
)
from onbehalf.doors.directory_sqlite_check import PART, close_part, parts, require_book
from onbehalf.doors.directory_sqlite_schema import KINDS, books, changing, connected, standing, transaction
from onbehalf.doors.directory_sqlite_write import insert, member_rows, new_book, put_in_force, succeeded
from onbehalf.errors import DirectoryInvalid, DirectoryUnavailable
from onbehalf.model import UnixTime
from onbehalf.validate.people import Record

__all__ = ["DEACTIVATES_AT_MOST", "Batch", "Feed", "Loaded", "Progress", "load", "release"]

DEACTIVATES_AT_MOST = 0.1
"""The share of a tenant's active people that one feed may deactivate where nothing else is said."""
_NOTHING = "nothing was changed"
_DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some lines of a feed; `cursor` and `done` say how far the feed has been read with them, in its own units."""

    records: Sequence[Record]
    cursor: str
    done: int


class Feed(Protocol):
    """Where people come from. `mark` is "" for one that cannot be read on from a cursor, else names its content."""

    @property
    def source(self) -> str: ...

    @property
    def mark(self) -> str: ...

    @property
    def total(self) -> int:
        """How much there is to read, in the units of `Batch.done`; 0 where that is not known."""
        ...

    def batches(self, cursor: str, done: int) -> Iterator[Batch]:
        """Everything after the cursor; "" is the start. Raises DirectoryInvalid, DirectoryUnavailable."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a load is: `done` of `total` (0: not known) in the units of its step, after so many seconds."""

    step: str
    done: int
    total: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a load did. The same content is the same revision, `before` and after: then nothing else changed either."""

    before: int
    revision: int
    people: int
    added: int
    changed: int
    deactivated: int
    resumed: bool


def load(
    path: Path,
    tenant: str,
    feed: Feed,
    *,
    now: UnixTime,
    deactivates_at_most: float = DEACTIVATES_AT_MOST,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Loaded:
    """Make a tenant's people what the feed says. The file at `path` is a directory that was opened before.

    Raises DirectoryInvalid for what the feed may not say and for one that would deactivate more than one person and
    more than that share of the active people; DirectoryUnavailable where the file cannot be written. Either way the
    old people stay in force, and when the feed was tried, and why it failed, is kept.
    """
    try:
        with contextlib.closing(connected(path, constraints=False)) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may undo parts that were read
            walk = _Walk(connection, tenant, feed, progress)
            try:
                return walk.walked(deactivates_at_most, now)
            except sqlite3.IntegrityError as error:
                walk.failed(str(error), now)
                raise DirectoryInvalid(f"the people of `{tenant}` cannot be so: {error}", hint=_NOTHING) from error
            except (DirectoryInvalid, DirectoryUnavailable) as error:
                walk.failed(error.message, now)
                raise
    except (sqlite3.Error, OSError) as error:
        raise DirectoryUnavailable(
            f"the people of `{tenant}` could not be loaded: {error}",
            hint=f"{_NOTHING}; run it again, it goes on where it stopped",
        ) from error


def release(path: Path, tenant: str) -> None:
    """Forget a tenant and its source, so that another source may have it. Raises DirectoryInvalid where it is none."""
    with contextlib.closing(connected(path, constraints=False)) as connection:
        with changing(connection):
            book = books(connection).get(tenant)
            if book is None:
                raise DirectoryInvalid(f"there is no tenant `{tenant}`", hint="`onbehalf people status` lists them")
            connection.execute("DELETE FROM tenant WHERE id = ?", (tenant,))
            connection.execute("DELETE FROM feed WHERE tenant = ?", (tenant,))
            connection.execute("DELETE FROM heard WHERE tenant = ?", (tenant,))
            connection.execute("UPDATE book SET stage = ? WHERE tenant = ?", (_DEAD, tenant))
        _swept(connection, lambda _: None)


@dataclass(slots=True)
class _Walk:
    """One load on its way. `book` is what it writes, and `owner` proves that no other load has taken it over."""

    connection: sqlite3.Connection
    tenant: str
    feed: Feed
    progress: Callable[[Progress], None]
    book: int = 0
    owner: str = field(default_factory=lambda: secrets.token_hex(8))
    started: float = field(default_factory=time.monotonic)

    def walked(self, deactivates_at_most: float, now: UnixTime) -> Loaded:
        """All five steps, from wherever an earlier load has come."""
        stage, cursor, done = self._begun()
        resumed = bool(cursor) or stage != "read"
        if stage == "read":
            self._read(cursor, done)
            self._complete(deactivates_at_most)
            stage, cursor = "close", ""
        self._close(cursor)
        loaded = self._switched(resumed, now)
        with contextlib.suppress(sqlite3.Error, DirectoryUnavailable):  # it is in force; the next load tidies up too
            self._said("switch", 1, 1)
            _swept(self.connection, lambda removed: self._said("sweep", removed, 0))
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return loaded

    def failed(self, problem: str, now: UnixTime) -> None:
        """Keep why, and let go of what was written. A load that was only cut off is not given up, but gone on with."""
        with transaction(self.connection):
            self.connection.execute(
                "INSERT INTO feed (tenant, source, tried, succeeded, problem) VALUES (?, ?, ?, NULL, ?) "
                "ON CONFLICT (tenant) DO UPDATE SET tried = excluded.tried, problem = excluded.problem",
                (self.tenant, self.feed.source, now, problem[:500]),
            )
            self.connection.execute(
                "UPDATE book SET stage = ? WHERE id = ? AND owner = ?", (_DEAD, self.book, self.owner)
            )

    def _begun(self) -> tuple[str, str, int]:
        """The book to write, new or an earlier load's, and how far it is."""
        with transaction(self.connection):
            row = self.connection.execute("SELECT source FROM tenant WHERE id = ?", (self.tenant,)).fetchone()
            if row is not None and row[0] != self.feed.source:
                raise DirectoryInvalid(
                    f"the people of `{self.tenant}` come from `{row[0]}`, not from `{self.feed.source}`",
                    hint=f"{_NOTHING}; `onbehalf people release {self.tenant}` makes room for another source",
                )
            found = self.connection.execute(
                "SELECT id, stage, cursor, done FROM book WHERE tenant = ? AND source = ? AND mark = ? AND mark <> '' "
                "AND stage IN ('read', 'close')",
                (self.tenant, self.feed.source, self.feed.mark),
            ).fetchone()
            if found is None:
                made = new_book(
                    self.connection, self.tenant, source=self.feed.source, mark=self.feed.mark, stage="read"
                )
                found = (made, "read", "", 0)
            self.book, stage, cursor, done = found
            self.connection.execute(
                "UPDATE book SET stage = ? WHERE tenant = ? AND id <> ? AND stage IN ('read', 'close')",
                (_DEAD, self.tenant, self.book),
            )
            self.connection.execute("UPDATE book SET owner = ? WHERE id = ?", (self.owner, self.book))
        return stage, cursor, done

    def _read(self, cursor: str, done: int) -> None:
        for batch in self.feed.batches(cursor, done):
            try:
                with transaction(self.connection):
                    self._add(batch.records)
                    self._mark("read", batch.cursor, batch.done)
            except sqlite3.IntegrityError:
                self._blame(batch.records)
                raise
            self._said("read", batch.done, self.feed.total)

    def _add(self, records: Sequence[Record]) -> None:
        members = [member_rows(each.member) for each in records if each.member is not None]
        for kind, places in (
            ("position", [each.positions for each in records]),
            ("grouping", [each.groups for each in records]),
        ):
            insert(self.connection, self.book, kind, [(name,) for each in places for name in each], ignore=True)
            edges = sorted((below, up) for each in places for below, above in each.items() for up in above)
            insert(self.connection, self.book, f"{kind}_edge", edges, ignore=True)
        insert(self.connection, self.book, "person", [row for each in members for row in each["person"]])
        joined = [row for each in members for row in each["membership"]]
        joined += [pair for each in records for pair in each.memberships]
        insert(self.connection, self.book, "grouping", sorted({(group,) for _, group in joined}), ignore=True)
        insert(self.connection, self.book, "membership", joined, ignore=True)
        logins = [row for each in members for row in each["login"]]
        logins += [(login.subject, login.issuer, person) for each in records for person, login in each.logins]
        insert(self.connection, self.book, "login", logins)

    def _blame(self, records: Sequence[Record]) -> None:
        """Raise DirectoryInvalid for the first of these lines that does not go with those before it."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            for each in records:
                try:
                    self._add([each])
                except sqlite3.IntegrityError as error:
                    raise DirectoryInvalid(
                        f"{each.place}: {_readable(str(error))}", hint=f"{_NOTHING}; mend this line in the feed"
                    ) from error
        finally:
            self.connection.execute("ROLLBACK")

    def _complete(self, deactivates_at_most: float) -> None:
        self._said("complete", 0, 1)
        with transaction(self.connection):
            old = books(self.connection).get(self.tenant, 0)
            carry_over(self.connection, old, self.book)
            require_book(self.connection, self.book)
            found = counted(self.connection, old, self.book)
            if found.deactivated > max(1.0, deactivates_at_most * found.was_active):  # one may always leave
                raise DirectoryInvalid(
                    f"this feed would deactivate {found.deactivated} of {found.was_active} active people of "
                    f"`{self.tenant}`, more than a share of {deactivates_at_most:g}",
                    hint=f"{_NOTHING}; if so many did leave, allow it once with `--deactivate-at-most 1`",
                )
            self._mark("close", "", 0)
        self._said("complete", 1, 1)

    def _close(self, cursor: str) -> None:
        """The closure of every kind. The cursor is the kind and the last name that is done."""
        at, _, start = cursor.partition(":")
        counts = (
            "SELECT (SELECT count(*) FROM position WHERE book = ?1) + (SELECT count(*) FROM grouping WHERE book = ?1)"
        )
        (total,) = self.connection.execute(counts, (self.book,)).fetchone()
        done = 0
        for kind in KINDS[KINDS.index(at) if at else 0 :]:
            for first, last in parts(self.connection, kind, self.book, start if kind == at else ""):
                with transaction(self.connection):
                    close_part(self.connection, kind, self.book, first, last)
                    self._mark("close", f"{kind}:{last}", 0)
                done = min(total, done + PART)
                self._said("close", done, total)

    def _switched(self, resumed: bool, now: UnixTime) -> Loaded:
        """In force, in one transaction that is on the disk when it ends."""
        self.connection.execute("PRAGMA synchronous = FULL")
        self._said("switch", 0, 1)
        with changing(self.connection):
            before = standing(self.connection).revision
            old = books(self.connection).get(self.tenant, 0)
            found = counted(self.connection, old, self.book)
            same = old != 0 and not standing(self.connection).unsealed and is_same(self.connection, old, self.book)
            self._mark("done", "", 0)
            if not same:
                put_in_force(self.connection, self.tenant, self.book, self.feed.source)
            self.connection.execute("UPDATE book SET stage = ? WHERE id = ?", (_DEAD, self.book if same else old))
            succeeded(self.connection, self.tenant, self.feed.source, now)
        return Loaded(
            before=before, revision=before if same else before + 1, people=found.people, added=found.added,
            changed=found.changed, deactivated=found.deactivated, resumed=resumed,
        )  # fmt: skip

    def _mark(self, stage: str, cursor: str, done: int) -> None:
        marked = self.connection.execute(
            "UPDATE book SET stage = ?, cursor = ?, done = ? WHERE id = ? AND owner = ?",
            (stage, cursor, done, self.book, self.owner),
        )
        if marked.rowcount != 1:
            raise DirectoryUnavailable(
                f"another load of `{self.tenant}` has taken over", hint="let it end, then run this one again"
            )

    def _said(self, step: str, done: int, total: int) -> None:
        self.progress(Progress(step=step, done=done, total=total, seconds=time.monotonic() - self.started))


def _swept(connection: sqlite3.Connection, progress: Callable[[int], None]) -> None:
    """Remove the rows of books that are given up, a little at a time, so that others can write in between."""
    removed = 0
    for (book,) in connection.execute("SELECT id FROM book WHERE stage = ?", (_DEAD,)).fetchall():
        while True:
            with transaction(connection):
                count = remove_part(connection, book)
            if not count:
                break
            removed += count
            progress(removed)


def _readable(message: str) -> str:
    if message.startswith("UNIQUE constraint failed: person.book, person.id"):
        return "this person stands in the feed twice"
    if message.startswith("UNIQUE constraint failed: person.book, person.position"):
        return "somebody else who is active holds this position"
    if message.startswith("UNIQUE constraint failed: login"):
        return "this login is somebody else's already"
    return message
