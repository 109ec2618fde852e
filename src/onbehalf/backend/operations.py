"""Which operation of an OpenAPI document a request asks for, and with which arguments: what a call token is bound to.

Pure. The inverse of how the gateway spells a request, and as strict: what it would never send is refused rather than
read some way. Must not know a token, a server or a framework.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from onbehalf.errors import BodyMalformed, CallTokenMismatch, ConfigInvalid, MediaTypeRefused
from onbehalf.model import Json, canonical
from onbehalf.strict_json import NotStrict, strict_json
from onbehalf.validate.api import Operation, Parameter, read_document, read_operation

__all__ = ["Asked", "HttpRequest", "Operations", "read_operations"]

_DEPTH = 64
_MAX_QUERY = 16 * 1024
_JSON = re.compile(r"application/json\s*(?:;\s*charset\s*=\s*\"?utf-8\"?\s*)?", re.IGNORECASE)
"""In no other character set: who believed one could read another body than was looked at."""
_HINT = "send each call through the gateway, and give both the same OpenAPI document"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One whole request. `path` is decoded once, `query` is not decoded; names of headers are in lower case."""

    method: str
    path: str
    query: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request asks for, nothing proven."""

    tool: str
    arguments: Mapping[str, Json] = field(repr=False)


class Operations:
    """The operations of one API. Made by `read_operations`."""

    def __init__(self, operations: Iterable[Operation], *, base_path: str) -> None:
        self._base = base_path.rstrip("/")
        self._by_method: dict[str, list[tuple[tuple[str, ...], Operation]]] = {}
        for each in operations:
            self._by_method.setdefault(each.method, []).append((tuple(each.path.split("/")), each))

    def asked(self, request: HttpRequest) -> Asked:
        """The operation and its arguments. Raises CallTokenMismatch, BodyMalformed, MediaTypeRefused.

        A path without placeholders is preferred (OpenAPI 3.1, Paths Object). Does not check the arguments against
        their schemas, but for their types: the gateway did, and the digest in the call token says which they were.
        """
        operation, at_path = self._found(request)
        by_place: dict[str, dict[str, Parameter]] = {"path": {}, "query": {}, "header": {}, "body": {}, "whole": {}}
        for each in operation.parameters:
            by_place[each.place][each.name] = each
        arguments: dict[str, Json] = {name: _value(by_place["path"][name], text) for name, text in at_path.items()}
        arguments |= _of_query(by_place["query"], request.query)
        arguments |= _of_headers(by_place["header"], request.headers)
        arguments |= _of_body(by_place["body"], by_place["whole"], request)
        return Asked(tool=operation.id, arguments=arguments)

    def _found(self, request: HttpRequest) -> tuple[Operation, dict[str, str]]:
        if not request.path.startswith(self._base + "/"):
            raise _no_operation()
        segments = request.path[len(self._base) :].split("/")
        fits = [
            (each, values)
            for template, each in self._by_method.get(request.method, ())
            if (values := _fitted(template, segments)) is not None
        ]
        fits = [(each, values) for each, values in fits if not values] or fits
        if len(fits) != 1:
            raise _no_operation()
        return fits[0]


def read_operations(
    document: bytes | Mapping[str, Json], *, only: Iterable[str] = (), base_path: str = ""
) -> Operations:
    """The operations of an OpenAPI 3.0 or 3.1 document, in bytes (JSON or YAML) or as its members.

    `only` names some by their operationId; without it, those are left out, and so refused, that a gateway could not
    call. `base_path` is the path of the URL that the gateway has for this API. Raises ConfigInvalid.
    """
    read = read_document(document if isinstance(document, bytes) else canonical(dict(document)))
    wanted = tuple(only)
    found: list[Operation] = []
    for name in wanted or tuple(read.places):
        try:
            operation = read_operation(read, name)
            _require_whole_segments(operation)
        except ConfigInvalid:
            if wanted:
                raise
            continue
        found.append(operation)
    if not found:
        raise ConfigInvalid("the document has no operation that the gateway could call")
    return Operations(found, base_path=base_path)


def _require_whole_segments(operation: Operation) -> None:
    """Two placeholders in one segment could be read in two ways."""
    for segment in operation.path.split("/"):
        if "{" in segment and not (segment[0] == "{" and segment.find("}") == len(segment) - 1):
            raise ConfigInvalid(f"the path of `{operation.id}` has a placeholder that is not a whole segment")


def _fitted(template: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    """The values of the placeholders, or None where the path is another."""
    if len(template) != len(segments):
        return None
    values: dict[str, str] = {}
    for expected, found in zip(template, segments, strict=True):
        if expected.startswith("{"):
            if found in ("", ".", ".."):
                return None
            values[expected[1:-1]] = found
        elif expected != found:
            return None
    return values


def _of_query(known: Mapping[str, Parameter], query: str) -> dict[str, Json]:
    if len(query) > _MAX_QUERY:
        raise _uncovered("query")
    texts: dict[str, list[str]] = {}
    for pair in query.split("&") if query else ():
        name, equals, text = pair.partition("=")
        if not equals:
            raise _uncovered("query")
        texts.setdefault(_unquoted(name), []).append(_unquoted(text))
    arguments: dict[str, Json] = {}
    for name, found in texts.items():
        each = known.get(name)
        if each is None:
            raise _uncovered("query")
        if each.schema.get("type") == "array" and each.explode:
            arguments[name] = [_scalar(_item(each), one) for one in found]
        elif len(found) != 1:
            raise _uncovered("query")
        else:
            arguments[name] = _value(each, found[0])
    return arguments


def _unquoted(text: str) -> str:
    """A part of a query. To some a plus is a blank and a semicolon parts pairs: the gateway writes neither as it is."""
    try:
        found = unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise _uncovered("query") from error
    if "+" in text or ";" in text or not text.isascii():
        raise _uncovered("query")
    return found


def _of_headers(known: Mapping[str, Parameter], headers: Iterable[tuple[str, str]]) -> dict[str, Json]:
    """Those of the document. Others are not covered by a call token, and an API must not take orders from them."""
    by_name = {name.lower(): each for name, each in known.items()}
    arguments: dict[str, Json] = {}
    for name, text in headers:
        each = by_name.get(name)
        if each is None:
            continue
        if each.name in arguments:
            raise _uncovered("header")
        arguments[each.name] = _value(each, text.strip(" \t"))
    return arguments


def _of_body(members: Mapping[str, Parameter], whole: Mapping[str, Parameter], request: HttpRequest) -> dict[str, Json]:
    if not request.body:
        return {}
    if not members and not whole:
        raise _uncovered("body")
    kinds = [text for name, text in request.headers if name == "content-type"]
    if len(kinds) != 1 or _JSON.fullmatch(kinds[0]) is None:
        raise MediaTypeRefused("the body is not `application/json` in UTF-8")
    if any(name == "content-encoding" and text.strip().lower() != "identity" for name, text in request.headers):
        raise MediaTypeRefused("a compressed body is not read here", hint="send it as it is")
    try:
        value = strict_json(request.body, depth=_DEPTH)
    except NotStrict as error:
        raise BodyMalformed(f"the body is refused: {error}") from error
    if whole:
        return dict.fromkeys(whole, value)
    if not isinstance(value, dict) or not value.keys() <= members.keys():
        raise _uncovered("body")
    return value


def _value(each: Parameter, text: str) -> Json:
    if each.schema.get("type") != "array":
        return _scalar(each.schema, text)
    return [_scalar(_item(each), one) for one in text.split(",")]


def _item(each: Parameter) -> Mapping[str, Json]:
    items = each.schema["items"]
    assert isinstance(items, dict)  # read_operation takes no other list
    return items


def _scalar(schema: Mapping[str, Json], text: str) -> Json:
    """The value of the schema's one type whose canonical spelling this is. Raises CallTokenMismatch."""
    kind = schema.get("type")
    if kind == "string":
        return text
    try:
        value = strict_json(text.encode(), depth=1)
        fits = isinstance(value, bool) if kind == "boolean" else type(value) in (int, float)
        if fits and canonical(value) == text.encode():
            return value
    except (NotStrict, ValueError):
        pass
    raise CallTokenMismatch(f"an argument of the request is no {kind} in its one spelling", hint=_HINT)


def _no_operation() -> CallTokenMismatch:
    return CallTokenMismatch("the request is not exactly one operation of the document", hint=_HINT)


def _uncovered(place: str) -> CallTokenMismatch:
    return CallTokenMismatch(f"the request's {place} holds what a call token does not cover", hint=_HINT)
