"""Base64url without padding (RFC 7515 section 2): how keys, hashes and tokens are spelled.

Must not read it: how strictly is for the one to say who reads.
"""

from __future__ import annotations

import binascii
from hashlib import sha256

__all__ = ["base64url", "s256"]

_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def base64url(data: bytes) -> str:
    """The one spelling of `data`."""
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


def s256(data: bytes) -> str:
    """The SHA-256 of `data`, in 43 characters: a code challenge (RFC 7636 section 4.2), a thumbprint (RFC 7638, RFC
    8705 section 3.1), the hash of a token (RFC 9449 section 4.2)."""
    return base64url(sha256(data).digest())
