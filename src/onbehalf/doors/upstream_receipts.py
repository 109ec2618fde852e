"""What an upstream's backend signs about a call, held against the call token that was sent: for every kind of upstream.

Must not know how a receipt travels, or read what it says (explain/backend_receipt.py).

Trust: the file of keys says who the backend is; whoever has one of their secrets can vouch for any answer of it.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from onbehalf.base64url import base64url
from onbehalf.errors import ConfigInvalid
from onbehalf.explain.backend_receipt import Expected, read_receipt
from onbehalf.identify.keys import KeysRefused, public_keys
from onbehalf.model import CallToken, UnixTime, digest

__all__ = ["Receipts", "open_receipts"]

_MAX_BYTES = 65_536


class Receipts:
    """Proves the receipts of one backend."""

    def __init__(self, keys: Mapping[str, bytes], *, clock: Callable[[], float] = time.time) -> None:
        self._keys = dict(keys)
        self._clock = clock

    def public(self) -> dict[str, str]:
        """The keys as JWK members `x`, by id."""
        return {kid: base64url(key) for kid, key in self._keys.items()}

    def require(self, compact: str | None, token: CallToken, *, answer: bytes, status: int) -> str:
        """The receipt, proven to be of this sending and this answer. Raises ReceiptRefused, also for none."""
        payload = token.compact.split(".")[1]
        sent = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        expected = Expected(
            backend=sent["aud"], gateway=sent["iss"], call=sent["txn"], call_token=sent["jti"],
            tool=sent["tctx"]["tool"], arguments=sent["tctx"]["arguments"], answer=digest(answer), status=status,
        )  # fmt: skip
        until = UnixTime(int(self._clock()))
        read_receipt(compact or "", keys=self._keys, expected=expected, since=token.grant.issued_at, until=until)
        return compact or ""


def open_receipts(place: str, *, base: Path) -> Receipts | None:
    """From a JWK Set in a file below `base`; None where `place` is "". Raises ConfigInvalid."""
    if not place:
        return None
    try:
        with (base / place).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        found = public_keys(data if len(data) <= _MAX_BYTES else b"", issuer="receipts")
    except (OSError, KeysRefused) as error:
        raise ConfigInvalid(f"`receipt_keys` cannot be read from `{place}`", hint="give a JWK Set in a file") from error
    keys = {
        key_id: key.material.public_key.public_bytes_raw()
        for key_id, key in found.items()
        if isinstance(key.material.public_key, Ed25519PublicKey)
    }
    if not keys:
        raise ConfigInvalid(f"`{place}` holds no Ed25519 key", hint="ask the backend for its public receipt key")
    return Receipts(keys)
