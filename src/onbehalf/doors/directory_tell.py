"""What the directory file says, for people who look after it: one person, a team, and every tenant with its feed.

Must not decide anything by what is read here, or write.

Trust: as directory_sqlite.py says.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from onbehalf.doors.directory_sqlite_schema import books, connected, require_tables
from onbehalf.doors.directory_sqlite_slice import user
from onbehalf.errors import DirectoryUnavailable
from onbehalf.model import Json

__all__ = ["TenantTold", "Told", "team_members", "tell", "tenants"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One person as the directory knows them. `above` and `groups` hold all of them, at whatever distance."""

    id: str
    name: str
    active: bool
    position: str
    above: tuple[str, ...]
    groups: tuple[str, ...]
    attributes: Mapping[str, Json]
    logins: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantTold:
    """One tenant: where its people come from, how many, and how its feed fares. Times are in Unix seconds or None."""

    tenant: str
    source: str
    people: int
    active: int
    tried: int | None
    succeeded: int | None
    problem: str


def tell(path: Path, tenant: str, name: str) -> Told | None:
    """The person with this id, or with this login; None for nobody. Raises DirectoryUnavailable."""
    with _reading(path) as reading:
        book = books(reading).get(tenant)
        if book is None:
            return None
        query = "SELECT id, name, active, position, attributes FROM person WHERE book = ? AND "
        login = "id IN (SELECT person FROM login WHERE book = ?1 AND subject = ?2) LIMIT 1"
        row = reading.execute(f"{query} id = ?", (book, name)).fetchone()
        if row is None:
            row = reading.execute(query.replace("?", "?1") + login, (book, name)).fetchone()
        if row is None:
            return None
        id_, said, active, position, attributes = row
        entities = user(reading, tenant, book, id_)
        refs = [(each.ref.type, each.ref.id.removeprefix(f"{tenant}/")) for each in entities]
        return Told(
            id=id_, name=said, active=active == 1, position=position or "",
            above=tuple(each for kind, each in refs if kind == "Position" and each != position),
            groups=tuple(each for kind, each in refs if kind == "Group"),
            attributes=orjson.loads(attributes),
            logins=tuple(reading.execute(
                "SELECT issuer, subject FROM login WHERE book = ? AND person = ? ORDER BY 1, 2", (book, id_)
            )),
        )  # fmt: skip


def tenants(path: Path) -> tuple[TenantTold, ...]:
    """Every tenant, and every feed that was tried and has no people yet. Raises DirectoryUnavailable."""
    with _reading(path) as reading:
        rows = reading.execute(
            "SELECT n.id, coalesce(t.source, f.source), count(p.id), coalesce(sum(p.active), 0), "
            "f.tried, f.succeeded, coalesce(f.problem, '') "
            "FROM (SELECT id FROM tenant UNION SELECT tenant FROM feed) n LEFT JOIN tenant t ON t.id = n.id "
            "LEFT JOIN feed f ON f.tenant = n.id LEFT JOIN person p ON p.book = t.book GROUP BY n.id ORDER BY n.id"
        ).fetchall()
    return tuple(
        TenantTold(
            tenant=tenant, source=source, people=people, active=active, tried=tried, succeeded=succeeded,
            problem=problem,
        )
        for tenant, source, people, active, tried, succeeded, problem in rows
    )  # fmt: skip


def team_members(path: Path, tenant: str, name: str) -> frozenset[str]:
    """The ids, as `tenant/id`, of all in a group and the groups below it, of all below a position, or of all below
    somebody's position: whichever of the three the name is. None of them is nobody.

    Raises DirectoryUnavailable, also for a name that is several of them with different people.
    """
    position = "SELECT id FROM person WHERE book = ?1 AND position IN (SELECT below FROM position_above WHERE book = ?1"
    kinds = {
        "group": "SELECT person FROM membership WHERE book = ?1 AND (grouping = ?2 OR grouping IN "
        "(SELECT below FROM grouping_above WHERE book = ?1 AND above = ?2))",
        "position": f"{position} AND above = ?2)",
        "person": f"{position} AND above = (SELECT position FROM person WHERE book = ?1 AND id = ?2))",  # noqa: S608
    }
    with _reading(path) as reading:
        book = books(reading).get(tenant)
        found = {
            kind: frozenset(f"{tenant}/{person}" for (person,) in reading.execute(query, (book, name)))
            for kind, query in kinds.items()
        }
    teams = {kind: people for kind, people in found.items() if people}
    if len(set(teams.values())) > 1:
        raise DirectoryUnavailable(
            f"`{tenant}/{name}` is {' and '.join(f'a {kind}' for kind in teams)} with different people",
            hint="ask by another name of the same team",
        )
    return next(iter(teams.values()), frozenset())


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    hint = "load people first: `onbehalf people load`, or start the gateway once"
    if not path.is_file():
        raise DirectoryUnavailable(f"there is no directory at `{path}` yet", hint=hint)
    try:
        with contextlib.closing(connected(path)) as reading:
            reading.execute("PRAGMA query_only = 1")
            require_tables(reading)
            yield reading
    except (sqlite3.Error, OSError, orjson.JSONDecodeError) as error:
        raise DirectoryUnavailable(f"the directory at `{path}` cannot be read: {error}", hint=hint) from error
