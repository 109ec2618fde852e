"""What a tool is, as frozen values: how it is offered, mapped, scoped and turned. Must not hold a call of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from onbehalf.model_json import Digest, Json
from onbehalf.model_value import Value

__all__ = [
    "Bound", "DryRun", "Durability", "Entity", "Explored", "Explores", "Lookup", "Pages", "Preview", "Ref", "Rows",
    "Tool",
]  # fmt: skip


class Ref(Value, frozen=True, kw_only=True, gc=False):
    """A Cedar entity uid, such as `User::"acme/alice"`."""

    type: str
    id: str


class Entity(Value, frozen=True, kw_only=True):
    """One Cedar entity. Attribute values that refer to entities are `Ref`."""

    ref: Ref
    attributes: Mapping[str, Json | Ref]
    parents: tuple[Ref, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A parameter that the gateway sets and the model never sees.

    `source` is `tenant`, `principal` (then `name` is `id`, `subject`, `name`, `position` or a directory
    attribute) or `constant` (then `value` is it).
    """

    parameter: str
    source: Literal["tenant", "principal", "constant"]
    name: str = ""
    value: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How rows become Cedar entities of one type.

    `at` is the path of keys to the list (or the one object) in the upstream's structured result, empty
    for SQL. `id` names the field holding the entity id. `attributes` maps an attribute to
    `(field, kind)`, where `kind` is `String`, `Long`, `Bool`, or an entity type: `Tenant`, `User` (a
    person id of the row's own tenant) or another type's name. `tenant` names the field holding the tenant.
    """

    type: str
    at: tuple[str, ...]
    id: str
    tenant: str
    attributes: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """How a call on one resource finds it first: call `tool` with `parameter` taken from `argument`."""

    tool: str
    parameter: str
    argument: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """A table that a model may ask about: what its rows are to the policies, and the only columns that it may name.

    `table` is as the database spells it; `columns` are lower case.
    """

    rows: Rows
    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explores:
    """What a tool that takes a SELECT may be asked about. `max_cost` is in PostgreSQL's own units; 0 for none."""

    dialect: Literal["sqlite", "postgres"]
    tables: Mapping[str, Explored]
    max_cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """How a long answer is turned page by page: by these fields of its rows, each with whether it goes down, at most
    `size` rows each."""

    by: tuple[tuple[str, bool], ...]
    size: int
    dialect: Literal["sqlite", "postgres"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """How an HTTP API is asked what a call would change: by `parameter`, which only the gateway sets.

    It is `value` while a call is tried. While it is done it is `off`, or is left out where there is none. `compare` are
    the fields of the answer that say what would change; none for all of it.
    """

    parameter: str
    value: Json
    off: tuple[Json, ...] = ()
    compare: tuple[str, ...] = ()


Preview: TypeAlias = Literal["none", "checked", "asked"]
Durability: TypeAlias = Literal["durable", "integrated", "witnessed"]
"""How far the record of a call must be before it is sent: written and synced; under a signed head; under a head that a
quorum of witnesses cosigned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool as offered. `schema` is what the model sees: bound parameters are absent and unknown
    ones refused. `remote` is the upstream's own name for it; `definition` pins name, description,
    schema and statement, so that a changed definition is another tool.

    `exposed` is False for a tool that only lookups use. `rows` maps what comes back; where it is None
    the reply is released whole, so only call-level policy guards it. `once_s` is how long, in seconds, a writing call
    is known again and not done twice. `preview` is `checked` where the upstream tries a call first and takes it back,
    or has a `dry_run` of it, so that every row that would change is decided before one is; and `asked` where, besides,
    the client must send back what it was shown. A `scoped` tool's statement gets the policies' own condition on its
    rows before it is run; one that `explores` runs the model's own SELECT over tables under such conditions. `pages`
    are how its answer is turned. `durability` is how far the record of a call must be before it is sent.
    """

    name: str
    title: str
    description: str
    upstream: str
    remote: str
    action: str
    scopes: frozenset[str]
    schema: Mapping[str, Json]
    bound: tuple[Bound, ...]
    rows: Rows | None
    lookup: Lookup | None
    writes: bool
    exposed: bool
    definition: Digest
    once_s: int = 0
    preview: Preview = "none"
    scoped: bool = False
    explores: Explores | None = None
    pages: Pages | None = None
    dry_run: DryRun | None = None
    durability: Durability = "durable"
    spellings: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)
    """As `Person.spellings`: what of it was spelled for the record already, and follows from the fields above."""
