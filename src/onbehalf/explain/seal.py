"""Payloads sealed with AES-256-GCM, and the keys a ledger needs, as values.

What is about somebody is sealed with a key of their own, and what is about nobody with the ledger's: whoever destroys a
person's keys has erased what they opened, and no leaf changes. A seal holds only at the place it was made for: key,
index and leaf hash (which covers the record's id) are authenticated with it. Keys of people are wrapped by a key made
of the ledger's payload key. Randomness is given by the door. Must not hold where keys come from (a door) or what a
payload says (leaf.py).
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.checkpoint import NoteSigner
from onbehalf.explain.cosignature import HeadSigner
from onbehalf.explain.erasure import Erasure

__all__ = [
    "KEY_ID_BYTES",
    "NONCE_BYTES",
    "LedgerKeys",
    "Sealer",
    "Sealing",
    "SubjectSealer",
    "Wrapping",
    "key_id",
]

NONCE_BYTES = 12
KEY_ID_BYTES = 16
_TAG_BYTES = 16
_VERSION = b"\x01"
_OF_SUBJECT = b"\x02"
_NONCE_AT = 1 + KEY_ID_BYTES
_SEALED_AT = _NONCE_AT + NONCE_BYTES
_WRONG = "the sealed payload was changed, moved, or sealed with another key"


class Sealing(Protocol):
    """Seals and opens the payloads of one ledger, whoever they are about."""

    def seal(self, payload: bytes, *, about: str, nonce: bytes, index: int, leaf: bytes) -> bytes:
        """The sealed payload of the record at `index` whose leaf hash is `leaf`, about this person ("" for nobody).

        `nonce` is 12 fresh random bytes. Not durable before `settle`. Raises LedgerUnavailable.
        """
        ...

    def settle(self) -> None:
        """Make durable every key that was sealed with so far: to be called before such a payload is committed.

        Raises LedgerUnavailable.
        """
        ...

    def ready(self, people: Iterable[str]) -> None:
        """Have a durable key for each of these people, so that `seal` need not ask for it. Raises LedgerUnavailable."""
        ...

    def forget(self) -> None:
        """Seal with no key that is remembered: one of them was destroyed."""
        ...

    def open(self, sealed: bytes, *, index: int, leaf: bytes) -> bytes | None:
        """The payload; None where its key was destroyed by an erasure. Raises LedgerCorrupt, LedgerUnavailable."""
        ...

    def erasures(self) -> Sequence[Erasure]:
        """What was erased, oldest first, as the keys' own store tells it. Raises LedgerUnavailable, LedgerCorrupt."""
        ...

    def under_way(self) -> bool:
        """Whether something is asked to be erased, and not yet on record. Raises LedgerUnavailable."""
        ...


class Sealer:
    """Seals and opens payloads with the ledger's key. NIST SP 800-38D allows 2**32 random nonces a key."""

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
        if len(sealed) < 1 + NONCE_BYTES + _TAG_BYTES or sealed[:1] != _VERSION:
            raise LedgerCorrupt("not a sealed payload")
        try:
            return self._aead.decrypt(sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :], _place(index, leaf))
        except InvalidTag as error:
            raise LedgerCorrupt(_WRONG) from error


class SubjectSealer:
    """Seals and opens payloads with one key of one person. `id` is random, and stands in clear before each of them."""

    __slots__ = ("_aead", "_head", "id")

    def __init__(self, id_: bytes, key: bytes) -> None:
        if len(id_) != KEY_ID_BYTES or len(key) != 32:
            raise ValueError("expected a key of 32 bytes with an id of 16")
        self.id = id_
        self._head = _OF_SUBJECT + id_
        self._aead = AESGCM(key)

    def seal(self, payload: bytes, *, nonce: bytes, index: int, leaf: bytes) -> bytes:
        """As `Sealer.seal`."""
        return self._head + nonce + self._aead.encrypt(nonce, payload, self._head + _place(index, leaf))

    def open(self, sealed: bytes, *, index: int, leaf: bytes) -> bytes:
        """As `Sealer.open`."""
        if len(sealed) < _SEALED_AT + _TAG_BYTES or sealed[:_NONCE_AT] != self._head:
            raise LedgerCorrupt("not a payload that was sealed with this key")
        place = self._head + _place(index, leaf)
        try:
            return self._aead.decrypt(sealed[_NONCE_AT:_SEALED_AT], sealed[_SEALED_AT:], place)
        except InvalidTag as error:
            raise LedgerCorrupt(_WRONG) from error


def key_id(sealed: bytes) -> bytes:
    """The id of the person's key that a payload is sealed with; b"" for one that is sealed with the ledger's."""
    return sealed[1:_NONCE_AT] if sealed[:1] == _OF_SUBJECT else b""


class Wrapping:
    """What the ledger's payload key does for people's keys: it wraps them, finds them, and seals notes about them."""

    __slots__ = ("_labels", "_notes", "_wrap")

    def __init__(self, payload_key: bytes) -> None:
        self._wrap = AESGCM(_derived(payload_key, b"wrap"))
        self._notes = AESGCM(_derived(payload_key, b"notes"))
        self._labels = _derived(payload_key, b"labels")

    def label(self, about: str) -> bytes:
        """By what the keys of a person are found, which is no name, and can be made by nobody else."""
        return hmac.digest(self._labels, about.encode("utf-8", "surrogatepass"), "sha256")

    def wrap(self, id_: bytes, key: bytes, *, nonce: bytes) -> bytes:
        """A person's key, fit to be stored. `nonce` is 12 fresh random bytes."""
        return nonce + self._wrap.encrypt(nonce, key, id_)

    def unwrap(self, id_: bytes, wrapped: bytes) -> SubjectSealer:
        """The key of this id. Raises LedgerCorrupt."""
        return SubjectSealer(id_, _opened(self._wrap, wrapped, id_, "a person's key"))

    def close_note(self, note: bytes, *, of: bytes, nonce: bytes) -> bytes:
        """Words that belong to `of`, such as a request's id, fit to be stored. `nonce` is 12 fresh random bytes."""
        return nonce + self._notes.encrypt(nonce, note, of)

    def open_note(self, closed: bytes, *, of: bytes) -> bytes:
        """The words again. Raises LedgerCorrupt."""
        return _opened(self._notes, closed, of, "a note")


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerKeys:
    """What a ledger writes with: `signer` signs each checkpoint, `sealer` seals payloads, `heads` signs some
    checkpoints with ML-DSA-44 too; None where there is no such key."""

    signer: NoteSigner = field(repr=False)
    sealer: Sealing = field(repr=False)
    heads: HeadSigner | None = field(default=None, repr=False)

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The log's public keys, as the lines of log.pub."""
        return (self.signer.verifier.vkey, *((self.heads.cosigner.vkey,) if self.heads is not None else ()))


def _opened(aead: AESGCM, closed: bytes, with_: bytes, what: str) -> bytes:
    try:
        return aead.decrypt(closed[:NONCE_BYTES], closed[NONCE_BYTES:], with_)
    except (InvalidTag, ValueError) as error:
        raise LedgerCorrupt(f"{what} in the key store was changed, or wrapped by another `payload.key`") from error


def _derived(payload_key: bytes, purpose: bytes) -> bytes:
    return hmac.digest(payload_key, b"onbehalf/subject-keys/v1/" + purpose, "sha256")


def _place(index: int, leaf: bytes) -> bytes:
    # the leaf hash covers the record id, so naming it again would add nothing
    return b"onbehalf/payload/v1\0" + index.to_bytes(8, "big") + leaf
