"""From what a client asks for to a `ToolCall`: the one file that makes one.

Scopes, then what was sent against what the model was shown, then the bound parameters, set from the caller. A bound
parameter is not in the shown schema, so one that is sent is refused before any value of it could matter. Must not hold
what a tool is (tools.py) or whether it is allowed (decide.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jsonschema_rs
import orjson
from msgspec.structs import replace

from onbehalf.errors import ArgumentsRefused, BoundParameter, ConfigInvalid, DirectoryStale, ScopeMissing
from onbehalf.model import (
    Bound,
    Caller,
    CallId,
    DryRun,
    Json,
    Lookup,
    Page,
    Person,
    Predicate,
    Ref,
    Tool,
    ToolCall,
    ToolRequest,
    UnixTime,
    canonical,
    digest,
)  # fmt: skip
from onbehalf.model_value import Value
from onbehalf.validate.explore import require_query
from onbehalf.validate.identity_names import identity_like
from onbehalf.validate.paging import CURSOR, SIZE
from onbehalf.validate.schema_work import looks

__all__ = [
    "CHANGE", "ArgumentCheck", "Arrival", "as_tried", "identity_like", "lookup_value", "narrowed", "paged", "prepare",
    "route", "route_lookup", "shown_schema", "tried",
]  # fmt: skip

CHANGE = "change"
"""The parameter by which a client asks for the change set that it was shown."""
_MAX_SCHEMA_BYTES = 64 * 1024
_MAX_SCHEMA_DEPTH = 40
_MAX_ARGUMENT_BYTES = 1 * 2**20
_MAX_ARGUMENT_DEPTH = 32
_MAX_WORK = 10_000_000
"""Schema looks at values that one check may take: a tenth of a second or so, in which nothing else is done."""
_MAX_EXPLAINED = 5_000
"""Schema looks beyond which it is not said what does not fit: each error costs a thousand times as much as a look."""
_MAX_MESSAGES = 3
_MAX_NAME = 40
_MAX_VALUE = 200
_ELSEWHERE = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
"""Beside these, older drafts read nothing else of a schema: not that it is closed to unknown parameters."""
_PLAIN = frozenset(
    {"$comment", "$defs", "$id", "$schema", "additionalProperties", "default", "definitions", "deprecated"}
    | {"description", "examples", "properties", "required", "title", "type"}
)
"""All that a schema may say of its parameters where some are bound; anything else might speak of those."""
_BACKTRACK = 10_000
"""How far a pattern may go back before it counts as not matching: patterns come from upstreams, texts from models."""


class Arrival(Value, frozen=True, kw_only=True):
    """A call at the moment it comes in: who, known as whom, when, and its id."""

    id: CallId
    at: UnixTime
    caller: Caller
    person: Person


@dataclass(frozen=True, slots=True)
class ArgumentCheck:
    """A schema made ready once, at load. Made by `prepare`."""

    _validator: jsonschema_rs.Validator = field(repr=False)
    _looks: tuple[int, ...] = field(repr=False)

    def refusals(self, arguments: Mapping[str, Json]) -> tuple[str, ...]:
        """What does not fit, at most three sentences, without the values that were sent. The names are, cut short."""
        levels, values = _extent(dict(arguments))
        if levels > _MAX_ARGUMENT_DEPTH:
            return (f"the arguments are nested deeper than {_MAX_ARGUMENT_DEPTH}",)
        work = values * self._looks[levels]
        if work > _MAX_WORK:
            return ("the arguments are too large or too deep to be checked against this tool's schema",)
        if self._validator.is_valid(arguments):
            return ()
        if work > _MAX_EXPLAINED:
            return ("the arguments do not fit, and are too large to say where",)
        errors = itertools.islice(self._validator.iter_errors(arguments), _MAX_MESSAGES)
        return tuple(map(_said, errors)) or ("the arguments do not fit",)


def prepare(schema: Mapping[str, Json]) -> ArgumentCheck:
    """A shown schema (JSON Schema, 2020-12 by default), ready to check with. Nothing is fetched for it.

    Raises ConfigInvalid for one that is no schema, too large or deep, or refers to anything outside itself.
    """
    try:
        size, (depth, _) = len(orjson.dumps(schema)), _extent(dict(schema))
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
        work = looks(dict(schema), _MAX_ARGUMENT_DEPTH)
    except (ValueError, RecursionError, jsonschema_rs.ReferencingError) as error:
        said = _readable(str(error).partition("\n")[0], _MAX_VALUE)
        raise ConfigInvalid(
            f"a tool's schema cannot be used: {said}", hint="it must stand alone, with `$ref` of the form `#/…` only"
        ) from error
    return ArgumentCheck(validator, work)


def shown_schema(schema: Mapping[str, Json], bound: Sequence[Bound], dry_run: DryRun | None = None) -> dict[str, Json]:
    """What the model sees: a schema without the parameters that the gateway sets, closed to others.

    Raises ConfigInvalid.
    """
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if schema.get("type") != "object" or not isinstance(properties, dict) or not isinstance(required, list):
        raise ConfigInvalid("a tool's schema is not of type `object` with `properties`")
    if not _ELSEWHERE.isdisjoint(schema):
        raise ConfigInvalid("a tool's schema refers elsewhere for its parameters", hint="it must list `properties`")
    hidden = {each.parameter for each in bound} | ({dry_run.parameter} if dry_run else set())
    loose = sorted(key for key in schema if key not in _PLAIN and not key.startswith("x-")) if hidden else []
    if loose:  # such as `anyOf: [{required: [tenant_id]}]`, or a pattern that brings a bound parameter back
        raise ConfigInvalid(
            f"a tool's schema says more of its parameters than `properties` (`{_readable(loose[0], _MAX_NAME)}`), "
            "so none can be bound safely",
            hint="remove `bound`, or let the server use plain `properties` and `required`",
        )
    if hidden:  # examples of whole calls would show what is bound
        schema = {key: value for key, value in schema.items() if key not in ("default", "examples")}
    return {
        **schema,
        "properties": {name: each for name, each in properties.items() if name not in hidden},
        "required": [name for name in required if name not in hidden],
        "additionalProperties": False,
    }


def route(request: ToolRequest, *, tool: Tool, check: ArgumentCheck, arrival: Arrival) -> ToolCall:
    """The call, with checked arguments and bound parameters set from the caller.

    Does not check that the caller may do it. Raises DirectoryStale for a tool that writes, when what is known of the
    caller is too old; ScopeMissing, BoundParameter, ArgumentsRefused.
    """
    until = arrival.person.fresh_until
    if tool.writes and until is not None and arrival.at > until:
        raise DirectoryStale(
            "what is known of your company's people is too old for a call that writes",
            hint="reading works; try again later, and tell whoever looks after the directory that its feed is late",
        )
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
    if tool.dry_run is not None and tool.dry_run.parameter in sent:
        raise BoundParameter(
            f"`{tool.dry_run.parameter}` is set by the gateway and cannot be sent",
            hint="leave it out; each call is tried before it is done",
        )
    if _extent(sent)[0] > _MAX_ARGUMENT_DEPTH:
        raise ArgumentsRefused(f"the arguments are nested deeper than {_MAX_ARGUMENT_DEPTH}", hint="send less")
    _spelled(sent)  # the check below cannot read all that Python can hold
    refusals = check.refusals(sent)
    if refusals:
        raise ArgumentsRefused("; ".join(refusals), hint="send what the tool's input schema asks for")
    change = str(sent.pop(CHANGE, "")) if tool.preview == "asked" else ""
    page = _page(tool, sent)
    made = _made(sent, tool, arrival, protocol=request.protocol, agent=request.agent, once=request.once)
    require_query(made)
    return replace(made, change=change, page=page) if change or page else made


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
    return _made(sent, tool, arrival, protocol=call.protocol, agent=call.agent, once="")


def _page(tool: Tool, sent: dict[str, Json]) -> Page | None:
    """The page that is asked for, taken from what was sent: it is no argument of the statement."""
    if tool.pages is None:
        return None
    size = sent.pop(SIZE, tool.pages.size)
    assert isinstance(size, int)  # INVARIANT: the shown schema says so
    return Page(size=size, cursor=str(sent.pop(CURSOR, "")))


def paged(call: ToolCall, page: Page | None) -> ToolCall:
    """The same call, for that page of its answer."""
    return replace(call, page=page)


def tried(call: ToolCall) -> ToolCall:
    """The same call, to be tried by its upstream and taken back.

    An API's own dry run is a call with other arguments, for which alone its call token is. Raises ArgumentsRefused.
    """
    dry_run = call.tool.dry_run
    if dry_run is None:
        return replace(call, dry=True, expected="")
    arguments = _spelled({**orjson.loads(call.arguments), dry_run.parameter: dry_run.value})
    return replace(call, dry=True, expected="", arguments=arguments, digest=digest(arguments))


def narrowed(call: ToolCall, where: Predicate) -> ToolCall:
    """The same call, on the rows that `where` lets through."""
    return replace(call, where=where)


def as_tried(call: ToolCall, changed: str) -> ToolCall:
    """The same call, to be done only if `changed`, an upstream's digest, is what comes of it."""
    return replace(call, dry=False, expected=changed)


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


