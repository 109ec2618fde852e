"""Payloads sealed with AES-256-GCM, and the keys a ledger needs, as values.

A seal holds only at the place it was made for: index, record id and leaf hash are authenticated with it. The nonce is
given by the door. Must not hold where keys come from (a door) or what a payload says (leaf.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.checkpoint import NoteSigner
from onbehalf.explain.cosignature import HeadSigner

__all__ = ["NONCE_BYTES", "LedgerKeys", "Sealer"]

NONCE_BYTES = 12
_VERSION = b"\x01"


class Sealer:
    """Seals and opens payloads with one key. NIST SP 800-38D allows 2**32 random nonces a key."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise ValueError(f"expected a payload key of 32 bytes, found {len(key)}")
        self._aead = AESGCM(key)

    def seal(self, payload: bytes, *, nonce: bytes, index: int, leaf: bytes) -> bytes:
        """The sealed payload of the record at `index` whose leaf hash is `leaf`. `nonce` is 12 fresh random bytes."""
        return _VERSION + nonce + self._aead.encrypt(nonce, payload, _place(index, leaf))

    def open(self, sealed: bytes, *, index: int, leaf: bytes) -> bytes:
        """The payload. Raises LedgerCorrupt where it was changed, moved, or sealed with another key."""
        if len(sealed) < 1 + NONCE_BYTES + 16 or sealed[:1] != _VERSION:
            raise LedgerCorrupt("not a sealed payload")
        try:
            return self._aead.decrypt(sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], _place(index, leaf))
        except InvalidTag as error:
            raise LedgerCorrupt("the sealed payload was changed, moved, or sealed with another key") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerKeys:
    """What a ledger writes with: `signer` signs each checkpoint, `sealer` seals payloads, `heads` signs some
    checkpoints with ML-DSA-44 too; None where there is no such key."""

    signer: NoteSigner = field(repr=False)
    sealer: Sealer = field(repr=False)
    heads: HeadSigner | None = field(default=None, repr=False)

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The log's public keys, as the lines of log.pub."""
        return (self.signer.verifier.vkey, *((self.heads.cosigner.vkey,) if self.heads is not None else ()))


def _place(index: int, leaf: bytes) -> bytes:
    # the leaf hash covers the record id, so naming it again would add nothing
    return b"onbehalf/payload/v1\0" + index.to_bytes(8, "big") + leaf
