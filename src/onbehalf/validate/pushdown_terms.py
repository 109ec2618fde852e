"""Policies on the rows of one entity type, taken apart; and where the rows, and what they name, lie in tables.

Must not hold how a policy is read (pushdown.py) or said in SQL (pushdown_sql.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from onbehalf.validate.bundle import Est

__all__ = [
    "And", "Closure", "Column", "Const", "Field", "Fixed", "Given", "Has", "If", "Is", "Layout", "Like", "Node",
    "Not", "OneOf", "Or", "Order", "Read", "Rule", "Same", "Storage", "Table", "Term", "Within",
]  # fmt: skip

Storage: TypeAlias = Literal["text", "integer", "uuid"]

# --- where things lie ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column that holds an attribute: `kind` is `String`, `Long`, `Bool` or an entity type.

    A `required` one is never NULL in a row that may be released. `storage` is how an entity's id lies there.
    """

    name: str
    kind: str
    required: bool
    storage: Storage = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The rows of one entity type. An entity's id is `<tenant>/<id>`, so `tenant` and `id` name it together."""

    name: str
    id: str
    tenant: str
    attributes: Mapping[str, Column]
    storage: Storage = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """All pairs of a hierarchy, within a tenant: `below` is in `above`, at whatever depth, itself or not."""

    name: str
    tenant: str
    below: str
    above: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """`tables` by entity type, the rows' own among them (whose name is not used), and `closures` by the two types."""

    tables: Mapping[str, Table]
    closures: Mapping[tuple[str, str], Closure]


# --- what is read --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fixed:
    """A term that is the same for all rows: the value at `at`."""

    at: int
    kind: str


@dataclass(frozen=True, slots=True)
class Field:
    """A term of the row: the resource itself where `path` is empty, else an attribute of it or of whom it names."""

    path: tuple[str, ...]
    kind: str


Term: TypeAlias = Fixed | Field


@dataclass(frozen=True, slots=True)
class Const:
    value: bool


@dataclass(frozen=True, slots=True)
class Given:
    """A condition that is the same for all rows: the truth at `at`; None there is an error."""

    at: int


@dataclass(frozen=True, slots=True)
class And:
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Or:
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Not:
    inner: Node


@dataclass(frozen=True, slots=True)
class If:
    test: Node
    then: Node
    other: Node


@dataclass(frozen=True, slots=True)
class Same:
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Order:
    sign: Literal["<", "<="]
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Has:
    of: Field
    attribute: str


@dataclass(frozen=True, slots=True)
class Is:
    term: Field
    type: str


@dataclass(frozen=True, slots=True)
class Within:
    """`low in high`, where `high` may be a fixed set."""

    low: Term
    high: Term


@dataclass(frozen=True, slots=True)
class OneOf:
    """`set.contains(term)`, of a fixed set."""

    set: Fixed
    term: Field


@dataclass(frozen=True, slots=True)
class Like:
    """`pattern` holds literal text, and None for any text."""

    term: Field
    pattern: tuple[str | None, ...]


Node: TypeAlias = Const | Given | And | Or | Not | If | Same | Order | Has | Is | Within | OneOf | Like


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One policy on these rows."""

    id: str
    permits: bool
    condition: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """All policies of an action on the rows of one type. `truths` and `values` are Cedar's JSON of what is fixed."""

    type: str
    layout: Layout
    rules: tuple[Rule, ...]
    truths: tuple[Est, ...]
    values: tuple[Est, ...]
