"""What upstream_postgres.py stands on: a statement of the configuration, with `:name` parameters, tried before its use.

PostgreSQL itself says what a statement takes and gives, and it is only ever run as a part of another: so it is one
SELECT (or one INSERT, UPDATE, DELETE or MERGE with RETURNING, for a tool that writes), and no EXPLAIN, SET or second
statement. Must not run a statement for a call.

Trust: the text is the configuration's own; nothing that a model sends is ever a part of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import orjson
from psycopg import pq

from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json

__all__ = ["Compiled", "NotBindable", "bound", "compile_statement"]

_LEXICAL = re.compile(
    r"""
      (?P<string> (?<![\w$])[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" )
    | (?P<dollar> (?<![\w$])\$(?P<tag>[A-Za-z_]\w*)?\$.*?\$(?(tag)(?P=tag))\$ )
    | (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<cast> ::|:= )
    | :(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<positional> (?<![\w$])\$\d )
    """,
    re.DOTALL | re.VERBOSE,
)
_BYTES = frozenset({17, 1001})
_NUMERIC, _NUMERICS = 1700, 1231
_JSON = frozenset({114, 3802})
_BOOLEAN = 16

_Kind: TypeAlias = Literal["plain", "boolean", "json", "array"]


class NotBindable(Exception):
    """An argument has no spelling as its parameter's type. The message does not hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A statement ready to be run. `text` gives one column: a row as JSON text, or NULL once the answer is larger than
    its bound. `kinds` say what the parameters are for PostgreSQL, in their order; as every value is sent as text of
    unknown type, they are the same at each call."""

    text: str
    parameters: tuple[str, ...]
    kinds: tuple[_Kind, ...]
    columns: tuple[str, ...]


def compile_statement(
    pgconn: pq.abc.PGconn, name: str, text: str, *, writes: bool, max_rows: int, max_bytes: int
) -> Compiled:
    """What the statement of the tool `name` takes and gives, without running it. Blocks. Raises ConfigInvalid.

    At most `max_rows` + 1 rows are sent by the server, and no row that takes the answer beyond `max_bytes`.
    """
    body, parameters = _numbered(name, text)
    if len(body.encode()) > max_bytes:
        raise _invalid(name, "is too long", hint="make a view of it")
    before, source = (f"WITH q AS (\n{body}\n) ", "q") if writes else ("", f"(\n{body}\n) AS q")
    found = _described(pgconn, name, f"{before}SELECT q.* FROM {source}", writes=writes)  # noqa: S608  # as configured
    if found.nparams != len(parameters):  # where we and PostgreSQL differ on what is code
        raise _invalid(
            name, "has a parameter where PostgreSQL sees none", hint="write it without quotes around `:name`"
        )
    types = tuple(found.param_type(at) for at in range(found.nparams))
    columns = tuple((found.fname(at) or b"").decode() for at in range(found.nfields))
    given = [found.ftype(at) for at in range(found.nfields)]
    _require_columns(name, columns, given)
    shown = ", ".join(_shown(column, kind) for column, kind in zip(columns, given, strict=True))
    whole = (
        f"{before}SELECT CASE WHEN size <= {max_bytes} THEN line END FROM ("  # noqa: S608  # as above
        "SELECT line, sum(octet_length(line) + 1) OVER (ROWS UNBOUNDED PRECEDING) AS size FROM ("
        f"SELECT row_to_json(r.*)::text AS line FROM (SELECT {shown} FROM {source} LIMIT {max_rows + 1}) AS r"
        ") AS s) AS t"
    )
    again = _described(pgconn, name, whole, writes=writes)
    if tuple(again.param_type(at) for at in range(again.nparams)) != types:
        raise _invalid(name, "takes other parameters when it is run", hint="write a cast: `:name::text`")
    planned = pgconn.exec_params(f"EXPLAIN {whole}".encode(), [None] * len(types))  # what the role may not is said now
    if planned.status != pq.ExecStatus.TUPLES_OK:
        raise _misfit(name, planned, writes=writes)
    return Compiled(text=whole, parameters=parameters, kinds=_kinds(pgconn, name, types), columns=columns)


def bound(compiled: Compiled, arguments: dict[str, Json]) -> list[str | None]:
    """The values to send, in order; one that was not given is NULL. Raises NotBindable.

    An argument that the statement does not use is refused: it was meant to narrow something.
    """
    if not arguments.keys() <= set(compiled.parameters):
        raise NotBindable("an argument is not a parameter of the statement")
    return [
        _bindable(arguments.get(name), kind) for name, kind in zip(compiled.parameters, compiled.kinds, strict=True)
    ]


def _bindable(value: Json, kind: _Kind) -> str | None:
    """A value as text in PostgreSQL's own input syntax. A list becomes an array; objects go only into JSON."""
    if value is None:
        return None
    if kind == "json":
        return _without_nul(orjson.dumps(value).decode())
    if isinstance(value, dict) or isinstance(value, list) != (kind == "array"):
        raise NotBindable(f"an argument is a {type(value).__name__}, where the statement takes {kind}")
    if isinstance(value, list):
        if any(isinstance(item, list | dict) for item in value):
            raise NotBindable("a list holds what is no plain value")
        return "{" + ",".join(_element(item) for item in value) + "}"
    if isinstance(value, bool) != (kind == "boolean"):
        raise NotBindable(f"an argument is a {type(value).__name__}, where the statement takes {kind}")
    return _without_nul(value) if isinstance(value, str) else orjson.dumps(value).decode()


def _element(value: Json) -> str:
    if value is None:
        return "NULL"
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return '"' + _without_nul(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise NotBindable("an argument holds a NUL character, which PostgreSQL's text cannot")
    return text


def _numbered(name: str, text: str) -> tuple[str, tuple[str, ...]]:
    """The text with `$1`, `$2` for its `:name` parameters, and their names in that order."""
    places: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        if found["positional"]:
            raise _invalid(
                name,
                "has a parameter without a name",
                hint="write `:name`; a `$1` is bound by place and easily swapped",
            )
        if found["name"] is None:
            return found[0]
        return f"${places.setdefault(found['name'], len(places) + 1)}"

    if "\0" in text:
        raise _invalid(name, "holds a NUL character", hint="remove it")
    body = _LEXICAL.sub(place, text).rstrip().removesuffix(";")
    return body, tuple(places)


def _described(pgconn: pq.abc.PGconn, name: str, text: str, *, writes: bool) -> pq.abc.PGresult:
    """What PostgreSQL says of a statement that it only parsed."""
    prepared = pgconn.prepare(b"", text.encode())
    if prepared.status == pq.ExecStatus.COMMAND_OK:
        described = pgconn.describe_prepared(b"")
        if described.status == pq.ExecStatus.COMMAND_OK:
            return described
        prepared = described
    raise _misfit(name, prepared, writes=writes)


def _misfit(name: str, found: pq.abc.PGresult, *, writes: bool) -> ConfigInvalid:
    """What PostgreSQL has against a statement; its words are about the configuration's own text."""
    told = (found.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode(errors="replace")
    if "RETURNING" in told:
        return _invalid(name, "does not say what it wrote", hint="end it with RETURNING and the columns to show")
    if "syntax error" in told:
        kinds = "one INSERT, UPDATE, DELETE or MERGE with RETURNING" if writes else "one SELECT"
        return _invalid(
            name, f"is not {kinds}: {told}", hint="a tool is one statement; one that changes has `writes: true`"
        )
    return _invalid(name, f"does not fit the database: {told}", hint="mend the statement, or what the role may read")


def _kinds(pgconn: pq.abc.PGconn, name: str, types: Sequence[int]) -> tuple[_Kind, ...]:
    asked = "{" + ",".join(map(str, types)) + "}"
    found = pgconn.exec_params(
        b"SELECT t.oid FROM pg_catalog.pg_type t"
        b" WHERE t.oid = ANY ($1::pg_catalog.text::pg_catalog.oid[]) AND t.typcategory = 'A'",
        [asked.encode()],
    )
    if found.status != pq.ExecStatus.TUPLES_OK:
        raise _invalid(name, "has parameters whose types cannot be told", hint="look whether the database answers")
    arrays = {int(found.get_value(row, 0) or b"0") for row in range(found.ntuples)}
    named: dict[int, _Kind] = {_BOOLEAN: "boolean", **dict.fromkeys(_JSON, "json"), **dict.fromkeys(arrays, "array")}
    return tuple(named.get(each, "plain") for each in types)


def _require_columns(name: str, columns: Sequence[str], types: Sequence[int]) -> None:
    if not columns:
        raise _invalid(name, "gives no column", hint="name what to show")
    doubled = [column for at, column in enumerate(columns) if column in columns[:at]]
    if doubled:
        raise _invalid(name, f"gives two columns named `{doubled[0]}`", hint="name one of them with AS")
    for column, kind in zip(columns, types, strict=True):
        if kind in _BYTES:
            raise _invalid(name, f"gives bytes in `{column}`, which JSON cannot say", hint="encode(..., 'base64')")


def _shown(column: str, kind: int) -> str:
    """A column as the answer shows it: exact numbers as text, for a JSON number is read as a float by many."""
    own = 'q."' + column.replace('"', '""') + '"'
    cast = {_NUMERIC: "::text", _NUMERICS: "::text[]"}.get(kind, "")
    return f"{own}{cast} AS {own[2:]}"


def _invalid(name: str, what: str, *, hint: str) -> ConfigInvalid:
    return ConfigInvalid(f"the statement of tool `{name}` {what}", hint=hint)
