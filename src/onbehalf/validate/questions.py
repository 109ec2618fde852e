"""What is asked of the policy engine, as plain values: about a tool, about a row, about a row that is not there.

The context is the same for all three, so that tools/list and a call cannot ask by different rules. Must not hold
an answer (decide.py) or how rows are read (rows.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onbehalf.model import Caller, Entity, Json, Person, Question, Ref, Tool, UnixTime
from onbehalf.validate.rows import Row

__all__ = ["about_missing", "about_row", "about_rows", "about_tool", "absent_people", "by_person"]


def about_tool(person: Person, caller: Caller, tool: Tool, now: UnixTime) -> Question:
    """May this person use this tool at all. The Tool entity is in the caller's tenant."""
    ref = Ref(type="Tool", id=tool.name)
    attributes: dict[str, Json | Ref] = {"tenant": Ref(type="Tenant", id=caller.tenant), "writes": tool.writes}
    entity = Entity(ref=ref, attributes=attributes, parents=())
    return _question(person, caller, tool, now, (*person.entities, entity), ref)


def about_row(
    person: Person,
    caller: Caller,
    tool: Tool,
    now: UnixTime,
    row: Row,
    people: Mapping[str, Sequence[Entity]] | Sequence[Entity],
) -> Question:
    """May this person have this row. Who the row names is looked up in `people`, by the User's entity id.

    A named person that `people` lacks stays out: a policy that looks at them errors, and an error denies.
    `people` is best grouped once for many rows (`by_person`); a flat sequence is grouped here.
    """
    known = people if isinstance(people, Mapping) else by_person(people)
    named = [value for value in row.entity.attributes.values() if isinstance(value, Ref) and value.type == "User"]
    others = [entity for ref in named for entity in known.get(ref.id, ())]
    return _question(person, caller, tool, now, _distinct((*person.entities, *others, row.entity)), row.ref)


def about_rows(
    person: Person,
    caller: Caller,
    tool: Tool,
    now: UnixTime,
    rows: Sequence[Row],
    people: Mapping[str, Sequence[Entity]],
) -> tuple[Question, ...]:
    """`about_row` for each of many rows, in their order, over one tuple of entities that an engine prepares once.

    The answers are those of `about_row`: a row whose id stood before is asked about alone, or what was said of the one
    would be said of the other, and so is every row where rows refer to their own type, and one could speak for another.
    """
    first = {row.ref: row for row in reversed(rows)}
    if any(
        isinstance(value, Ref) and value.type == row.ref.type
        for row in rows
        for value in row.entity.attributes.values()
    ):
        first = {}
    named = dict.fromkeys(
        value.id
        for row in first.values()
        for value in row.entity.attributes.values()
        if isinstance(value, Ref) and value.type == "User"
    )
    others = [entity for id_ in named for entity in people.get(id_, ())]
    shared = _distinct((*person.entities, *others, *(row.entity for row in first.values())))
    return tuple(
        _question(person, caller, tool, now, shared, row.ref)
        if first.get(row.ref) is row
        else about_row(person, caller, tool, now, row, people)
        for row in rows
    )


def about_missing(person: Person, caller: Caller, tool: Tool, now: UnixTime, ref: Ref) -> Question:
    """May this person have a row that is not there. Every policy that looks at it errors, so it is never allowed."""
    return _question(person, caller, tool, now, person.entities, ref)


def by_person(people: Iterable[Entity]) -> Mapping[str, tuple[Entity, ...]]:
    """Directory entities grouped by User entity id: the User with all it refers to or is in."""
    index = {entity.ref: entity for entity in people}
    return {ref.id: _reach(entity, index) for ref, entity in index.items() if ref.type == "User"}


def absent_people(question: Question, known: Mapping[Ref, Entity]) -> tuple[str, ...]:
    """Errors for people the resource names whom nobody knows. `known` is the question's entities by their ids.

    Cedar answers `in`, `has` and `!=` about an entity it lacks with false or true, not with an error: a forbid on the
    subject's group would pass over an unknown subject in silence.
    """
    about = known.get(question.resource)
    named = [value for value in about.attributes.values() if isinstance(value, Ref)] if about else []
    missing = sorted({ref.id for ref in named if ref.type == "User" and ref not in known})
    return tuple(f"person `{each}` is not in the directory" for each in missing)


def _reach(start: Entity, index: Mapping[Ref, Entity]) -> tuple[Entity, ...]:
    found: dict[Ref, Entity] = {}
    open_ = [start]
    while open_:
        entity = open_.pop()
        if entity.ref in found:
            continue
        found[entity.ref] = entity
        refs = [*entity.parents, *(value for value in entity.attributes.values() if isinstance(value, Ref))]
        open_.extend(index[ref] for ref in refs if ref in index)
    return tuple(found.values())


def _distinct(entities: Sequence[Entity]) -> tuple[Entity, ...]:
    # the first wins: the caller's own entities stand first, and no row may redefine them
    found: dict[Ref, Entity] = {}
    for entity in entities:
        found.setdefault(entity.ref, entity)
    return tuple(found.values())


def _question(
    person: Person, caller: Caller, tool: Tool, now: UnixTime, entities: tuple[Entity, ...], resource: Ref
) -> Question:
    context: dict[str, Json | Ref] = {
        "client": Ref(type="Client", id=caller.client),
        "scopes": [*sorted(caller.scopes)],
        "now": int(now),
    }
    if caller.evidence.proof != "bearer":  # absent for a bearer token, whose question stays as short as it is
        context["proof"] = caller.evidence.proof
    return Question(principal=person.ref, action=tool.action, resource=resource, context=context, entities=entities)
