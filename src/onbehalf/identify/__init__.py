"""Room 1, identify: who calls, a person through a client, proven from one access token.

`compact` says what a token looks like before anything is proven, `keys` what an issuer's key is, `tenant` for whom
an issuer may speak, and `verify` makes the one `Caller`. `proof` says what a token is bound to; `dpop`, `nonce` and
`certificate` are about what must then be shown with it. `id_token` and `assertion` prove logins and clients for the
sign-in broker. Must not hold a clock, a socket or a cache: the door
`issuer_http` has these.
"""

from __future__ import annotations

from onbehalf.identify.assertion import Asserted, Once, verify_client_assertion, verify_id_jag
from onbehalf.identify.certificate import MAX_CERTIFICATE_BYTES, Spelling, certificate_thumbprint
from onbehalf.identify.compact import MAX_TOKEN_BYTES, Peeked, peek
from onbehalf.identify.dpop import DPOP_ALGORITHMS, DpopProof, Target, same_target, verify_dpop
from onbehalf.identify.id_token import LoggedIn, verify_id_token
from onbehalf.identify.keys import KeysRefused, PublicKey, public_keys
from onbehalf.identify.nonce import NONCE_RENEWED_S, nonce_age, nonce_at
from onbehalf.identify.signal import SIGNAL_TYPE, verify_signal
from onbehalf.identify.subject import read_subject
from onbehalf.identify.tenant import check_tenants
from onbehalf.identify.verify import TOLERANCE_S, check_algorithm, check_signed, verify

__all__ = [
    "DPOP_ALGORITHMS", "MAX_CERTIFICATE_BYTES", "MAX_TOKEN_BYTES", "NONCE_RENEWED_S", "SIGNAL_TYPE", "TOLERANCE_S",
    "Asserted", "DpopProof", "KeysRefused", "LoggedIn", "Once", "Peeked", "PublicKey", "Spelling", "Target",
    "certificate_thumbprint", "check_algorithm", "check_signed", "check_tenants", "nonce_age", "nonce_at", "peek",
    "public_keys", "read_subject", "same_target", "verify", "verify_client_assertion", "verify_dpop", "verify_id_jag",
    "verify_id_token", "verify_signal",
]  # fmt: skip
