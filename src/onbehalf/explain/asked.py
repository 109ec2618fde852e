"""What an engine was asked for a decision, as a fact from which the decision can be made again.

    {"about": [{"entities": [...], "resource": {"id", "type"}}, ...], "action", "context", "entities": [...],
     "login": {"acr", "auth_time"}, "principal": {"id", "type"}, "tool": {"lookup", "mapped"}, "v": 1}

`entities` is the caller's own slice of the directory, under which all is asked; what only one question looks at stands
with that one. Entities and values are in Cedar's JSON, sorted; an integer that RFC 8785 has no spelling for is
`{"__long": "<digits>"}`. A slice is spelled once a Person. In the place of entities of more than 256 KiB stand their
digest and length. What cannot be spelled at all is left out, with the reason. Must not hold an answer (entries.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from onbehalf.model import Asked, Canonical, Entity, Json, Person, Question, Ref, ToolCall, canonical, digest

__all__ = ["MAX_ENTITIES_BYTES", "question"]

MAX_ENTITIES_BYTES = 256 * 1024
_SAFE_INTEGER = 2**53 - 1


def question(call: ToolCall, asked: Asked) -> Canonical:
    """The fact. `call` is what was decided."""
    try:
        return _fact(call, asked)
    except (ValueError, TypeError) as error:
        return Canonical(canonical({"left_out": str(error)[:200].encode("ascii", "replace").decode(), "v": 1}))


def _fact(call: ToolCall, asked: Asked) -> Canonical:
    # INVARIANT: names are ASCII and values texts, whole numbers, truths and what was spelled so before, so that what
    # orjson gives is RFC 8785, for a fraction of what `canonical` takes
    first, evidence, tool = asked.questions[0], call.caller.evidence, call.tool
    login: dict[str, Json] = {"acr": evidence.acr} if evidence.acr else {}
    if evidence.auth_time is not None:
        login["auth_time"] = evidence.auth_time
    fact = {
        "about": [_about(each, call.person) for each in asked.questions],
        "action": first.action,
        "context": _values(first.context),
        "entities": orjson.Fragment(_slice(call.person)),
        "login": login,
        "principal": {"id": first.principal.id, "type": first.principal.type},
        "tool": {"lookup": tool.lookup is not None, "mapped": tool.rows is not None},
        "v": 1,
    }
    return Canonical(orjson.dumps(fact, option=orjson.OPT_SORT_KEYS))


def _about(asked: Question, person: Person) -> dict[str, object]:
    """One question's resource, and the entities that are not of the caller's own slice."""
    own = len(person.entities)
    others = asked.entities[own:] if asked.entities[:own] == person.entities else asked.entities
    # the gateway's own entity of a tool is small; what came from an upstream may be of any size
    tool = asked.resource.type == "Tool" and len(others) == 1
    return {
        "entities": [_entity(others[0])] if tool else orjson.Fragment(_entities(others)),
        "resource": {"id": asked.resource.id, "type": asked.resource.type},
    }


def _slice(person: Person) -> bytes:
    found = person.spellings.get("entities")
    if found is None:
        found = person.spellings["entities"] = _entities(person.entities)
    return found


def _entities(entities: Sequence[Entity]) -> bytes:
    spelled = canonical([_entity(each) for each in entities])
    if len(spelled) <= MAX_ENTITIES_BYTES:
        return spelled
    return canonical({"bytes": len(spelled), "digest": digest(spelled)})


def _entity(entity: Entity) -> dict[str, Json]:
    return {
        "attrs": _values(entity.attributes),
        "parents": [{"id": parent.id, "type": parent.type} for parent in entity.parents],
        "uid": {"id": entity.ref.id, "type": entity.ref.type},
    }


def _values(values: Mapping[str, Json | Ref]) -> dict[str, Json]:
    # most are texts, which stand for themselves
    return {name: value if type(value) is str else _value(value) for name, value in values.items()}


def _value(value: Json | Ref) -> Json:
    kind = type(value)
    if kind is str or kind is bool:
        return value  # type: ignore[return-value]  # it is one of these
    if isinstance(value, Ref):
        return {"__entity": {"id": value.id, "type": value.type}}
    if isinstance(value, list):
        return [_value(each) for each in value]
    if isinstance(value, int):
        return value if -_SAFE_INTEGER <= value <= _SAFE_INTEGER else {"__long": str(value)}
    # no engine is asked over these: what is one could pass for an entity, or has no type in Cedar
    raise ValueError(f"a {kind.__name__} cannot be a value of a question")
