"""Keys that a bundle brings, and backends' receipts against them: compact JWS in Ed25519 (RFC 7515, RFC 8037).

A receipt proves that the holder of a backend's key said it handled this sending. Whose key it is, the bundle alone
cannot prove. Must not know how a receipt came into the record.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import Any

from cryptography.exceptions import InvalidSignature

from onbehalf.verifier import ed25519
from onbehalf.verifier.leaves import Intent, Leaf
from onbehalf.verifier.strict import strict

__all__ = ["Receipts", "decoded", "key_set", "parts_of"]

_MAX = 4096
_MAX_KEYS = 1000
_TOLERANCE_S = 5
_PART = re.compile(r"[A-Za-z0-9_-]+")


def key_set(jwks: object, *, thumbprints: bool = True) -> dict[str, bytes]:
    """The Ed25519 keys of a JWK Set, by id. Raises ValueError, with `thumbprints` for an id that is none (RFC 7638)."""
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(keys, list) or len(keys) > _MAX_KEYS:
        raise ValueError("it is no JWK Set")
    found: dict[str, bytes] = {}
    for each in keys:
        if not isinstance(each, dict) or (each.get("kty"), each.get("crv")) != ("OKP", "Ed25519"):
            continue
        x, kid = each.get("x"), each.get("kid")
        public = decoded(x) if isinstance(x, str) else b""
        bare = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":")).encode()
        if len(public) != 32 or not isinstance(kid, str):
            raise ValueError("a key is malformed")
        if thumbprints and kid != _encoded(hashlib.sha256(bare).digest()):
            raise ValueError("a key's id is not its thumbprint")
        found[kid] = public
    return found


class Receipts:
    """Holds receipts against the keys of all backends. The first receipt of a backend's key binds it to its name."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        self._keys = keys
        self._in_force: dict[str, str] | None = None
        self._names: dict[str, str] = {}

    def in_force(self, key_set: object) -> None:
        """From here on these keys are those that the gateway took; None where the record does not say here."""
        sets = key_set.get("receipts") if isinstance(key_set, dict) else None
        if not isinstance(sets, dict):
            self._in_force = None
            return
        each_of = [each for each in sets.values() if isinstance(each, dict)]
        self._in_force = {kid: x for each in each_of for kid, x in each.items() if isinstance(x, str)}

    def problem(self, compact: str, leaf: Leaf, intent: Intent | None) -> str:
        """Why a receipt does not belong to this outcome; "" where it does."""
        if len(compact) > _MAX:
            return "it is no compact JWS"
        try:
            parts = parts_of(compact)
        except ValueError as error:
            return str(error)
        try:
            head, said, signature = strict(decoded(parts[0]), depth=4), strict(decoded(parts[1]), depth=4), parts[2]
        except ValueError:
            return "it is no strict JSON"
        if not isinstance(head, dict) or not isinstance(said, dict) or head.keys() != {"typ", "alg", "kid"}:
            return "its header is not that of a receipt"
        if (head["typ"], head["alg"]) != ("onbehalf-receipt+jwt", "EdDSA"):
            return "its header is not that of a receipt"
        kid = head["kid"]
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            return "its key is not in keys.json"
        if self._in_force is not None and self._in_force.get(kid) != _encoded(key):
            return "its key was none of those on record as in force then"
        try:
            ed25519.verify(key, decoded(signature), f"{parts[0]}.{parts[1]}".encode())
        except (InvalidSignature, ValueError):
            return "its signature does not verify"
        return self._about(said, kid, leaf, intent)

    def _about(self, said: dict[str, Any], kid: str, leaf: Leaf, intent: Intent | None) -> str:
        backend = said.get("iss")
        if not isinstance(backend, str) or self._names.setdefault(kid, backend) != backend:
            return "one key signs for two backends"
        if said.get("txn") != leaf.call or said.get("call_token") != f"{leaf.call}.{leaf.of}":
            return "it is of another call or sending"
        if intent is None:
            return ""
        for name in ("tool", "arguments"):
            if name in intent.opened and said.get(name) != intent.opened[name]:
                return f"it is about other {name} than the intent"
        at = said.get("iat")
        if type(at) is not int or not intent.at - _TOLERANCE_S <= at <= leaf.at + _TOLERANCE_S:
            return "it was not made between intent and outcome"
        return ""


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def parts_of(compact: str) -> list[str]:
    """The three parts of a compact JWS, as they stand. Raises ValueError."""
    parts = compact.split(".")
    if len(parts) != 3 or not all(map(_PART.fullmatch, parts)):
        raise ValueError("it is no compact JWS")
    return parts


def decoded(part: str) -> bytes:
    """The bytes of one part; none where it is not the one spelling of any."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        return b""
    return data if _encoded(data) == part else b""
