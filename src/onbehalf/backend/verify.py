"""The one place where a `VerifiedCall` is made: one call token, proven to be for one request.

Must not fetch keys, read a clock, or know HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec.structs import replace
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from onbehalf.backend.replay import Replay
from onbehalf.errors import (
    CallTokenExpired,
    CallTokenMismatch,
    CallTokenMissing,
    CallTokenRefused,
    IdentifyError,
    TokenMissing,
)  # fmt: skip
from onbehalf.identify.compact import Peeked, peek
from onbehalf.model import Digest, Json, Kind, Presented, Receipt, Ref, UnixTime, canonical, digest

__all__ = ["MAX_LIFE_S", "TOLERANCE_S", "VerifiedCall", "look", "prove", "use_up", "verify_call"]

TOLERANCE_S = 5
"""For clocks that disagree."""
MAX_LIFE_S = 300
_TYPE = "txntoken+jwt"
_ALGORITHM = "EdDSA"
_LAST_TIME = 2**53 - 1
_CHANNEL = re.compile(r"[0-9a-f]{16}")
_MAX_TEXT = 2048
_SERVICE = "service:"
"""How the `sub` of a service begins (as act/claims.py)."""
_SERVICES = "let it take services (`services=True`), and look at `call.kind` wherever a person is meant"
_HINT = "send each call through the gateway, with the `Txn-Token` that it signed for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedCall:
    """One call that the gateway allowed and recorded, proven. `person` is an id within `tenant`.

    `kind` is `service` for a program that called by itself: then `service` is what it is called within `tenant`, and
    `person` is "", which nobody is called. Only who asks for services (`services=True`) ever meets one.
    `issuer` and `subject` are how the person logged in, `client` through which OAuth client and `agent` with which
    program (as it calls itself, "" if it did not). `call` is the call's id and `record` its place in the gateway's log,
    with its number among all that the gateway ever sent to this backend.
    `token_id` is the call token's own id: one call may be sent more than once (a lookup first), with a token for each.
    """

    call: str
    tenant: str
    person: str
    issuer: str
    subject: str
    client: str
    agent: str
    tool: str
    action: str
    arguments: Digest
    resource: Ref
    record: Receipt
    expires_at: UnixTime
    token_id: str
    kind: Kind = "person"
    service: str = ""


def verify_call(
    token: str, *, keys: Mapping[str, bytes], issuer: str, audience: str, tool: str,
    arguments: Mapping[str, Json], now: UnixTime, replay: Replay, services: bool = False,
) -> VerifiedCall:  # fmt: skip
    """Prove that `token` is the gateway's leave for this one call, and use it up.

    `keys` are the gateway's Ed25519 public keys by id (`read_keys`), `issuer` its trust domain, `audience` this
    backend's own identifier; `tool` and `arguments` are what is asked for here; `now` is in whole seconds.
    Checked, in this order: 1 the strict compact form, no `crit`, no key of its own; 2 `typ`, `alg` and `iss`;
    3 the key is known; 4 the signature; 5 `aud`; 6 `exp` and `iat` with 5 s of tolerance, and a life of 5 minutes at
    most; 7 the claims have their shape, and it is a person's call unless `services` are taken as well; 8 tool and
    arguments are the token's; 9 the token was not used before.

    Does not decide anything: what this person may do was decided by the gateway, and may be narrowed by the caller.
    Raises CallTokenRefused.
    """
    peeked = look(token, issuer=issuer)
    key = keys.get(peeked.key_id)  # 3
    if key is None:
        raise CallTokenRefused("the call token's key is not one of the gateway's", hint=_HINT)
    call = prove(peeked, key=key, audience=audience, tool=tool, arguments=arguments, now=now, services=services)
    use_up(peeked, call, replay=replay, now=now)  # 9
    return call


def look(token: str, *, issuer: str) -> Peeked:
    """A token that looks like one of the issuer's call tokens (1, 2), nothing proven. Raises CallTokenRefused."""
    try:
        peeked = peek(Presented(token=token))  # 1
    except TokenMissing as error:
        raise CallTokenMissing("there is no call token", hint=_HINT) from error
    except IdentifyError as error:
        raise CallTokenRefused(f"the call token is refused: {error.message}", hint=_HINT) from error
    if peeked.type != _TYPE:  # 2
        raise CallTokenRefused(f"the token's `typ` is not `{_TYPE}`: it is no call token", hint=_HINT)
    if peeked.algorithm != _ALGORITHM:
        raise CallTokenRefused(f"the call token's `alg` is not `{_ALGORITHM}`", hint=_HINT)
    if not issuer or peeked.claimed_issuer != issuer:
        raise CallTokenRefused(f"the call token is not from `{issuer}`", hint="name the gateway's own trust domain")
    return peeked


