"""Call tokens as an attacker or a broken gateway would make them: any header, any claims, any key."""

from __future__ import annotations

import base64
import json
from typing import Any

from nacl.signing import SigningKey

from act.granted import ISSUER, granted
from onbehalf.act import claims

KEY = SigningKey(b"\x07" * 32)
KID = "k1"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def good_header() -> dict[str, Any]:
    return {"typ": "txntoken+jwt", "alg": "EdDSA", "kid": KID}


def good_claims() -> dict[str, Any]:
    return dict(claims(granted(), issuer=ISSUER))


def forged(header: dict[str, Any] | None = None, said: dict[str, Any] | None = None, key: SigningKey = KEY) -> str:
    """A token of this header and these claims, well signed by `key`."""
    parts = (good_header() if header is None else header, good_claims() if said is None else said)
    signed = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    return f"{signed}.{encoded(key.sign(signed.encode()).signature)}"
