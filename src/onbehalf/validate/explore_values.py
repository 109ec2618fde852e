"""How each kind of value in a model's SELECT is written anew. A kind that is not in `WRITE` is refused.

Each function says which parts of its node it knows; any other part is refused by name. Must not know queries or tables
(explore_write.py), or which words there are (explore_words.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sqlglot import exp

from onbehalf.validate.explore_words import CASTS, FIELDS, OPERATORS, PLAIN_FUNCTIONS, known, refused

if TYPE_CHECKING:
    from onbehalf.validate.explore_write import Writer

__all__ = ["WRITE"]

_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")


def _column(writer: Writer, node: exp.Expression) -> str:
    known(node, "this", "table")
    name = writer.column(writer.name(node.args["this"]))
    return f'"{writer.name(node.args["table"])}".{name}' if node.args.get("table") is not None else name


def _literal(writer: Writer, node: exp.Expression) -> str:
    known(node, "this", "is_string")
    text = str(node.args["this"])
    if node.args.get("is_string"):
        if "\0" in text:
            raise refused("a text holds a NUL character")
        return writer.bind(text)
    if not _NUMBER.fullmatch(text):
        raise refused("a number has up to 18 digits, and 18 after the point")
    return text


def _operator(writer: Writer, node: exp.Expression) -> str:
    known(node, "this", "expression", "typed", "safe")
    if isinstance(node, exp.DPipe):
        writer.joined()
    one, other = writer.expression(node.args["this"]), writer.expression(node.args["expression"])
    return f"({one} {OPERATORS[type(node)]} {other})"


def _like(writer: Writer, node: exp.Expression) -> str:
    known(node, "this", "expression")
    if isinstance(node, exp.ILike) and writer.dialect != "postgres":
        raise refused("there is no ILIKE here", "LIKE ignores the case of A to Z")
    word = "ILIKE" if isinstance(node, exp.ILike) else "LIKE"
    return f"({writer.expression(node.args['this'])} {word} {writer.expression(node.args['expression'])})"


def _is(writer: Writer, node: exp.Expression) -> str:
    known(node, "this", "expression", "negate")
    if not isinstance(node.args["expression"], exp.Null | exp.Boolean):
        raise refused("IS is for NULL, TRUE and FALSE")
    word = "IS NOT" if node.args.get("negate") else "IS"
    return f"({writer.expression(node.args['this'])} {word} {writer.expression(node.args['expression'])})"


def _in(writer: Writer, node: exp.Expression) -> str:
    known(node, "this", "expressions", "query")
    query = node.args.get("query")
    within = writer.query(query) if query is not None else writer.all(node.args["expressions"], writer.expression)
    return f"({writer.expression(node.args['this'])} IN ({within}))"


def _between(writer: Writer, node: exp.Expression) -> str:
    known(node, "this", "low", "high")
    one, low, high = (writer.expression(node.args[part]) for part in ("this", "low", "high"))
    return f"({one} BETWEEN {low} AND {high})"


def _case(writer: Writer, node: exp.Expression) -> str:
    known(node, "this", "ifs", "default")
    text = "CASE"
    if node.args.get("this") is not None:
        text += f" {writer.expression(node.args['this'])}"
    for each in node.args["ifs"]:
        known(each, "this", "true")
        text += f" WHEN {writer.expression(each.args['this'])} THEN {writer.expression(each.args['true'])}"
    if node.args.get("default") is not None:
        text += f" ELSE {writer.expression(node.args['default'])}"
    return f"{text} END"


def _cast(writer: Writer, node: exp.Expression) -> str:
    known(node, "this", "to")
    to = node.args["to"]
    known(to, "this", "nested")
    kind = CASTS[writer.dialect].get(getattr(to.args.get("this"), "name", ""))
    if kind is None:
        raise refused("a value cannot be cast to that type", "text, integer, numeric, boolean and date serve")
    return f"CAST({writer.expression(node.args['this'])} AS {kind})"


def _count(writer: Writer, node: exp.Expression) -> str:
    known(node, "this", "big_int")
    what = node.args.get("this")
    if isinstance(what, exp.Star):
        known(what)
        return "count(*)"
    if isinstance(what, exp.Distinct):
        known(what, "expressions")
        if len(what.args.get("expressions") or ()) != 1:
            raise refused("count(DISTINCT …) counts one value")
        return f"count(DISTINCT {writer.expression(what.args['expressions'][0])})"
    return f"count({writer.expression(what)})"


def _function(writer: Writer, node: exp.Expression) -> str:
    name, parts, more = PLAIN_FUNCTIONS[type(node)]
    known(node, *parts, *((more,) if more else ()))
    given = [node.args[part] for part in parts if node.args.get(part) is not None]
    given += (node.args.get(more) or []) if more else []
    return f"{name}({', '.join(map(writer.expression, given))})"


def _extract(writer: Writer, node: exp.Expression) -> str:
    known(node, "this", "expression")
    field = str(node.args["this"].name if isinstance(node.args["this"], exp.Var) else "").lower()
    if writer.dialect != "postgres" or field not in FIELDS:
        raise refused("this part of a date cannot be taken", "dates are texts in SQLite: substr(day, 1, 4)")
    return f"extract({field} FROM {writer.expression(node.args['expression'])})"


def _not(writer: Writer, node: exp.Expression) -> str:
    known(node, "this")
    return f"(NOT {writer.expression(node.args['this'])})"


def _negative(writer: Writer, node: exp.Expression) -> str:
    known(node, "this")
    return f"(- {writer.expression(node.args['this'])})"


def _bracketed(writer: Writer, node: exp.Expression) -> str:
    known(node, "this")
    return f"({writer.expression(node.args['this'])})"


def _scalar(writer: Writer, node: exp.Expression) -> str:
    known(node, "this")
    return f"({writer.query(node.args['this'])})"


def _exists(writer: Writer, node: exp.Expression) -> str:
    return f"EXISTS {_scalar(writer, node)}"


def _boolean(writer: Writer, node: exp.Expression) -> str:
    known(node, "this")
    return "TRUE" if node.args.get("this") else "FALSE"


def _null(writer: Writer, node: exp.Expression) -> str:
    known(node)
    return "NULL"


WRITE: Mapping[type[exp.Expression], Callable[[Writer, exp.Expression], str]] = {
    **dict.fromkeys(OPERATORS, _operator), **dict.fromkeys(PLAIN_FUNCTIONS, _function), exp.Column: _column,
    exp.Literal: _literal, exp.Like: _like, exp.ILike: _like, exp.Is: _is, exp.In: _in, exp.Between: _between,
    exp.Case: _case, exp.Cast: _cast, exp.Count: _count, exp.Extract: _extract, exp.Not: _not, exp.Neg: _negative,
    exp.Paren: _bracketed, exp.Subquery: _scalar, exp.Exists: _exists, exp.Boolean: _boolean, exp.Null: _null,
}  # fmt: skip
