"""Nonces for DPoP proofs (RFC 9449 sections 8 and 9): a time under a key, so that nothing has to be kept.

Whoever has the key can make and know them: gateways that share it agree. Must not read a clock or decide who needs one.
"""

from __future__ import annotations

import base64
import hmac

from onbehalf.base64url import base64url
from onbehalf.model import UnixTime

__all__ = ["NONCE_RENEWED_S", "NONCE_S", "nonce_age", "nonce_at"]

NONCE_S = 300
NONCE_RENEWED_S = 120
"""From this age on a new one is offered with every answer."""
_AHEAD_S = 5
"""How far the clock of another gateway with the same key may be ahead."""
_TIME_BYTES = 6
_MARK_BYTES = 16
_PURPOSE = b"onbehalf dpop nonce 1"


def nonce_at(now: UnixTime, *, key: bytes) -> str:
    """The nonce of this second: 30 characters of base64url (RFC 9449 section 8.1)."""
    time = now.to_bytes(_TIME_BYTES, "big")
    return base64url(time + _mark(time, key))


def nonce_age(nonce: str, *, key: bytes, now: UnixTime) -> int | None:
    """How many seconds ago a nonce was made here; None for one that was not, or is older than 300 s."""
    if len(nonce) != 30 or not nonce.isascii():
        return None
    try:
        made = int.from_bytes(base64.urlsafe_b64decode(nonce + "==")[:_TIME_BYTES], "big")
    except ValueError:
        return None
    age = now - made
    # compared as it would be spelled: of one nonce there is no second spelling
    genuine = hmac.compare_digest(nonce_at(UnixTime(made), key=key), nonce)
    return max(age, 0) if genuine and -_AHEAD_S <= age <= NONCE_S else None


def _mark(time: bytes, key: bytes) -> bytes:
    return hmac.digest(key, _PURPOSE + time, "sha256")[:_MARK_BYTES]
