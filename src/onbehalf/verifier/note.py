"""Signed checkpoints, to check: C2SP signed-note and tlog-checkpoint with Ed25519. One spelling of everything."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature

from onbehalf.verifier import ed25519
from onbehalf.verifier.refused import Unusable

__all__ = ["Checkpoint", "LogKey", "checkpoint", "decoded", "log_key"]

_MAX_NOTE = 262_144
"""Room for 64 cosignatures by ML-DSA-44, of 3.3 kB each."""
_MAX_LINES = 128
_VKEY = re.compile(r"([!-*,-~]{1,200})\+([0-9a-f]{8})\+([A-Za-z0-9+/]{1,100}={0,2})")
_LINE = re.compile(r"— ([^ +\n]{1,1000}) ([A-Za-z0-9+/]{1,20000}={0,2})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogKey:
    """A log's public key, and the name by which checkpoints say whose they are."""

    name: str
    id: bytes
    public: bytes
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a checkpoint says: so many leaves with this root. `signatures` are further ones, by name and unchecked."""

    size: int
    root: bytes
    signatures: tuple[tuple[str, bytes], ...]


def log_key(text: str) -> LogKey:
    """The key of a vkey line. Raises Unusable."""
    found = _VKEY.fullmatch(text.strip())
    key = decoded(found[3]) if found else b""
    if found is None or len(key) != 33 or key[0] != 1:
        raise Unusable("the key is no Ed25519 vkey; it looks like `name+1a2b3c4d+AQ…`, the line in log.pub")
    expected = hashlib.sha256(found[1].encode() + b"\n" + key).digest()[:4]
    if expected.hex() != found[2]:
        raise Unusable("the key and its id do not belong together: a letter was lost or changed")
    return LogKey(name=found[1], id=expected, public=key[1:], text=text.strip())


def checkpoint(note: bytes, key: LogKey) -> Checkpoint:
    """The checkpoint, its one signature by this key checked. Raises ValueError saying what is wrong."""
    if len(note) > _MAX_NOTE:
        raise ValueError("it is too long for a checkpoint")
    text = note.decode("utf-8")  # UnicodeDecodeError is a ValueError
    body, blank, tail = text.rpartition("\n\n")
    lines = tail.removesuffix("\n").split("\n")
    if not blank or not tail.endswith("\n") or len(lines) > _MAX_LINES:
        raise ValueError("it does not end in a blank line and signatures")
    signatures = []
    for line in lines:
        found = _LINE.fullmatch(line)
        signature = decoded(found[2]) if found else b""
        if found is None or len(signature) < 5:
            raise ValueError("a signature line is malformed")
        signatures.append((found[1], signature))
    own = [each for name, each in signatures if name == key.name and each[:4] == key.id]
    if len(own) != 1:
        raise ValueError(f"it has {len(own)} signatures by this key of `{key.name}`, not one")
    body += "\n"
    try:
        ed25519.verify(key.public, own[0][4:], body.encode())
    except InvalidSignature as error:
        raise ValueError("its signature does not verify") from error
    said = body.split("\n")
    root = decoded(said[2]) if len(said) == 4 else b""
    if len(root) != 32 or said[0] != key.name or not _NUMBER.fullmatch(said[1]):
        raise ValueError("it is signed, and does not say origin, size and root of this log")
    others = tuple((name, each) for name, each in signatures if (name, each[:4]) != (key.name, key.id))
    return Checkpoint(size=int(said[1]), root=root, signatures=others)


def decoded(text: str) -> bytes:
    """The bytes of standard base64; none where it is not the one spelling of any."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if base64.b64encode(data).decode() == text else b""
