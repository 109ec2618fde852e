"""Whether a book is whole: what it refers to is there, and its closure is what its edges say. And the closure, made.

All of it is SQL over a part of a book at a time, so memory stays bounded whatever the size, and a part can be given
up between two statements. Must not hold what to do about a book that is not whole.

Trust: none needed; what is read here is believed only for what is found wrong with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from onbehalf.doors.directory_sqlite_schema import DAMAGED, KINDS, MAX_LEVELS, books, require_tables, standing
from onbehalf.errors import DirectoryInvalid, DirectoryUnavailable

__all__ = ["PART", "close_part", "is_closed", "parts", "require_book", "require_pages", "require_whole"]

PART = 10_000
"""How many positions or groups are walked at a time."""
_REFERENCES = {
    "person `{}` holds a position that is not there: `{}`": (
        "SELECT p.id, p.position FROM person p WHERE p.book = ?1 AND p.position IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM position x WHERE x.book = ?1 AND x.id = p.position) LIMIT 1"
    ),
    "a membership names a person that is not there: `{}`": (
        "SELECT m.person FROM membership m WHERE m.book = ?1 "
        "AND NOT EXISTS (SELECT 1 FROM person x WHERE x.book = ?1 AND x.id = m.person) LIMIT 1"
    ),
    "person `{}` is in a group that is not there: `{}`": (
        "SELECT m.person, m.grouping FROM membership m WHERE m.book = ?1 "
        "AND NOT EXISTS (SELECT 1 FROM grouping x WHERE x.book = ?1 AND x.id = m.grouping) LIMIT 1"
    ),
    "a login is of a person that is not there: `{}`": (
        "SELECT l.person FROM login l WHERE l.book = ?1 "
        "AND NOT EXISTS (SELECT 1 FROM person x WHERE x.book = ?1 AND x.id = l.person) LIMIT 1"
    ),
    **{
        f"{kind} `{{}}` is said to be below `{{}}`, and one of them is not there": (
            f"SELECT e.below, e.above FROM {kind}_edge e WHERE e.book = ?1 "  # noqa: S608
            f"AND (NOT EXISTS (SELECT 1 FROM {kind} x WHERE x.book = ?1 AND x.id = e.above) "
            f"OR NOT EXISTS (SELECT 1 FROM {kind} x WHERE x.book = ?1 AND x.id = e.below)) LIMIT 1"
        )
        for kind in KINDS
    },
}
_WALK = """
INSERT INTO temp.walk SELECT start, id, n FROM (WITH RECURSIVE walk(start, id, n) AS (
  SELECT below, above, 1 FROM {kind}_edge WHERE book = ?1 AND below > ?2 AND below <= ?3
  UNION SELECT walk.start, e.above, walk.n + 1 FROM walk CROSS JOIN {kind}_edge e
  WHERE e.book = ?1 AND e.below = walk.id AND walk.n <= ?4) SELECT start, id, n FROM walk)
"""


def require_whole(connection: sqlite3.Connection) -> None:
    """See that every book in force is whole. Raises DirectoryUnavailable; sqlite3.OperationalError if interrupted."""
    require_tables(connection)
    standing(connection)
    for tenant, book in books(connection).items():
        try:
            require_book(connection, book)
        except DirectoryInvalid as error:
            raise DirectoryUnavailable(
                f"the directory of `{tenant}` is damaged: {error.message}", hint=DAMAGED
            ) from error
        for kind in KINDS:
            _require_closed(connection, kind, book)


def is_closed(connection: sqlite3.Connection, book: int) -> bool:
    """Whether the closures of a book are what its edges say."""
    try:
        for kind in KINDS:
            _require_closed(connection, kind, book)
    except DirectoryUnavailable:
        return False
    return True


def require_pages(connection: sqlite3.Connection) -> None:
    """Read every page, and see what CHECKs say of every row. Raises DirectoryUnavailable."""
    damaged = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damaged != "ok":
        raise DirectoryUnavailable(f"the directory is damaged: {damaged}", hint=DAMAGED)


def require_book(connection: sqlite3.Connection, book: int) -> None:
    """See that all that a book refers to is in it. Raises DirectoryInvalid naming what is not. Reads no closure."""
    for sentence, query in _REFERENCES.items():
        found = connection.execute(query, (book,)).fetchone()
        if found is not None:
            problem = sentence.format(*(str(each)[:80] for each in found))
            raise DirectoryInvalid(problem, hint="nothing was changed; mend the source of these people")


def parts(connection: sqlite3.Connection, kind: str, book: int, start: str = "") -> Iterator[tuple[str, str]]:
    """The positions or groups of a book, cut by name into (after, up to and with)."""
    query = f"SELECT id FROM {kind} WHERE book = ? AND id > ? ORDER BY id LIMIT 1 OFFSET {PART - 1}"  # noqa: S608
    while (found := connection.execute(query, (book, start)).fetchone()) is not None:
        yield start, found[0]
        start = found[0]
    (last,) = connection.execute(f"SELECT max(id) FROM {kind} WHERE book = ?", (book,)).fetchone()  # noqa: S608
    if last is not None and last > start:
        yield start, last


def close_part(connection: sqlite3.Connection, kind: str, book: int, start: str, end: str) -> None:
    """Make the closure of one part from the edges. Raises DirectoryInvalid for more than 64 levels."""
    _walked(connection, kind, book, start, end)
    connection.execute(
        f"INSERT INTO {kind}_above SELECT DISTINCT ?, start, id FROM temp.walk ORDER BY start, id",  # noqa: S608
        (book,),
    )


def _require_closed(connection: sqlite3.Connection, kind: str, book: int) -> None:
    """The closure is its edges' own. Raises DirectoryUnavailable."""
    last = ""
    for start, end in parts(connection, kind, book):
        _require_part(connection, kind, book, start, end)
        last = end
    beyond = f"SELECT 1 FROM {kind}_above WHERE book = ? AND below > ? LIMIT 1"  # noqa: S608
    if connection.execute(beyond, (book, last)).fetchone() is not None:
        raise DirectoryUnavailable(f"the closure of `{kind}` is not what its edges say", hint=DAMAGED)


def _require_part(connection: sqlite3.Connection, kind: str, book: int, start: str, end: str) -> None:
    try:
        _walked(connection, kind, book, start, end)
    except DirectoryInvalid as error:
        raise DirectoryUnavailable(f"the directory is damaged: {error.message}", hint=DAMAGED) from error
    said = f"SELECT below, above FROM {kind}_above WHERE book = ?1 AND below > ?2 AND below <= ?3"  # noqa: S608
    walked = "SELECT start, id FROM temp.walk"
    for query in (f"{said} EXCEPT {walked}", f"{walked} EXCEPT {said}"):
        if connection.execute(f"{query} LIMIT 1", (book, start, end)).fetchone() is not None:
            raise DirectoryUnavailable(f"the closure of `{kind}` is not what its edges say", hint=DAMAGED)


def _walked(connection: sqlite3.Connection, kind: str, book: int, start: str, end: str) -> None:
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS walk (start TEXT, id TEXT, n INTEGER)")
    connection.execute("DELETE FROM temp.walk")
    connection.execute(_WALK.format(kind=kind), (book, start, end, MAX_LEVELS))
    found = connection.execute(
        "SELECT start FROM temp.walk WHERE n > ? OR start = id LIMIT 1", (MAX_LEVELS,)
    ).fetchone()
    if found is not None:
        raise DirectoryInvalid(
            f"{kind} `{found[0][:80]}` has more than {MAX_LEVELS} levels above it, or is above itself",
            hint="take levels out",
        )
