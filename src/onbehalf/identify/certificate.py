"""The thumbprint of a client's certificate, as whoever ended TLS wrote it down.

Two spellings: a structured field (RFC 9440: the DER in base64 between colons), and PEM with URL escapes, as nginx
writes it. Must not judge the certificate: that its key was used in the handshake, and by whom it must be signed, is for
whoever ended TLS; its dates and names say nothing about a token (RFC 8705 section 3).
"""

from __future__ import annotations

import base64
import re
from typing import Literal
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from onbehalf.base64url import s256
from onbehalf.errors import ProofMissing

__all__ = ["MAX_CERTIFICATE_BYTES", "Spelling", "certificate_thumbprint"]

Spelling = Literal["rfc9440", "pem"]
MAX_CERTIFICATE_BYTES = 8 * 1024
_RFC9440 = re.compile(r":([A-Za-z0-9+/]+={0,2}):")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*")


def certificate_thumbprint(header: str, *, spelling: Spelling) -> str:
    """SHA-256 over the DER of the one certificate in `header`, in base64url (RFC 8705 section 3.1).

    Raises ProofMissing for what is no one certificate of at most 8,192 characters.
    """
    if len(header) > MAX_CERTIFICATE_BYTES or not header.isascii():
        raise _none(f"it is longer than {MAX_CERTIFICATE_BYTES} characters, or not ASCII")
    try:
        der = _der(header, spelling)
        x509.load_der_x509_certificate(der)  # one certificate and nothing beside it, or it raises
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise _none("it cannot be read") from error
    return s256(der)


def _der(header: str, spelling: Spelling) -> bytes:
    if spelling == "rfc9440":
        found = _RFC9440.fullmatch(header)
        if found is None:
            raise ValueError("not one byte sequence")
        return base64.b64decode(found[1], validate=True)
    pem = unquote_to_bytes(header)
    if not _PEM.fullmatch(pem):
        raise ValueError("not one block of PEM")
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def _none(why: str) -> ProofMissing:
    return ProofMissing(
        f"the client's certificate is none: {why}", hint="see how whoever ends TLS writes it into the header"
    )
