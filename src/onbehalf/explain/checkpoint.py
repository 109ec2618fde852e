"""Signed heads of the log: C2SP tlog-checkpoint inside C2SP signed-note, Ed25519.

Reading is strict: one spelling of every note. Extension lines are refused (the specification advises against them).
Must not hold where keys come from, or the tree itself (tree.py).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from onbehalf.errors import LedgerCorrupt

__all__ = ["Checkpoint", "Head", "NoteSigner", "NoteVerifier", "read", "signatures", "tlog_proof", "write"]

_ED25519 = b"\x01"
_MAX_NOTE_BYTES = 262_144
"""Room for 64 cosignatures by ML-DSA-44, of 3.3 kB each."""
_MAX_SIGNATURES = 64
_NAME = re.compile(r"[!-*,-~]{1,200}")
"""Printable ASCII without blank and `+`: narrower than signed-note, which allows other letters."""
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_VKEY = re.compile(r"(?P<name>[^+]+)\+(?P<id>[0-9a-f]{8})\+(?P<key>[A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The log `origin` had `size` leaves with this root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note text that is signed."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A checkpoint with the note by which the log signed it."""

    checkpoint: Checkpoint
    note: str

    @property
    def size(self) -> int:
        return self.checkpoint.size


class NoteVerifier:
    """A public key with its name, read from a vkey: `name+keyid+base64(0x01 || key)`.

    `former` are the log's keys before this one, oldest first, each with the most leaves that a head of its has
    (handover.py): `read` checks a smaller head by its own key.
    """

    __slots__ = ("_key", "former", "id", "name", "vkey")

    def __init__(self, vkey: str) -> None:
        """Raises ValueError for what is no Ed25519 vkey."""
        parts = _VKEY.fullmatch(vkey)
        key = _unbase64(parts["key"]) if parts else b""
        if parts is None or not _NAME.fullmatch(parts["name"]) or len(key) != 33 or key[:1] != _ED25519:
            raise ValueError("not an Ed25519 vkey")
        self.name = parts["name"]
        self.id = _key_id(self.name, key[1:])
        if self.id.hex() != parts["id"]:
            raise ValueError(f"key id is `{parts['id']}`, the key makes it `{self.id.hex()}`")
        self.vkey = vkey
        self.former: tuple[tuple[int, NoteVerifier], ...] = ()
        self._key = VerifyKey(key[1:])

    def after(self, former: tuple[tuple[int, NoteVerifier], ...]) -> NoteVerifier:
        """This key, with those that were in force before it."""
        made = NoteVerifier(self.vkey)
        made.former = former
        return made

    def at(self, size: int) -> NoteVerifier:
        """The key by which a head of so many leaves is signed."""
        return next((key for most, key in self.former if size <= most), self)

    def text(self, note: str) -> str:
        """The text of a note, its signature by this key checked.

        Lines by other keys are allowed and not checked; one by this key that fails is fatal. Raises LedgerCorrupt.
        """
        text, signatures = _split(note)
        own = [sig for name, sig in signatures if name == self.name and sig[:4] == self.id]
        if len(own) != 1:
            raise LedgerCorrupt(f"expected one signature by `{self.name}+{self.id.hex()}`, found {len(own)}")
        try:
            self._key.verify(text.encode(), own[0][4:])
        except (BadSignatureError, ValueError) as error:
            raise LedgerCorrupt(f"the signature by `{self.name}` does not verify") from error
        return text


class NoteSigner:
    """A signing key with its name. The name of a log's key is the log's origin."""

    __slots__ = ("_key", "_line", "name", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        """`seed` is the 32 bytes of RFC 8032. Raises ValueError."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"`{name}` cannot name a key: printable ASCII without blanks and `+`, at most 200")
        public, self._key = crypto_sign_seed_keypair(seed)
        self.name = name
        key_id = _key_id(name, public)
        self.verifier = NoteVerifier(f"{name}+{key_id.hex()}+{_base64(_ED25519 + public)}")
        self._line = f"— {name} "

    def sign(self, text: str) -> str:
        """The signed note of a text that ends in a newline."""
        if not text.endswith("\n"):
            raise ValueError("a note's text ends in a newline")
        signature = crypto_sign(text.encode(), self._key)[:crypto_sign_BYTES]
        return f"{text}\n{self._line}{_base64(self.verifier.id + signature)}\n"


def write(checkpoint: Checkpoint, signer: NoteSigner) -> str:
    """The signed checkpoint."""
    return signer.sign(checkpoint.text())


def read(note: str, verifier: NoteVerifier, *, origin: str) -> Checkpoint:
    """The checkpoint of a note, its signature and origin checked. Raises LedgerCorrupt."""
    claimed = note.split("\n", 2)[1] if note.count("\n") > 1 else ""
    key = verifier.at(int(claimed)) if _SIZE.fullmatch(claimed) else verifier
    lines = key.text(note).split("\n")
    if len(lines) != 4 or lines[3] != "":
        raise LedgerCorrupt(f"expected a checkpoint of three lines, found {len(lines) - 1}")
    if lines[0] != origin:
        raise LedgerCorrupt(f"expected a checkpoint of `{origin}`, found one of `{lines[0]}`")
    root = _unbase64(lines[2])
    if not _SIZE.fullmatch(lines[1]) or len(root) != 32:
        raise LedgerCorrupt("the checkpoint's size or root is malformed")
    return Checkpoint(origin=origin, size=int(lines[1]), root=root)


def signatures(note: str) -> list[tuple[str, bytes]]:
    """The signatures of a note, unchecked: name, and key id with signature. Raises LedgerCorrupt."""
    return _split(note)[1]


def tlog_proof(index: int, path: Sequence[bytes], note: str) -> str:
    """A C2SP tlog-proof: everything needed to check one leaf offline."""
    hashes = "".join(f"{_base64(each)}\n" for each in path)
    return f"c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n{note}"


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and (name, key id and signature) of a signed note."""
    if len(note) > _MAX_NOTE_BYTES:
        raise LedgerCorrupt(f"a note is at most {_MAX_NOTE_BYTES} characters")
    if any((ord(each) < 0x20 and each != "\n") or 0xD800 <= ord(each) < 0xE000 for each in note):
        raise LedgerCorrupt("a note holds no control characters")
    text, blank, tail = note.rpartition("\n\n")
    lines = tail.split("\n")
    if not blank or not tail.endswith("\n") or not 2 <= len(lines) <= _MAX_SIGNATURES + 1:
        raise LedgerCorrupt("a note ends in a blank line and signature lines")
    signatures: list[tuple[str, bytes]] = []
    for line in lines[:-1]:
        dash, name, encoded = [*line.split(" "), "", ""][:3]
        signature = _unbase64(encoded)
        if line.count(" ") != 2 or dash != "—" or not name or "+" in name or len(signature) < 5:
            raise LedgerCorrupt("a signature line is malformed")
        signatures.append((name, signature))
    return text + "\n", signatures


def _key_id(name: str, public: bytes) -> bytes:
    """The first four bytes of SHA-256 of name, newline, algorithm and key (C2SP signed-note)."""
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes:
    """Standard base64 in its one spelling; b"" for anything else."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if _base64(data) == text else b""
