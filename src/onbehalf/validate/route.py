"""From what a client asks for to a `ToolCall`: the one file that makes one.

Scopes, then what was sent against what the model was shown, then the bound parameters, set from the caller. A bound
parameter is not in the shown schema, so one that is sent is refused before any value of it could matter. Must not hold
what a tool is (tools.py) or whether it is allowed (decide.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jsonschema_rs
import orjson

from onbehalf.errors import ArgumentsRefused, BoundParameter, ConfigInvalid, ScopeMissing
from onbehalf.model import (
    Bound,
    Caller,
    CallId,
    Json,
    Lookup,
    Person,
    Ref,
    Tool,
    ToolCall,
    ToolRequest,
    UnixTime,
    canonical,
    digest,
)  # fmt: skip

__all__ = [
    "ArgumentCheck", "Arrival", "identity_like", "lookup_value", "prepare", "route", "route_lookup", "shown_schema",
]  # fmt: skip

_MAX_SCHEMA_BYTES = 64 * 1024
_MAX_SCHEMA_DEPTH = 40
_MAX_ARGUMENT_BYTES = 1 * 2**20
_MAX_ARGUMENT_DEPTH = 32
_MAX_MESSAGES = 3
_MAX_VALUE = 200
_BACKTRACK = 10_000
"""How far a pattern may go back before it counts as not matching: patterns come from upstreams, texts from models."""
_IDENTITY_PARTS = frozenset(
    {"actor", "behalf", "caller", "email", "employee", "impersonate", "login", "org", "principal", "sub", "subject"}
    | {"tenant", "user", "userid", "username", "whoami"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A call at the moment it comes in: who, known as whom, when, and its id."""

    id: CallId
    at: UnixTime
    caller: Caller
    person: Person


@dataclass(frozen=True, slots=True)
class ArgumentCheck:
    """A schema made ready once, at load. Made by `prepare`."""

    _validator: jsonschema_rs.Validator = field(repr=False)

    def refusals(self, arguments: Mapping[str, Json]) -> tuple[str, ...]:
        """What does not fit, at most three sentences, without the values that were sent."""
        if self._validator.is_valid(arguments):
            return ()
        found: list[str] = []
        for error in self._validator.iter_errors(arguments):
            place = "/".join(str(part) for part in error.instance_path)
            found.append(
                f"`{place[:_MAX_VALUE]}`: {error.message[:_MAX_VALUE]}" if place else error.message[:_MAX_VALUE]
            )
            if len(found) == _MAX_MESSAGES:
                break
        return tuple(found) or ("the arguments do not fit",)


def prepare(schema: Mapping[str, Json]) -> ArgumentCheck:
    """A shown schema (JSON Schema, 2020-12 by default), ready to check with. Nothing is fetched for it.

    Raises ConfigInvalid for one that is no schema, too large or deep, or refers to anything outside itself.
    """
    try:
        size, depth = len(orjson.dumps(schema)), _depth(dict(schema))
    except (TypeError, RecursionError) as error:
        raise ConfigInvalid(f"a tool's schema is no JSON: {error}") from error
    if size > _MAX_SCHEMA_BYTES or depth > _MAX_SCHEMA_DEPTH:
        raise ConfigInvalid(f"a tool's schema has at most {_MAX_SCHEMA_BYTES} bytes and {_MAX_SCHEMA_DEPTH} levels")
    if schema.get("type") != "object":
        raise ConfigInvalid("a tool's schema is not of type `object`")
    try:
        validator = jsonschema_rs.validator_for(
            dict(schema),
            offline=True,
            mask="the value",
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACK),
        )
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        said = str(error).partition("\n")[0][:_MAX_VALUE]
        raise ConfigInvalid(
            f"a tool's schema cannot be used: {said}", hint="it must stand alone, without remote `$ref`"
        ) from error
    return ArgumentCheck(validator)


def shown_schema(schema: Mapping[str, Json], bound: Sequence[Bound]) -> dict[str, Json]:
    """What the model sees: a schema without the bound parameters, closed to others. Raises ConfigInvalid."""
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if schema.get("type") != "object" or not isinstance(properties, dict) or not isinstance(required, list):
        raise ConfigInvalid("a tool's schema is not of type `object` with `properties`")
    hidden = {each.parameter for each in bound}
    loose = {"patternProperties", "unevaluatedProperties", "propertyNames", "dependentRequired", "dependentSchemas"}
    if hidden and not loose.isdisjoint(schema):
        raise ConfigInvalid(
            "a tool's schema says more about its parameters than `properties`, so none can be bound safely",
            hint="remove `bound`, or let the server use plain `properties`",
        )
    return {
        **schema,
        "properties": {name: each for name, each in properties.items() if name not in hidden},
        "required": [name for name in required if name not in hidden],
        "additionalProperties": False,
    }


