"""Whether a condition can err on a readable row: where it cannot, a predicate need not ask whether it did.

What Cedar's strict validation proves is found again here, as far as it goes: an attribute that may be missing was asked
for with `has`. Where this says no, more is asked than needed; it must never say yes wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onbehalf.validate.pushdown_terms import (
    And,
    Const,
    Field,
    Fixed,
    Given,
    Has,
    If,
    Is,
    Like,
    Node,
    Not,
    OneOf,
    Or,
    Order,
    Read,
    Same,
    Term,
    Within,
)
from onbehalf.validate.pushdown_values import Missing, Value

__all__ = ["Sure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sure:
    """What is known of a call: the truths and values of what is fixed in it."""

    read: Read
    truths: Sequence[bool | None]
    values: Sequence[Value | Missing]

    def holds(self, node: Node) -> bool:
        """Whether this cannot err on any readable row."""
        return self._sure(node, frozenset())

    def _fixed(self, node: Node) -> bool | None:
        """The truth of a condition that is fixed, None for others."""
        match node:
            case Const(value):
                return value
            case Given(at):
                return self.truths[at]
            case _:
                return None

    def _sure(self, node: Node, known: frozenset[tuple[str, ...]]) -> bool:
        """Whether a condition cannot err on a readable row, `known` being paths that were asked for with `has`."""
        match node:
            case Const():
                return True
            case Given(at):
                return self.truths[at] is not None
            case Not(inner):
                return self._sure(inner, known)
            case And(left, right):
                return self._sure(left, known) and (
                    self._fixed(left) is False or self._sure(right, known | _asked(left))
                )
            case Or(left, right):
                return self._sure(left, known) and (self._fixed(left) is True or self._sure(right, known))
            case If(test, then, other):
                return self._sure(test, known) and self._sure(then, known | _asked(test)) and self._sure(other, known)
            case Has(of, _):
                return self._there_for_sure(of, known)
            case _:
                return all(self._term_sure(term, known) for term in _terms(node))

    def _term_sure(self, term: Term, known: frozenset[tuple[str, ...]]) -> bool:
        if isinstance(term, Fixed):
            return not isinstance(self.values[term.at], Missing)
        return self._there_for_sure(term, known)

    def _there_for_sure(self, term: Field, known: frozenset[tuple[str, ...]]) -> bool:
        table = self.read.layout.tables[self.read.type]
        for end, step in enumerate(term.path, start=1):
            if step == "tenant":
                continue
            column = table.attributes[step]
            if not (column.required or term.path[:end] in known):
                return False
            if end < len(term.path) and column.kind != "User":
                return term.path[end:] == ("tenant",)
            table = self.read.layout.tables.get(column.kind, table)
        return True


def _asked(node: Node) -> frozenset[tuple[str, ...]]:
    if isinstance(node, And):
        return _asked(node.left) | _asked(node.right)
    return frozenset({(*node.of.path, node.attribute)}) if isinstance(node, Has) else frozenset()


def _terms(node: Node) -> tuple[Term, ...]:
    match node:
        case Same(left, right) | Order(_, left, right) | Within(left, right):
            return left, right
        case OneOf(set_, term):
            return set_, term
        case Like(term, _) | Is(term, _):
            return (term,)
        case _:
            return ()
