"""A wall inside a connection to SQLite, which has no row level security: a table of many tenants is hidden by a view.

The view has the table's name and shows one tenant's rows, whose name the connection is told for each call; the table
behind it can be read by nothing else, and a table that is neither walled nor shared not at all. Must not run a
statement for a call.

Trust: SQLite's authorizer tells through which view something is read. That name is drawn anew for each connection: a
statement could take the place of one that it knows, by a common table expression of the same name.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onbehalf.errors import ConfigInvalid

__all__ = ["TENANT_FUNCTION", "Readable", "SqliteWall", "lay"]

TENANT_FUNCTION = "onbehalf_tenant"
"""What our views ask whose rows they may show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteWall:
    """`tables` of many tenants, each with the column that names the tenant, and `shared` ones without tenants."""

    tables: Mapping[str, str]
    shared: tuple[str, ...]

    @classmethod
    def of(
        cls, upstream: str, tables: Mapping[str, str], shared: Sequence[str], *, without: bool = False
    ) -> SqliteWall | None:
        """The wall that an upstream's settings ask for; None where it is turned off by name. Raises ConfigInvalid.

        Danger: `without` leaves only statements and policies between tenants.
        """
        names = [name.lower() for name in (*tables, *shared)]
        if len(set(names)) != len(names) or (shared and not tables):
            raise ConfigInvalid(
                f"upstream `{upstream}` names a table twice, or `shared` without `tables`",
                hint="list each table once: under `tables` with its tenant column, or under `shared`",
            )
        if without == bool(tables):
            raise ConfigInvalid(
                f"upstream `{upstream}` has {'`tables`, and a wall that is turned off' if tables else 'no `tables`'}",
                hint="list those with rows of several tenants under `tables`, each with its tenant column, or set "
                "`insecure_without_wall: true`",
            )
        return cls(tables=tables, shared=tuple(shared)) if tables else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """What a connection may read, all names in lower case: `hidden` is the view that alone may read each walled table,
    `known` all tables and views of the file, `views` only its views."""

    hidden: Mapping[str, str]
    shared: frozenset[str]
    known: frozenset[str]
    views: frozenset[str]

    def reads(self, table: str, database: str | None, through: str | None) -> bool:
        """Whether a table or view of a database may be read by the view, subquery or expression named last."""
        if database == "temp":
            return table in self.hidden or table in self.hidden.values()
        if table in self.hidden:
            # Without a database it is our view of that name: a view of the file was refused by `opens`.
            return database is None or through == self.hidden[table]
        return table in self.shared or (database is None and table not in self.known)

    def opens(self, through: str | None) -> bool:
        """Whether a part of a statement may be what it is named after: never a view of the file, which could count
        rows without reading a column."""
        return through is None or through.lower() not in self.views


def lay(connection: sqlite3.Connection, wall: SqliteWall, tenant: Callable[[], str | None]) -> Readable:
    """Lay the wall in this connection, before anything is forbidden to it; what may be read from then on.

    `tenant` is asked once a statement; None is nobody, who has no row. Raises sqlite3.Error, also where a table or its
    column is not there.
    """
    connection.create_function(TENANT_FUNCTION, 0, tenant, deterministic=True)
    hidden: dict[str, str] = {}
    for table, column in wall.tables.items():
        _require(connection, table, column)
        name = f"wall_{secrets.token_hex(16)}"
        # the collation is ours: in a column that ignores case, `Acme` would be `acme`
        connection.execute(
            f"CREATE TEMP VIEW {name} AS SELECT t.* FROM main.{_quoted(table)} AS t"  # noqa: S608  # configured names
            f" WHERE t.{_quoted(column)} = {TENANT_FUNCTION}() COLLATE BINARY"
        )
        connection.execute(f"CREATE TEMP VIEW {_quoted(table)} AS SELECT * FROM temp.{name}")  # noqa: S608  # as above
        hidden[table.lower()] = name
    for table in wall.shared:
        _require(connection, table, "")
    names = connection.execute("SELECT lower(name), type FROM main.sqlite_master").fetchall()
    return Readable(
        hidden=hidden,
        shared=frozenset(table.lower() for table in wall.shared),
        known=frozenset(name for name, _ in names),
        views=frozenset(name for name, kind in names if kind == "view"),
    )


def _require(connection: sqlite3.Connection, table: str, column: str) -> None:
    """A table, not a view, with that column. Raises sqlite3.OperationalError."""
    found = connection.execute(
        "SELECT c.name FROM main.sqlite_master m, pragma_table_info(m.name, 'main') c"
        " WHERE m.type = 'table' AND lower(m.name) = lower(?)",
        (table,),
    ).fetchall()
    if not found or (column and column.lower() not in [str(row[0]).lower() for row in found]):
        raise sqlite3.OperationalError(f"no such table or column: {table}{'.' if column else ''}{column}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
