"""Whom a security event is about: a subject identifier (RFC 9493) in its one strict reading.

Must not believe that there is such a person, or whose tenant it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from onbehalf.errors import ClaimRefused
from onbehalf.model import Json
from onbehalf.model_signals import Identifier, Subject

__all__ = ["read_subject"]

_MAX_ID = 255
_MAX_ISSUER = 2048
_MAX_ALIASES = 16
_MAX_MEMBERS = 16
_MEMBERS: Mapping[str, tuple[str, ...]] = {"iss_sub": ("iss", "sub"), "opaque": ("id",), "email": ("email",)}
"""The formats that are read, with their members: others may not stand beside (RFC 9493 section 3)."""


def read_subject(value: Json) -> Subject:
    """The subject as told. A format that is not read here is no error: it is kept as `unread`. Raises ClaimRefused."""
    told = _object(value)
    format_ = _format(told)
    if format_ != "complex":
        return _simple(told, format_)
    if len(told) > _MAX_MEMBERS:
        raise ClaimRefused(f"a complex subject has more than {_MAX_MEMBERS} members")
    members = {name: _object(part) for name, part in told.items() if name != "format"}
    if not members:
        raise ClaimRefused("a complex subject names nothing (SSF 1.0)")
    user, tenant = members.pop("user", None), members.pop("tenant", None)
    who = Subject() if user is None else _simple(user, _format(user))
    return Subject(
        who=who.who, unread=who.unread, tenant="" if tenant is None else _tenant(tenant),
        members=frozenset(name[:_MAX_ID] for name in members),
    )  # fmt: skip


def _object(value: Json) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise ClaimRefused("a subject identifier is not an object (RFC 9493 section 3)")
    return value


def _format(told: Mapping[str, Json]) -> str:
    return _text(told, "format", _MAX_ID)


def _simple(told: Mapping[str, Json], format_: str) -> Subject:
    if format_ == "aliases":
        return _aliases(told)
    if format_ not in _MEMBERS:
        return Subject(unread=(format_,))
    return Subject(who=(_identifier(told, format_),))


def _aliases(told: Mapping[str, Json]) -> Subject:
    """RFC 9493 section 3.2.8: names of one subject, and never aliases of aliases."""
    listed = told.get("identifiers")
    if told.keys() != {"format", "identifiers"} or not isinstance(listed, list) or not 1 <= len(listed) <= _MAX_ALIASES:
        raise ClaimRefused(f"`aliases` are not 1 to {_MAX_ALIASES} identifiers (RFC 9493 section 3.2.8)")
    who: list[Identifier] = []
    unread: list[str] = []
    for each in map(_object, listed):
        format_ = _format(each)
        if format_ in ("aliases", "complex"):
            raise ClaimRefused("an alias is not a simple identifier (RFC 9493 section 3.2.8)")
        if format_ in _MEMBERS:
            who.append(_identifier(each, format_))
        else:
            unread.append(format_)
    return Subject(who=tuple(who), unread=tuple(unread))


def _identifier(told: Mapping[str, Json], format_: str) -> Identifier:
    names = _MEMBERS[format_]
    if told.keys() != {"format", *names}:
        raise ClaimRefused(f"a subject identifier of format `{format_}` has not exactly its members (RFC 9493)")
    if format_ == "iss_sub":
        issuer, id_ = _text(told, "iss", _MAX_ISSUER), _text(told, "sub", _MAX_ID)
        return Identifier(format="iss_sub", issuer=issuer, id=id_)
    id_ = _text(told, names[0], _MAX_ID)
    if format_ == "email":
        if id_.count("@") != 1 or id_.startswith("@") or id_.endswith("@") or " " in id_:
            raise ClaimRefused("an e-mail address is none")
        return Identifier(format="email", id=id_)
    return Identifier(format="opaque", id=id_)


def _tenant(told: Mapping[str, Json]) -> str:
    """The provider's name of a tenant: an opaque id, or the issuer of it alone."""
    format_ = _format(told)
    name = {"opaque": "id", "iss_sub": "iss", "uri": "uri"}.get(format_)
    if name is None:
        raise ClaimRefused("a tenant is told in a format that is not read here")
    return _text(told, name, _MAX_ISSUER)


def _text(told: Mapping[str, Json], name: str, longest: int) -> str:
    value = told.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable() or not value.strip():
        raise ClaimRefused(f"`{name}` of a subject is not a string of 1 to {longest} printable characters")
    return value
