"""What a proven security event comes to: for whom tokens end, who is kept out, and who may come back.

What takes away holds for everybody whom it could mean, what gives back for exactly one. An event or a format that is
not known comes to nothing, and never to a guess. Must not look anybody up, or keep what was done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onbehalf.config_signals import StreamSettings, tenants_of
from onbehalf.errors import TenantRefused
from onbehalf.model_signals import Does, Effect, Event, Identifier, Signal, Subject, Target

__all__ = ["CAEP", "RISC", "SSF", "Speaks", "Wanted", "effects", "wanted"]

CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"

_DOES: Mapping[str, Does] = {
    f"{CAEP}session-revoked": "end",
    f"{CAEP}credential-change": "end",
    f"{CAEP}token-claims-change": "end",
    f"{CAEP}assurance-level-change": "end",
    f"{CAEP}device-compliance-change": "end",
    f"{CAEP}risk-level-change": "end",
    f"{CAEP}session-established": "nothing",
    f"{CAEP}session-presented": "nothing",
    f"{RISC}account-disabled": "block",
    f"{RISC}account-purged": "block",
    f"{RISC}account-enabled": "let_go",
    f"{RISC}account-credential-change-required": "end",
    f"{RISC}credential-compromise": "end",
    f"{RISC}identifier-changed": "end",
    f"{RISC}identifier-recycled": "end",
    f"{RISC}sessions-revoked": "end",
    f"{SSF}verification": "nothing",
    f"{SSF}stream-updated": "nothing",
}
_GOOD: Mapping[str, tuple[str, str]] = {
    f"{CAEP}assurance-level-change": ("change_direction", "increase"),
    f"{CAEP}device-compliance-change": ("current_status", "compliant"),
    f"{CAEP}risk-level-change": ("current_level", "LOW"),
}
"""Changes that end nothing where they say, in just these words, that things are better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Somebody to be looked up: those of `tenant` of whom `what` is `value`; unless `exact`, in whatever case its
    letters are.

    `what` is `person` (the id), `login` (the `sub` at `issuer`) or `attribute:<name>`. What was found are the targets'
    names.
    """

    tenant: str
    what: str
    value: str
    issuer: str
    exact: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaks:
    """For whom a stream speaks. `tokens` are the issuers whose access tokens have the `sub` of its logins; where there
    are none, a login tells nobody."""

    stream: StreamSettings
    tokens: tuple[str, ...]


def wanted(signal: Signal, by: Speaks) -> frozenset[Wanted]:
    """Who must be looked up before `effects` can tell. Raises TenantRefused."""
    return frozenset(each for event in signal.events if not _of_stream(event) for each in _wanted(event.subject, by))


def effects(signal: Signal, *, by: Speaks, found: Mapping[Wanted, Sequence[str]]) -> tuple[Effect, ...]:
    """What each event comes to, in order. `found` has the names of everything that was `wanted`.

    Raises TenantRefused where an event is about a tenant, or a login of an issuer, that the stream may not speak for.
    """
    return tuple(_effect(event, by, found) for event in signal.events)


def _effect(event: Event, by: Speaks, found: Mapping[Wanted, Sequence[str]]) -> Effect:
    does = _DOES.get(event.type)
    if _of_stream(event):
        return _nothing(event, "is about the stream itself" if does else "is of no type that is known here")
    targets, why = _targets(event.subject, by, found)
    if does is None:
        return _nothing(event, "is of no type that is known here")
    if does == "nothing":
        return _nothing(event, "takes nothing away")
    name, better = _GOOD.get(event.type, ("", ""))
    if name and event.told.get(name) == better:
        return _nothing(event, f"`{name}` is `{better}`")
    if not targets:
        return _nothing(event, why)
    whole = any(target.kind == "tenant" for target in targets)
    if does == "let_go" and (whole or not _is_one(targets)):
        return _nothing(event, "could mean more than one, and gives back")
    if does == "block" and whole:
        does = "end"  # one event from outside shuts no tenant for good: that is for a person to do
    return Effect(does=does, event=event.type, at=event.at, targets=targets, why=why)


def _nothing(event: Event, why: str) -> Effect:
    return Effect(does="nothing", event=event.type, at=event.at, targets=(), why=why)


def _of_stream(event: Event) -> bool:
    return event.type.startswith(SSF)


def _is_one(targets: Sequence[Target]) -> bool:
    """One person, or one subject, whose tokens may be of several issuers and tenants."""
    subjects = {each.name.partition(" ")[2] for each in targets if each.kind == "login"}
    return len(targets) == 1 or (len(subjects) == 1 and all(each.kind == "login" for each in targets))


def _targets(subject: Subject, by: Speaks, found: Mapping[Wanted, Sequence[str]]) -> tuple[tuple[Target, ...], str]:
    """Everybody whom it could mean, and what that rests on."""
    tenants, asked = _tenants(subject, by.stream), _wanted(subject, by)
    if asked:
        named = {_target(each, name) for each in asked for name in found.get(each, ())}
        ordered = tuple(sorted(named, key=lambda target: (target.kind, target.tenant, target.name)))
        return ordered, "the user it names" if ordered else "nobody here has that name"
    if subject.unread:
        formats = ", ".join(f"`{each}`" for each in subject.unread)
        return (), f"names somebody as {formats}, which is not read here"
    if by.stream.unclear == "record":
        return (), "does not tell who"
    return tuple(Target(kind="tenant", tenant=each, name="") for each in tenants), "does not tell who, so it means all"


def _target(each: Wanted, name: str) -> Target:
    if each.what == "login":
        return Target(kind="login", tenant=each.tenant, name=f"{each.issuer} {name}")
    return Target(kind="person", tenant=each.tenant, name=name)


def _wanted(subject: Subject, by: Speaks) -> tuple[Wanted, ...]:
    stream = by.stream
    tenants = _tenants(subject, stream)
    meant = [(what, each) for each in subject.who if (what := _meant(each, stream))]
    foreign = [each for each in subject.who if each.format == "iss_sub" and each.issuer != _logins(stream)]
    if foreign and not meant:
        raise TenantRefused(
            "the event is about a login at an issuer that this stream may not speak for",
            hint="name that issuer as `logins` of the stream, if it is the stream's own",
        )
    return tuple(
        Wanted(tenant=tenant, what=what, value=each.id, issuer=issuer, exact=each.format != "email")
        for tenant in tenants
        for what, each in meant
        for issuer in (by.tokens if what == "login" else ("",))
    )


def _meant(identifier: Identifier, stream: StreamSettings) -> str:
    """What the identifier is here; "" where the settings do not say."""
    if identifier.format == "iss_sub":
        return "login" if identifier.issuer == _logins(stream) else ""
    return stream.email if identifier.format == "email" else stream.opaque


def _logins(stream: StreamSettings) -> str:
    return stream.logins or stream.issuer


def _tenants(subject: Subject, stream: StreamSettings) -> tuple[str, ...]:
    """Ours that the subject is in: the one it names, or all that the stream may speak for."""
    if isinstance(stream.tenant, str) or not subject.tenant:
        return tuple(sorted(tenants_of(stream)))
    named = stream.tenant.get(subject.tenant)
    if named is None:
        raise TenantRefused(
            "the event is about a tenant that this stream may not speak for",
            hint="map it under `tenant` of the stream, if it is the stream's own",
        )
    return (named,)
