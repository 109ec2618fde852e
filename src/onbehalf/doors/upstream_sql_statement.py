"""What upstream_sql.py stands on: a connection that can only read, and a statement tried before it is ever used.

Must not run a statement for a call.

Trust: SQLite's own authorizer judges the compiled statement, not its text; the text is looked at for clear errors only.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from onbehalf.doors.wall_sqlite import TENANT_FUNCTION, Readable, SqliteWall, lay
from onbehalf.errors import ConfigInvalid

__all__ = ["Compiled", "compile_statement", "connect"]

_BUSY_SECONDS = 2.0
_LIKE_PATTERN = 256
"""A long pattern of many `%` runs for minutes inside one function, where no deadline is looked at."""
_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE})
_FUNCTION_NAMES = """
    abs avg ceil ceiling char coalesce concat concat_ws count cume_dist current_date current_time current_timestamp date
    datetime dense_rank first_value floor format glob group_concat hex ifnull iif instr json json_array
    json_array_length json_extract json_group_array json_group_object json_object json_quote json_type json_valid
    julianday lag last_value lead length like likelihood likely lower ltrim max min nth_value ntile nullif
    percent_rank printf quote rank replace round row_number rtrim sign strftime string_agg substr substring sum time
    total trim typeof unicode unixepoch unlikely upper -> ->>
"""
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_COMMENTS = re.compile(r"\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What a statement takes and gives, in its own order."""

    parameters: tuple[str, ...]
    columns: tuple[str, ...]


class _Asked(dict[str, None]):
    """Parameters that take down which names SQLite asks for."""

    def __missing__(self, name: str) -> None:
        self[name] = None


def connect(
    path: Path, *, max_bytes: int, wall: SqliteWall | None = None, tenant: Callable[[], str | None] = lambda: None
) -> sqlite3.Connection:
    """A connection that can only SELECT, and with a wall only what is the `tenant`'s. Raises sqlite3.Error, OSError."""
    uri = path.resolve(strict=True).as_uri() + "?mode=ro"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False)
    try:
        readable = None if wall is None else lay(connection, wall, tenant)
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        # The first use of a table-valued function declares it, which the authorizer could not tell from a write.
        connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").fetchall()
        # Reads the file, so that one that is not a database is found here.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max_bytes)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, _LIKE_PATTERN)
        connection.set_authorizer(_authorizer(readable))
    except BaseException:
        connection.close()
        raise
    return connection


def compile_statement(connection: sqlite3.Connection, name: str, text: str) -> Compiled:
    """What the statement of the tool `name` takes and gives, without running it. Raises ConfigInvalid."""
    first = _first_word(text)
    if first not in ("SELECT", "WITH"):
        raise _invalid(
            name, "is not a SELECT", hint="a tool on SQL is one SELECT, or WITH ... SELECT; nothing is written"
        )
    asked = _Asked()
    _try(connection, name, f"EXPLAIN {text}", asked)
    positional = [parameter for parameter in asked if _NAME.match(parameter) is None]
    if positional:
        raise _positional(name)
    # Compiled as a part of another, no row of it is made; the columns' names come out all the same.
    inner = text.rstrip().removesuffix(";")
    whole = f"SELECT * FROM (\n{inner}\n) LIMIT 0"  # noqa: S608  # the statement is the configuration's own text
    found = _try(connection, name, whole, _Asked()).description
    columns = tuple(str(column[0]) for column in found)
    doubled = [column for column in columns if re.search(r":\d+\Z", column)]
    if doubled:
        shown = doubled[0].rpartition(":")[0]
        raise _invalid(name, f"gives two columns named `{shown}`", hint="name one of them with AS")
    return Compiled(parameters=tuple(asked), columns=columns)


def _try(connection: sqlite3.Connection, name: str, text: str, asked: Mapping[str, None]) -> sqlite3.Cursor:
    try:
        return connection.execute(text, asked)
    except (sqlite3.Error, sqlite3.Warning) as error:
        message = str(error)
        if "has no name" in message:
            raise _positional(name) from error
        if "one statement" in message:
            raise _invalid(name, "is more than one", hint="one tool is one SELECT; make two tools of it") from error
        if "not authorized" in message or "prohibited" in message:
            hint = "only tables of this database, json_each, json_tree and plain functions may be read"
            raise _invalid(name, f"uses what is not allowed: {message}", hint=hint) from error
        raise _invalid(
            name, f"does not fit the database: {message}", hint="mend the statement, or name the right database"
        ) from error


_Authorizer = Callable[[int, str | None, str | None, str | None, str | None], int]


def _authorizer(readable: Readable | None) -> _Authorizer:
    """Judges what a statement does; with a wall, also what it may read."""
    functions = _FUNCTIONS if readable is None else _FUNCTIONS | {TENANT_FUNCTION}

    def authorize(action: int, first: str | None, second: str | None, database: str | None, through: str | None) -> int:
        if action in _ALLOWED:
            return sqlite3.SQLITE_OK if readable is None or readable.opens(through) else sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_READ:
            table = (first or "").lower()
            # the schema's text and SQLite's own settings are not data of the company
            own = not table.startswith(("sqlite_", "pragma_", "dbstat", "bytecode", "tables_used"))
            reads = database in ("main", None) if readable is None else readable.reads(table, database, through)
            return sqlite3.SQLITE_OK if own and reads else sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in functions:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    return authorize


def _first_word(text: str) -> str:
    at = 0
    while found := _COMMENTS.match(text, at):
        at = found.end()
    return re.split(r"[^A-Za-z]", text[at : at + 10], maxsplit=1)[0].upper()


def _positional(name: str) -> ConfigInvalid:
    return _invalid(
        name, "has a parameter without a name", hint="write `:name`; a `?` is bound by place and easily swapped"
    )


def _invalid(name: str, what: str, *, hint: str) -> ConfigInvalid:
    return ConfigInvalid(f"the statement of tool `{name}` {what}", hint=hint)
