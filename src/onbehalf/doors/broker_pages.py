"""Logins to the approval pages where the gateway is the authorization server itself.

The pages ask for a login and get an access token to be proven, as with any issuer; here the company's login is asked
directly, and the token is the broker's own, for the pages alone. Must not keep logins or decide who may approve.

Trust: as broker_login.py. The token never leaves the process.
"""

from __future__ import annotations

import secrets

import orjson

from onbehalf.base64url import s256
from onbehalf.broker.grant import Granted, access_claims
from onbehalf.config import IssuerSettings
from onbehalf.doors.broker_login import OidcLogin
from onbehalf.doors.issuer_login import Redirected
from onbehalf.doors.key_file import KeyFile
from onbehalf.model import Presented, UnixTime
from onbehalf.ports import Clock

__all__ = ["PAGES_CLIENT", "PagesLogin"]

PAGES_CLIENT = "onbehalf:approvals"
"""The client of these tokens. No other can have this id: it is neither configured, published nor registered."""
_SECONDS = 60


class PagesLogin:
    """As issuer_login.IssuerLogin, for the broker's own issuer, `rule`."""

    client_id = PAGES_CLIENT

    def __init__(self, rule: IssuerSettings, login: OidcLogin, keys: KeyFile, *, resource: str, clock: Clock) -> None:
        self.rule = rule
        self._login = login
        self._keys = keys
        self._resource = resource
        self._clock = clock

    async def address(self, *, state: str, verifier: str) -> str:
        """Where to send the browser. `verifier` is 43 characters or more that nobody else knows. Raises LoginFailed."""
        return await self._login.address(state=state, nonce=_nonce(verifier), verifier=verifier, more={})

    async def redeemed(self, back: Redirected, *, verifier: str) -> Presented:
        """An access token for whoever logged in. Raises LoginFailed and IdentifyErrors."""
        now = self._clock()
        person = await self._login.logged_in(back, nonce=_nonce(verifier), verifier=verifier, max_age=None, now=now)
        granted = Granted(
            family=secrets.token_urlsafe(32), client=PAGES_CLIENT, subject=person.subject, tenant=person.tenant,
            resource=self._resource, scope=(), at=now, until=UnixTime(now + _SECONDS), told=person.told,
        )  # fmt: skip
        claims = access_claims(
            granted, issuer=self.rule.issuer, scope=(), id=secrets.token_urlsafe(32), now=now, seconds=_SECONDS
        )
        return Presented(token=self._keys.sign(orjson.dumps(claims)))


def _nonce(verifier: str) -> str:
    """One for each login: it follows from what nobody else knows of it, and tells nothing of that."""
    return s256(f"nonce {verifier}".encode())
