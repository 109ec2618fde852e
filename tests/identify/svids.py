"""Keys, bundles and JWT-SVIDs of a trust domain that a test is, good unless it asks for a flaw."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from joserfc.jwk import ECKey, RSAKey

from identify.minting import NOW, RESOURCE, mint
from onbehalf.config import WorkloadSettings
from onbehalf.identify import Peeked, bundle_of, peek, verify_svid
from onbehalf.model import Caller, Presented, UnixTime

DOMAIN = "prod.acme.example"
EXPORT = f"spiffe://{DOMAIN}/agents/nightly-export"
WORKLOAD = WorkloadSettings(trust_domain=DOMAIN, tenant="acme", bundle_file="bundle.json", scopes=("notes.read",))
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


@cache
def svid_key(algorithm: str = "ES256", name: str = "") -> ECKey | RSAKey:
    """One private key per algorithm, and others by name."""
    if algorithm in _CURVES:
        return ECKey.generate_key(_CURVES[algorithm])  # type: ignore[arg-type]
    return RSAKey.generate_key(2048)


def svid(algorithm: str = "ES256", *, name: str = "", header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A JWT-SVID; a change to None leaves a claim or header member out."""
    body = {"sub": EXPORT, "aud": [RESOURCE], "iat": NOW - 5, "exp": NOW + 300} | changes
    head = {"typ": "JWT", "kid": algorithm, **(header or {})}
    claims = {name: value for name, value in body.items() if value is not None}
    return mint(claims, algorithm=algorithm, key=svid_key(algorithm, name), **head)  # type: ignore[arg-type]


def jwk(algorithm: str = "ES256", *, name: str = "", **members: Any) -> dict[str, Any]:
    public = svid_key(algorithm, name).as_dict(private=False)
    made = {**public, "kid": algorithm, "use": "jwt-svid", **members}
    return {name: value for name, value in made.items() if value is not None}


def bundle(*keys: dict[str, Any], **members: Any) -> bytes:
    return json.dumps({"keys": [*(keys or (jwk(),))], "spiffe_sequence": 1, **members}).encode()


def peeked(token: str) -> Peeked:
    return peek(Presented(token=token), nameless=True)


def proven(token: str, *, workload: WorkloadSettings = WORKLOAD, document: bytes | None = None) -> Caller:
    """What the room makes of a JWT-SVID, without any door."""
    _, keys = bundle_of(document or bundle(), trust_domain=workload.trust_domain)
    found = peeked(token)
    return verify_svid(found, workload=workload, key=keys[found.key_id], audience=RESOURCE, now=UnixTime(NOW))
