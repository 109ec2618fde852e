"""An OpenAPI 3.0 or 3.1 document, read into operations: what may be sent, and where each argument stands.

Pure: the bytes are given, and nothing they refer to is fetched. What is not understood is refused, not guessed.
Must not hold how a request is spelled (api_request.py) or which of its schemas' words count (api_schema.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import yaml

from onbehalf.config import load_yaml
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json
from onbehalf.strict_json import NotStrict, strict_object
from onbehalf.validate.api_schema import References, kinds, shown

__all__ = ["Document", "Operation", "Parameter", "Place", "read_document", "read_operation"]

Place: TypeAlias = Literal["path", "query", "header", "body", "whole"]
"""Where an argument stands: `body` is one member of a JSON object, `whole` is all of the body."""

_MAX_BYTES = 4 * 2**20
_MAX_YAML_BYTES = 512 * 1024
_DEPTH = 64
_MAX_OPERATIONS = 5000
_METHODS = ("get", "head", "post", "put", "patch", "delete")
_READING = frozenset({"get", "head"})
_PLACEHOLDER = re.compile(r"\{([^{}/]{1,64})\}")
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/{}-]*")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_OWN_HEADERS = frozenset(
    {"accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-type"}
    | {
        "cookie",
        "expect",
        "forwarded",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
    }
    | {
        "txn-token",
        "upgrade",
        "user-agent",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
    }
    | {"x-http-method-override", "x-original-url", "x-rewrite-url"}
)
"""Headers that are the gateway's to set, or that could change which request it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One argument and its place. `explode` matters for a list in the query: one pair for each, or one with commas."""

    name: str
    place: Place
    required: bool
    schema: Mapping[str, Json]
    explode: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation. `method` is upper case; `path` is below the server's URL, with `{name}` for path parameters."""

    id: str
    method: str
    path: str
    title: str
    description: str
    parameters: tuple[Parameter, ...]
    body_required: bool = False

    @property
    def reads(self) -> bool:
        """Whether HTTP promises that it changes nothing."""
        return self.method.lower() in _READING

    def schema(self) -> dict[str, Json]:
        """All arguments as one JSON Schema, before any is bound."""
        return {
            "type": "object",
            "properties": {each.name: dict(each.schema) for each in self.parameters},
            "required": [each.name for each in self.parameters if each.required],
            "additionalProperties": False,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document that is one, and the place of each operation that has an id: (path, method)."""

    members: Mapping[str, Json]
    places: Mapping[str, tuple[str, str]]


def read_document(data: bytes) -> Document:
    """The document in JSON, or in YAML without aliases. Raises ConfigInvalid.

    At most 4 MiB (512 KiB of YAML), nested 64 deep, 5,000 operations. Operations are not looked into.
    """
    members = _members(data)
    version = members.get("openapi")
    if not isinstance(version, str) or re.fullmatch(r"3\.[01]\.\d{1,3}", version) is None:
        raise ConfigInvalid("the document is not OpenAPI 3.0 or 3.1", hint="convert it first")
    places: dict[str, tuple[str, str]] = {}
    count = 0
    for path, item in _object(members.get("paths", {}), "paths").items():
        for method in _METHODS:
            operation = item.get(method) if isinstance(item, dict) else None
            if not isinstance(operation, dict):
                continue
            count += 1
            if count > _MAX_OPERATIONS:
                raise ConfigInvalid(f"the document has more than {_MAX_OPERATIONS} operations")
            name = operation.get("operationId")
            if isinstance(name, str) and name in places:
                raise ConfigInvalid(f"the operationId `{_short(name)}` stands twice in the document")
            if isinstance(name, str):
                places[name] = (path, method)
    return Document(members=members, places=places)


def read_operation(document: Document, name: str, *, own_headers: Sequence[str] = ()) -> Operation:
    """The operation with that operationId. Raises ConfigInvalid where it is not there or cannot be called safely.

    `own_headers` are headers that the gateway sets. Optional parameters that cannot be sent (cookies, objects in a
    query, other media types) are left out; a required one is an error.
    """
    if name not in document.places:
        raise ConfigInvalid(f"the document has no operation `{_short(name)}`", hint="`remote` is an operationId")
    path, method = document.places[name]
    item = _object(_object(document.members["paths"], "paths")[path], path)
    operation = _object(item[method], name)
    references = References(document.members)
    found = _parameters(item, operation, references, _OWN_HEADERS | {each.lower() for each in own_headers})
    body, body_required = _body(operation, references)
    both = [each.name for each in (*found, *body)]
    twice = {each for each in both if both.count(each) > 1}
    if twice:
        raise ConfigInvalid(f"operation `{_short(name)}` has two parameters named `{_short(min(twice))}`")
    _require_path(path, found)
    return Operation(
        id=name, method=method.upper(), path=path, title=_text(operation, "summary", 200),
        description=_text(operation, "description", 4000), parameters=(*found, *body), body_required=body_required,
    )  # fmt: skip


def _parameters(
    item: Mapping[str, Json], operation: Mapping[str, Json], references: References, own: frozenset[str]
) -> list[Parameter]:
    """Path, query and header parameters; an operation's own win over its path's (OpenAPI 3.1, Operation Object)."""
    by_place: dict[tuple[str, str], dict[str, Json]] = {}
    for each in (*_list(item.get("parameters", [])), *_list(operation.get("parameters", []))):
        found = _object(references.followed(each), "a parameter")
        name, place = found.get("name"), found.get("in")
        if not isinstance(name, str) or not isinstance(place, str) or not 0 < len(name) <= 64:
            raise ConfigInvalid("a parameter has no `name` of at most 64 characters, or no `in`")
        by_place[(place, name)] = found
    made = (_parameter(place, name, each, references, own) for (place, name), each in by_place.items())
    return [each for each in made if each is not None]


def _parameter(
    place: str, name: str, found: Mapping[str, Json], references: References, own: frozenset[str]
) -> Parameter | None:
    required = found.get("required") is True or place == "path"
    if place == "header" and (name.lower() in own or _HEADER.fullmatch(name) is None):
        return None  # set by the gateway, or by nobody
    style = found.get("style", "form" if place in ("query", "cookie") else "simple")
    explode = found.get("explode", style == "form")
    schema = shown(found.get("schema"), references) if "schema" in found else None
    described = found.get("description")
    sendable = (
        schema is not None
        and isinstance(explode, bool)
        and found.get("allowReserved", False) is False
        and (place, style) in {("path", "simple"), ("query", "form"), ("header", "simple")}
        and kinds(schema, lists=True)
    )
    if not sendable or schema is None:
        if required:
            raise ConfigInvalid(
                f"the required parameter `{_short(name)}` in {_short(place)} cannot be sent",
                hint="values and lists of values go into path (simple), query (form) and headers (simple)",
            )
        return None
    if isinstance(described, str) and "description" not in schema:
        schema["description"] = described[:2000]
    where: Place = "path" if place == "path" else "query" if place == "query" else "header"
    return Parameter(name=name, place=where, required=required, schema=schema, explode=explode is True)


def _body(operation: Mapping[str, Json], references: References) -> tuple[list[Parameter], bool]:
    """The members of a JSON object, each an argument of its own; any other JSON as one argument, `body`."""
    if "requestBody" not in operation:
        return [], False
    body = _object(references.followed(operation["requestBody"]), "a request body")
    required = body.get("required") is True
    media = _object(body.get("content", {}), "the content of a request body").get("application/json")
    if not isinstance(media, dict) or "schema" not in media:
        if required:
            raise ConfigInvalid("a required request body is not `application/json` with a schema")
        return [], False
    schema = shown(media["schema"], references)
    properties, needed = schema.get("properties"), schema.get("required", [])
    if schema.get("type") != "object" or not isinstance(properties, dict) or schema.get("additionalProperties", True):
        return [Parameter(name="body", place="whole", required=required, schema=schema)], required
    if required is False and needed:
        required = True  # or members that are required would be sent or not, and nobody could tell which
    return [
        Parameter(name=name, place="body", required=name in _list(needed), schema=_object(each, name))
        for name, each in properties.items()
    ], required


def _require_path(path: str, found: Sequence[Parameter]) -> None:
    """Each placeholder is a parameter and the other way round, and all else is plain text. Raises ConfigInvalid."""
    named = _PLACEHOLDER.findall(path)
    declared = [each.name for each in found if each.place == "path"]
    plain = _PLACEHOLDER.sub("", path)
    if sorted(named) != sorted(declared) or "{" in plain or "}" in plain:
        raise ConfigInvalid(f"the path `{_short(path)}` and its parameters do not fit together")
    segments = _PLACEHOLDER.sub("x", path).split("/")
    if not path.startswith("/") or _LITERAL.fullmatch(plain) is None or {".", ".."} & set(segments) or "//" in path:
        raise ConfigInvalid(f"the path `{_short(path)}` is not plain", hint="no query, escapes, dots or empty segments")


def _members(data: bytes) -> dict[str, Json]:
    if len(data) > _MAX_BYTES:
        raise ConfigInvalid(f"the document is larger than {_MAX_BYTES} bytes")
    if data.lstrip()[:1] == b"{":
        try:
            return strict_object(data, depth=_DEPTH)
        except NotStrict as error:
            raise ConfigInvalid(f"the document is refused: {error}") from error
    if len(data) > _MAX_YAML_BYTES:
        raise ConfigInvalid(f"the document is larger than {_MAX_YAML_BYTES} bytes of YAML", hint="convert it to JSON")
    try:
        text = data.decode()
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            opens = isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent)
            depth += opens - isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEPTH:  # an alias can make a small text immense
                raise ConfigInvalid(f"the document has aliases, or is nested deeper than {_DEPTH}")
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigInvalid("the document is neither JSON nor YAML in UTF-8") from error
    return _object(load_yaml(text, what="the document"), "the document")


def _object(value: Json, what: str) -> dict[str, Json]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigInvalid(f"`{_short(what)}` is not an object with text keys")
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise ConfigInvalid("a list in the document is none")
    return value


def _text(members: Mapping[str, Json], name: str, most: int) -> str:
    value = members.get(name)
    return value[:most] if isinstance(value, str) else ""


def _short(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:64])
