"""Room 1, identify: who calls, a person through a client, proven from one access token.

`compact` says what a token looks like before anything is proven, `keys` what an issuer's key is, `tenant` for whom
an issuer may speak, and `verify` makes the one `Caller`. Must not hold a clock, a socket or a cache: the door
`issuer_http` has these.
"""

from __future__ import annotations

from onbehalf.identify.compact import MAX_TOKEN_BYTES, Peeked, peek
from onbehalf.identify.keys import KeysRefused, PublicKey, public_keys
from onbehalf.identify.tenant import check_tenants
from onbehalf.identify.verify import TOLERANCE_S, check_algorithm, verify

__all__ = [
    "MAX_TOKEN_BYTES", "TOLERANCE_S", "KeysRefused", "Peeked", "PublicKey", "check_algorithm",
    "check_tenants", "peek", "public_keys", "verify",
]  # fmt: skip
