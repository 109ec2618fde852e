"""One book against another in SQL: who is kept, who is new, and what is removed a part at a time.

Must not begin or end a transaction: directory_load.py does.

Trust: none needed; it works on what was checked when it was read.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from onbehalf.doors.directory_sqlite_schema import TABLES

__all__ = ["Counted", "carry_over", "counted", "is_same", "remove_part"]

_PART = 20_000
_COMPARED = {
    "position": ("id",), "position_edge": ("below", "above"), "grouping": ("id",), "grouping_edge": ("below", "above"),
    "person": ("id", "name", "position", "active", "attributes"), "membership": ("person", "grouping"),
    "login": ("subject", "issuer", "person"),
}  # fmt: skip
_CARRIED = (
    # logins and memberships first: they ask who is missing, which the second statement ends
    "INSERT OR IGNORE INTO login SELECT ?2, l.subject, l.issuer, l.person FROM login l WHERE l.book = ?1 "
    "AND NOT EXISTS (SELECT 1 FROM person n WHERE n.book = ?2 AND n.id = l.person)",
    "INSERT INTO person SELECT ?2, o.id, o.name, o.position, 0, o.attributes FROM person o WHERE o.book = ?1 "
    "AND NOT EXISTS (SELECT 1 FROM person n WHERE n.book = ?2 AND n.id = o.id)",
    "CREATE TEMP TABLE IF NOT EXISTS carried (id TEXT PRIMARY KEY)",
    "DELETE FROM temp.carried",
    "INSERT OR IGNORE INTO temp.carried SELECT p.position FROM person p WHERE p.book = ?2 AND p.active = 0 "
    "AND p.position IS NOT NULL AND NOT EXISTS (SELECT 1 FROM position x WHERE x.book = ?2 AND x.id = p.position) "
    "AND EXISTS (SELECT 1 FROM position o WHERE o.book = ?1 AND o.id = p.position)",
    "INSERT INTO position SELECT ?2, id FROM temp.carried",
    "INSERT OR IGNORE INTO position_edge SELECT ?2, e.below, e.above FROM temp.carried c "
    "CROSS JOIN position_edge e ON e.book = ?1 AND e.below = c.id "
    "WHERE EXISTS (SELECT 1 FROM position x WHERE x.book = ?2 AND x.id = e.above)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One book against the one before it, in people."""

    people: int
    added: int
    changed: int
    deactivated: int
    was_active: int


def carry_over(connection: sqlite3.Connection, old: int, new: int) -> None:
    """Who is in the old book and not in the new one is added to it as inactive, with their position and its edges.

    Rows of the company's systems still name them; somebody unknown would be denied to everybody. They lose their
    groups and keep their logins, which tell that they left.
    """
    for statement in _CARRIED:
        connection.execute(statement, (old, new) if "?" in statement else ())


def counted(connection: sqlite3.Connection, old: int, new: int) -> Counted:
    """How many people there are, are new, differ, and are active no longer."""
    people, added, changed = connection.execute(
        "SELECT count(*), coalesce(sum(o.id IS NULL), 0), coalesce(sum(o.id IS NOT NULL AND (o.name, o.active, "
        "o.attributes) <> (n.name, n.active, n.attributes) OR o.id IS NOT NULL AND o.position IS NOT n.position), 0) "
        "FROM person n LEFT JOIN person o ON o.book = ? AND o.id = n.id WHERE n.book = ?",
        (old, new),
    ).fetchone()
    was_active, deactivated = connection.execute(
        "SELECT count(*), coalesce(sum(n.id IS NULL), 0) FROM person o "
        "LEFT JOIN person n ON n.book = ? AND n.id = o.id AND n.active = 1 WHERE o.book = ? AND o.active = 1",
        (new, old),
    ).fetchone()
    return Counted(people=people, added=added, changed=changed, deactivated=deactivated, was_active=was_active)


def is_same(connection: sqlite3.Connection, old: int, new: int) -> bool:
    """Whether two books say the same, row by row. Does not look at their closures, which follow from their edges."""
    for table, columns in _COMPARED.items():
        (differs,) = connection.execute(
            f"SELECT (SELECT count(*) FROM {table} WHERE book = ?1) <> (SELECT count(*) FROM {table} WHERE book = ?2)",  # noqa: S608
            (old, new),
        ).fetchone()
        equal = " AND ".join(f"o.{column} IS n.{column}" for column in columns)
        if (
            differs
            or connection.execute(
                f"SELECT 1 FROM {table} n WHERE n.book = ?2 "  # noqa: S608
                f"AND NOT EXISTS (SELECT 1 FROM {table} o WHERE o.book = ?1 AND {equal}) LIMIT 1",
                (old, new),
            ).fetchone()
        ):
            return False
    return True


def remove_part(connection: sqlite3.Connection, book: int) -> int:
    """Remove some of a book's rows, and the book itself with the last of them; how many, 0 once it is gone."""
    for table, key in TABLES.items():
        bound = connection.execute(
            f"SELECT {key} FROM {table} WHERE book = ? ORDER BY {key} LIMIT 1 OFFSET {_PART}",  # noqa: S608
            (book,),
        ).fetchone()
        upto, values = ("", (book,)) if bound is None else (f" AND {key} <= ?", (book, bound[0]))
        removed = connection.execute(f"DELETE FROM {table} WHERE book = ?{upto}", values).rowcount  # noqa: S608
        if removed:
            return removed
    connection.execute("DELETE FROM book WHERE id = ? AND id NOT IN (SELECT book FROM tenant)", (book,))
    return 0
