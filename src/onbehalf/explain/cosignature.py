"""Cosignatures of heads: C2SP tlog-cosignature with ML-DSA-44 (type 6) and, to check only, Ed25519 (type 4).

The log signs its own heads so too, as a cosigner under its own name: against the day when Ed25519 no longer holds.
Must not hold where keys come from, or whose signatures are enough (quorum.py).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from onbehalf.errors import ConfigInvalid, LedgerCorrupt
from onbehalf.explain.checkpoint import Checkpoint, signatures

__all__ = ["ED25519", "ML_DSA_44", "Cosigner", "HeadSigner", "cosigned", "cosigner", "ml_dsa_44"]

ED25519, ML_DSA_44 = 4, 6
_PUBLIC = {1: 32, ED25519: 32, ML_DSA_44: 1312}
_SIGNATURE = {ED25519: 64, ML_DSA_44: 2420}
_VKEY = re.compile(r"(?P<name>[!-*,-~]{1,200})\+(?P<id>[0-9a-f]{8})\+(?P<key>[A-Za-z0-9+/]{1,2000}={0,2})")
_NEWER = "install a newer `cryptography`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigner:
    """A public key by which heads are signed. `kind` is its signature type, `id` goes before each signature."""

    name: str
    kind: int
    public: bytes
    id: bytes
    vkey: str


class HeadSigner:
    """The log's own ML-DSA-44 key, under the log's name."""

    __slots__ = ("_sign", "cosigner")

    def __init__(self, origin: str, seed: bytes) -> None:
        """`seed` is the 32 bytes of FIPS 204. Raises ConfigInvalid where this installation has no ML-DSA-44."""
        try:
            from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

            key = MLDSA44PrivateKey.from_seed_bytes(seed)
        except (ImportError, UnsupportedAlgorithm) as error:
            raise ConfigInvalid("this installation has no ML-DSA-44", hint=_NEWER) from error
        public = bytes([ML_DSA_44]) + key.public_key().public_bytes_raw()
        id_ = _key_id(origin, public)
        vkey = f"{origin}+{id_.hex()}+{base64.b64encode(public).decode()}"
        self.cosigner = Cosigner(name=origin, kind=ML_DSA_44, public=public[1:], id=id_, vkey=vkey)
        self._sign: Callable[[bytes], bytes] = key.sign

    def line(self, head: Checkpoint, *, at: int) -> str:
        """The signature line, which says that at that time (seconds since 1970) no larger head was known. 0.4 ms."""
        signature = self._sign(_message(self.cosigner, head, at))
        encoded = base64.b64encode(self.cosigner.id + at.to_bytes(8, "big") + signature).decode()
        return f"— {self.cosigner.name} {encoded}\n"


def cosigner(vkey: str, kinds: Collection[int]) -> Cosigner:
    """The key of a vkey of one of these types. Raises ValueError."""
    parts = _VKEY.fullmatch(vkey)
    try:
        key = base64.b64decode(parts["key"], validate=True) if parts else b""
    except binascii.Error:
        key = b""
    if parts is None or not key or key[0] not in kinds or len(key) != 1 + _PUBLIC[key[0]]:
        raise ValueError(f"it has no vkey of type {' or '.join(map(str, kinds))}")
    id_ = _key_id(parts["name"], key)
    if id_.hex() != parts["id"] or base64.b64encode(key).decode() != parts["key"]:
        raise ValueError(f"the vkey of `{parts['name']}` and its id do not belong together")
    return Cosigner(name=parts["name"], kind=key[0], public=key[1:], id=id_, vkey=vkey)


def cosigned(note: str, key: Cosigner, head: Checkpoint) -> tuple[int, str] | None:
    """When this key signed the head of a note, and by which line; None where it did not.

    Raises LedgerCorrupt for a signature of this key that does not verify, or two of them.
    """
    own = [each for name, each in signatures(note) if name == key.name and each[:4] == key.id]
    if not own:
        return None
    if len(own) > 1 or len(own[0]) != 12 + _SIGNATURE[key.kind] or not 0 < (at := _time(own[0])) < 2**63:
        raise LedgerCorrupt(f"the cosignature by `{key.name}` is malformed")
    if not _verifies(key, own[0][12:], _message(key, head, at)):
        raise LedgerCorrupt(f"the cosignature by `{key.name}` does not verify")
    return at, f"— {key.name} {base64.b64encode(own[0]).decode()}\n"


def ml_dsa_44() -> bool:
    """Whether this installation can sign with ML-DSA-44."""
    try:
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

        MLDSA44PrivateKey.from_seed_bytes(bytes(32))
    except (ImportError, UnsupportedAlgorithm):
        return False
    return True


def _time(signature: bytes) -> int:
    return int.from_bytes(signature[4:12], "big")


def _verifies(key: Cosigner, signature: bytes, said: bytes) -> bool:
    try:
        if key.kind == ED25519:
            VerifyKey(key.public).verify(said, signature)
        else:
            from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

            MLDSA44PublicKey.from_public_bytes(key.public).verify(signature, said)
    except (BadSignatureError, InvalidSignature, ValueError):
        return False
    except (ImportError, UnsupportedAlgorithm) as error:
        raise ConfigInvalid("this installation has no ML-DSA-44", hint=_NEWER) from error
    return True


def _message(key: Cosigner, head: Checkpoint, at: int) -> bytes:
    """What is signed of a head at a time: `cosigned_message`, or with Ed25519 the checkpoint below two lines."""
    if key.kind == ED25519:
        return f"cosignature/v1\ntime {at}\n{head.text()}".encode()
    name, origin = key.name.encode(), head.origin.encode()
    start = bytes(8)
    return b"".join(
        (
            b"subtree/v1\n\x00", len(name).to_bytes(1, "big"), name, at.to_bytes(8, "big"),
            len(origin).to_bytes(1, "big"), origin, start, head.size.to_bytes(8, "big"), head.root,
        )
    )  # fmt: skip


def _key_id(name: str, key: bytes) -> bytes:
    """The first four bytes of SHA-256 of name, newline, type and key (C2SP tlog-cosignature)."""
    return sha256(name.encode() + b"\n" + key).digest()[:4]
