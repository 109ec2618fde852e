"""Users and groups that an identity provider pushed, as people of the directory.

Everybody has a position of their own, named as they are, below that of their manager: so "my team" follows the
provider's `manager`. Somebody who is not active, or was deleted, keeps their place, so that those below go on having
somebody above them, and holds no position. A manager who was not pushed yet is nobody until then, for providers push in
any order. A group is in the groups that name it as a member. Must not know how resources are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from onbehalf.errors import DirectoryInvalid, ScimInvalid
from onbehalf.model import Json
from onbehalf.validate.people import Login, Member, TenantPeople, checked_tenant
from onbehalf.validate.scim_path import ENTERPRISE

__all__ = ["Feed", "Pushed", "tenant_people"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """How pushed resources become people of `tenant`: by which attribute a person is called, and known to `issuer`."""

    tenant: str
    issuer: str
    person: Literal["userName", "externalId"]
    login: Literal["userName", "externalId"]
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """One resource as it is kept. `deleted` ones are kept as people who left."""

    id: str
    body: Mapping[str, Json] = field(repr=False)
    deleted: bool = False


def tenant_people(feed: Feed, users: Sequence[Pushed], groups: Sequence[Pushed]) -> TenantPeople:
    """The people of one tenant. Raises ScimInvalid for what cannot be: two of one name, a circle of managers."""
    names = {each.id: _named(each, feed.person) for each in users}
    _require_unique(names.values(), "users are called")
    circles = {each.id: str(each.body["displayName"]) for each in groups if not each.deleted}
    _require_unique(circles.values(), "groups are called")
    within = _within(groups, {*names, *circles})
    members = {
        names[each.id]: _member(each, feed, names, [circles[group] for group in within.get(each.id, ())])
        for each in users
    }
    positions = {names[each.id]: _above(each, names) for each in users}
    above = {name: tuple(circles[group] for group in within.get(id, ())) for id, name in circles.items()}
    made = TenantPeople(positions=positions, groups=above, people=members)
    try:
        checked_tenant(feed.tenant, made)
    except DirectoryInvalid as error:
        raise ScimInvalid(error.message, kind="invalidValue") from error
    return made


def _member(user: Pushed, feed: Feed, names: Mapping[str, str], groups: Sequence[str]) -> Member:
    body, own = user.body, names[user.id]
    active = body.get("active") is True and not user.deleted
    login = body.get(feed.login)
    shown = body.get("name")
    formatted = shown.get("formatted") if isinstance(shown, dict) else None
    extension = body.get(ENTERPRISE)
    known = {**(extension if isinstance(extension, dict) else {}), **body}
    return Member(
        id=own,
        name=str(body.get("displayName") or formatted or own),
        position=own if active else "",
        groups=tuple(groups) if active else (),
        active=active,
        attributes={name: known[name] for name in feed.attributes if isinstance(known.get(name), str)},
        logins=(Login(issuer=feed.issuer, subject=login),) if isinstance(login, str) else (),
    )


def _named(user: Pushed, attribute: str) -> str:
    name = user.body.get(attribute)
    if not isinstance(name, str):
        raise ScimInvalid(f"a user has no `{attribute}`, by which people are called here", kind="invalidValue")
    return name


def _above(user: Pushed, names: Mapping[str, str]) -> tuple[str, ...]:
    extension = user.body.get(ENTERPRISE)
    manager = extension.get("manager") if isinstance(extension, dict) else None
    value = manager.get("value") if isinstance(manager, dict) else None
    return (names[value],) if isinstance(value, str) and value in names else ()


def _within(groups: Sequence[Pushed], known: set[str]) -> Mapping[str, list[str]]:
    """The groups that name each user or group as a member."""
    within: dict[str, list[str]] = {}
    for group in groups:
        members = group.body.get("members")
        for each in members if isinstance(members, list) and not group.deleted else ():
            value = each.get("value") if isinstance(each, dict) else None
            if isinstance(value, str) and value in known:
                within.setdefault(value, []).append(group.id)
    return within


def _require_unique(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise ScimInvalid(f"two {what} `{name}`", kind="uniqueness")
        seen.add(name.casefold())
