"""The broker's own access tokens, seen from the side that proves them.

Must not sign, or decide who a token is for.

Trust: these keys never leave the process to be believed; what is over is over at the next proof of a token.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from onbehalf.broker.grant import FAMILY_CLAIM
from onbehalf.broker.ports import Store
from onbehalf.config import IssuerSettings
from onbehalf.doors.key_file import KeyFile
from onbehalf.errors import IdentifyError, TokenRevoked
from onbehalf.identify import PublicKey, check_signed, peek, public_keys
from onbehalf.model import Json, Presented

__all__ = ["OwnTokens"]


class OwnTokens:
    """Fulfils `issuer_http.OwnIssuer`."""

    def __init__(self, issuer: str, keys: KeyFile, store: Store) -> None:
        self.issuer = issuer
        self._keys = keys
        self._store = store

    async def keys(self, rule: IssuerSettings) -> Mapping[str, PublicKey]:
        """The published keys."""
        return self._public()

    def refuse(self, claims: Mapping[str, Json]) -> None:
        """Raises TokenRevoked for proven claims of a token whose grant is over."""
        if claims.get(FAMILY_CLAIM) in self._store.ended:
            raise TokenRevoked("the login that this token is of is over", hint="log in anew")

    def family_of(self, token: str) -> tuple[str, str] | None:
        """Client and grant of an access token that this server signed, however old; None for any other."""
        try:
            peeked = peek(Presented(token=token))
            key = self._public().get(peeked.key_id)
            if key is None:
                return None
            check_signed(peeked, key, issuer=self.issuer)
        except IdentifyError:
            return None
        client, family = peeked.claimed.get("client_id"), peeked.claimed.get(FAMILY_CLAIM)
        return (client, family) if isinstance(client, str) and isinstance(family, str) else None

    def _public(self) -> Mapping[str, PublicKey]:
        return public_keys(orjson.dumps(self._keys.jwks()), issuer=self.issuer)