def _made(sent: dict[str, Json], tool: Tool, arrival: Arrival, *, protocol: str, agent: str, once: str) -> ToolCall:
    for each in tool.bound:
        sent[each.parameter] = _bound(each, arrival)
    if tool.dry_run is not None and tool.dry_run.off:
        sent[tool.dry_run.parameter] = tool.dry_run.off[0]
    arguments = _spelled(sent)
    return ToolCall(
        id=arrival.id, at=arrival.at, caller=arrival.caller, person=arrival.person, tool=tool, arguments=arguments,
        digest=digest(arguments), protocol=protocol, agent=agent, once=once,
    )  # fmt: skip


def _spelled(arguments: dict[str, Json]) -> bytes:
    try:
        spelled = canonical(arguments)
    except ValueError as error:  # its words hold the value
        raise ArgumentsRefused(
            "the arguments hold what has no one spelling in JSON",
            hint="send no NaN, no integer beyond 2**53 - 1 and no lone surrogate",
        ) from error
    if len(spelled) > _MAX_ARGUMENT_BYTES:
        raise ArgumentsRefused(f"the arguments are larger than {_MAX_ARGUMENT_BYTES} bytes", hint="send less")
    return spelled


def _bound(bound: Bound, arrival: Arrival) -> Json:
    """The value of a bound parameter. What the caller lacks is a refusal, never an empty value that could mean all."""
    if bound.source == "constant":
        return bound.value
    if bound.source == "tenant":
        return arrival.caller.tenant
    person = arrival.person
    if person.kind != "person" and bound.name != "id":
        raise ArgumentsRefused(
            f"this tool needs a person's `{bound.name}`, and a service called", hint="let a person call it"
        )
    own: dict[str, Json] = {
        "id": person.own_id,
        "name": person.name,
        "position": _position(person),
        "subject": arrival.caller.subject,
    }
    value = own[bound.name] if bound.name in own else person.attributes.get(bound.name)
    if value is None or value == [] or value == {} or (isinstance(value, str) and not value.strip()):
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


def _said(error: jsonschema_rs.ValidationError) -> str:
    """One error as a sentence: the schema's words, and of what was sent only names."""
    place = "/".join(_readable(str(part), _MAX_NAME) for part in error.instance_path)[:_MAX_VALUE]
    if error.kind.name == "additionalProperties":
        names = ", ".join(f"`{_readable(str(name), _MAX_NAME)}`" for name in error.kind.value[:_MAX_MESSAGES])
        what = f"there is no parameter {names}"
    elif error.kind.name == "falseSchema":
        what = "nothing may be sent here" if place else "this tool takes no such parameter"
    else:
        what = _readable(error.message, _MAX_VALUE)
    return f"`{place}`: {what}" if place else what


def _readable(text: str, most: int) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:most])


def _extent(value: Json) -> tuple[int, int]:
    """Levels of nesting, and how many values; counted without recursion, for what is counted may be hostile."""
    deepest, values, todo = 0, 0, [(value, 1)]
    while todo:
        item, level = todo.pop()
        values += 1
        if isinstance(item, dict | list):
            deepest = max(deepest, level)
            todo += [(each, level + 1) for each in (item.values() if isinstance(item, dict) else item)]
    return deepest, values
