"""Rows out of an upstream's answer, and the answer rebuilt with only those rows that may go on.

A row that cannot be read as its mapping says is never released. What is not mapped is dropped: the rebuilt answer
holds the path to the rows and nothing beside it. Must not hold a decision (decide.py) or a question (questions.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
from msgspec.structs import replace

from onbehalf.model import Entity, Failed, Json, Ref, Rows, Tool
from onbehalf.model_value import Value

__all__ = ["Extracted", "Row", "about", "extract", "given", "release", "showing", "too_many"]

_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
_MAX_ID = 512
_UNSPELLABLE = (TypeError, RecursionError)
_SCALARS: Mapping[str, type] = {"String": str, "Long": int, "Bool": bool}


class Row(Value, frozen=True, kw_only=True):
    """One row, readable as its mapping says. `people` are person ids within the row's own tenant."""

    hidden = frozenset({"raw"})

    id: str
    ref: Ref
    entity: Entity
    people: frozenset[str]
    raw: Json


class Extracted(Value, frozen=True, kw_only=True):
    """The readable rows among the first `limit`, and how many rows came back in all."""

    rows: tuple[Row, ...]
    returned: int


class _Unreadable(Exception):
    """This row does not fit its mapping."""


def extract(shape: Rows, content: Mapping[str, Json], *, limit: int) -> Extracted:
    """The rows of an MCP result, in its order. Malformed rows and those beyond `limit` are only counted."""
    found = _value(shape, content)
    items = found if isinstance(found, list) else [] if found is None else [found]
    read: list[Row] = []
    for item in items[:limit]:
        try:
            read.append(_row(shape, item))
        except _Unreadable:
            continue
    return Extracted(rows=tuple(read), returned=len(items))


def given(shape: Rows, content: Mapping[str, Json]) -> bool:
    """Whether an MCP result has a list, or one object, where the rows are mapped from."""
    return _value(shape, content) is not None


def release(shape: Rows, content: Mapping[str, Json], kept: Sequence[Row]) -> dict[str, Json]:
    """MCP result members holding the kept rows and nothing else.

    A list stays a list; one object stays one, or becomes null. `isError` stays when it is true.
    """
    found = _value(shape, content)
    value: Json = [row.raw for row in kept] if isinstance(found, list) else kept[0].raw if kept else None
    for key in reversed(shape.at):
        value = {key: value}
    try:
        text = orjson.dumps(value).decode()
    except _UNSPELLABLE:  # too deep or not JSON: nothing of it goes on
        value, text = None, "null"
    released: dict[str, Json] = {"content": [{"type": "text", "text": text}]}
    if isinstance(value, dict | list):
        released["structuredContent"] = value
    if content.get("isError") is True:
        released["isError"] = True
    return released


def about(found: Sequence[Row]) -> frozenset[str]:
    """The ids of the people whom the rows refer to."""
    # a tenant has no slash, so what stands before the first one of an entity id is it
    return frozenset(f"{row.ref.id.partition('/')[0]}/{person}" for row in found for person in row.people)


def showing(row: Row, raw: Json) -> Row:
    """The same row, to be released as `raw`; what it was decided on stays."""
    return replace(row, raw=raw)


def too_many(tool: Tool) -> Failed:
    """What comes of a call that gave more rows than this gateway releases: done perhaps, and not shown."""
    return Failed(code="too_many_rows", message="more rows came back than this gateway releases", unknown=tool.writes)


def _value(shape: Rows, content: Mapping[str, Json]) -> Json:
    """What stands at the path: a list, one object, or None for anything else."""
    value = content.get("structuredContent")
    for key in shape.at:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, list | dict) else None


def _row(shape: Rows, item: Json) -> Row:
    if not isinstance(item, dict):
        raise _Unreadable
    tenant = item.get(shape.tenant)
    # a slash would let tenant `a/b` with id `c` be read as tenant `a` with id `b/c`
    if not isinstance(tenant, str) or not tenant or "/" in tenant or len(tenant) > _MAX_ID:
        raise _Unreadable
    ref = Ref(type=shape.type, id=f"{tenant}/{_id(item.get(shape.id))}")
    attributes: dict[str, Json | Ref] = {}
    people: set[str] = set()
    for attribute, (name, kind) in shape.attributes.items():
        if name not in item:
            raise _Unreadable
        value = item[name]
        if value is None:  # absent: a policy that needs it errors, the schema refuses it where it is required
            continue
        attributes[attribute] = _attribute(value, kind, tenant)
        if kind == "User":
            people.add(_id(value))
    attributes["tenant"] = Ref(type="Tenant", id=tenant)
    entity = Entity(ref=ref, attributes=attributes, parents=())
    return Row(id=_id(item.get(shape.id)), ref=ref, entity=entity, people=frozenset(people), raw=item)


def _attribute(value: Json, kind: str, tenant: str) -> Json | Ref:
    scalar = _SCALARS.get(kind)
    if scalar is None:
        named = _id(value)
        return Ref(type=kind, id=named if kind == "Tenant" else f"{tenant}/{named}")
    if type(value) is not scalar or (isinstance(value, int) and not _LONG_MIN <= value <= _LONG_MAX):
        raise _Unreadable  # `type() is`, for a bool is an int to isinstance
    return value


def _id(value: Json) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _Unreadable
    text = str(value) if isinstance(value, str) or _LONG_MIN <= value <= _LONG_MAX else ""
    if not text or len(text) > _MAX_ID:
        raise _Unreadable
    return text
