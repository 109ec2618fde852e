"""How a book gets its rows and comes into force, and people.yaml as a whole. Imports no reader.

The rows of a book that is not in force are written without looking at references one by one; the book is looked
through before it comes into force. Must not hold how rows are read, or what a feed's file or query looks like.

Trust: what stands in people.yaml, or in a feed, is what its owner says; only its shape and its references are checked.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Mapping

import orjson

from onbehalf.doors.directory_sqlite_check import close_part, is_closed, parts, require_book
from onbehalf.doors.directory_sqlite_schema import KINDS, TABLES, changing, standing
from onbehalf.errors import DirectoryInvalid
from onbehalf.model import Json, UnixTime
from onbehalf.validate.people import Member, People, TenantPeople

__all__ = [
    "CLAIMS",
    "YAML",
    "Row",
    "attributes_text",
    "insert",
    "member_rows",
    "new_book",
    "put_in_force",
    "replace_all",
    "succeeded",
]

CLAIMS = "token claims"
"""The source of every tenant whose people are who their tokens say."""
YAML = "people.yaml"
"""The source of every tenant that has no feed."""
Row = tuple[str | int | None, ...]
_COLUMNS = {
    **dict.fromkeys(KINDS, "id"),
    **{f"{kind}_edge": "below, above" for kind in KINDS},
    "person": "id, name, position, active, attributes",
    "membership": "person, grouping",
    "login": "subject, issuer, person",
}


def new_book(connection: sqlite3.Connection, tenant: str, *, source: str, mark: str = "", stage: str = "") -> int:
    """An empty book of a tenant, not in force."""
    made = connection.execute(
        "INSERT INTO book (tenant, source, mark, stage, cursor, done, owner) VALUES (?, ?, ?, ?, '', 0, ?)",
        (tenant, source, mark, stage, secrets.token_hex(8)),
    )
    assert made.lastrowid is not None  # an INSERT into a table with a rowid
    for table in TABLES:  # its number could be foretold, and rows laid in wait for it
        connection.execute(f"DELETE FROM {table} WHERE book = ?", (made.lastrowid,))  # noqa: S608
    return made.lastrowid


def insert(connection: sqlite3.Connection, book: int, table: str, rows: Iterable[Row], *, ignore: bool = False) -> None:
    """Rows of a book; with `ignore`, those that are there already are left as they are."""
    columns = _COLUMNS[table]
    places = ", ".join("?" * (columns.count(",") + 1))
    connection.executemany(
        f"INSERT {'OR IGNORE ' * ignore}INTO {table} (book, {columns}) VALUES ({book:d}, {places})",  # noqa: S608
        rows,
    )


def put_in_force(connection: sqlite3.Connection, tenant: str, book: int, source: str) -> None:
    """Let this book be the tenant's from now on; the old one is only rows that nobody points to."""
    connection.execute(
        "INSERT INTO tenant (id, book, source) VALUES (?, ?, ?) "
        "ON CONFLICT (id) DO UPDATE SET book = excluded.book, source = excluded.source",
        (tenant, book, source),
    )


def member_rows(member: Member) -> Mapping[str, list[Row]]:
    """One person as rows of `person`, `membership` and `login`."""
    return {
        "person": [
            (member.id, member.name, member.position or None, int(member.active), attributes_text(member.attributes))
        ],
        "membership": [(member.id, group) for group in member.groups],
        "login": [(login.subject, login.issuer, member.id) for login in member.logins],
    }


def attributes_text(attributes: Mapping[str, Json]) -> str:
    """Attributes as their column holds them."""
    return orjson.dumps(dict(attributes), option=orjson.OPT_SORT_KEYS).decode()


def succeeded(connection: sqlite3.Connection, tenant: str, source: str, now: UnixTime) -> None:
    """Keep that the source has said how things are. Within a transaction of the caller's."""
    connection.execute(
        "INSERT INTO feed (tenant, source, tried, succeeded, problem) VALUES (?1, ?2, ?3, ?3, '') ON CONFLICT (tenant) "
        "DO UPDATE SET source = ?2, tried = ?3, succeeded = ?3, problem = ''",
        (tenant, source, now),
    )


def replace_all(
    connection: sqlite3.Connection, people: People, *, source: str = YAML, now: UnixTime | None = None
) -> int:
    """Make every tenant of this source what it says, in one transaction; the revision after it.

    `now` is kept as the time of its last success. The rows themselves are compared: what was written by hand is not
    what the source says. Raises DirectoryInvalid
    for a tenant that is fed otherwise, and where a reference is to nothing; sqlite3.IntegrityError for what a
    constraint refuses.
    """
    with changing(connection):
        standing_now: dict[str, tuple[int, str]] = {
            id_: (book, has) for id_, book, has in connection.execute("SELECT id, book, source FROM tenant")
        }
        for tenant, each in people.tenants.items():
            book, has = standing_now.get(tenant, (0, source))
            if has != source:
                raise DirectoryInvalid(
                    f"tenant `{tenant}` stands in {source}, and its people come from `{has}`",
                    hint=f"take `{tenant}` out of {source}, or run `onbehalf people release {tenant}`",
                )
            if now is not None:
                succeeded(connection, tenant, source, now)
            rows = _rows(each)
            same = book and all(set(said) == _all(connection, book, table) for table, said in rows.items())
            if same and is_closed(connection, book):
                continue
            _replace(connection, tenant, rows, source)
            _remove(connection, book)
        for tenant, (book, has) in standing_now.items():
            if has == source and tenant not in people.tenants:
                connection.execute("DELETE FROM tenant WHERE id = ?", (tenant,))
                _remove(connection, book)
    return standing(connection).revision


def _replace(connection: sqlite3.Connection, tenant: str, rows: Mapping[str, list[Row]], source: str) -> None:
    made = new_book(connection, tenant, source=source)
    for table, said in rows.items():
        insert(connection, made, table, said)
    require_book(connection, made)
    for kind in KINDS:
        for start, end in [*parts(connection, kind, made)]:
            close_part(connection, kind, made, start, end)
    put_in_force(connection, tenant, made, source)


def _remove(connection: sqlite3.Connection, book: int) -> None:
    """The rows of a book that was in force; small, so at once."""
    for table in TABLES:
        connection.execute(f"DELETE FROM {table} WHERE book = ?", (book,))  # noqa: S608
    connection.execute("DELETE FROM book WHERE id = ?", (book,))


def _all(connection: sqlite3.Connection, book: int, table: str) -> set[Row]:
    return set(connection.execute(f"SELECT {_COLUMNS[table]} FROM {table} WHERE book = ?", (book,)))  # noqa: S608


def _rows(people: TenantPeople) -> dict[str, list[Row]]:
    """Table to its rows, what is referred to before what refers to it."""
    tables: dict[str, list[Row]] = {table: [] for table in _COLUMNS}
    for kind, edges in (("position", people.positions), ("grouping", people.groups)):
        tables[kind] += [(name,) for name in edges]
        tables[f"{kind}_edge"] += [(below, above) for below, each in edges.items() for above in each]
    for member in people.people.values():
        for table, rows in member_rows(member).items():
            tables[table] += rows
    return tables
