"""The claim that a database believes: whose rows a transaction may see, signed so that no SQL can forge it.

A claim is text, `1|key|pid|started|expires|tenant|principal|mac`: the key's id, the backend's process id, the start of
the transaction and the end of the claim in microseconds since 1970 by the database's own clock, tenant and person as
hex of their UTF-8, and HMAC-SHA-256 (RFC 2104) over all that stands before it. The function in wall.py reads the same
text. Must not hold SQL, nor ask any clock.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from onbehalf.errors import ConfigInvalid

__all__ = ["CLAIM_SETTING", "ClaimKey", "claim_key", "signed_claim"]

CLAIM_SETTING = "onbehalf.claim"
"""The setting that holds the claim within its transaction."""

_BLOCK = 64
_MIN_KEY = 32
_MAX_KEY = 4096
_ID = b"onbehalf wall key id"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimKey:
    """A key with what the database keeps of it: the two padded blocks of RFC 2104, which are as secret as the key."""

    id: str
    secret: bytes = field(repr=False)
    inner: bytes = field(repr=False)
    outer: bytes = field(repr=False)


def claim_key(secret: bytes) -> ClaimKey:
    """The key made of 32 to 4,096 secret bytes. Raises ConfigInvalid for fewer or more.

    Does not check that they are random.
    """
    if not _MIN_KEY <= len(secret) <= _MAX_KEY:
        raise ConfigInvalid(
            f"the wall's key has {len(secret)} bytes, expected {_MIN_KEY} to {_MAX_KEY}",
            hint="make one: openssl rand -hex 32",
        )
    block = (hashlib.sha256(secret).digest() if len(secret) > _BLOCK else secret).ljust(_BLOCK, b"\0")
    return ClaimKey(
        id=hmac.digest(secret, _ID, "sha256").hex()[:16],
        secret=secret,
        inner=bytes(byte ^ 0x36 for byte in block),
        outer=bytes(byte ^ 0x5C for byte in block),
    )


def signed_claim(key: ClaimKey, *, tenant: str, principal: str, pid: int, started: int, expires: int) -> str:
    """The claim of one transaction. `started` and `expires` are microseconds by the database's clock.

    Raises ValueError for a tenant that is empty, or text that UTF-8 cannot say.
    """
    if not tenant:
        raise ValueError("a claim without a tenant")
    body = f"1|{key.id}|{pid}|{started}|{expires}|{tenant.encode().hex()}|{principal.encode().hex()}"
    return f"{body}|{hmac.digest(key.secret, body.encode(), 'sha256').hex()}"
