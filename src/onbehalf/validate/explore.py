"""A model's own SELECT over some tables, of which it sees the rows that the policies let this person see.

Read by sqlglot, written anew from few words (explore_write.py), over tables that exist only within the statement: each
holds the mapped columns of the rows under the policies' condition, and is computed before anything that the model
wrote is looked at, so that nothing it wrote, not even an error, is about another row. Values in, values out.

Not checked here, for the answer may be of sums: each row by itself. The condition and the walls below are what guards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from onbehalf.model import Explored, Json, Predicate, Tool, ToolCall
from onbehalf.validate.pushdown_sql import ALIAS, PREFIX

if TYPE_CHECKING:
    from onbehalf.validate.explore_write import Writer

__all__ = ["MAX_SQL", "described", "require_query", "schema", "statement", "trial"]

MAX_SQL = 4096
"""Characters of one query."""
_SCOPE = re.compile(rf":{PREFIX}([0-9]+)")
_NESTED = 40
_OPENING = re.compile(r"[(\[{]|\b(?:case|not|select)\b|[-+~]", re.IGNORECASE)
_MAX_OPENING = 300


def schema() -> dict[str, Json]:
    """What the model may send."""
    sql: dict[str, Json] = {
        "type": "string", "maxLength": MAX_SQL,
        "description": "One SELECT over the tables of this tool: joins, groups, sums, sub-selects and WITH serve.",
    }  # fmt: skip
    return {"type": "object", "properties": {"sql": sql}, "required": ["sql"], "additionalProperties": False}


def described(tool: Tool) -> str:
    """The tool's own words, and what is in its tables."""
    assert tool.explores is not None
    tables = "; ".join(f"{name}({', '.join(each.columns)})" for name, each in sorted(tool.explores.tables.items()))
    return f"{tool.description} Tables, with the rows that you may see: {tables}.".strip()


def trial(tables: Mapping[str, Explored]) -> str:
    """A statement that reads every mapped column, for being tried when a gateway starts, and never for a call."""
    reads = " AND ".join(f"EXISTS (SELECT {_columns(each)} FROM {each.table} AS {ALIAS})" for each in tables.values())  # noqa: S608  # of the configuration
    return f"SELECT 1 AS one WHERE {reads}"  # as above


def require_query(call: ToolCall) -> None:
    """Refuse what is no query that may be asked. Raises ArgumentsRefused."""
    if call.tool.explores is not None:
        _read(call)


def statement(call: ToolCall, conditions: Mapping[str, Predicate]) -> Predicate:
    """The whole statement to run, with what it binds. `conditions` are those of the person on each table's rows."""
    explores = call.tool.explores
    assert explores is not None  # INVARIANT: only an exploring tool is asked this
    writer, common, query = _read(call)
    parameters: dict[str, Json] = dict(writer.parameters)
    tables: list[str] = []
    for number, name in enumerate(writer.used):
        condition, each = conditions[name], explores.tables[name]
        where = _SCOPE.sub(rf":{PREFIX}{number}_\1", condition.sql)
        parameters |= {f"{PREFIX}{number}_{key[len(PREFIX) :]}": value for key, value in condition.parameters.items()}
        # a limit of no effect keeps SQLite from looking at what the model wrote before the condition
        fence = " LIMIT -1 OFFSET 0" if explores.dialect == "sqlite" else " OFFSET 0"
        body = f"SELECT {_columns(each)} FROM {each.table} AS {ALIAS} WHERE {where}{fence}"  # noqa: S608  # no values in it
        tables.append(f'"onbehalf_{name}" AS MATERIALIZED ({body})')
    before = [*tables, *common]
    return Predicate(sql=f"WITH {', '.join(before)} {query}" if before else query, parameters=parameters)


def _columns(table: Explored) -> str:
    # named with their table: what stands alone in double quotes and is no column is a text to SQLite
    return ", ".join(f'{ALIAS}."{each}"' for each in table.columns)


def _read(call: ToolCall) -> tuple[Writer, list[str], str]:
    # with these comes a parser of ten megabytes, which a gateway whose tools explore nothing does without
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    from onbehalf.validate.explore_words import refused
    from onbehalf.validate.explore_write import Writer

    explores = call.tool.explores
    assert explores is not None  # INVARIANT: as above
    sql = str(orjson.loads(call.arguments)["sql"])
    if len(sql) > MAX_SQL or len(_OPENING.findall(sql)) > _MAX_OPENING or _nesting(sql) > _NESTED:
        raise refused("it is too long or nested too deep")
    try:
        found = sqlglot.parse(sql, dialect=explores.dialect, error_level=sqlglot.ErrorLevel.RAISE)
    except (SqlglotError, RecursionError, ValueError, AttributeError, TypeError, KeyError, IndexError) as error:
        raise refused("it cannot be read") from error
    trees = [each for each in found if each is not None]
    if len(trees) != 1 or not isinstance(trees[0], exp.Select | exp.Union | exp.Intersect | exp.Except):
        raise refused("it is not one SELECT")
    writer = Writer(explores.dialect, {name: each.columns for name, each in explores.tables.items()})
    try:
        common, query = writer.statement(trees[0])
    except RecursionError as error:
        raise refused("it is nested too deep") from error
    return writer, common, query


def _nesting(sql: str) -> int:
    """How deep brackets go, counted also where they are within texts: too many is refused either way."""
    deepest = depth = 0
    for char in sql:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest
