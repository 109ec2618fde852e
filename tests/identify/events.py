"""Security Event Tokens of a transmitter, good unless a test asks for a flaw."""

from __future__ import annotations

import json
import uuid
from typing import Any

from identify.minting import ISSUER, NOW, Key, jwks, key_for, public, signed
from onbehalf.config_signals import StreamSettings
from onbehalf.identify import PublicKey, peek, public_keys, verify_signal
from onbehalf.model import Presented, UnixTime
from onbehalf.model_signals import Signal
from onbehalf.validate.signals import CAEP

AUDIENCE = "https://gateway.example/signals/okta"
ALICE = {"format": "iss_sub", "iss": ISSUER, "sub": "alice-at-login"}
REVOKED = f"{CAEP}session-revoked"
STREAM = StreamSettings(name="okta", issuer=ISSUER, audience=AUDIENCE, tenant="acme", push="env:X")


def stream(**changes: Any) -> StreamSettings:
    good = {"name": "okta", "issuer": ISSUER, "audience": AUDIENCE, "tenant": "acme", "push": "env:X"}
    return StreamSettings(**{**good, **changes})


def claims(type_: str = REVOKED, body: dict[str, Any] | None = None, /, **changes: Any) -> dict[str, Any]:
    """A good SET's claims; a change to None leaves the claim out."""
    good = {
        "iss": ISSUER, "aud": AUDIENCE, "iat": NOW - 2, "jti": uuid.uuid4().hex, "sub_id": ALICE,
        "events": {type_: {"event_timestamp": NOW - 5} if body is None else body},
    } | changes  # fmt: skip
    return {name: value for name, value in good.items() if value is not None}


def mint(body: Any = None, *, algorithm: str = "ES256", key: Key | None = None, **header: Any) -> str:
    """A SET; a header member of None is left out."""
    members = {"typ": "secevent+jwt", "alg": algorithm, "kid": algorithm} | header
    head = {name: value for name, value in members.items() if value is not None}
    payload = json.dumps(claims() if body is None else body).encode()
    return signed(json.dumps(head).encode(), payload, key or key_for(algorithm), algorithm)


def key_of(issuer: str = ISSUER, algorithm: str = "ES256", name: str = "") -> PublicKey:
    return public_keys(jwks(public(algorithm, name)), issuer=issuer)[algorithm]


def proven(token: str, *, of: StreamSettings = STREAM, key: PublicKey | None = None, now: int = NOW) -> Signal:
    """The SET's signal, as a receiver of this stream makes it. Raises an IdentifyError."""
    return verify_signal(peek(Presented(token=token)), stream=of, key=key or key_of(), now=UnixTime(now))
