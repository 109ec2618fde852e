"""The predicate that lets through exactly the rows that the policies allow, for PostgreSQL and SQLite.

Every condition becomes two: SQL for "is true" and SQL for "is false"; where neither holds, the engine errs. No NOT
stands over what may be NULL, so SQL's NULL is the engine's error, and a forbid that errs lets nothing through. Values
are bound, never text. What is fixed for a call folds away first, so a rule on the caller alone costs the database
nothing; the text for one way of folding is made once.

Relies on the tenant wall being among the policies: only rows of the caller's tenant are let through, so entities are
compared by their ids within it. Not checked: that tables and directory say the same, which the engine sees afterwards.
"""

# ruff: noqa: S608  # names come from the configuration and are quoted, values are bound
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from onbehalf.errors import PolicyInvalid
from onbehalf.model import Json, Predicate, Question, Ref
from onbehalf.validate.pushdown_bind import (
    Bound,
    id_at,
    local_id,
    number_at,
    resolved,
    shape_of,
    tenant_of,
    value_at,
    whole_number,
)
from onbehalf.validate.pushdown_rails import Joined, Rail, every, glob, like, quoted, some, text_of
from onbehalf.validate.pushdown_sure import Sure
from onbehalf.validate.pushdown_terms import (
    And,
    Closure,
    Column,
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
    Table,
    Term,
    Within,
)
from onbehalf.validate.pushdown_values import Missing, Value, ancestors

__all__ = ["ALIAS", "PREFIX", "SCOPE_MARK", "Dialect", "Pushdown"]

Dialect: TypeAlias = Literal["sqlite", "postgres"]
Rails: TypeAlias = tuple[Rail, Rail]

ALIAS = "scoped"
_WALL = "wall:tenant"
SCOPE_MARK = "{scope}"
"""Where the condition goes in a statement that writes; one that reads is wrapped."""
PREFIX = "scope_"
_PARAMETER = re.compile(f":({PREFIX}[0-9]+)")
_MAX_ID = 512
_NEITHER: Rails = (False, False)


