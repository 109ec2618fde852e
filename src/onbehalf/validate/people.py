"""`people.yaml` and the lines of a feed as values: who is who, checked so that nothing can mean more than it says.

Within a tenant only: there is no way to write an edge to another one. Must not hold how people are kept or found
(directory_sqlite.py) or what they may do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

from onbehalf.config import load_yaml
from onbehalf.errors import DirectoryInvalid
from onbehalf.model import Digest, Json, canonical, digest

__all__ = [
    "Login", "Member", "People", "Record", "TenantPeople", "ancestors", "checked_tenant", "name", "parse", "record",
]  # fmt: skip

_MAX_NAME = 200
_MAX_LOGIN = 255
"""As long as a subject that a token may name."""
_MAX_SAID = 40
_MAX_TEXT = 1000
_MAX_LIST = 1000
_MAX_LEVELS = 64
_SLASH = "entity ids are `tenant/name`; use another character"
_MEMBER_KEYS = ("name", "position", "groups", "active", "attributes", "logins")
_TENANT_KEYS = ("positions", "groups", "people")
_RECORD_KEYS = ("id", "manager", "manager_position", *_MEMBER_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """By what an issuer knows a person: its `iss` and `sub`."""

    issuer: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One person of a tenant. `position` is "" for none; `attributes` are plain values for bound parameters."""

    id: str
    name: str
    position: str
    groups: tuple[str, ...]
    active: bool
    attributes: Mapping[str, Json]
    logins: tuple[Login, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantPeople:
    """One tenant: position to the positions right above it, group to the groups it is in, and people by id."""

    positions: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, tuple[str, ...]]
    people: Mapping[str, Member]


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """The whole directory. `digest` is over its content, so that the same content is the same revision."""

    tenants: Mapping[str, TenantPeople]
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of a feed: a person, or a position or a group with what is right above it, or what somebody is in.

    `place` says where it stood. A person with a manager holds a position of their own id, below the manager's.
    """

    place: str
    member: Member | None = None
    positions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    memberships: tuple[tuple[str, str], ...] = ()
    logins: tuple[tuple[str, Login], ...] = ()


def record(value: Json, place: str) -> Record:
    """One line of a feed. Raises DirectoryInvalid naming the place.

    `{"id", "name", "manager" or "position", "groups", "active", "attributes", "logins"}` is a person, where `manager`
    is a person's id, or null for nobody above, and `manager_position` says what is right above an active person's
    `position`; `{"position", "above"}` and `{"group", "in"}` are places. What is named
    is not looked up: whether it is there can be told only when all lines are read.
    """
    if isinstance(value, dict) and "id" not in value and ("group" in value or "position" in value):
        key, up = ("group", "in") if "group" in value else ("position", "above")
        parts = _mapping(value, place, (key, up))
        above = () if parts.get(up) is None else tuple(name(each, place) for each in _list(parts[up], place))
        edges = {name(parts[key], f"{place}, `{key}`"): above}
        return Record(place=place, groups=edges) if key == "group" else Record(place=place, positions=edges)
    parts = _mapping(value, place, _RECORD_KEYS)
    id_ = name(parts.get("id"), f"{place}, `id`")
    member = _member(id_, {key: each for key, each in parts.items() if key in _MEMBER_KEYS}, place)
    for named in (*member.groups, *([member.position] if member.position else [])):
        name(named, place)
    if "manager" not in parts:
        return Record(place=place, member=member, positions=_above(member, parts.get("manager_position"), place))
    if parts.get("manager_position") is not None:
        _refuse(place, "has both `manager` and `manager_position`", "say who is above them, or which position is")
    if member.position:
        _refuse(place, "has both `manager` and `position`", "say who is above them, or which position they hold")
    manager = parts["manager"]
    above = () if manager is None else (name(manager, f"{place}, `manager`"),)
    return Record(place=place, member=replace(member, position=id_), positions={id_: above})


def _above(member: Member, above: Json, place: str) -> Mapping[str, tuple[str, ...]]:
    """The position that somebody holds, below their manager's. Who left may have had another manager: theirs counts
    no longer, or it would stand above whoever holds the position now."""
    if above is None:
        return {}
    if not member.position:
        _refuse(place, "has `manager_position` and no `position`", "say which position they hold")
    up = name(above, f"{place}, `manager_position`")
    return {member.position: (up,) if member.active else (), up: ()}


def name(value: Json, place: str) -> str:
    """A name of a person, position or group. Raises DirectoryInvalid naming the place."""
    text = _text(value, place)
    _require_no_slash(text, place)
    return text


def parse(text: str) -> People:
    """The directory in a YAML text. Raises DirectoryInvalid naming the place, or ConfigInvalid for what is no YAML."""
    value = load_yaml(text, what="people.yaml")
    top = _mapping(value, "people.yaml", ("tenants",))
    tenants = _names(top.get("tenants"), "`tenants`")
    found = {name: _tenant(name, each) for name, each in tenants.items()}
    # INVARIANT: all of it has been read above, so it is flat and plain, whatever aliases the text has
    return People(tenants=found, digest=digest(canonical(value)))


def ancestors(above: Mapping[str, tuple[str, ...]], start: str) -> Mapping[str, int]:
    """Everything above `start`, each with its least distance; `start` itself is not in it. `above` has no cycle."""
    found: dict[str, int] = {}
    level, distance = set(above[start]), 1
    while level:
        found |= {name: distance for name in level if name not in found}
        level = {parent for name in level for parent in above[name]} - found.keys()
        distance += 1
    return found


def _tenant(tenant: str, value: Json) -> TenantPeople:
    place = f"tenant `{tenant}`"
    parts = _mapping(value, place, _TENANT_KEYS)
    positions = {
        name: ()
        if above is None
        else _list(above if isinstance(above, list) else [above], f"{place}, position `{name}`")
        for name, above in _names(parts.get("positions", {}), f"{place}, `positions`").items()
    }
    groups = {
        name: () if above is None else _list(above, f"{place}, group `{name}`")
        for name, above in _names(parts.get("groups", {}), f"{place}, `groups`").items()
    }
    for kind, edges in (("position", positions), ("group", groups)):
        _require_forest(place, kind, edges)
    people = {
        name: _member(name, each, f"{place}, person `{name}`")
        for name, each in _names(parts.get("people", {}), f"{place}, `people`").items()
    }
    for person in people.values():
        _require_known(
            f"{place}, person `{person.id}`", "position", [person.position] if person.position else [], positions
        )
        _require_known(f"{place}, person `{person.id}`", "group", person.groups, groups)
    _require_alone(place, people.values())
    return TenantPeople(positions=positions, groups=groups, people=people)


def checked_tenant(tenant: str, made: TenantPeople) -> None:
    """That people who were not written in a file are as they must be: the names, the trees, one person a login and a
    position. Raises DirectoryInvalid."""
    place = f"tenant `{tenant}`"
    for kind, edges in (("position", made.positions), ("group", made.groups)):
        _names(dict.fromkeys(edges), f"{place}, `{kind}s`")
        _require_forest(place, kind, edges)
    _names(dict.fromkeys(made.people), f"{place}, `people`")
    for person in made.people.values():
        _text(person.name, f"{place}, `name`")
        for login in person.logins:
            _text(login.subject, f"{place}, `subject`", _MAX_LOGIN)
    _require_alone(place, made.people.values())


def _member(name: str, value: Json, place: str) -> Member:
    parts = _mapping(value, place, _MEMBER_KEYS)
    active, attributes, logins = parts.get("active", True), parts.get("attributes", {}), parts.get("logins", [])
    if not isinstance(active, bool):
        _refuse(place, "`active` is not true or false", "write true or false")
    if not isinstance(logins, list):
        _refuse(place, "`logins` is not a list", "write `- {issuer: …, subject: …}` for each")
    return Member(
        id=name,
        name=_text(parts.get("name"), f"{place}, `name`"),
        position=_text(parts["position"], f"{place}, `position`") if parts.get("position") is not None else "",
        groups=() if parts.get("groups") is None else _list(parts["groups"], f"{place}, `groups`"),
        active=active,
        attributes=_attributes(attributes, f"{place}, `attributes`"),
        logins=tuple(_login(each, place) for each in logins),
    )


def _login(value: Json, place: str) -> Login:
    parts = _mapping(value, f"{place}, a login", ("issuer", "subject"))
    return Login(
        issuer=_text(parts.get("issuer"), f"{place}, `issuer`", _MAX_LOGIN),
        subject=_text(parts.get("subject"), f"{place}, `subject`", _MAX_LOGIN),
    )


def _attributes(value: Json, place: str) -> Mapping[str, Json]:
    """Flat values only: nesting could be endless by an alias, and nothing is bound to it."""
    if not isinstance(value, dict):
        _refuse(place, "is not a mapping", "write `attributes: {department: sales}`")
    for key, each in value.items():
        _text(key, f"{place}, a name")
        flat = each if isinstance(each, list) else [each]
        if len(flat) > _MAX_LIST or not all(_is_plain(one) for one in flat):
            _refuse(
                f"{place}, `{key}`",
                "is no text, number, true, false or list of these",
                "put dates and the like in quotes",
            )
    return value


def _is_plain(value: Json) -> bool:
    if not isinstance(value, bool | int | float | str | None) or (isinstance(value, str) and len(value) > _MAX_TEXT):
        return False
    try:
        canonical(value)
    except ValueError:
        return False
    return True


def _require_forest(place: str, kind: str, edges: Mapping[str, tuple[str, ...]]) -> None:
    """No circle, and no more than 64 levels, in whatever order they are written."""
    for name, above in edges.items():
        _require_known(f"{place}, {kind} `{name}`", kind, above, edges)
    levels: dict[str, int] = {}
    for start in edges:
        trail = {start: iter(edges[start])}
        while trail:
            name = next(reversed(trail))
            above_it = next((each for each in trail[name] if each not in levels), None)
            if above_it is None:
                del trail[name]
                levels[name] = 1 + max((levels[each] for each in edges[name]), default=0)
            elif above_it in trail:
                _refuse(place, f"{kind} `{above_it}` is above itself", "break the circle")
            else:
                trail[above_it] = iter(edges[above_it])
            if len(trail) > _MAX_LEVELS or levels.get(name, 0) > _MAX_LEVELS:
                _refuse(place, f"{kind} `{name}` has {_MAX_LEVELS} or more levels above it", "take levels out")


def _require_known(place: str, kind: str, names: Iterable[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            _refuse(place, f"{kind} `{name}` is not in this tenant", f"add it under `{kind}s` of the same tenant")


def _require_alone(place: str, people: Iterable[Member]) -> None:
    """One person a login, and one active person a position: on one position two people would be above each other."""
    logins: dict[Login, str] = {}
    holders: dict[str, str] = {}
    for person in people:
        for login in person.logins:
            if logins.setdefault(login, person.id) != person.id or person.logins.count(login) > 1:
                _refuse(
                    place,
                    f"login `{login.subject}` of `{login.issuer}` is of `{logins[login]}` already",
                    "one person a login",
                )
        if person.active and person.position and holders.setdefault(person.position, person.id) != person.id:
            _refuse(
                place,
                f"`{person.id}` and `{holders[person.position]}` both hold the position `{person.position}`",
                "make a position for each: people on one position would count as each other's managers",
            )


def _names(value: Json, place: str) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        _refuse(place, "is not a mapping of names", "write `name: …` for each")
    for each in value:
        _text(each, f"{place}, a name")
        _require_no_slash(each, place)
    return value


def _require_no_slash(text: str, place: str) -> None:
    if "/" in text:
        _refuse(place, f"the name `{text[:_MAX_SAID]}` has a `/`", _SLASH)


def _mapping(value: Json, place: str, known: tuple[str, ...]) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        _refuse(place, "is not a mapping", f"known keys are {', '.join(f'`{key}`' for key in known)}")
    for key in value:
        if key not in known:
            said = "".join(each if each.isprintable() else "?" for each in str(key)[:_MAX_SAID])
            _refuse(
                place, f"has the unknown key `{said}`", f"known keys are {', '.join(f'`{each}`' for each in known)}"
            )
    return value


def _list(value: Json, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        _refuse(place, "has no list of names where one is needed", "write [one, two]")
    return tuple(dict.fromkeys(_text(each, place) for each in value))


def _text(value: Json, place: str, most: int = _MAX_NAME) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= most or not value.isprintable() or not value.strip():
        _refuse(place, f"is not 1 to {most} printable characters", "numbers and words like `no` need quotes")
    return value


def _refuse(place: str, what: str, hint: str) -> NoReturn:
    raise DirectoryInvalid(f"{place} {what}" if what.startswith(("is ", "has ")) else f"{place}: {what}", hint=hint)
