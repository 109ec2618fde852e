"""Access tokens of another domain's authorization server, for one person each, by what this gateway asserts of them.

The assertion is presented as a grant (RFC 7523, ID-JAG) or exchanged (RFC 8693). A token is kept for its person,
client and login alone, in memory, until shortly before it ends. The person's own token is no part of this: there is no
field that could carry it. Must not send a call or decide one.

Trust: the other authorization server says what the person may there; who answers at its token endpoint is asked over
https.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import orjson

from onbehalf.act.assertion import asserted
from onbehalf.act.bearer import UNFIT, BearerUnfit, check_bearer, wanted_of
from onbehalf.config_upstreams import AuthorizationSettings
from onbehalf.doors.issuer_fetch import FetchFailed, IssuerFetcher, basic
from onbehalf.doors.key_file import KeyFile
from onbehalf.model import Json, ToolCall, UnixTime
from onbehalf.ports import Clock

__all__ = ["AuthorizationFailed", "Authorizer", "BearerSource", "with_bearer"]

_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a name
_KEPT = 10_000
_EARLY_S = 30.0
_DEFAULT_S = 60.0
_MAX_S = 3600.0
_MAX_TOKEN = 16 * 1024
_Key = tuple[str, str, str, str]
_Result = TypeVar("_Result")


class BearerSource(Protocol):
    """Where an upstream door gets the access token that a person has there."""

    async def bearer(self, call: ToolCall) -> str:
        """The token. Raises AuthorizationFailed."""
        ...

    async def refused(self, call: ToolCall) -> bool:
        """The upstream did not take it. Whether another one, had at once, may fare better."""
        ...


class AuthorizationFailed(Exception):
    """There is no token. The message is a clause for a person, and holds nothing that was sent; `code` is stable."""

    def __init__(self, message: str, *, code: str = "upstream_login_failed") -> None:
        super().__init__(message)
        self.code = code


async def with_bearer(
    ends: float, source: BearerSource, call: ToolCall, exchange: Callable[[str], Awaitable[_Result]]
) -> _Result:
    """An exchange with the person's access token, over when the event loop's clock is at `ends`. Getting the token may
    take nine tenths of what is left. Raises AuthorizationFailed, where nothing was sent, and TimeoutError."""
    now = asyncio.get_running_loop().time()
    try:
        # INVARIANT: no other time limit of the call's runs meanwhile, or it would not be known that nothing was sent.
        async with asyncio.timeout_at(now + (ends - now) * 0.9):
            bearer = await source.bearer(call)
    except TimeoutError as error:
        raise AuthorizationFailed("the person's access token for it was not given in time") from error
    async with asyncio.timeout_at(ends):
        return await exchange(bearer)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    token: str = field(repr=False)
    until: float


class Authorizer:
    """Tokens for one upstream. `gateway` is this gateway's resource, `issuer` its name as it asserts, `resource` what
    tokens are for, `secret` its own at the other server, "" for none. Used within one event loop; the fetcher is closed
    by whoever gave it."""

    def __init__(
        self, settings: AuthorizationSettings, fetcher: IssuerFetcher, keys: KeyFile, *, gateway: str, issuer: str,
        resource: str, secret: str, clock: Clock, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._fetcher = fetcher
        self._keys = keys
        self._gateway = gateway
        self._issuer = issuer
        self._resource = resource
        self._secret = secret
        self._clock = clock
        self._monotonic = monotonic
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()

    async def bearer(self, call: ToolCall) -> str:
        """The person's access token there. Raises AuthorizationFailed."""
        key = _key(call)
        kept = self._kept.get(key)
        if kept is not None and self._monotonic() < kept.until:
            self._kept.move_to_end(key)
            return kept.token
        answer = await self._asked(call)
        token, kind = answer.get("access_token"), answer.get("token_type")
        if not isinstance(token, str) or not isinstance(kind, str) or kind.lower() != "bearer":
            raise AuthorizationFailed("the other authorization server gave no bearer token")
        if not 1 <= len(token) <= _MAX_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:
            raise AuthorizationFailed("the other authorization server gave a token that cannot stand in a header")
        life = answer.get("expires_in", _DEFAULT_S)
        seconds = float(life) if isinstance(life, int | float) and not isinstance(life, bool) else _DEFAULT_S
        if (ends := self._ends(token)) is not None:
            seconds = min(seconds, ends - self._clock())
        if (keep := min(seconds, _MAX_S) - _EARLY_S) > 0:
            self._kept[key] = _Kept(token=token, until=self._monotonic() + keep)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return token

    async def refused(self, call: ToolCall) -> bool:
        """The API did not take the person's token: the next call gets another."""
        self._kept.pop(_key(call), None)
        return False

    def _ends(self, token: str) -> UnixTime | None:
        """When the token says that it ends. Raises AuthorizationFailed for one that is, readably, not for the API."""
        wanted = wanted_of(self._settings.token_audience, self._resource)
        try:
            return check_bearer(token, gateway=self._gateway, wanted=wanted, now=self._clock())
        except BearerUnfit as error:
            raise AuthorizationFailed(str(error), code=UNFIT) from error

    async def _asked(self, call: ToolCall) -> Mapping[str, Json]:
        settings = self._settings
        if call.person.kind != "person":  # the other domain would take it for a person who is called so
            raise AuthorizationFailed("a service is not known in the other domain")
        claims = asserted(
            call, issuer=self._issuer, audience=settings.issuer, resource=self._resource, client=settings.client_id,
            scope=settings.scope, id=secrets.token_urlsafe(32), now=self._clock(),
        )  # fmt: skip
        assertion = self._keys.sign(orjson.dumps(claims))
        fields = {"grant_type": _JWT_BEARER, "assertion": assertion}
        if settings.grant == "token-exchange":
            fields = {
                "grant_type": _EXCHANGE, "subject_token": assertion, "subject_token_type": _JWT,
                "requested_token_type": _ACCESS_TOKEN,
            }  # fmt: skip
        fields |= {"resource": self._resource, **({"scope": settings.scope} if settings.scope else {})}
        headers = {"authorization": basic(settings.client_id, self._secret)}
        try:
            return await self._fetcher.post(settings.token_endpoint, fields, headers)
        except FetchFailed as error:
            raise AuthorizationFailed(f"the other authorization server gave no token: {error}") from error


def _key(call: ToolCall) -> _Key:
    """Whose token: one login's. A new login may be stronger, or another client's."""
    caller = call.caller
    return (call.person.known_as, caller.client, caller.evidence.issuer, f"{caller.evidence.token}")
