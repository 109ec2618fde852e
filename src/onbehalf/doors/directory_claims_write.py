"""How one person, told by a token, gets into the tenant's book in force.

One transaction a person, and a revision only where something is otherwise than before. Must not read a claim.

Trust: as directory_claims.py says. Who had an id first keeps it: an issuer that gives a name to somebody else does not
give them what is its first owner's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from onbehalf.doors.directory_sqlite_schema import changing, standing
from onbehalf.doors.directory_sqlite_write import (
    CLAIMS,
    Row,
    attributes_text,
    insert,
    member_rows,
    new_book,
    put_in_force,
)
from onbehalf.errors import ClaimsUnusable, DirectoryInvalid
from onbehalf.model import UnixTime
from onbehalf.validate.people import Login, Member

__all__ = ["Taken", "begin", "take"]

_IN = "SELECT person, grouping FROM membership WHERE book = ? AND person = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The book that a person was written into, and the revision before and after."""

    book: int
    before: int
    after: int


def begin(connection: sqlite3.Connection, tenants: Iterable[str]) -> None:
    """Have these tenants there, new ones with nobody in them. Raises DirectoryInvalid for one that is fed otherwise."""
    with changing(connection):
        for tenant in tenants:
            _book(connection, tenant)


def take(connection: sqlite3.Connection, tenant: str, member: Member, *, at: UnixTime) -> Taken:
    """Make the person what a token says that was issued `at`.

    What an older token says than the one that was last heard is left alone. Raises ClaimsUnusable where the id is
    another login's or the login another id's, DirectoryInvalid for a tenant that is fed otherwise, sqlite3.Error.
    """
    with changing(connection):
        before = standing(connection).revision
        book = _book(connection, tenant)
        _require_own(connection, book, member)
        heard = connection.execute("SELECT at FROM heard WHERE tenant = ? AND person = ?", (tenant, member.id))
        (last,) = heard.fetchone() or (-1,)
        if at >= last:
            _write(connection, book, member)
            connection.execute("INSERT OR REPLACE INTO heard VALUES (?, ?, ?)", (tenant, member.id, at))
    return Taken(book=book, before=before, after=standing(connection).revision)


def _book(connection: sqlite3.Connection, tenant: str) -> int:
    found = connection.execute("SELECT book, source FROM tenant WHERE id = ?", (tenant,)).fetchone()
    if found is None:
        connection.execute("DELETE FROM heard WHERE tenant = ?", (tenant,))
        book = new_book(connection, tenant, source=CLAIMS)
        put_in_force(connection, tenant, book, CLAIMS)
        return book
    if found[1] != CLAIMS:
        raise DirectoryInvalid(
            f"the people of `{tenant}` come from `{found[1]}`, and the configuration says from their tokens",
            hint=f"take one of them out; `onbehalf people release {tenant}` forgets the old people",
        )
    return int(found[0])


def _require_own(connection: sqlite3.Connection, book: int, member: Member) -> None:
    (login,) = member.logins
    known = "SELECT person FROM login WHERE book = ? AND subject = ? AND issuer = ?"
    found = connection.execute(known, (book, login.subject, login.issuer)).fetchone()
    if found is not None and found[0] != member.id:
        raise ClaimsUnusable(
            "your token calls you otherwise than before",
            hint="have people called by a claim that never changes; `onbehalf people release` lets all come in anew",
        )
    others = connection.execute("SELECT issuer, subject FROM login WHERE book = ? AND person = ?", (book, member.id))
    if any(Login(issuer=issuer, subject=subject) != login for issuer, subject in others):
        raise ClaimsUnusable(
            "your token calls you what somebody else is called here",
            hint="have people called by a claim that is never given to another one",
        )


def _write(connection: sqlite3.Connection, book: int, member: Member) -> None:
    """The rows as they are to be; none is touched that is so already."""
    rows = member_rows(member)
    insert(connection, book, "person", rows["person"], ignore=True)
    connection.execute(
        "UPDATE person SET name = ?3, attributes = ?4 WHERE book = ?1 AND id = ?2 AND (name, attributes) <> (?3, ?4)",
        (book, member.id, member.name, attributes_text(member.attributes)),
    )
    insert(connection, book, "login", rows["login"], ignore=True)
    insert(connection, book, "grouping", [(group,) for group in member.groups], ignore=True)
    said: set[Row] = {*rows["membership"]}
    were: set[Row] = {*connection.execute(_IN, (book, member.id))}
    connection.executemany(
        f"DELETE FROM membership WHERE book = {book:d} AND person = ? AND grouping = ?",  # noqa: S608
        were - said,
    )
    insert(connection, book, "membership", said - were)
