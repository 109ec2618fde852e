"""One person's slice of a book: who they are and all they are in, seen to be whole as it is read.

A slice costs what is in it, whatever the size of the directory. Nothing is believed that its own rows contradict: a
closure other than its edges, an edge or a membership to what is not there. Must not hold which book is in force, or
keep anything.

Trust: as directory_sqlite.py says; tables are the gateway's own (directory_sqlite_schema.py).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from onbehalf.doors.directory_sqlite_schema import KINDS, MAX_LEVELS
from onbehalf.errors import DirectoryUnavailable
from onbehalf.model import Entity, Json, Ref

__all__ = ["Found", "login", "user"]

Found = tuple[str, str, bool, dict[str, Json]]
"""Id, name, active, attributes."""
_TYPES = {"position": "Position", "grouping": "Group"}
_HINT = "load the source of these people again"
_LOGIN = (
    "SELECT p.id, p.name, p.active, p.attributes FROM login l "
    "LEFT JOIN person p ON p.book = l.book AND p.id = l.person WHERE l.book = ? AND l.subject = ? AND l.issuer = ?"
)
_USER = "SELECT name, position, active FROM person WHERE book = ? AND id = ?"
_GROUPS = "SELECT grouping FROM membership WHERE book = ? AND person = ? ORDER BY grouping"
_ABOVE = {
    kind: f"SELECT below, above FROM {kind}_above WHERE book = ? AND below IN (SELECT value FROM json_each(?))"  # noqa: S608
    for kind in KINDS
}
_EDGES = {
    kind: (
        f"SELECT n.value, x.id IS NOT NULL, e.above FROM json_each(?2) n "  # noqa: S608
        f"LEFT JOIN {kind} x ON x.book = ?1 AND x.id = n.value "
        f"LEFT JOIN {kind}_edge e ON e.book = ?1 AND e.below = n.value"
    )
    for kind in KINDS
}


def login(connection: sqlite3.Connection, book: int, issuer: str, subject: str) -> Found | None:
    """Who logs in so, or None. Raises DirectoryUnavailable for a person who is not there or not as they must be."""
    row = _first(connection, _LOGIN, (book, subject, issuer))
    if row is None:
        return None
    id_, name, active, text = row
    attributes = orjson.loads(text) if text is not None else None
    if not isinstance(attributes, dict):  # a CHECK says so, and CHECKs can be off for whoever writes
        raise _damaged("a login is of nobody, or of a person whose attributes are no object")
    _require_name(id_)
    return id_, name, active == 1, attributes


def user(connection: sqlite3.Connection, tenant: str, book: int, id_: str) -> tuple[Entity, ...]:
    """A User with its Tenant, Position and Groups and all above them; empty for an unknown id.

    Raises DirectoryUnavailable where what is read contradicts itself.
    """
    row = _first(connection, _USER, (book, id_))
    if row is None:
        return ()
    _require_name(id_)
    name, position, active = row
    wall = Ref(type="Tenant", id=tenant)
    attributes: dict[str, Json | Ref] = {"tenant": wall, "name": name, "active": active == 1}
    if position is not None:
        attributes["position"] = Ref(type="Position", id=f"{tenant}/{position}")
    groups = [each for (each,) in connection.execute(_GROUPS, (book, id_))]
    made = Entity(
        ref=Ref(type="User", id=f"{tenant}/{id_}"),
        attributes=attributes,
        parents=tuple(Ref(type="Group", id=f"{tenant}/{each}") for each in groups),
    )
    places = _places(connection, "position", tenant, book, [position] if position is not None else [])
    circles = _places(connection, "grouping", tenant, book, groups)
    return (made, Entity(ref=wall, attributes={}, parents=()), *places, *circles)


def _first(
    connection: sqlite3.Connection, query: str, values: tuple[int | str, ...]
) -> Any:  # columns are what they are
    try:
        return connection.execute(query, values).fetchone()
    except UnicodeEncodeError:  # a lone surrogate, which stands in no row
        return None


def _places(connection: sqlite3.Connection, kind: str, tenant: str, book: int, starts: Sequence[str]) -> list[Entity]:
    """Positions or groups with all above them, each with the edges it has itself."""
    if not starts:
        return []
    above: dict[str, set[str]] = {start: set() for start in starts}
    for below, each in connection.execute(_ABOVE[kind], (book, orjson.dumps(starts).decode())):
        above[below].add(each)
    names = list(dict.fromkeys([*starts, *sorted(set().union(*above.values()))]))
    edges: dict[str, list[str]] = {name: [] for name in names}
    for name, there, up in connection.execute(_EDGES[kind], (book, orjson.dumps(names).decode())):
        if not there:
            raise _damaged(f"a {kind} is named that is not there")
        if up is not None:
            edges[name].append(up)
    for start, said in above.items():
        if said != _reached(edges, start, kind):
            raise _damaged(f"the closure of `{kind}` is not what its edges say")
    for each in names:
        _require_name(each)
    return [
        Entity(
            ref=Ref(type=_TYPES[kind], id=f"{tenant}/{name}"),
            attributes={"tenant": Ref(type="Tenant", id=tenant)},
            parents=tuple(Ref(type=_TYPES[kind], id=f"{tenant}/{each}") for each in edges[name]),
        )
        for name in names
    ]


def _reached(edges: dict[str, list[str]], start: str, kind: str) -> set[str]:
    """What can be reached from `start`. Raises DirectoryUnavailable for a circle and for more than 64 levels."""
    found: set[str] = set()
    level = {*edges[start]}
    for _ in range(MAX_LEVELS):
        if not level:
            return found
        found |= level
        level = {up for name in level for up in edges.get(name, ())}
    if level:  # what has been seen is walked again, so a circle never ends
        raise _damaged(f"a {kind} is above itself, or has more than {MAX_LEVELS} levels above it")
    return found


def _require_name(name: str) -> None:
    if not name or "/" in name:  # a CHECK says so too: `acme/x` in one tenant must not read as `x` of another
        raise _damaged("a name is empty or has a `/`")


def _damaged(what: str) -> DirectoryUnavailable:
    return DirectoryUnavailable(f"the directory is damaged: {what}", hint=_HINT)
