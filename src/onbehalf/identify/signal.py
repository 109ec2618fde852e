"""The one place where a `Signal` is made: a Security Event Token (RFC 8417) of a stream's transmitter, proven.

Signature first, then the claims it covers. Whom an event is about is read here in its one strict form; whether that is
anybody, and what an event means, is room 2's. Must not fetch keys, read a clock, or know who was told what before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from onbehalf.config_signals import StreamSettings
from onbehalf.errors import (
    AlgorithmRefused,
    ClaimRefused,
    TokenExpired,
    TokenNotYetValid,
    WrongAudience,
    WrongType,
)
from onbehalf.identify.compact import Peeked
from onbehalf.identify.keys import PublicKey
from onbehalf.identify.subject import read_subject
from onbehalf.identify.verify import TOLERANCE_S, check_signed, media, text_of, time_of
from onbehalf.model import Json, UnixTime, digest
from onbehalf.model_signals import Event, Signal

__all__ = ["SIGNAL_TYPE", "verify_signal"]

SIGNAL_TYPE = "secevent+jwt"
_MAX_AUDIENCES = 32
_MAX_EVENTS = 8
_MAX_TEXT = 255
_MAX_TYPE = 255
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[\x21-\x7e]+")
_NEVER = ("sub", "exp")
"""SSF 1.0: neither is in a SET, so that none can pass for a token that lets somebody in."""


def verify_signal(peeked: Peeked, *, stream: StreamSettings, key: PublicKey, now: UnixTime) -> Signal:
    """Prove one SET of this stream. `now` is in whole seconds. Checked, in this order:

    1 the algorithm is one of the stream's, and of the key's (RFC 8725 section 3.1);
    2 key, stream and SET are of the same issuer, compared exactly, and key id (RFC 8725 section 3.8);
    3 the signature (RFC 7515 section 5.2); 4 `typ` is `secevent+jwt` (RFC 8417 section 2.3);
    5 `aud` is the stream's (RFC 8417 section 2.2); 6 no `sub` and no `exp` (SSF 1.0);
    7 `iat` is neither more than 30 s ahead nor older than the stream allows; 8 `jti` is a short text;
    9 `events` are 1 to 8 objects by URI, each about a subject (RFC 9493), told at `sub_id` or, as older drafts of SSF
    have it, in the event itself, and never at both.

    Does not check that the SET is new, or that its subject is of the stream's tenant. Raises an IdentifyError.
    """
    if peeked.algorithm not in stream.algorithms:  # 1
        raise AlgorithmRefused("the algorithm is not one of the stream's", hint="RFC 8725 section 3.1")
    check_signed(peeked, key, issuer=stream.issuer)  # 1-3
    if media(peeked.type) != SIGNAL_TYPE:  # 4
        raise WrongType(f"the `typ` is not `{SIGNAL_TYPE}`", hint="RFC 8417 section 2.3")
    claims = peeked.claimed
    _check_audience(claims, stream.audience)  # 5
    for name in _NEVER:  # 6
        if name in claims:
            raise ClaimRefused(f"`{name}` has no place in a SET (SSF 1.0)")
    issued_at, oldest = _issued_at(claims, stream, now), UnixTime(now - stream.max_age_seconds)  # 7
    return Signal(
        issuer=stream.issuer, id=text_of(claims, "jti"), issued_at=issued_at, key=key.key_id,
        algorithm=peeked.algorithm, token=digest(peeked.token), events=_events(claims, issued_at, oldest),
    )  # fmt: skip  # 8, 9


def _check_audience(claims: Mapping[str, Json], audience: str) -> None:
    found = claims.get("aud")
    named = [found] if isinstance(found, str) else found
    if not isinstance(named, list) or len(named) > _MAX_AUDIENCES or not all(isinstance(item, str) for item in named):
        raise ClaimRefused(f"`aud` is not a string or a list of at most {_MAX_AUDIENCES} strings")
    if audience not in named:
        raise WrongAudience(f"the SET is not for `{audience}`")


def _issued_at(claims: Mapping[str, Json], stream: StreamSettings, now: UnixTime) -> UnixTime:
    value = time_of(claims, "iat")
    if value > now + TOLERANCE_S:
        raise TokenNotYetValid(
            "the SET is from the future", hint="check the clocks of the transmitter and of this host"
        )
    if value < now - stream.max_age_seconds:
        raise TokenExpired("the SET is older than this stream's may be")
    return value


def _events(claims: Mapping[str, Json], issued_at: UnixTime, oldest: UnixTime) -> tuple[Event, ...]:
    listed = claims.get("events")
    if not isinstance(listed, dict) or not 1 <= len(listed) <= _MAX_EVENTS:
        raise ClaimRefused(f"`events` is not an object of 1 to {_MAX_EVENTS} events (RFC 8417 section 2.2)")
    common = claims.get("sub_id")
    found: list[Event] = []
    for type_, body in listed.items():
        if len(type_) > _MAX_TYPE or _URI.fullmatch(type_) is None or not isinstance(body, dict):
            raise ClaimRefused("an event is not an object with a URI (RFC 8417 section 2.2)")
        if ("sub_id" in claims) == ("subject" in body):
            raise ClaimRefused("an event's subject is not told at one place (SSF 1.0: `sub_id`)")
        told = {name: value for name, value in body.items() if isinstance(value, str) and len(value) <= _MAX_TEXT}
        subject = read_subject(common if "sub_id" in claims else body["subject"])
        found.append(Event(type=type_, subject=subject, at=_at(body, issued_at, oldest), told=told))
    return tuple(found)


def _at(body: Mapping[str, Json], issued_at: UnixTime, oldest: UnixTime) -> UnixTime:
    """When it happened. CAEP 1.0 section 2: `event_timestamp`, in seconds; else when the SET was issued.

    It did not happen after it was told: what is to come would keep new logins out. Nor before `oldest`: that is a
    mistake (another unit, another epoch), and would end nothing.
    """
    value = body.get("event_timestamp")
    if isinstance(value, int | float) and not isinstance(value, bool) and oldest <= value <= issued_at:
        return UnixTime(math.ceil(value))
    return issued_at