class Pushdown:
    """All policies of an action on the rows of one type, for one database. Made at load; texts are kept."""

    def __init__(self, read: Read, dialect: Dialect) -> None:
        """Raises PolicyInvalid where the wall, or a table that rows refer to, is missing."""
        if not any(rule.id == _WALL and not rule.permits for rule in read.rules):
            raise PolicyInvalid("the tenant wall is not among the policies")
        if "User" not in read.layout.tables and any(
            column.kind == "User" for column in read.layout.tables[read.type].attributes.values()
        ):
            raise PolicyInvalid(f"rows of {read.type} name people, whose table is not mapped")
        self.read = read
        self._dialect: Dialect = dialect
        self._kept: dict[tuple[object, ...], tuple[str, dict[str, Bound]]] = {}

    def predicate(self, truths: Sequence[bool | None], question: Question) -> Predicate:
        """The predicate for one caller and moment. `truths` are the engine's answers to `read.truths`, None an error.

        `question` is any question of this call; its resource is not looked at.
        """
        values = [resolved(each, question) for each in self.read.values]
        tenant = tenant_of(question)
        shape = (*truths, *(shape_of(value, tenant) for value in values))
        if shape not in self._kept:
            writer = _Writer(read=self.read, dialect=self._dialect, truths=truths, values=values, tenant=tenant)
            text = text_of(writer.whole())
            used = set(_PARAMETER.findall(text))  # what folded away is not bound
            self._kept[shape] = (text, {name: writer.bound[int(name[len(PREFIX) :])] for name in used})
        text, bound = self._kept[shape]
        parameters = {name: each(values, question) for name, each in bound.items()}
        return Predicate(sql=text, parameters=parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a term lies: `sql` under the last of `joins`, each an alias with its table and how it is found."""

    sql: str
    kind: str
    storage: str
    joins: tuple[tuple[str, Table, str, str], ...]


@dataclass(slots=True, kw_only=True)
class _Writer:
    """One text in the making. `bound` says, for each parameter, how its value is had from those of a call."""

    read: Read
    dialect: Dialect
    truths: Sequence[bool | None]
    values: Sequence[Value | Missing]
    tenant: str
    bound: list[Bound] = field(default_factory=list)
    own: str = ""

    def whole(self) -> Rail:
        """Readable, and permitted by one, and forbidden by none, and with no error in any."""
        permits, others = [], []
        sure = Sure(read=self.read, truths=self.truths, values=self.values)
        for rule in self.read.rules:
            true, false = self.rails(rule.condition)
            if rule.permits:
                permits.append(true)
                if not sure.holds(rule.condition):
                    others.append(some(true, false))
            else:
                others.append(false)
        return every(*others, some(*permits), *self._readable())

    def _readable(self) -> list[Rail]:
        """What a row must be for the engine to look at it: its ids are ids, and those it names are known."""
        table = self.read.layout.tables[self.read.type]
        found: list[Rail] = [self._is_id(f"{ALIAS}.{quoted(table.id)}")]
        for column in table.attributes.values():
            name = f"{ALIAS}.{quoted(column.name)}"
            fit = self._fits(name, column)
            found.append(every(f"{name} IS NOT NULL", fit) if column.required else some(f"{name} IS NULL", fit))
        return found

    def _fits(self, name: str, column: Column) -> Rail:
        if column.kind == "Long":
            return True if self.dialect == "postgres" else f"typeof({name}) = 'integer'"
        if column.kind == "String":
            return True if self.dialect == "postgres" else f"typeof({name}) = 'text'"
        if column.kind == "Bool":
            return self.dialect == "postgres"  # SQLite has none
        known = self._exists_user(name) if column.kind == "User" else True
        return every(self._is_id(name), known)

    def _is_id(self, name: str) -> Rail:
        if self.dialect == "postgres":
            return f"length(CAST({name} AS text)) BETWEEN 1 AND {_MAX_ID}"
        return f"(typeof({name}) IN ('text', 'integer') AND length({name}) BETWEEN 1 AND {_MAX_ID})"

    def _exists_user(self, name: str) -> Rail:
        table = self.read.layout.tables["User"]
        own = f"{quoted(table.name)} AS known"
        tenant = self._own_tenant("known", table)
        return f"EXISTS (SELECT 1 FROM {own} WHERE {tenant} AND known.{quoted(table.id)} = {name})"

    def _own_tenant(self, alias: str, table: Table | Closure) -> str:
        if not self.own:
            self.own = self._parameter(lambda _, question: tenant_of(question), "text")
        return f"{alias}.{quoted(table.tenant)} = {self.own}"

    # --- rails --------------------------------------------------------------------------------

    def rails(self, node: Node) -> Rails:
        """SQL for "is true" and for "is false"."""
        match node:
            case Const(value):
                return value, not value
            case Given(at):
                return _NEITHER if self.truths[at] is None else (bool(self.truths[at]), not self.truths[at])
            case Not(inner):
                true, false = self.rails(inner)
                return false, true
            case And(left, right):
                (true, false), (also, other) = self.rails(left), self.rails(right)
                return every(true, also), some(false, every(true, other))
            case Or(left, right):
                (true, false), (also, other) = self.rails(left), self.rails(right)
                return some(true, every(false, also)), every(false, other)
            case If(test, then, other_):
                (yes, no), (one, not_one), (two, not_two) = map(self.rails, (test, then, other_))
                return some(every(yes, one), every(no, two)), some(every(yes, not_one), every(no, not_two))
            case _:
                return self._leaf(node)

    def _leaf(self, node: Node) -> Rails:
        match node:
            case Same(left, right):
                return self._same(left, right)
            case Order(sign, left, right):
                return self._ordered(sign, left, right)
            case Has(of, attribute):
                found = self._place(Field((*of.path, attribute), ""))
                return self._where([found], f"{found.sql} IS NOT NULL"), self._where(
                    [found], f"{found.sql} IS NULL", True
                )
            case Is(term, type_):
                there: Rail = True if not term.path else self._there(self._place(term))
                return (there, False) if term.kind == type_ else (False, there)
            case Within(low, high):
                return self._within(low, high)
            case OneOf(set_, term):
                return self._one_of(set_, term)
            case Like(term, pattern):
                return self._like(self._place(term), pattern)
            case _:
                raise AssertionError(node)

    def _there(self, place: _Place) -> Rail:
        return self._where([place], f"{place.sql} IS NOT NULL")

    def _same(self, left: Term, right: Term) -> Rails:
        if isinstance(left, Fixed) and isinstance(right, Field):
            left, right = right, left
        assert isinstance(left, Field)  # INVARIANT: what is fixed on both sides is a truth
        one = self._place(left)
        if isinstance(right, Field):
            two = self._place(right)
            if one.kind != two.kind:
                return False, every(self._there(one), self._there(two))
            a, b = self._comparable(one), self._comparable(two)
            return self._where([one, two], f"{a} = {b}"), self._where([one, two], f"{a} <> {b}", True)
        value = self.values[right.at]
        if isinstance(value, Missing):
            return _NEITHER
        return self._equal(one, value, right.at)

    def _equal(self, place: _Place, value: Value, at: int, item: int | None = None) -> Rails:
        bound = self._operand(place, value, at, item)
        if bound is None:
            return False, self._there(place)
        name = self._exact(place)
        return self._where([place], f"{name} = {bound}"), self._where([place], f"{name} <> {bound}", True)

    def _ordered(self, sign: str, left: Term, right: Term) -> Rails:
        places, sides = [], []
        for term in (left, right):
            if isinstance(term, Field):
                places.append(self._place(term))
                sides.append(places[-1].sql)
            elif isinstance(self.values[term.at], Missing):
                return _NEITHER
            else:
                sides.append(self._parameter(value_at(term.at), "bigint"))
        contrary = ">=" if sign == "<" else ">"
        return (
            self._where(places, f"{sides[0]} {sign} {sides[1]}"),
            self._where(places, f"{sides[0]} {contrary} {sides[1]}", True),
        )

    def _one_of(self, set_: Fixed, term: Field) -> Rails:
        value = self.values[set_.at]
        if isinstance(value, Missing):
            return _NEITHER
        assert isinstance(value, list)  # INVARIANT: the policies were validated strictly
        return self._any_of(
            [self._equal(self._place(term), each, set_.at, number) for number, each in enumerate(value)], term
        )

    def _any_of(self, found: list[Rails], term: Field) -> Rails:
        there = self._there(self._place(term)) if term.path else True
        return some(*(true for true, _ in found)), every(there, *(false for _, false in found))

    def _within(self, low: Term, high: Term) -> Rails:
        if isinstance(low, Fixed):
            return self._own_within(low, high)
        if isinstance(high, Field):
            one, two = self._place(low), self._place(high)
            return self._linked(one, two.kind, two, self._comparable(two))
        value = self.values[high.at]
        if isinstance(value, Missing):
            return _NEITHER
        if not isinstance(value, list):
            return self._below(low, value, high.at, None)
        return self._any_of([self._below(low, each, high.at, number) for number, each in enumerate(value)], low)

    def _below(self, low: Field, value: Value, at: int, item: int | None) -> Rails:
        assert isinstance(value, Ref)  # INVARIANT: the policies were validated strictly
        place = self._place(low)
        closure = self.read.layout.closures.get((low.kind, value.type))
        bound = self._local_parameter(value, at, item) if local_id(value, self.tenant) else None
        if bound is None or (closure is None and low.kind != value.type):
            return False, self._there(place)
        return self._linked(place, value.type, None, bound)

    def _linked(self, low: _Place, kind: str, high: _Place | None, above: str) -> Rails:
        """`low` is `above`, or the closure says that it is in it."""
        places = [low] if high is None else [low, high]
        same, other = f"{self._comparable(low)} = {above}", f"{self._comparable(low)} <> {above}"
        reflexive = low.kind == kind
        closure = self.read.layout.closures.get((low.kind, kind))
        if closure is None:
            return self._where(places, same) if reflexive else False, self._where(
                places, other if reflexive else "1 = 1", True
            )
        table, tenant = f"{quoted(closure.name)} AS up", self._own_tenant("up", closure)
        link = f"up.{quoted(closure.above)} = {above}"
        members = f"SELECT up.{quoted(closure.below)} FROM {table} WHERE {tenant} AND {link}"
        inside = self._in_query(low.sql, members) if high is None else f"{low.sql} IN ({members})"
        outside = (
            f"{low.sql} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {table} WHERE {tenant} AND {link}"
            f" AND up.{quoted(closure.below)} = {low.sql})"
        )
        if reflexive:
            inside, outside = f"({same} OR {inside})", f"({other} AND {outside})"
        return self._where(places, inside), self._where(places, outside, True)

    def _own_within(self, low: Fixed, high: Term) -> Rails:
        assert isinstance(high, Field)  # INVARIANT: what is fixed on both sides is a truth
        if isinstance(self.values[low.at], Missing):
            return _NEITHER
        place = self._place(high)

        def above(values: Sequence[Value | Missing], question: Question) -> Json:
            own, tenant = values[low.at], tenant_of(question)
            assert isinstance(own, Ref)  # INVARIANT: the shape says so
            locals_ = (local_id(ref, tenant) for ref in ancestors(own, question) if ref.type == high.kind)
            return [*sorted(local for local in locals_ if local)]

        bound = self._list(above)
        name = self._comparable(place)
        if self.dialect == "sqlite":
            inside, outside = f"{name} IN {bound}", f"{name} NOT IN {bound}"
        else:
            inside, outside = f"{name} = ANY ({bound})", f"{name} <> ALL ({bound})"
        return self._where([place], inside), self._where([place], outside, True)

    def _like(self, place: _Place, pattern: Sequence[str | None]) -> Rails:
        escaped = glob(pattern) if self.dialect == "sqlite" else like(pattern)
        bound = self._parameter(lambda *_: escaped, "text")
        word, end = ("GLOB", "") if self.dialect == "sqlite" else ("LIKE", " ESCAPE '!'")
        return (
            self._where([place], f"{place.sql} {word} {bound}{end}"),
            self._where([place], f"{place.sql} NOT {word} {bound}{end}", True),
        )

    # --- places -------------------------------------------------------------------------------

    def _place(self, term: Field) -> _Place:
        table, alias = self.read.layout.tables[self.read.type], ALIAS
        if not term.path:
            return _Place(sql=f"{alias}.{quoted(table.id)}", kind=term.kind, storage=table.storage, joins=())
        joins: list[tuple[str, Table, str, str]] = []
        for step in term.path[:-1]:
            column = table.attributes[step]
            own = f"{alias}.{quoted(column.name)}"
            table, alias = self.read.layout.tables[column.kind], f"{alias}_{step}"
            joins.append((alias, table, own, column.kind))
        last = term.path[-1]
        if last == "tenant":
            return _Place(sql=f"{alias}.{quoted(table.tenant)}", kind="Tenant", storage="text", joins=tuple(joins))
        column = table.attributes[last]
        return _Place(
            sql=f"{alias}.{quoted(column.name)}", kind=column.kind, storage=column.storage, joins=tuple(joins)
        )

    def _where(self, places: Sequence[_Place], condition: str, large: bool = False) -> Rail:
        """The condition, with the tables joined that its places lie in. `large` where most rows are expected to fit."""
        joins = {alias: (table, own) for place in places for alias, table, own, _ in place.joins}
        if not joins:
            return condition
        ons = [
            f"{self._own_tenant(alias, table)} AND {alias}.{quoted(table.id)} = {own}"
            for alias, (table, own) in joins.items()
        ]
        tables = ", ".join(f"{quoted(table.name)} AS {alias}" for alias, (table, _) in joins.items())
        if len(joins) > 1 or any(not place.joins for place in places):
            return f"EXISTS (SELECT 1 FROM {tables} WHERE {' AND '.join(ons)} AND {condition})"
        [(alias, (table, own))] = joins.items()
        from_ = f"FROM {tables} WHERE {self._own_tenant(alias, table)}"
        array = self.dialect == "postgres"  # which PostgreSQL can use with an index also beside an OR
        listed = f"{own} = ANY (ARRAY(" if array else f"{own} IN ("
        small = f"{listed}SELECT {alias}.{quoted(table.id)} {from_}"
        each = f"EXISTS (SELECT 1 {from_} AND {alias}.{quoted(table.id)} = {own}"
        close = "))" if array else ")"
        return Joined(alias=alias, small=small, large=each, many=large, conditions=(condition,), close=close)

    def _in_query(self, name: str, members: str) -> str:
        # PostgreSQL turns an array, other than a subquery, into an index condition also beside an OR
        return f"{name} IN ({members})" if self.dialect == "sqlite" else f"{name} = ANY (ARRAY({members}))"

    def _exact(self, place: _Place) -> str:
        texts = place.kind not in ("Long", "Bool") and place.storage == "text"
        return f"{place.sql} COLLATE BINARY" if self.dialect == "sqlite" and texts else place.sql

    def _comparable(self, place: _Place) -> str:
        """An id as text, however it lies there; else as it is."""
        if place.storage == "text" or place.kind in ("Long", "Bool", "String"):
            return self._exact(place)
        return f"CAST({place.sql} AS {'TEXT' if self.dialect == 'sqlite' else 'text'})"

    # --- parameters ---------------------------------------------------------------------------

    def _parameter(self, bound: Bound, type_: str) -> str:
        self.bound.append(bound)
        name = f":{PREFIX}{len(self.bound) - 1}"
        return name if self.dialect == "sqlite" else f"CAST({name} AS {type_})"

    def _list(self, bound: Bound) -> str:
        name = self._parameter(bound, "text[]")
        return f"(SELECT value FROM json_each({name}))" if self.dialect == "sqlite" else name

    def _local_parameter(self, ref: Ref, at: int, item: int | None) -> str:
        return self._parameter(id_at(at, item), "text")

    def _operand(self, place: _Place, value: Value, at: int, item: int | None) -> str | None:
        """The bound value to compare a place with; None where nothing there can be equal to it."""
        if isinstance(value, Ref):
            local = local_id(value, self.tenant)
            if value.type != place.kind or local is None:
                return None
            if place.storage == "integer":
                return self._parameter(number_at(at, item), "bigint") if whole_number(local) is not None else None
            return self._parameter(id_at(at, item), place.storage)
        kinds: Mapping[type, tuple[str, str]] = {
            bool: ("Bool", "boolean"),
            int: ("Long", "bigint"),
            str: ("String", "text"),
        }
        kind, type_ = kinds.get(type(value), ("", ""))
        return self._parameter(value_at(at, item), type_) if kind == place.kind else None
