"""Values between the house and Cedar: entities checked as they are made, and answers raw as they come.

Must not ask anything (engine_cedar.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version

import cedarpy
import orjson

from onbehalf.model import Entity, Json, Judgement, Owed, Ref

__all__ = ["action_of", "checked", "engine_name", "held_of", "judgement", "unanswered", "value_of"]


@cache
def engine_name() -> str:
    """The engine with its version, as the record names it."""
    return f"cedarpy {version('cedarpy')}"


def action_of(name: str) -> dict[str, str]:
    """An action by its name in the configuration: `readReview`, or within a namespace `HR::readReview`."""
    space, separator, id_ = name.rpartition("::")
    return {"type": f"{space}{separator}Action", "id": id_}


def checked(entities: Sequence[Entity], schema: cedarpy.Schema) -> cedarpy.Entities:
    """The only maker of entity handles: cedarpy checks them here or never. Raises ValueError, TypeError."""
    return cedarpy.Entities.from_json_str(orjson.dumps([_entity(each) for each in entities]).decode(), schema)


def _entity(entity: Entity) -> dict[str, Json]:
    return {
        "uid": {"type": entity.ref.type, "id": entity.ref.id},
        "attrs": {name: value_of(value) for name, value in entity.attributes.items()},
        "parents": [{"type": parent.type, "id": parent.id} for parent in entity.parents],
    }


def value_of(value: Json | Ref) -> Json:
    """A value in Cedar's JSON. Raises ValueError for what could pass for an entity."""
    if isinstance(value, Ref):
        return {"__entity": {"type": value.type, "id": value.id}}
    if isinstance(value, dict):  # `__entity` and `__extn` in data would turn text into entities
        raise ValueError("a record cannot be a value here")
    if isinstance(value, list):
        return [value_of(item) for item in value]
    return value


def judgement(result: cedarpy.AuthzResult, absent: tuple[str, ...], owed: Mapping[str, Owed]) -> Judgement:
    """What Cedar said, with the errors of people whom nobody knows and what the determining policies demand."""
    decision, diagnostics = result.decision, result.diagnostics  # each is looked up anew whenever it is asked for
    policies = tuple(sorted(diagnostics.reasons))
    return Judgement(
        allowed=decision is cedarpy.Decision.Allow,
        policies=policies,
        errors=(*diagnostics.errors, *absent),
        validated=decision is not cedarpy.Decision.NoDecision,
        owed=tuple(owed[policy] for policy in policies if policy in owed) if owed else (),
        engine=engine_name(),
    )


def unanswered(why: str) -> Judgement:
    """No, for want of an answer."""
    return Judgement(allowed=False, policies=(), errors=(why,), validated=False, engine=engine_name())


def held_of(held: frozenset[str], name: str) -> bool | None:
    """A condition's truth by its two probes; None where it errs."""
    return True if f"{name}.t" in held else False if f"{name}.f" in held else None
