"""Filters and paths of SCIM (RFC 7644 sections 3.4.2.2, 3.5.2), as far as identity providers use them: `eq`, `and`.

Values in, values out, bounded in size. Must not know resources or where they are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onbehalf.errors import ScimInvalid
from onbehalf.model import Json

__all__ = ["ENTERPRISE", "Equal", "Path", "holds", "read_filter", "read_path"]

ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
_CORE = ("urn:ietf:params:scim:schemas:core:2.0:User", "urn:ietf:params:scim:schemas:core:2.0:Group")
_MAX_TEXT = 1000
_MAX_TESTS = 5
_NAME = r"[A-Za-z$][A-Za-z0-9_$-]{0,63}"
_TEST = re.compile(rf'\s*({_NAME}(?:\.{_NAME})?)\s+eq\s+("(?:[^"\\]|\\.)*"|true|false|null)\s*', re.IGNORECASE)
_AND = re.compile(r"and\s", re.IGNORECASE)
_PATH = re.compile(rf"({_NAME})(?:\[([^\]]*)\])?(?:\.({_NAME}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Equal:
    """That an attribute, in lower case, equals a value."""

    attribute: str
    value: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """What a PATCH is about: an attribute, of several the ones that pass all tests, and of those a part. Names are in
    lower case; `extension` is whether the attribute is the enterprise extension's, or with no attribute all of it."""

    attribute: str
    tests: tuple[Equal, ...] = ()
    part: str = ""
    extension: bool = False


def read_filter(text: str) -> tuple[Equal, ...]:
    """All tests of a filter, of which each must hold. Raises ScimInvalid."""
    found: list[Equal] = []
    at = 0
    while len(text) <= _MAX_TEXT and len(found) < _MAX_TESTS:
        match = _TEST.match(text, at)
        if match is None:
            break
        found.append(Equal(attribute=match[1].lower(), value=_value(match[2])))
        at = match.end()
        if at == len(text):
            return tuple(found)
        more = _AND.match(text, at)
        if more is None:
            break
        at = more.end()
    raise ScimInvalid("only `attribute eq value`, joined by `and`, can be asked for", kind="invalidFilter")


def read_path(text: str) -> Path:
    """The path of an operation, or of a key that stands for one. Raises ScimInvalid."""
    if len(text) > _MAX_TEXT:
        raise _no_path()
    rest, extension = text.strip(), False
    for prefix in (ENTERPRISE, *_CORE):
        if rest.lower().startswith(prefix.lower()):
            rest, extension = rest[len(prefix) :].removeprefix(":"), prefix == ENTERPRISE
            if not rest and extension:
                return Path(attribute="", extension=True)
    match = _PATH.fullmatch(rest)
    if match is None:
        raise _no_path()
    tests = read_filter(match[2]) if match[2] is not None else ()
    return Path(attribute=match[1].lower(), tests=tests, part=(match[3] or "").lower(), extension=extension)


def holds(tests: Sequence[Equal], item: Mapping[str, Json], *, exact: frozenset[str]) -> bool:
    """Whether an item passes all tests. Texts are compared without their case, but for `exact` attributes."""
    known = {name.lower(): value for name, value in item.items()}
    return all(_same(known.get(test.attribute), test.value, exact=test.attribute in exact) for test in tests)


def _same(one: Json, other: Json, *, exact: bool) -> bool:
    if isinstance(one, str) and isinstance(other, str) and not exact:
        return one.casefold() == other.casefold()
    return type(one) is type(other) and one == other


def _value(text: str) -> Json:
    if text.startswith('"'):
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return {"true": True, "false": False, "null": None}[text.lower()]


def _no_path() -> ScimInvalid:
    return ScimInvalid("the path cannot be read", kind="invalidPath")
