"""Opens what clients' proofs of tokens are checked with, as the settings say.

Must not hold a rule.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from onbehalf.config import Settings
from onbehalf.doors.inbound_http import Proving
from onbehalf.doors.inbound_proof import MIN_SECRET, CertificateHeaders
from onbehalf.doors.issuer_proof import DpopProofs, Proofs, UsedProofs
from onbehalf.doors.ledger_keys import open_mask_key
from onbehalf.doors.secret_reference import resolved
from onbehalf.errors import ConfigInvalid
from onbehalf.identify import Spelling
from onbehalf.places import Paths

__all__ = ["OpenProofs", "certificate_headers", "open_proofs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenProofs:
    """`dpop` is for whoever takes proofs, `tokens` for those that prove tokens, `proving` for the public door."""

    dpop: DpopProofs
    tokens: Proofs
    proving: Proving


def open_proofs(settings: Settings, places: Paths, *, used: UsedProofs) -> OpenProofs:
    """What is read of proofs; `used` are those that were. Raises ConfigInvalid."""
    certificates = certificate_headers(settings, places)
    # a key of its own, of the one that gateways with the same keys share
    key = hmac.digest(open_mask_key(places.keys), b"onbehalf dpop nonces", "sha256")
    dpop = DpopProofs(settings=settings.gateway.dpop, used=used, key=key)
    named, tls = settings.gateway.certificates, settings.gateway.tls
    connection = tls is not None and tls.client_certificates == "optional"
    spelling: Spelling | None = "rfc9440" if connection else named.spelling if named is not None else None
    tokens = Proofs(dpop, resource=settings.gateway.resource, certificates=spelling)
    proving = Proving(certificates=certificates, connection=connection, offered=tokens.offered)
    return OpenProofs(dpop=dpop, tokens=tokens, proving=proving)


def certificate_headers(settings: Settings, places: Paths) -> CertificateHeaders | None:
    """In which headers certificates stand, None for none. Raises ConfigInvalid."""
    named = settings.gateway.certificates
    if named is None:
        return None
    secret = resolved(named.secret, base=places.config.resolve().parent, what="certificates.secret").encode()
    if len(secret) < MIN_SECRET:
        raise ConfigInvalid(
            f"`certificates.secret` refers to fewer than {MIN_SECRET} bytes", hint="make one by `openssl rand -hex 32`"
        )
    return CertificateHeaders(
        header=named.header.lower().encode(), secret_header=named.secret_header.lower().encode(), secret=secret
    )
