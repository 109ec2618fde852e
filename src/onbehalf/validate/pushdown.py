"""Policies read for the rows of one entity type: what can be known of a row from tables, and what is known before.

A condition is taken apart into what looks at the row (`resource`, and people that it names) and what does not. The
latter is fixed for a call: `truths` are answered by the engine itself, `values` are looked up in the caller's slice.
The former becomes SQL (pushdown_sql.py). What has no reading here is refused when policies are loaded, by name.

Nothing here decides: every row that a predicate lets through is decided again by the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import orjson

from onbehalf.errors import PolicyInvalid
from onbehalf.validate import bundle
from onbehalf.validate.bundle import Est, Policy
from onbehalf.validate.pushdown_terms import (
    And,
    Const,
    Field,
    Fixed,
    Given,
    Has,
    If,
    Is,
    Layout,
    Like,
    Node,
    Not,
    OneOf,
    Or,
    Order,
    Read,
    Rule,
    Same,
    Table,
    Term,
    Within,
)

__all__ = ["read"]


def read(policies: Sequence[Policy], layout: Layout, type_: str) -> Read:
    """The policies of an action as they speak on rows of `type_`. Raises PolicyInvalid naming policy and construct."""
    truths: list[Est] = []
    values: list[Est] = []
    rules = []
    for policy in policies:
        reader = _Reader(policy=policy.id, layout=layout, type=type_, truths=truths, values=values)
        condition: Node = Const(True)
        for part in bundle.conditions(policy.est):
            node = reader.boolean(part)
            condition = node if condition == Const(True) else And(condition, node)
        rules.append(Rule(id=policy.id, permits=policy.est["effect"] == "permit", condition=condition))
    return Read(type=type_, layout=layout, rules=tuple(rules), truths=tuple(truths), values=tuple(values))


_RESOURCE = b'{"Var":"resource"}'
_KINDS_OF_PERSON = {"tenant": "Tenant", "position": "Position", "name": "String", "active": "Bool"}
_KINDS_OF_CONTEXT = {"client": "Client", "scopes": "Set", "now": "Long", "proof": "String"}
_HIERARCHIES = frozenset({("Position", "Position"), ("User", "Group"), ("Group", "Group")})
_SUMS = frozenset({"+", "-", "*"})
_SCALARS = frozenset({"String", "Long", "Bool"})


def _looks_at_row(est: object) -> bool:
    return _RESOURCE in orjson.dumps(est)


@dataclass(slots=True, kw_only=True)
class _Reader:
    """One policy on its way to a condition. Recursion is bounded: policies nest 64 deep at most."""

    policy: str
    layout: Layout
    type: str
    truths: list[Est]
    values: list[Est] = field(default_factory=list)

    def boolean(self, est: Est) -> Node:
        if not _looks_at_row(est):
            return self._given(est)
        [(operator, body)] = est.items()
        match operator:
            case "&&":
                return And(self.boolean(body["left"]), self.boolean(body["right"]))
            case "||":
                return Or(self.boolean(body["left"]), self.boolean(body["right"]))
            case "!":
                return Not(self.boolean(body["arg"]))
            case "if-then-else":
                return If(self.boolean(body["if"]), self.boolean(body["then"]), self.boolean(body["else"]))
            case "has":
                return self._has(body)
            case "is":
                return self._is(body)
            case "like":
                return self._like(body)
            case ".":
                field_ = self._field(est)
                if field_.kind != "Bool":
                    self._refuse("an attribute that is no condition")
                return Same(field_, self._fixed({"Value": True}))
            case "contains":
                return self._contains(body)
            case _:
                return self._compared(operator, body)

    def _given(self, est: Est) -> Node:
        if isinstance(est.get("Value"), bool):
            return Const(est["Value"])
        if est not in self.truths:
            self.truths.append(est)
        return Given(self.truths.index(est))

    def _compared(self, operator: str, body: Est) -> Node:
        if operator not in ("==", "!=", "<", "<=", ">", ">=", "in"):
            self._refuse(f"`{operator}`")
        left, right = self._term(body["left"]), self._term(body["right"])
        match operator:
            case "==":
                return self._same(left, right)
            case "!=":
                return Not(self._same(left, right))
            case "in":
                return self._within(left, right)
            case _:
                if not left.kind == right.kind == "Long":
                    self._refuse(f"`{operator}` on other than whole numbers")
                if operator in ("<", "<="):
                    return Order("<" if operator == "<" else "<=", left, right)
                return Order("<" if operator == ">" else "<=", right, left)

    def _same(self, left: Term, right: Term) -> Node:
        for term in (left, right):
            if term.kind == "Set":
                self._refuse("`==` of sets")
        return Same(left, right)

    def _within(self, low: Term, high: Term) -> Node:
        if isinstance(low, Fixed) and not self._is_own(low):
            self._refuse("`in` of something other than the caller's own")
        if isinstance(low, Field) and low.kind in ("Position", "Group") and len(low.path) == 1:
            # the engine is given the people that a row names with all they are in, and nothing else that it names
            self._refuse(f"`in` of a {low.kind} that the row names by itself; go by a person's")
        kinds = self._members(high) if high.kind == "Set" else [high.kind]
        for kind in kinds:
            if isinstance(low, Field) and (low.kind, kind) in _HIERARCHIES - self.layout.closures.keys():
                self._refuse(f"`in` of {low.kind} and {kind}, whose hierarchy has no table")
        return Within(low, high)

    def _members(self, high: Term) -> list[str]:
        assert isinstance(high, Fixed)  # INVARIANT: a column is no set
        found = self.values[high.at].get("Set")
        if found is None:
            found = [{"Value": each} for each in self.values[high.at].get("Value", ())]
        kinds = [self._kind(each) for each in found]
        if any(kind in _SCALARS or kind == "Set" for kind in kinds):
            self._refuse("`in` of a set that is not of entities")
        return kinds

    def _is_own(self, term: Fixed) -> bool:
        return self.values[term.at] == {"Var": "principal"} or "." in self.values[term.at]

    def _contains(self, body: Est) -> Node:
        if _looks_at_row(body["left"]) or not _looks_at_row(body["right"]):
            self._refuse("`contains` on a set of the row")
        return OneOf(self._fixed(body["left"]), self._field(body["right"]))

    def _has(self, body: Est) -> Node:
        of, attribute = self._field(body["left"]), body["attr"]
        if attribute == "tenant":
            return Is(of, of.kind)  # every entity of a mapped type has one
        if attribute not in self._table(of.kind).attributes:
            self._refuse(f"`has {attribute}`: no column is mapped for it")
        return Has(of, attribute)

    def _is(self, body: Est) -> Node:
        term = self._field(body["left"])
        found: Node = Is(term, body["entity_type"])
        if "in" in body:
            found = And(found, self._within(term, self._fixed(body["in"])))
        return found

    def _like(self, body: Est) -> Node:
        term = self._field(body["left"])
        if term.kind != "String":
            self._refuse("`like` on other than text")
        return Like(term, tuple(None if each == "Wildcard" else each["Literal"] for each in body["pattern"]))

    def _term(self, est: Est) -> Term:
        return self._field(est) if _looks_at_row(est) else self._fixed(est)

    def _field(self, est: Est) -> Field:
        if est == {"Var": "resource"}:
            return Field((), self.type)
        if "." not in est:
            self._refuse(f"`{next(iter(est))}` on what the row holds")
        of, attribute = self._field(est["."]["left"]), est["."]["attr"]
        table = self._table(of.kind)
        if attribute == "tenant":
            return Field((*of.path, "tenant"), "Tenant")
        if attribute not in table.attributes:
            self._refuse(f"attribute `{attribute}` of {of.kind}: no column is mapped for it")
        return Field((*of.path, attribute), table.attributes[attribute].kind)

    def _table(self, type_: str) -> Table:
        found = self.layout.tables.get(type_)
        if found is None:
            self._refuse(f"attributes of {type_}, which has no table")
        return found

    def _fixed(self, est: Est) -> Fixed:
        kind = self._kind(est)
        if est not in self.values:
            self.values.append(est)
        return Fixed(self.values.index(est), kind)

    def _kind(self, est: Est) -> str:
        """Of a term that does not look at the row: `String`, `Long`, `Bool`, `Set`, or an entity type."""
        [(operator, body)] = est.items()
        if operator == "Value":
            return self._kind_of_literal(body)
        if est == {"Var": "principal"}:
            return "User"
        if operator == "Set":
            for each in body:
                self._kind(each)
            return "Set"
        if operator in _SUMS and self._kind(body["left"]) == self._kind(body["right"]) == "Long":
            return "Long"
        if operator == "neg" and self._kind(body["arg"]) == "Long":
            return "Long"
        if operator == ".":
            return self._kind_of_path(body)
        self._refuse(f"`{operator}` beside what the row holds")

    def _kind_of_path(self, body: Est) -> str:
        left, attribute = body["left"], body["attr"]
        if left == {"Var": "context"}:
            kind = _KINDS_OF_CONTEXT.get(attribute)
        elif attribute == "tenant" and "context" not in str(left):
            kind = "Tenant"
        else:
            kind = _KINDS_OF_PERSON.get(attribute) if left == {"Var": "principal"} else None
        if kind is None:
            self._refuse(f"`.{attribute}` of {next(iter(left))}")
        return kind

    def _kind_of_literal(self, value: object) -> str:
        if isinstance(value, bool):
            return "Bool"
        if isinstance(value, int):
            return "Long"
        if isinstance(value, str):
            return "String"
        if isinstance(value, list):
            return "Set"
        if isinstance(value, dict) and "__entity" in value:
            return str(value["__entity"]["type"])
        self._refuse("a literal of another kind")

    def _refuse(self, what: str) -> NoReturn:
        raise PolicyInvalid(
            f"policy `{self.policy}` cannot be asked of {self.type} in SQL: {what}",
            hint="say it another way, map the column or table, or leave the tool's rows unscoped",
        )
