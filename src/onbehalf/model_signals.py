"""The words for security events that others tell us: whom they are about, what happened, and what comes of it.

A SET (RFC 8417) becomes one `Signal` in identify/signal.py, and a signal `Effect`s in validate/signals.py. Must not
hold behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from onbehalf.model_json import Digest, UnixTime

__all__ = ["Does", "Effect", "Event", "Identifier", "Signal", "Subject", "Target", "TargetKind"]

TargetKind = Literal["login", "person", "tenant"]
Does = Literal["end", "block", "let_go", "nothing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """A name of somebody in one of the formats that are read (RFC 9493 section 3.2); `issuer` is of `iss_sub` only."""

    format: Literal["iss_sub", "opaque", "email"]
    id: str
    issuer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom an event is about. `who` are names of one user; none where no user is told in a format that is read.

    `unread` are the formats of the user that are not. `tenant` is the provider's own name of it, "" where it tells
    none. `members` is what a complex subject (SSF 1.0 section 3.3) names beside: a session, a device, a group.
    """

    who: tuple[Identifier, ...] = ()
    unread: tuple[str, ...] = ()
    tenant: str = ""
    members: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. `at` is when it happened, by the transmitter; `told` holds its members that are short texts."""

    type: str
    subject: Subject
    at: UnixTime
    told: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What a transmitter told, proven. `id` is its `jti`, unique within `issuer` only; `token` is the SET's digest."""

    issuer: str
    id: str
    issued_at: UnixTime
    key: str
    algorithm: str
    token: Digest
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom an effect is on: a login (`name` is issuer, blank, subject), a person of the directory, or a tenant (`name`
    is "")."""

    kind: TargetKind
    tenant: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one event comes to: for each target, tokens issued until `at` end, nothing of theirs is taken any more, or
    that is over again. `why` says in a few words what it rests on, above all for nothing."""

    does: Does
    event: str
    at: UnixTime
    targets: tuple[Target, ...]
    why: str
