"""Cosignatures of witnesses, to check: C2SP tlog-cosignature with Ed25519 (0x04) and ML-DSA-44 (0x06).

A cosignature says that a witness saw this head, as the largest of one history. Which witnesses count, the caller says.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from onbehalf.verifier import ed25519
from onbehalf.verifier.note import Checkpoint, decoded
from onbehalf.verifier.refused import Unusable

__all__ = ["ED25519", "ML_DSA_44", "WitnessKey", "cosigned_at", "message", "witness_key", "witness_vkey"]

ED25519, ML_DSA_44 = 4, 6
_LENGTHS = {ED25519: (32, 64), ML_DSA_44: (1312, 2420)}
_VKEY = re.compile(r"([!-*,-~]{1,200})\+([0-9a-f]{8})\+([A-Za-z0-9+/]{1,2000}={0,2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessKey:
    """A witness's public key. `kind` is the signature type of its vkey."""

    name: str
    id: bytes
    kind: int
    public: bytes


def witness_key(text: str) -> WitnessKey:
    """The key of a witness's vkey line. Raises Unusable."""
    found = _VKEY.fullmatch(text.strip())
    key = decoded(found[3]) if found else b""
    if found is None or not key or key[0] not in _LENGTHS or len(key) != 1 + _LENGTHS[key[0]][0]:
        raise Unusable("a witness's key is no vkey of type 4 (Ed25519) or 6 (ML-DSA-44)")
    made = WitnessKey(name=found[1], id=_key_id(found[1], key), kind=key[0], public=key[1:])
    if made.id.hex() != found[2]:
        raise Unusable("a witness's key and its id do not belong together: a letter was lost or changed")
    return made


def witness_vkey(name: str, kind: int, public: bytes) -> str:
    """The vkey line of a witness."""
    key = bytes([kind]) + public
    return f"{name}+{_key_id(name, key).hex()}+{base64.b64encode(key).decode()}"


def message(key: WitnessKey, head: Checkpoint, origin: str, at: int) -> bytes:
    """What a witness signs of a head, at a time in seconds since 1970."""
    if key.kind == ED25519:
        root = base64.b64encode(head.root).decode()
        return f"cosignature/v1\ntime {at}\n{origin}\n{head.size}\n{root}\n".encode()
    name, log = key.name.encode(), origin.encode()
    return b"".join(
        (
            b"subtree/v1\n\0", bytes([len(name)]), name, at.to_bytes(8, "big"), bytes([len(log)]), log, bytes(8),
            head.size.to_bytes(8, "big"), head.root,
        )
    )  # fmt: skip


def cosigned_at(head: Checkpoint, key: WitnessKey, origin: str) -> int | None:
    """When this witness cosigned the head; None where it did not. Raises ValueError for a signature that fails."""
    own = [each for name, each in head.signatures if name == key.name and each[:4] == key.id]
    if not own:
        return None
    if len(own) > 1 or len(own[0]) != 12 + _LENGTHS[key.kind][1]:
        raise ValueError(f"the cosignature by `{key.name}` is malformed")
    at = int.from_bytes(own[0][4:12], "big")
    said = message(key, head, origin, at)
    try:
        if key.kind == ED25519:
            ed25519.verify(key.public, own[0][12:], said)
        else:
            _verify_ml_dsa(key.public, own[0][12:], said)
    except (InvalidSignature, ValueError) as error:
        raise ValueError(f"the cosignature by `{key.name}` does not verify") from error
    return at


def _verify_ml_dsa(public: bytes, signature: bytes, said: bytes) -> None:
    try:
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

        key = MLDSA44PublicKey.from_public_bytes(public)
    except (ImportError, UnsupportedAlgorithm) as error:
        raise Unusable("this installation of `cryptography` has no ML-DSA-44; install a newer one") from error
    key.verify(signature, said)


def _key_id(name: str, key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