def prove(
    peeked: Peeked, *, key: bytes, audience: str, tool: str, arguments: Mapping[str, Json], now: UnixTime,
    services: bool = False,
) -> VerifiedCall:  # fmt: skip
    """Steps 4 to 8 of `verify_call`. Does not check that the token is used once. Raises CallTokenRefused."""
    try:
        VerifyKey(key).verify(peeked.signing_input, peeked.signature)  # 4
    except (CryptoError, ValueError, TypeError) as error:
        raise CallTokenRefused("the call token's signature does not fit", hint=_HINT) from error
    claims = peeked.claimed
    if not audience or claims.get("aud") != audience:  # 5
        raise CallTokenRefused(
            f"the call token is not for `{audience}`", hint="name here what the gateway calls this upstream"
        )
    expires_at = _check_times(claims, now)  # 6
    call = _call(claims, expires_at)  # 7
    if call.kind == "service" and not services:
        raise CallTokenRefused("a service calls, and this backend takes people's calls only", hint=_SERVICES)
    if call.tool != tool:  # 8
        raise CallTokenMismatch("the call token is for another tool", hint=_HINT)
    try:
        found = digest(canonical(dict(arguments)))
    except ValueError as error:
        raise CallTokenMismatch("the arguments have no canonical form (RFC 8785)", hint=_HINT) from error
    if call.arguments != found:
        raise CallTokenMismatch("the call token is for other arguments", hint=_HINT)
    return call


def use_up(peeked: Peeked, call: VerifiedCall, *, replay: Replay, now: UnixTime) -> None:
    """Step 9 of `verify_call`, and the last: only what is proven may fill the memory. Raises CallTokenRefused."""
    replay.use(
        _text(peeked.claimed, "jti"),
        issued_at=_time(peeked.claimed, "iat"),
        until=UnixTime(call.expires_at + TOLERANCE_S),
        now=now,
    )


def _check_times(claims: Mapping[str, Json], now: UnixTime) -> UnixTime:
    issued_at, expires_at = _time(claims, "iat"), _time(claims, "exp")
    if not 0 < expires_at - issued_at <= MAX_LIFE_S:
        raise CallTokenExpired(f"the call token's life is not between 1 and {MAX_LIFE_S} s", hint=_HINT)
    begins = max(issued_at, _time(claims, "nbf")) if "nbf" in claims else issued_at
    if begins > now + TOLERANCE_S:
        raise CallTokenExpired("the call token's time has not begun", hint="check the clocks of gateway and backend")
    if now >= expires_at + TOLERANCE_S:
        raise CallTokenExpired("the call token's time is over", hint="check the clocks of gateway and backend")
    return expires_at


def _call(claims: Mapping[str, Json], expires_at: UnixTime) -> VerifiedCall:
    context, request = _object(claims, "tctx"), _object(claims, "rctx")
    resource, record = _object(context, "resource"), _record(_object(context, "record"))
    tenant, action = _text(context, "tenant"), _text(context, "action")
    kind, name = _who(claims, tenant)
    if _text(claims, "scope") != action:
        raise CallTokenRefused("the call token's `scope` is not its action", hint=_HINT)
    return VerifiedCall(
        call=_text(claims, "txn"),
        tenant=tenant,
        person=name if kind == "person" else "",
        issuer=_text(request, "issuer"),
        subject=_text(request, "subject"),
        client=_text(request, "client"),
        agent=_text(request, "agent", shortest=0),
        tool=_text(context, "tool"),
        action=action,
        arguments=Digest(_text(context, "arguments")),
        resource=Ref(type=_text(resource, "type"), id=_text(resource, "id")),
        record=record,
        expires_at=expires_at,
        token_id=_text(claims, "jti"),
        kind=kind,
        service=name if kind == "service" else "",
    )


def _record(told: Mapping[str, Json]) -> Receipt:
    """The place in the gateway's record. Channel and number are there both, or, from an older gateway, neither."""
    place = Receipt(index=_time(told, "index"), leaf=Digest(_text(told, "leaf")))
    if "channel" not in told and "n" not in told:
        return place
    channel, number = _text(told, "channel"), _time(told, "n")
    if not _CHANNEL.fullmatch(channel) or number < 1:
        raise CallTokenRefused("the call token's `channel` or `n` is malformed", hint=_HINT)
    return replace(place, channel=channel, number=number)


def _who(claims: Mapping[str, Json], tenant: str) -> tuple[Kind, str]:
    """Whether a person or a service called, and their id within the tenant. Both marks of a service, or none of them:
    whoever looks at one of them only cannot take it for a person."""
    sub = _text(claims, "sub")
    service = "sub_profile" in claims
    if service and claims["sub_profile"] != "service":
        raise CallTokenRefused("the call token is of neither a person nor a service", hint=_HINT)
    start = f"{_SERVICE if service else ''}{tenant}/"
    if not sub.startswith(start) or sub == start:
        raise CallTokenRefused(
            f"the call token's `sub` is not a {'service' if service else 'person'} of its tenant", hint=_HINT
        )
    return ("service" if service else "person"), sub.removeprefix(start)


def _object(members: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    value = members.get(name)
    if not isinstance(value, dict):
        raise CallTokenRefused(f"the call token's `{name}` is missing or not an object", hint=_HINT)
    return value


def _text(members: Mapping[str, Json], name: str, *, shortest: int = 1) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not shortest <= len(value) <= _MAX_TEXT:
        raise CallTokenRefused(f"the call token's `{name}` is missing or not a string of fit length", hint=_HINT)
    return value


def _time(members: Mapping[str, Json], name: str) -> UnixTime:
    value = members.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LAST_TIME:
        raise CallTokenRefused(f"the call token's `{name}` is missing or not a whole number", hint=_HINT)
    return UnixTime(value)
