"""Seals what a row holds, bound to the row that it is in: what is moved to another one does not open.

AES-256-GCM under a key made from the gateway's secret (HKDF-SHA256), for one kind of row. Must not know what is sealed.

Trust: whoever has the gateway's secret can open and make rows.
"""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["RowSeal", "SealBroken"]

_NONCE_BYTES = 12


class SealBroken(Exception):
    """It was sealed for another row or with another secret, or was changed."""


class RowSeal:
    """`secret` is the gateway's, of 32 bytes; `kind` names the rows."""

    def __init__(self, secret: bytes, kind: bytes) -> None:
        self._key = AESGCM(HKDF(SHA256(), 32, salt=None, info=kind).derive(secret))

    def seal(self, text: bytes, *row: str) -> bytes:
        """The text as it is kept. What identifies the row holds no NUL."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._key.encrypt(nonce, text, "\0".join(row).encode())

    def open(self, sealed: bytes, *row: str) -> bytes:
        """The text. Raises SealBroken."""
        try:
            return self._key.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], "\0".join(row).encode())
        except (InvalidTag, ValueError) as error:  # ValueError: no nonce is in it
            raise SealBroken("a sealed row does not open") from error
