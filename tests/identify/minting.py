"""Keys, tokens and key sets of an issuer, good unless a test asks for a flaw."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from onbehalf.config import IssuerSettings
from onbehalf.identify import PublicKey, peek, public_keys, verify
from onbehalf.model import Caller, Presented, UnixTime

ISSUER = "https://login.acme.example/realms/staff"
RESOURCE = "https://gateway.example/mcp"
NOW = UnixTime(1_800_000_000)
RULE = IssuerSettings(issuer=ISSUER, tenant="acme")
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
HEADER = {"typ": "at+jwt", "alg": "ES256", "kid": "ES256"}

Key = RSAKey | ECKey | OKPKey


def key_for(algorithm: str, name: str = "") -> Key:
    """One private key per algorithm, and others by name."""
    return _key(algorithm, name)


@cache
def _key(algorithm: str, name: str) -> Key:
    if algorithm in ("RS256", "PS256"):
        return RSAKey.generate_key(2048)
    return ECKey.generate_key("P-256") if algorithm == "ES256" else OKPKey.generate_key("Ed25519")


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def claims(**changes: Any) -> dict[str, Any]:
    """A good token's claims; a change to None leaves the claim out."""
    good = {
        "iss": ISSUER, "aud": RESOURCE, "sub": "alice", "client_id": "claude", "iat": NOW - 10, "exp": NOW + 300,
        "scope": "reviews.read",
    } | changes  # fmt: skip
    return {name: value for name, value in good.items() if value is not None}


def signed(header: bytes, payload: bytes, key: Key, algorithm: str) -> str:
    """Any bytes under a true signature."""
    signing_input = f"{b64(header)}.{b64(payload)}"
    name = "Ed25519" if algorithm == "EdDSA" else algorithm
    return f"{signing_input}.{b64(JWSRegistry.algorithms[name].sign(signing_input.encode(), key))}"


def mint(
    body: Mapping[str, Any] | None = None, *, algorithm: str = "ES256", key: Key | None = None, **header: Any
) -> str:
    """A token; a header member of None is left out."""
    members = HEADER | {"alg": algorithm, "kid": algorithm} | header
    head = {name: value for name, value in members.items() if value is not None}
    payload = json.dumps(claims() if body is None else body).encode()
    return signed(json.dumps(head).encode(), payload, key or key_for(algorithm), algorithm)


def public(algorithm: str, name: str = "", **members: Any) -> dict[str, Any]:
    """The public JWK, with a `kid`."""
    jwk = key_for(algorithm, name).as_dict(private=False)
    return {**jwk, "kid": algorithm, "use": "sig", **members}


def jwks(*jwks: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": list(jwks)}).encode()


@cache
def all_keys() -> Mapping[str, PublicKey]:
    return public_keys(jwks(*(public(name) for name in ALGORITHMS)), issuer=ISSUER)


def prove(
    token: str, *, rule: IssuerSettings = RULE, keys: Mapping[str, PublicKey] | None = None, now: int = NOW
) -> Caller:
    """What the rooms make of a token, without any door."""
    peeked = peek(Presented(token=token))
    key = (keys or all_keys())[peeked.key_id]
    return verify(peeked, rule=rule, key=key, audience=RESOURCE, now=UnixTime(now))
