"""JSON from hostile bytes, with one meaning only: the one reader of all that comes from outside.

Two parsers that read the same bytes differently are how a signed claim or a decided argument is swapped for another, so
whatever could be read in two ways is refused. Must not know what the members mean, or how a refusal is told.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import orjson

from onbehalf.model import Json

__all__ = ["NotStrict", "strict_json", "strict_object"]

# Possessive, and `\Z` ends an unterminated string, so that no byte is looked at twice (ReDoS).
_STRING = re.compile(rb'"[^"\\]*+(?:\\(?:.|\Z)[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_SCALARS = frozenset({str, int, float, bool, type(None)})
_ESCAPE = ord("\\")
_ROUND = bytes.maketrans(b"[]{}", b"()()")


class NotStrict(ValueError):
    """The bytes are not one unambiguous JSON value. The message holds nothing of their content."""


def strict_json(data: bytes, *, depth: int) -> Json:
    """The one JSON value that `data` is, nested at most `depth` deep. Raises NotStrict.

    Refuses a byte order mark, any encoding but UTF-8, lone surrogates, NaN, infinities, numbers that overflow, and a
    member name that stands twice in one object at any depth (RFC 8259 section 4; RFC 8725 section 2.4). An integer
    beyond 64 bits is read as a float, as most readers do.
    """
    if _ESCAPE in data or data.count(b"[") + data.count(b"{") > depth:
        bare = _STRING.sub(b"", data)
        _bound_depth(bare, depth)
        value = _parsed(data)
        # Outside of strings a colon stands once per member; a parser keeps one member per name.
        whole = bare.count(b":") == _members(value)
    else:
        # As with most: too few brackets to be too deep, and nothing escaped, so that a quote only ever begins or ends
        # a string. A parser that drops a member drops its name's quotes, and writes all others again.
        value = _parsed(data)
        whole = data.count(b'"') == orjson.dumps(value).count(b'"')
    if not whole:
        raise NotStrict("a member name stands twice in one object")
    return value


def _parsed(data: bytes) -> Json:
    try:
        value: Json = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise NotStrict("not one JSON value in UTF-8") from error
    return value


def strict_object(data: bytes, *, depth: int) -> dict[str, Json]:
    """The members of the one JSON object that `data` is, as `strict_json`. Raises NotStrict."""
    value = strict_json(data, depth=depth)
    if not isinstance(value, dict):
        raise NotStrict("not a JSON object")
    return value


def _bound_depth(bare: bytes, depth: int) -> None:
    if bare.count(b"[") + bare.count(b"{") <= depth:  # as with most: too few to be too deep
        return
    brackets, too_deep = bare.translate(_ROUND, _NOT_BRACKETS), b"(" * (depth + 1)
    for _ in range(depth):  # each pass takes off the innermost level
        brackets, before = brackets.replace(b"()", b""), len(brackets)
        if len(brackets) in (0, before) or too_deep in brackets:
            break
    if brackets:
        raise NotStrict(f"nested deeper than {depth}, or not JSON")


def _members(value: Json) -> int:
    """How many members all objects within have. The stack is explicit, though the depth is bounded already."""
    count = 0
    stack: list[Json] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            count += len(node)
            inner: Collection[Json] = node.values()
        elif isinstance(node, list):
            inner = node
        else:
            continue
        if not _SCALARS.issuperset(map(type, inner)):
            stack.extend(inner)
    return count
