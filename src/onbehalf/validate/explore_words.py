"""The words that may stand in a model's SELECT: operators, functions and types; and how what is not here is refused.

None of them reads anything but its arguments, writes, waits, repeats a text, or says which database it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sqlglot import exp

from onbehalf.errors import ArgumentsRefused
from onbehalf.validate.pushdown_sql import Dialect

__all__ = ["CASTS", "FIELDS", "OPERATORS", "PLAIN_FUNCTIONS", "kind", "known", "refused"]

OPERATORS: Mapping[type[exp.Expression], str] = {
    exp.EQ: "=", exp.NEQ: "<>", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<=", exp.And: "AND", exp.Or: "OR",
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%", exp.DPipe: "||",
}  # fmt: skip

PLAIN_FUNCTIONS: Mapping[type[exp.Expression], tuple[str, tuple[str, ...], str]] = {
    exp.Lower: ("lower", ("this",), ""), exp.Upper: ("upper", ("this",), ""), exp.Length: ("length", ("this",), ""),
    exp.Substring: ("substr", ("this", "start", "length"), ""), exp.Trim: ("trim", ("this",), ""),
    exp.Coalesce: ("coalesce", ("this",), "expressions"), exp.Nullif: ("nullif", ("this", "expression"), ""),
    exp.Abs: ("abs", ("this",), ""), exp.Round: ("round", ("this", "decimals"), ""), exp.Sum: ("sum", ("this",), ""),
    exp.Avg: ("avg", ("this",), ""), exp.Min: ("min", ("this",), ""), exp.Max: ("max", ("this",), ""),
}  # fmt: skip
"""Each with the parts that are its arguments, in order, and the part that holds any number more."""

FIELDS = frozenset({"year", "quarter", "month", "week", "day", "dow", "hour", "minute"})

_POSTGRES = {
    "TEXT": "text", "VARCHAR": "text", "INT": "integer", "BIGINT": "bigint", "DOUBLE": "double precision",
    "DECIMAL": "numeric", "BOOLEAN": "boolean", "DATE": "date",
}  # fmt: skip
_SQLITE = {
    "TEXT": "TEXT", "VARCHAR": "TEXT", "INT": "INTEGER", "BIGINT": "INTEGER", "DOUBLE": "REAL", "FLOAT": "REAL",
    "DECIMAL": "REAL",
}  # fmt: skip

CASTS: Mapping[Dialect, Mapping[str, str]] = {"postgres": _POSTGRES, "sqlite": _SQLITE}


def refused(what: str, hint: str = "ask with one plain SELECT over the tables of this tool") -> ArgumentsRefused:
    """Why a query is not taken, in words for the model: what it wrote itself, and nothing of any row."""
    return ArgumentsRefused(f"`sql`: {what}", hint=hint)


def known(node: exp.Expression | None, *parts: str) -> None:
    """Raises ArgumentsRefused where a node has a part that is not known here: what nobody writes must not be lost."""
    if node is None:
        raise refused("something is missing")
    for name, value in node.args.items():
        if name not in parts and value not in (None, False, [], ""):
            raise refused(f"{name.rstrip('_').replace('_', ' ')} of {kind(node)} may not stand here")


def kind(node: object) -> str:
    """A node in words: what the model wrote, as far as that is a plain name."""
    if isinstance(node, exp.Anonymous):
        return f"the function `{re.sub(r'[^A-Za-z0-9_]', '?', str(node.this))[:40]}`"
    return type(node).__name__ if node is not None else "nothing"
