"""Signs call tokens with the keys of `calls.keys`, which is for them alone (key_file.py).

Must not hold what a token says (act/claims.py) or how long it lives (act/grant.py).

Trust: whoever reads `calls.keys` can act at every backend as every person until the keys are replaced. A lost file
costs nothing but the tokens of half a minute.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from onbehalf.act import KIND, LIFE_S, claims
from onbehalf.doors.key_file import CACHE_S, KeyFile
from onbehalf.errors import ConfigInvalid, SignerUnavailable
from onbehalf.model import CallToken, Grant, Json, UnixTime

__all__ = ["CACHE_S", "FileSigner"]

_FILE = "calls.keys"


class FileSigner:
    """Signs call tokens with the current key of a directory. Fulfils `ports.Signer`."""

    def __init__(self, directory: Path, *, issuer: str) -> None:
        """Raises SignerUnavailable for keys that cannot be read, or that others can read."""
        self._issuer = _named(issuer)
        self.keys = KeyFile(directory / _FILE, kind=KIND, lifetime_s=LIFE_S)

    @classmethod
    def open(cls, directory: Path, *, issuer: str, now: UnixTime) -> FileSigner:
        """The signer of `directory`, its keys made if there are none. `issuer` is the trust domain that tokens name.

        Raises SignerUnavailable for keys that cannot be read, made, or that others can read.
        """
        KeyFile.open(directory / _FILE, kind=KIND, lifetime_s=LIFE_S, now=now)
        return cls(directory, issuer=issuer)

    @property
    def kids(self) -> tuple[str, ...]:
        """The ids of all published keys: the next, the current, then former ones, latest first."""
        return self.keys.kids

    @property
    def kid(self) -> str:
        """The id of the key that signs."""
        return self.keys.kids[1]

    def sign(self, grant: Grant) -> CallToken:
        """The compact token for a grant."""
        try:
            payload = orjson.dumps(claims(grant, issuer=self._issuer))
        except TypeError as error:  # a lone surrogate in a name
            raise SignerUnavailable("the call token cannot be spelled as JSON") from error
        return CallToken(grant=grant, compact=self.keys.sign(payload))

    def jwks(self) -> dict[str, Json]:
        """The JWK Set to publish (RFC 7517 section 5): public halves only. May be cached for `CACHE_S`."""
        return self.keys.jwks()

    def reload(self) -> bool:
        """Take the file as it is now; whether it was another. Raises SignerUnavailable, and goes on with the old."""
        return self.keys.reload()

    def rotate(self, now: UnixTime, *, lost: bool = False) -> None:
        """As KeyFile.rotate. Raises ConfigInvalid while it is too early, SignerUnavailable."""
        self.keys.rotate(now, lost=lost)


def _named(issuer: str) -> str:
    if not issuer:
        raise ConfigInvalid("call tokens need an issuer", hint="set `trust_domain`, or a `resource` with an origin")
    return issuer
