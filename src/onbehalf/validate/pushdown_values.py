"""What is fixed for a call, looked up in the question: attributes of the caller, the context, literals, sums.

As the engine would: what is missing or overflows is an error and not a value. Must not know SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from onbehalf.model import Json, Question, Ref
from onbehalf.validate.bundle import Est

__all__ = ["Missing", "Value", "ancestors", "value_of"]

Value: TypeAlias = Json | Ref | list[Json | Ref] | Mapping[str, Json | Ref]
_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1


class Missing(Exception):
    """The engine would err here."""


def value_of(est: Est, question: Question) -> Value:
    """The value of a term in Cedar's JSON, in this question. Raises Missing."""
    [(operator, body)] = est.items()
    match operator:
        case "Value":
            return _literal(body)
        case "Var":
            return question.principal if body == "principal" else question.context
        case "Set":
            return [_plain(value_of(each, question)) for each in body]
        case ".":
            return _attribute(value_of(body["left"], question), body["attr"], question)
        case "neg":
            return _bounded(-_long(value_of(body["arg"], question)))
        case "+" | "-" | "*":
            left, right = (_long(value_of(body[side], question)) for side in ("left", "right"))
            return _bounded(left + right if operator == "+" else left - right if operator == "-" else left * right)
        case _:
            raise Missing(operator)


def ancestors(ref: Ref, question: Question) -> frozenset[Ref]:
    """`ref` and all that it is in, by the question's entities."""
    parents = {entity.ref: entity.parents for entity in question.entities}
    found, open_ = {ref}, [ref]
    while open_:
        for parent in parents.get(open_.pop(), ()):
            if parent not in found:
                found.add(parent)
                open_.append(parent)
    return frozenset(found)


def _literal(body: Json) -> Value:
    if isinstance(body, dict) and isinstance(inner := body.get("__entity"), dict):
        return Ref(type=str(inner["type"]), id=str(inner["id"]))
    if isinstance(body, list):
        return [_plain(_literal(each)) for each in body]
    return body


def _attribute(of: Value, name: str, question: Question) -> Value:
    if isinstance(of, Ref):
        entity = next((each for each in question.entities if each.ref == of), None)
        if entity is None or name not in entity.attributes:
            raise Missing(name)
        return entity.attributes[name]
    if isinstance(of, Mapping) and name in of:
        return of[name]
    raise Missing(name)


def _plain(value: Value) -> Json | Ref:
    if isinstance(value, Ref | str | int | bool):
        return value
    raise Missing("a set within a set")


def _long(value: Value) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Missing("not a whole number")
    return value


def _bounded(number: int) -> int:
    if not _LONG_MIN <= number <= _LONG_MAX:
        raise Missing("overflow")
    return number
