"""The company's OpenID provider, asked who logged in (OpenID Connect Core 1.0 section 3.1).

The gateway is a plain OIDC client there: code, PKCE, `state`, `nonce`. Of the answer only the ID token is looked at,
and proven; the provider's access token is dropped. Must not know clients, grants or browsers.

Trust: the provider says who a person is, to this gateway alone; the browser brings the code and may lie.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from onbehalf.config import login_rule
from onbehalf.config_broker import BrokerLogin
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_keys import IssuerKeys
from onbehalf.doors.issuer_login import CodeLogin, Redirected
from onbehalf.errors import LoginFailed
from onbehalf.identify import Asserted, LoggedIn, check_algorithm, check_tenants, peek, verify_id_jag, verify_id_token
from onbehalf.model import Presented, UnixTime

__all__ = ["OidcLogin"]


class OidcLogin:
    """Logins at one OpenID provider, and what it asserts without one. Used within one event loop, ended by `aclose`."""

    def __init__(
        self, settings: BrokerLogin, *, redirect_uri: str, secret: str, insecure_http: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Raises ConfigInvalid."""
        self.settings = settings
        self.rule = login_rule(settings)
        check_tenants(self.rule)
        self._fetcher = IssuerFetcher(insecure_http=insecure_http)
        self._fetcher.check(self.rule)
        self._keys = IssuerKeys(self.rule, self._fetcher, monotonic=monotonic)
        self._kept = frozenset(settings.claims)
        self._codes = CodeLogin(
            self.rule, self._fetcher, client_id=settings.client_id, redirect_uri=redirect_uri, secret=secret,
            asked={"scope": settings.scope}, redeeming={}, monotonic=monotonic,
        )  # fmt: skip

    async def address(self, *, state: str, nonce: str, verifier: str, more: Mapping[str, str]) -> str:
        """Where to send the browser; `more` are parameters about the login itself. Raises LoginFailed."""
        return await self._codes.address(state=state, verifier=verifier, more={**more, "nonce": nonce})

    async def logged_in(
        self, back: Redirected, *, nonce: str, verifier: str, max_age: int | None, now: UnixTime
    ) -> LoggedIn:
        """Who it was. Raises LoginFailed and IdentifyErrors."""
        answer = await self._codes.redeemed(back, verifier=verifier)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise LoginFailed("the login gave no ID token", hint="`scope` of the broker's login must have `openid`")
        peeked = peek(Presented(token=token))
        check_algorithm(peeked, self.rule)  # before the key: what cannot be accepted causes no fetch
        key = await self._keys.find(peeked.key_id)
        return verify_id_token(
            peeked, rule=self.rule, key=key, client=self.settings.client_id, nonce=nonce, now=now,
            subject_claim=self.settings.subject_claim, kept=self._kept, max_age=max_age,
        )  # fmt: skip

    async def asserted(
        self, assertion: str, *, audience: str, resource: str, client: str, holds: str, now: UnixTime
    ) -> Asserted:
        """For whom a client may act that holds a key, as the provider asserts (ID-JAG). Raises IdentifyErrors."""
        peeked = peek(Presented(token=assertion))
        check_algorithm(peeked, self.rule)
        key = await self._keys.find(peeked.key_id)
        return verify_id_jag(
            peeked, rule=self.rule, key=key, audience=audience, resource=resource, client=client, kept=self._kept,
            now=now, holds=holds,
        )  # fmt: skip

    async def aclose(self) -> None:
        """End all fetches and close all connections."""
        await self._keys.aclose()
        await self._fetcher.aclose()
