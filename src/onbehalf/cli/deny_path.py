"""Asks a loaded bundle what must never be allowed, and says what was.

These are questions, not proofs: they find a wall that is missing, not every too wide permit.
"""

from __future__ import annotations

from collections.abc import Sequence

from onbehalf.model import Entity, Json, Question, Ref, Tool, UnixTime
from onbehalf.ports import Engine
from onbehalf.validate import decide

__all__ = ["open_doors", "wide_doors"]

_OWN, _OTHER = "onbehalf-check", "onbehalf-other"
_SAMPLES: dict[str, Json] = {"String": "x", "Long": 1, "Bool": False}


def open_doors(engine: Engine, tools: Sequence[Tool], *, now: UnixTime) -> tuple[str, ...]:
    """A sentence for each question that was allowed and must not be; empty when all were denied."""
    found: list[str] = []
    left, here = _user(_OWN, "somebody", active=False), _user(_OWN, "somebody", active=True)
    for tool in tools:
        if decide.may(engine.judge(_question(left, tool, _at(tool), now))):
            found.append(f"`{tool.name}` is allowed to a person who left")
        if tool.rows is None:
            continue
        if decide.may(engine.judge(_question(_service("somebody"), tool, _row(tool, _OTHER), now))):
            found.append(f"`{tool.name}` releases rows of another tenant to a service")
        others = _user(_OTHER, "x", active=True)
        if decide.may(engine.judge(_question(here, tool, _row(tool, _OTHER), now, *others))):
            found.append(f"`{tool.name}` releases rows of another tenant")
    return tuple(found)


def wide_doors(engine: Engine, tools: Sequence[Tool], *, now: UnixTime) -> tuple[str, ...]:
    """A sentence for each tool that gives a person of no position and no group what is another's."""
    somebody, other = _user(_OWN, "somebody", active=True), _user(_OWN, "x", active=True)
    found: list[str] = []
    for tool in tools:
        if decide.may(engine.judge(_question(_service("somebody"), tool, _at(tool), now))):
            found.append(f"`{tool.name}` is allowed to every service of the tenant, by whatever name")
        if tool.rows is not None:
            what, about = "rows that are a colleague's", _row(tool, _OWN)
        elif tool.writes:
            what, about = "writing", _at(tool)
        else:
            continue
        if decide.may(engine.judge(_question(somebody, tool, about, now, *other[:1]))):
            found.append(f"`{tool.name}` allows {what} to everybody of the tenant, also without position or group")
    return tuple(found)


def _question(who: Sequence[Entity], tool: Tool, about: Entity, now: UnixTime, *others: Entity) -> Question:
    # with every scope the tool asks for: nothing but policy stands in the way
    context: dict[str, Json | Ref] = {
        "client": Ref(type="Client", id="onbehalf-check"),
        "scopes": [*sorted(tool.scopes)],
        "now": int(now),
    }
    entities = (*who, *others, about)
    return Question(principal=who[0].ref, action=tool.action, resource=about.ref, context=context, entities=entities)


def _user(tenant: str, name: str, *, active: bool) -> tuple[Entity, ...]:
    wall = Ref(type="Tenant", id=tenant)
    attributes: dict[str, Json | Ref] = {"tenant": wall, "name": name, "active": active}
    user = Entity(ref=Ref(type="User", id=f"{tenant}/{name}"), attributes=attributes, parents=())
    return (user, Entity(ref=wall, attributes={}, parents=()))


def _service(name: str) -> tuple[Entity, ...]:
    wall = Ref(type="Tenant", id=_OWN)
    attributes: dict[str, Json | Ref] = {
        "tenant": wall,
        "name": name,
        "active": True,
        "issuer": "https://check.invalid",
    }
    made = Entity(ref=Ref(type="Service", id=f"{_OWN}/{name}"), attributes=attributes, parents=())
    return (made, Entity(ref=wall, attributes={}, parents=()))


def _at(tool: Tool) -> Entity:
    """The tool, in the own tenant."""
    attributes: dict[str, Json | Ref] = {"tenant": Ref(type="Tenant", id=_OWN), "writes": tool.writes}
    return Entity(ref=Ref(type="Tool", id=tool.name), attributes=attributes, parents=())


def _row(tool: Tool, tenant: str) -> Entity:
    assert tool.rows is not None
    attributes: dict[str, Json | Ref] = {
        name: _SAMPLES[kind] if kind in _SAMPLES else Ref(type=kind, id=tenant if kind == "Tenant" else f"{tenant}/x")
        for name, (_, kind) in tool.rows.attributes.items()
    }
    attributes["tenant"] = Ref(type="Tenant", id=tenant)
    return Entity(ref=Ref(type=tool.rows.type, id=f"{tenant}/1"), attributes=attributes, parents=())
