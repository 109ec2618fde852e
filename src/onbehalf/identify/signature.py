"""Whether a signature is of some bytes and a key: the four algorithms that an issuer may use, and no other.

The checks are cryptography's, on the very bytes that `peek` took apart: there is no second parser to disagree with.
Must not know tokens or claims, or choose an algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

__all__ = ["SIGNATURES", "signed_by"]

_Check: TypeAlias = Callable[[object, bytes, bytes], None]

_SHA256 = SHA256()
_ECDSA = ECDSA(_SHA256)
_PKCS1 = PKCS1v15()
# A salt of any other length is another signature scheme (RFC 7518 section 3.5).
_PSS = PSS(mgf=MGF1(_SHA256), salt_length=_SHA256.digest_size)


def signed_by(key: object, algorithm: str, *, said: bytes, signature: bytes) -> bool:
    """Whether `signature` is by `key`, a public key of cryptography, over `said`. False for a key of another kind.

    Raises KeyError for an algorithm that is not in `SIGNATURES`.
    """
    try:
        SIGNATURES[algorithm](key, signature, said)
    except (InvalidSignature, ValueError):
        return False
    return True


def _rs256(key: object, signature: bytes, said: bytes) -> None:
    if not isinstance(key, RSAPublicKey):
        raise InvalidSignature
    key.verify(signature, said, _PKCS1, _SHA256)


def _ps256(key: object, signature: bytes, said: bytes) -> None:
    if not isinstance(key, RSAPublicKey):
        raise InvalidSignature
    key.verify(signature, said, _PSS, _SHA256)


def _es256(key: object, signature: bytes, said: bytes) -> None:
    # R and S in 32 bytes each (RFC 7518 section 3.4): neither DER, nor shorter where one begins with zeros.
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1) or len(signature) != 64:
        raise InvalidSignature
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key.verify(encode_dss_signature(r, s), said, _ECDSA)


def _ed25519(key: object, signature: bytes, said: bytes) -> None:
    if not isinstance(key, Ed25519PublicKey):  # `EdDSA` is never Ed448 here (RFC 9864)
        raise InvalidSignature
    key.verify(signature, said)


SIGNATURES: Mapping[str, _Check] = MappingProxyType(
    {"RS256": _rs256, "PS256": _ps256, "ES256": _es256, "EdDSA": _ed25519, "Ed25519": _ed25519}
)
"""What `alg` may be, to how it is checked."""
