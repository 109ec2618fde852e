"""One JSON object from hostile bytes, with one meaning only.

Two parsers that read the same bytes differently are how a signed claim is swapped for another, so whatever could be
read in two ways is refused. Must not know what the members mean.
"""

from __future__ import annotations

import json
import re

import orjson

from onbehalf.model import Json

__all__ = ["NotStrict", "strict_object"]

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
# Possessive, and `\Z` ends an unterminated string, so that no byte is looked at twice (ReDoS).
_STRING = re.compile(rb'"[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z)', re.DOTALL)


class NotStrict(ValueError):
    """The bytes are not one unambiguous JSON object. The message holds nothing of their content."""


def strict_object(data: bytes, *, depth: int) -> dict[str, Json]:
    """The members of the one JSON object that `data` is, nested at most `depth` deep. Raises NotStrict.

    Refuses a byte order mark, any encoding but UTF-8, lone surrogates, NaN, infinities, numbers that overflow, and
    a member name that stands twice in one object at any depth (RFC 8725 section 2.4; RFC 7515 section 4).
    """
    _bound_depth(data, depth)
    try:
        orjson.loads(data)  # the strict grammar: UTF-8 without BOM, no NaN, no lone surrogate, no overflow
        value: Json = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except NotStrict:
        raise
    except (ValueError, RecursionError) as error:
        raise NotStrict("not one JSON value in UTF-8") from error
    if not isinstance(value, dict):
        raise NotStrict("not a JSON object")
    return value


def _bound_depth(data: bytes, depth: int) -> None:
    level = 0
    for byte in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        level += 1 if byte in b"[{" else -1
        if level > depth:
            raise NotStrict(f"nested deeper than {depth}")


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrict("a member name stands twice")
    return members
