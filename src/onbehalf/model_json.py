"""JSON, time and digests, with the one spelling that makes a digest mean something. Must not hold any other word."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NewType, TypeAlias, Union, cast

import orjson
import rfc8785

from onbehalf.model_value import Value

__all__ = ["CallId", "Canonical", "Digest", "Json", "UnixTime", "canonical", "digest", "plain"]

Json: TypeAlias = Union[bool, int, float, str, list["Json"], dict[str, "Json"], None]
UnixTime = NewType("UnixTime", int)
"""Whole seconds since 1970-01-01T00:00:00Z."""
Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hex digits."""
CallId = NewType("CallId", str)
"""`call_` and 32 hex digits of a UUIDv7: unique, sortable by time, safe in a URL."""


class Canonical(Value, frozen=True, gc=False):
    """A JSON value that has its one spelling already, so that nobody spells it again.

    INVARIANT: `spelled` is what `canonical` gives for the value.
    """

    hidden = frozenset({"spelled"})

    spelled: bytes


def plain(facts: Mapping[str, Json | Canonical]) -> dict[str, Json]:
    """Facts as JSON values, each of them."""
    return {name: orjson.loads(each.spelled) if isinstance(each, Canonical) else each for name, each in facts.items()}


_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER  # which refuses integers beyond 2**53 - 1
_SCALARS = frozenset({str, int, bool, type(None)})


def canonical(value: Json) -> bytes:
    """The one spelling of a JSON value: RFC 8785 (JCS).

    Raises ValueError for what JCS has no spelling for: NaN, infinities, integers beyond 2**53 - 1,
    lone surrogates, keys that are not strings.
    """
    try:
        if _plain(value):
            text = orjson.dumps(value, option=_OPTIONS)
            if text.isascii():
                return text
        return rfc8785.dumps(value)
    except (TypeError, rfc8785.CanonicalizationError, RecursionError, UnicodeError) as error:
        raise ValueError(f"no canonical form: {error}") from error


def _plain(value: Json) -> bool:
    """Whether orjson's sorted output, where it is ASCII, already is RFC 8785: no floats, and of plain types only."""
    kind = type(value)
    if kind is not dict and kind is not list:
        return kind in _SCALARS
    items = value.values() if isinstance(value, dict) else cast("list[Json]", value)
    return _SCALARS.issuperset(map(type, items)) or all(map(_plain, items))


def digest(data: bytes) -> Digest:
    """SHA-256 of some bytes, spelled as all digests here are."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
