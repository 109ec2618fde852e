"""The schemas of an OpenAPI document as JSON Schemas that stand alone: references put in place, objects closed.

An object that declares no further members takes none here, so that a model cannot slip one in. Must not know where an
argument stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json
from onbehalf.validate.identity_names import identity_like

__all__ = ["References", "exposed", "kinds", "shown"]

_MAX_FOLLOWED = 2000
_MAX_CHAIN = 16
_MAX_DEPTH = 24
_MAX_NODES = 5000
_KEPT = frozenset(
    {"const", "default", "description", "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "maxItems"}
    | {"maxLength", "maximum", "minItems", "minLength", "minimum", "multipleOf", "pattern", "required", "title", "type"}
    | {"maxProperties", "minProperties", "uniqueItems"}
)
_DROPPED = frozenset(
    {"$comment", "deprecated", "discriminator", "example", "examples", "externalDocs", "nullable", "readOnly"}
    | {"writeOnly", "xml"}
)
_CHOICES = ("allOf", "anyOf", "oneOf")
_SCALARS = frozenset({"string", "integer", "number", "boolean"})
_IDENTITIES = re.compile(
    "account|assignee|behalf|company|customer|delegat|email|employee|impersonat|login|member|onbehalf|organi[sz]ation"
    "|owner|person|principal|requester|runas|subject|tenant|user|uid"
)
"""What makes a name look like somebody's, anywhere in it; whole words besides come from route.py."""


class References:
    """Follows `$ref` within one document: `#/…` only, at most 2,000 for an operation, 16 in a chain."""

    def __init__(self, members: Mapping[str, Json]) -> None:
        self._members = members
        self._followed = 0

    def followed(self, value: Json) -> Json:
        """What stands at the end of a reference, or the value itself. Raises ConfigInvalid."""
        for _ in range(_MAX_CHAIN):
            if not isinstance(value, dict) or "$ref" not in value:
                return value
            value = self._at(value["$ref"])
        raise ConfigInvalid("a chain of `$ref` in the document is too long, or a circle")

    def _at(self, reference: Json) -> Json:
        self._followed += 1
        if self._followed > _MAX_FOLLOWED:
            raise ConfigInvalid(f"an operation follows more than {_MAX_FOLLOWED} references")
        if not isinstance(reference, str) or not reference.startswith("#/") or "%" in reference:
            raise ConfigInvalid("a `$ref` leads out of the document", hint="bundle the document into one file first")
        value: Json = dict(self._members)
        for part in reference[2:].split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(value, dict) or key not in value:
                raise ConfigInvalid("a `$ref` leads to nothing")
            value = value[key]
        return value


def shown(schema: Json, references: References) -> dict[str, Json]:
    """A schema without references, in JSON Schema 2020-12. Raises ConfigInvalid for words that are not known.

    At most 24 deep and 5,000 nodes; one that holds itself is therefore refused.
    """
    return _Reading(references).read(schema, 1)


class _Reading:
    """One schema being read, and how much of it there was so far."""

    def __init__(self, references: References) -> None:
        self._references = references
        self._nodes = 0

    def read(self, schema: Json, depth: int) -> dict[str, Json]:
        self._nodes += 1
        if depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            raise ConfigInvalid("a schema in the document is too deep or too large, or holds itself")
        found = self._references.followed(schema)
        if found is True:
            return {}
        if not isinstance(found, dict):
            raise ConfigInvalid("a schema in the document is not an object")
        nested = {"additionalProperties", "items", "not", "properties", *_CHOICES}
        unknown = sorted(key for key in found if key not in _KEPT | _DROPPED | nested and not key.startswith("x-"))
        if unknown:
            raise ConfigInvalid(f"a schema in the document uses `{unknown[0][:40]}`, which is not supported")
        made: dict[str, Json] = {key: value for key, value in found.items() if key in _KEPT}
        self._bounds(found, made)
        if "items" in found:
            made["items"] = self.read(found["items"], depth + 1)
        if "not" in found:
            made["not"] = self.read(found["not"], depth + 1)
        for key in _CHOICES:
            if key in found:
                each = found[key]
                if not isinstance(each, list):
                    raise ConfigInvalid(f"`{key}` in a schema is no list")
                made[key] = [self.read(one, depth + 1) for one in each]
        self._members(found, made, depth)
        return made

    def _members(self, found: Mapping[str, Json], made: dict[str, Json], depth: int) -> None:
        properties = found.get("properties")
        if properties is not None:
            if not isinstance(properties, dict):
                raise ConfigInvalid("the `properties` of a schema are no object")
            read = {name: (each, self._references.followed(each)) for name, each in properties.items()}
            only = {name for name, (_, each) in read.items() if isinstance(each, dict) and each.get("readOnly") is True}
            made["properties"] = {
                name: self.read(each, depth + 1) for name, (each, _) in read.items() if name not in only
            }
            needed = made.get("required", [])
            if not isinstance(needed, list):
                raise ConfigInvalid("the `required` of a schema is no list")
            if needed:
                made["required"] = [name for name in needed if name not in only]
            made.setdefault("type", "object")
        more = found.get("additionalProperties")
        if isinstance(more, dict) and more:
            made["additionalProperties"] = self.read(more, depth + 1)
        elif more is not None:
            made["additionalProperties"] = bool(more) or more == {}
        elif "properties" in made and not any(key in found for key in _CHOICES):
            made["additionalProperties"] = False

    @staticmethod
    def _bounds(found: Mapping[str, Json], made: dict[str, Json]) -> None:
        """What OpenAPI 3.0 says otherwise: exclusive bounds as a flag, and `nullable`."""
        for flag, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(made.get(flag), bool) and made.pop(flag) and bound in made:
                made[flag] = made.pop(bound)
        if found.get("nullable") is True and isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]


def kinds(schema: Mapping[str, Json], *, lists: bool) -> bool:
    """Whether it takes only a text, number or truth value, or, with `lists`, a list of such."""
    if schema.get("type") == "array" and lists:
        items = schema.get("items")
        return isinstance(items, dict) and kinds(items, lists=False)
    kind = schema.get("type")
    return isinstance(kind, str) and kind in _SCALARS


def exposed(name: str, schema: Mapping[str, Json]) -> list[str]:
    """What of one argument looks like an identity, or takes undeclared members: dotted names, which may be waived."""
    found: list[str] = []
    todo: list[tuple[str, Json]] = [(name, dict(schema))]
    while todo:
        path, each = todo.pop()
        if not isinstance(each, dict):
            continue
        if _looks(path.rpartition(".")[2]) or _open(each):
            found.append(path)
        members = each.get("properties")
        todo += [(f"{path}.{key}", value) for key, value in members.items()] if isinstance(members, dict) else []
        # an item, or an alternative, bears its owner's name
        todo += [(path, each[key]) for key in ("items", "additionalProperties") if key in each]
        for key in _CHOICES:
            more = each.get(key)
            todo += [(path, one) for one in more] if isinstance(more, list) else []
    return sorted(set(found))


def _looks(name: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return bool(identity_like({"properties": {name: {}}})) or _IDENTITIES.search(plain) is not None


def _open(schema: Mapping[str, Json]) -> bool:
    """Whether an object with members that nobody declared would do."""
    if "const" in schema or "enum" in schema:
        return False
    kind = schema.get("type")
    if kind is not None and kind != "object" and not (isinstance(kind, list) and "object" in kind):
        return kind == "array" and "items" not in schema
    return schema.get("additionalProperties") is not False
