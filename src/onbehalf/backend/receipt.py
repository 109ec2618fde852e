"""A backend's signed word on one call that it has handled: which call, and the digest of what it answered.

A compact JWS (RFC 7515) in Ed25519 (RFC 8037), with a key of the backend's own. The gateway keeps it in its record,
where explain/backend_receipt.py reads it. Must not hold what was answered, or know how it travels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from nacl.signing import SigningKey

from onbehalf.backend.verify import VerifiedCall
from onbehalf.base64url import base64url, s256
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json, UnixTime, canonical, digest

__all__ = ["HEADER", "KIND", "ReceiptKey", "make_receipt", "receipt_key"]

KIND = "onbehalf-receipt+jwt"
"""The `typ` header, by which no other token is taken for a receipt (RFC 8725 section 3.11)."""
HEADER = "onbehalf-receipt"
"""The response header that a receipt travels in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptKey:
    """A signing key, its id, and what the gateway is given of it: one key of a JWK Set."""

    id: str
    public: dict[str, Json]
    secret: SigningKey = field(repr=False)


def receipt_key(secret: bytes) -> ReceiptKey:
    """The key of 32 secret random bytes. Its id is its thumbprint (RFC 7638). Raises ConfigInvalid.

    Does not check that they are random. It must be no key that signs anything else.
    """
    if len(secret) != 32:
        raise ConfigInvalid(f"a receipt key has 32 bytes, not {len(secret)}", hint="make one: openssl rand 32")
    key = SigningKey(secret)
    bare: dict[str, Json] = {"crv": "Ed25519", "kty": "OKP", "x": base64url(bytes(key.verify_key))}
    key_id = s256(canonical(bare))
    return ReceiptKey(id=key_id, public={**bare, "kid": key_id, "use": "sig", "alg": "EdDSA"}, secret=key)


def make_receipt(
    call: VerifiedCall, *, key: ReceiptKey, backend: str, gateway: str, answer: bytes, status: int, now: UnixTime,
    rows: int | None = None,
) -> str:  # fmt: skip
    """The receipt of one proven call that was handled, as a compact JWS of some 700 characters.

    `backend` is the audience of the call token, `gateway` its issuer. `answer` is the body as it is sent, of which the
    digest goes in, `status` its HTTP status (200 for an MCP result), and `rows` how many rows or objects it is about,
    where the backend wants to vouch for that.
    """
    outcome: dict[str, Json] = {"digest": digest(answer), "status": status}
    if rows is not None:
        outcome["rows"] = rows
    said: dict[str, Json] = {
        "iss": backend, "aud": gateway, "iat": now, "txn": call.call, "call_token": call.token_id, "tool": call.tool,
        "arguments": call.arguments, "outcome": outcome,
    }  # fmt: skip
    header: dict[str, Json] = {"typ": KIND, "alg": "EdDSA", "kid": key.id}
    signed = ".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (header, said))
    return f"{signed}.{base64url(key.secret.sign(signed.encode()).signature)}"
