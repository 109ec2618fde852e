"""Ed25519 (RFC 8032), to check: the one place where this program does so.

OpenSSL takes a key of small order, with which anybody can sign, and a point in a second spelling (RFC 8032 section
5.1.3 refuses that). Of a log or backend with such a key nothing would be proven: here no signature verifies under it,
nor one whose R is so. That agrees with libsodium, by which the gateway and backends check.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["verify"]

_P = 2**255 - 19
_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL = frozenset({0, 1, _P - 1, _OF_ORDER_8, _P - _OF_ORDER_8})
"""The y of the eight points of small order."""


def verify(public: bytes, signature: bytes, said: bytes) -> None:
    """Raise InvalidSignature unless this key, of 32 bytes, signed this; ValueError for what is no key."""
    if not _of_large_order(public) or not _of_large_order(signature[:32]):
        raise InvalidSignature
    Ed25519PublicKey.from_public_bytes(public).verify(signature, said)


def _of_large_order(point: bytes) -> bool:
    y = int.from_bytes(point, "little") & (2**255 - 1)
    return y < _P and y not in _SMALL
