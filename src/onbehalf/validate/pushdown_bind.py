"""What a predicate's text depends on of the values of a call, and how each bound value is had from them.

Values of one shape have one text: so a text is made once, and a call only binds. Must not know SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from onbehalf.model import Json, Question, Ref
from onbehalf.validate.bundle import Est
from onbehalf.validate.pushdown_values import Missing, Value, value_of

__all__ = ["Bound", "id_at", "local_id", "number_at", "resolved", "shape_of", "tenant_of", "value_at", "whole_number"]

Bound: TypeAlias = Callable[[Sequence[Value | Missing], Question], Json]


def resolved(est: Est, question: Question) -> Value | Missing:
    try:
        return value_of(est, question)
    except Missing as error:
        return error


def tenant_of(question: Question) -> str:
    return question.principal.id.partition("/")[0]


def local_id(ref: Ref, tenant: str) -> str | None:
    """The id within the caller's tenant, None for what is not of it."""
    own, slash, local = ref.id.partition("/")
    if ref.type == "Tenant":
        return ref.id if ref.id == tenant else None
    return local if slash and own == tenant and local else None


def shape_of(value: Value | Missing, tenant: str) -> object:
    """All of a value that the text depends on."""
    if isinstance(value, Ref):
        local = local_id(value, tenant)
        return value.type, local is not None, local is not None and whole_number(local) is not None
    if isinstance(value, list):
        return ("list", *sorted({str(shape_of(each, tenant)) for each in value}))
    return type(value).__name__


def whole_number(text: str) -> int | None:
    """The integer that an id spells in the one way that integers are spelled, else None."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 19 or str(int(text)) != text:
        return None
    return int(text) if -(2**63) <= int(text) < 2**63 else None


def value_at(at: int, item: int | None = None) -> Bound:
    def bound(values: Sequence[Value | Missing], _: Question) -> Json:
        value = _item(values[at], item)
        assert isinstance(value, str | int | bool)  # INVARIANT: the shape says so
        return value

    return bound


def id_at(at: int, item: int | None = None) -> Bound:
    def bound(values: Sequence[Value | Missing], question: Question) -> Json:
        value = _item(values[at], item)
        assert isinstance(value, Ref)  # INVARIANT: the shape says so
        return local_id(value, tenant_of(question))

    return bound


def number_at(at: int, item: int | None = None) -> Bound:
    text = id_at(at, item)
    return lambda values, question: whole_number(str(text(values, question)))


def _item(value: Value | Missing, item: int | None) -> Value | Missing:
    if item is None:
        return value
    assert isinstance(value, list)  # INVARIANT: the shape says so
    return value[item]
