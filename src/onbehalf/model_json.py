"""JSON, time and digests, with the one spelling that makes a digest mean something. Must not hold any other word."""

from __future__ import annotations

import hashlib
from typing import NewType, TypeAlias, Union

import orjson
import rfc8785

__all__ = ["CallId", "Digest", "Json", "UnixTime", "canonical", "digest"]

Json: TypeAlias = Union[bool, int, float, str, list["Json"], dict[str, "Json"], None]
UnixTime = NewType("UnixTime", int)
"""Whole seconds since 1970-01-01T00:00:00Z."""
Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hex digits."""
CallId = NewType("CallId", str)
"""`call_` and 32 hex digits of a UUIDv7: unique, sortable by time, safe in a URL."""

_SAFE_INTEGER = 2**53 - 1


def canonical(value: Json) -> bytes:
    """The one spelling of a JSON value: RFC 8785 (JCS).

    Raises ValueError for what JCS has no spelling for: NaN, infinities, integers beyond 2**53 - 1,
    lone surrogates, keys that are not strings.
    """
    try:
        if _plain(value):
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return rfc8785.dumps(value)
    except (TypeError, rfc8785.CanonicalizationError, RecursionError, UnicodeError) as error:
        raise ValueError(f"no canonical form: {error}") from error


def _plain(value: Json) -> bool:
    """Whether orjson's sorted output already is RFC 8785: ASCII keys and no floats or huge integers."""
    if isinstance(value, str):
        return value.isascii()
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int):
        return -_SAFE_INTEGER <= value <= _SAFE_INTEGER
    if isinstance(value, dict):
        return all(isinstance(key, str) and key.isascii() and _plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return False


def digest(data: bytes) -> Digest:
    """SHA-256 of some bytes, spelled as all digests here are."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
