"""One upstream's authorization server, as the gateway is a client of it for people's own accounts there.

Authorization code with PKCE, and renewal by refresh token (RFC 6749 section 6). Its endpoints stand in the
configuration: many such servers publish no metadata. Must not keep a token or know whose it is.

Trust: who answers at the configured endpoints, over https, is the upstream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onbehalf.act.bearer import UNFIT, BearerUnfit, check_bearer, wanted_of
from onbehalf.config import IssuerSettings
from onbehalf.config_upstreams import AccountSettings
from onbehalf.connecting import Account, Connecting, ConnectionDead
from onbehalf.doors.issuer_fetch import FetchFailed, IssuerFetcher
from onbehalf.doors.issuer_login import CodeLogin, Redirected
from onbehalf.doors.upstream_authorization import AuthorizationFailed
from onbehalf.errors import LoginFailed, VaultUnavailable
from onbehalf.model import Json, ToolCall, UnixTime

__all__ = ["Meant", "OauthAccounts", "VaultAuthorizer"]

_MAX_TOKEN = 16 * 1024
_MAX_LIFE_S = 365 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """Who a token of one upstream's accounts must not name, and whom it must where it names any (act/bearer.py)."""

    gateway: str
    wanted: Collection[str]

    @classmethod
    def of(cls, settings: AccountSettings, *, gateway: str) -> Meant:
        """`gateway` is this gateway's resource."""
        wanted = wanted_of(settings.token_audience, settings.parameters.get("resource", ""))
        return cls(gateway=gateway, wanted=wanted)

    def ends(self, token: str, now: UnixTime) -> UnixTime | None:
        """When a token says that it ends. Raises AuthorizationFailed for one that must not be sent."""
        try:
            return check_bearer(token, gateway=self.gateway, wanted=self.wanted, now=now)
        except BearerUnfit as error:
            raise AuthorizationFailed(str(error), code=UNFIT) from error


class OauthAccounts:
    """Fulfils `connecting.Accounts`. `name` is the upstream's; the fetcher is closed by whoever gave it."""

    def __init__(
        self, name: str, settings: AccountSettings, fetcher: IssuerFetcher, *, redirect_uri: str, secret: str,
        meant: Meant,
    ) -> None:  # fmt: skip
        self._meant = meant
        self.title = settings.title or name
        self._codes = CodeLogin(
            IssuerSettings(issuer=settings.issuer or settings.authorization_endpoint, tenant="none"), fetcher,
            client_id=settings.client_id, redirect_uri=redirect_uri, secret=secret,
            asked={"scope": settings.scope, **settings.parameters}, redeeming={},
            endpoints={
                "authorization_endpoint": settings.authorization_endpoint, "token_endpoint": settings.token_endpoint,
                "authorization_response_iss_parameter_supported": bool(settings.issuer),
            },
        )  # fmt: skip

    async def address(self, *, state: str, verifier: str) -> str:
        """Where to send the browser. Raises LoginFailed."""
        return await self._codes.address(state=state, verifier=verifier)

    async def redeemed(self, back: Redirected, *, verifier: str, now: UnixTime) -> Account:
        """The login that the code stands for. Raises LoginFailed."""
        answer = await self._codes.redeemed(back, verifier=verifier)
        try:
            return _account(answer, "", now, self._meant)
        except AuthorizationFailed as error:
            raise LoginFailed(str(error), hint="try again, or tell whoever runs the gateway") from error

    async def renewed(self, account: Account, *, now: UnixTime) -> Account:
        """A new access token by the refresh token. Raises ConnectionDead, AuthorizationFailed."""
        try:
            answer = await self._codes.renewed(account.refresh)
        except LoginFailed as error:
            raise AuthorizationFailed(error.message) from error
        except FetchFailed as error:
            if error.status in (400, 401):  # RFC 6749 section 5.2: `invalid_grant` and its like
                raise ConnectionDead from error
            raise AuthorizationFailed(f"the account's server gave no token: {error}") from error
        if "error" in answer:  # some answer so with status 200
            raise ConnectionDead
        return _account(answer, account.refresh, now, self._meant)


class VaultAuthorizer:
    """Fulfils what an upstream door asks: the bearer of a call, by its person's own login there. `meant` are by
    upstream."""

    def __init__(self, connecting: Connecting, meant: Mapping[str, Meant]) -> None:
        self._connecting = connecting
        self._meant = meant

    async def bearer(self, call: ToolCall) -> str:
        """The person's access token there. Raises AuthorizationFailed."""
        try:
            token = await self._connecting.bearer(call)
        except ConnectionDead as error:
            raise AuthorizationFailed("the person's account there must be connected anew") from error
        except VaultUnavailable as error:
            raise AuthorizationFailed(error.message) from error
        try:
            # It may have been kept before its upstream was told what its tokens say.
            self._meant[call.tool.upstream].ends(token, self._connecting.clock())
        except AuthorizationFailed:
            with contextlib.suppress(VaultUnavailable):
                await self.refused(call)
            raise
        return token

    async def refused(self, call: ToolCall) -> bool:
        """The upstream did not take it: the next call gets another."""
        await self._connecting.refused(call)
        return False


def _account(answer: Mapping[str, Json], refresh: str, now: UnixTime, meant: Meant) -> Account:
    token, kind = answer.get("access_token"), answer.get("token_type")
    if not isinstance(token, str) or not isinstance(kind, str) or kind.lower() != "bearer":
        raise AuthorizationFailed("the account's server gave no bearer token")
    if not 1 <= len(token) <= _MAX_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
        raise AuthorizationFailed("the account's server gave a token that cannot stand in a header")
    life, fresh = answer.get("expires_in"), answer.get("refresh_token")
    until = 0
    if isinstance(life, int) and not isinstance(life, bool) and life > 0:
        until = now + min(life, _MAX_LIFE_S)
    if (ends := meant.ends(token, now)) is not None:
        until = min(until or ends, ends)
    kept = fresh if isinstance(fresh, str) and len(fresh) <= _MAX_TOKEN else refresh
    return Account(access=token, refresh=kept, until=until)