def identity_like(schema: Mapping[str, Json]) -> tuple[str, ...]:
    """Shown parameters whose names suggest that they choose a person or tenant. A guess, for warnings only."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return ()
    return tuple(
        name for name in properties if not _IDENTITY_PARTS.isdisjoint(name.lower().replace("-", "_").split("_"))
    )


def route(request: ToolRequest, *, tool: Tool, check: ArgumentCheck, arrival: Arrival) -> ToolCall:
    """The call, with checked arguments and bound parameters set from the caller.

    Does not check that the caller may do it. Raises ScopeMissing, BoundParameter, ArgumentsRefused.
    """
    missing = tool.scopes - arrival.caller.scopes
    if missing:
        listed = ", ".join(f"`{scope}`" for scope in sorted(missing))
        raise ScopeMissing(
            f"the token lacks {listed}", scopes=tool.scopes, hint="log in again and allow the scopes this tool needs"
        )
    sent = dict(request.arguments)
    for each in tool.bound:
        if each.parameter in sent:
            raise BoundParameter(
                f"`{each.parameter}` is set by the gateway and cannot be sent", hint="leave it out; it is always yours"
            )
    if _depth(sent) > _MAX_ARGUMENT_DEPTH:
        raise ArgumentsRefused(f"the arguments are nested deeper than {_MAX_ARGUMENT_DEPTH}", hint="send less")
    refusals = check.refusals(sent)
    if refusals:
        raise ArgumentsRefused("; ".join(refusals), hint="send what the tool's input schema asks for")
    return _made(sent, tool, arrival, protocol=request.protocol, agent=request.agent)


def route_lookup(call: ToolCall, *, tool: Tool, check: ArgumentCheck) -> ToolCall:
    """The call that finds the one resource another call is about, for the same person and under the same id.

    Its tool's scopes are not asked for: nothing it finds is released, and the client has the scopes of what it asked.
    Raises ArgumentsRefused.
    """
    lookup = _lookup(call)
    sent: dict[str, Json] = {lookup.parameter: _value(call, lookup)}
    refusals = check.refusals(sent)
    if refusals:
        raise ArgumentsRefused(f"`{lookup.argument}`: {'; '.join(refusals)}", hint="send the id of one resource")
    arrival = Arrival(id=call.id, at=call.at, caller=call.caller, person=call.person)
    return _made(sent, tool, arrival, protocol=call.protocol, agent=call.agent)


def lookup_value(call: ToolCall) -> str:
    """The id of the resource a call is about, as in entity ids. Raises ArgumentsRefused."""
    return str(_value(call, _lookup(call)))


def _lookup(call: ToolCall) -> Lookup:
    if call.tool.lookup is None:
        raise ArgumentsRefused(f"`{call.tool.name}` is not about one resource")
    return call.tool.lookup


def _value(call: ToolCall, lookup: Lookup) -> str | int:
    value = orjson.loads(call.arguments).get(lookup.argument)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value) or len(str(value)) > _MAX_VALUE:
        raise ArgumentsRefused(f"`{lookup.argument}` names no resource", hint="send the id of one resource")
    return value


def _made(sent: dict[str, Json], tool: Tool, arrival: Arrival, *, protocol: str, agent: str) -> ToolCall:
    for each in tool.bound:
        sent[each.parameter] = _bound(each, arrival)
    try:
        arguments = canonical(sent)
    except ValueError as error:
        raise ArgumentsRefused(f"the arguments have no canonical form: {error}", hint="send plain JSON") from error
    if len(arguments) > _MAX_ARGUMENT_BYTES:
        raise ArgumentsRefused(f"the arguments are larger than {_MAX_ARGUMENT_BYTES} bytes", hint="send less")
    return ToolCall(
        id=arrival.id, at=arrival.at, caller=arrival.caller, person=arrival.person, tool=tool, arguments=arguments,
        digest=digest(arguments), protocol=protocol, agent=agent,
    )  # fmt: skip


def _bound(bound: Bound, arrival: Arrival) -> Json:
    """The value of a bound parameter. What the caller lacks is a refusal, never an empty value that could mean all."""
    if bound.source == "constant":
        return bound.value
    if bound.source == "tenant":
        return arrival.caller.tenant
    person = arrival.person
    own: dict[str, Json] = {
        "id": person.ref.id.partition("/")[2],
        "name": person.name,
        "position": _position(person),
        "subject": arrival.caller.subject,
    }
    value = own[bound.name] if bound.name in own else person.attributes.get(bound.name)
    if value is None or value == "" or value == [] or value == {}:
        raise ArgumentsRefused(
            f"this tool needs your `{bound.name}`, which the directory does not have",
            hint="ask whoever looks after the directory",
        )
    return value


def _position(person: Person) -> str:
    for entity in person.entities:
        position = entity.attributes.get("position")
        if entity.ref == person.ref and isinstance(position, Ref):
            return position.id.partition("/")[2]
    return ""


def _depth(value: Json) -> int:
    """Levels of nesting; counted without recursion, for what is counted may be hostile."""
    deepest, todo = 0, [(value, 1)]
    while todo:
        item, level = todo.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, level)
            todo += [(each, level + 1) for each in (item.values() if isinstance(item, dict) else item)]
    return deepest
