"""Room 1, identify: who calls, a person through a client, proven from one access token.

`compact` says what a token looks like before anything is proven, `keys` what an issuer's key is, `tenant` for whom
an issuer may speak, and `verify` makes the one `Caller`. `services` tells a program from a person, and `spiffe` proves
workloads; `introspected` reads what an issuer says about a token that says nothing itself. `proof` says what a token is
bound to; `dpop`, `nonce` and `certificate` are about what must then be shown with it. `id_token` and `assertion` prove
logins and clients for the sign-in broker. Must not hold a clock, a socket or a cache: the doors `issuer_*` do.
"""

from __future__ import annotations

from onbehalf.identify.assertion import Asserted, Once, verify_client_assertion, verify_id_jag
from onbehalf.identify.certificate import MAX_CERTIFICATE_BYTES, Spelling, certificate_thumbprint
from onbehalf.identify.compact import MAX_TOKEN_BYTES, Peeked, peek
from onbehalf.identify.dpop import DPOP_ALGORITHMS, DpopProof, Target, same_target, verify_dpop
from onbehalf.identify.id_token import LoggedIn, verify_id_token
from onbehalf.identify.introspected import (
    ANSWER_TYPE,
    is_opaque,
    opaque_text,
    read_answer,
    verify_answer,
    verify_introspected,
)
from onbehalf.identify.keys import KeysRefused, PublicKey, public_keys
from onbehalf.identify.nonce import NONCE_RENEWED_S, nonce_age, nonce_at
from onbehalf.identify.signal import SIGNAL_TYPE, verify_signal
from onbehalf.identify.spiffe import Bundle, bundle_of, check_svid_algorithm, issuer_of, trust_domain_of, verify_svid
from onbehalf.identify.subject import read_subject
from onbehalf.identify.tenant import check_tenants
from onbehalf.identify.verify import TOLERANCE_S, check_algorithm, check_signed, check_type, media, verify

__all__ = [
    "ANSWER_TYPE", "DPOP_ALGORITHMS", "MAX_CERTIFICATE_BYTES", "MAX_TOKEN_BYTES", "NONCE_RENEWED_S", "SIGNAL_TYPE",
    "TOLERANCE_S", "Asserted", "Bundle", "DpopProof", "KeysRefused", "LoggedIn", "Once", "Peeked", "PublicKey",
    "Spelling", "Target", "bundle_of", "certificate_thumbprint", "check_algorithm", "check_signed",
    "check_svid_algorithm", "check_tenants", "check_type", "is_opaque", "issuer_of", "media", "nonce_age", "nonce_at",
    "opaque_text", "peek", "public_keys", "read_answer", "read_subject", "same_target", "trust_domain_of", "verify",
    "verify_answer", "verify_client_assertion", "verify_dpop", "verify_id_jag", "verify_id_token",
    "verify_introspected", "verify_signal", "verify_svid",
]  # fmt: skip
