"""The gateway as a client of an issuer, so that a person can log in with a browser: to its pages, or for a client.

Authorization code with PKCE (S256) and `state`; the response's `iss` is checked where it is given or promised (RFC
9207). For the pages, what the code is redeemed for is an access token for this gateway, to be proven like any other.
Must not keep logins (inbound_approve_login.py, inbound_oauth.py) or prove a token.

Trust: the issuer says who logged in, and only in a token that it signed; the browser brings the code and may lie.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlencode

from onbehalf.base64url import s256
from onbehalf.config import IssuerSettings, LoginSettings
from onbehalf.doors.issuer_fetch import FetchFailed, IssuerFetcher, basic
from onbehalf.errors import LoginFailed
from onbehalf.model import Json, Presented

__all__ = ["CodeLogin", "IssuerLogin", "Redirected"]

_METADATA_SECONDS = 300.0
_CODE = re.compile(r"[\x20-\x7e]{1,2048}")
_NOTHING: Mapping[str, str] = MappingProxyType({})
_NOT_KNOWN_THERE = "tell whoever runs the gateway: its client id or secret may not be what the issuer knows"
_ENDPOINTS = ("authorization_endpoint", "token_endpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirected:
    """What a browser brought back from an issuer, unproven; "" where it is missing."""

    code: str = field(repr=False)
    iss: str
    error: str


class CodeLogin:
    """Authorization codes of one issuer. Made anywhere, used within one event loop; the fetcher is closed by whoever
    gave it. `asked` is sent with every authorization request, `redeeming` with every code. With `endpoints` no
    metadata is fetched."""

    def __init__(
        self, rule: IssuerSettings, fetcher: IssuerFetcher, *, client_id: str, redirect_uri: str, secret: str = "",
        asked: Mapping[str, str], redeeming: Mapping[str, str], endpoints: Mapping[str, Json] = MappingProxyType({}),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.rule = rule
        self.client_id = client_id
        self._fetcher = fetcher
        self._redirect_uri = redirect_uri
        self._secret = secret
        self._asked = {name: value for name, value in asked.items() if value}
        self._redeeming = dict(redeeming)
        self._monotonic = monotonic
        self._endpoints = dict(endpoints)
        self._known: tuple[float, Mapping[str, Json]] = (0.0, {})

    async def address(self, *, state: str, verifier: str, more: Mapping[str, str] = _NOTHING) -> str:
        """Where to send the browser. `verifier` is 43 characters or more that nobody else knows. Raises LoginFailed."""
        metadata = await self._metadata()
        methods = metadata.get("code_challenge_methods_supported", ["S256"])  # some that take it do not say so
        if not isinstance(methods, list) or "S256" not in methods:
            raise LoginFailed("the issuer does not take PKCE with S256", hint="tell whoever runs the gateway")
        challenge = s256(verifier.encode())
        asked = {
            **more, "response_type": "code", "client_id": self.client_id, "redirect_uri": self._redirect_uri,
            "state": state, "code_challenge": challenge, "code_challenge_method": "S256", **self._asked,
        }  # fmt: skip
        endpoint = str(metadata["authorization_endpoint"])
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"

    async def redeemed(self, back: Redirected, *, verifier: str) -> Mapping[str, Json]:
        """What the token endpoint answers to the code, nothing of it proven. Raises LoginFailed."""
        metadata = await self._metadata()
        # RFC 9207 section 2.4: before anything else of the response is believed
        promised = metadata.get("authorization_response_iss_parameter_supported") is True
        if back.iss != self.rule.issuer and (back.iss or promised):
            raise LoginFailed("the answer is from another issuer than was asked", hint="log in anew")
        if back.error or not _CODE.fullmatch(back.code):
            raise LoginFailed("the issuer did not log you in", hint="log in anew, or ask whoever looks after logins")
        fields = {
            "grant_type": "authorization_code", "code": back.code, "redirect_uri": self._redirect_uri,
            "code_verifier": verifier, **self._redeeming,
        }  # fmt: skip
        try:
            return await self._posted(fields)
        except FetchFailed as error:
            hint = _NOT_KNOWN_THERE if error.status in (401, 403) else "log in anew"
            raise LoginFailed(f"the code could not be redeemed: {error}", hint=hint) from error

    async def renewed(self, refresh: str) -> Mapping[str, Json]:
        """What the token endpoint answers to a refresh token. Raises LoginFailed, FetchFailed."""
        return await self._posted({"grant_type": "refresh_token", "refresh_token": refresh})

    async def _posted(self, fields: dict[str, str]) -> Mapping[str, Json]:
        metadata = await self._metadata()
        headers: dict[str, str] = {}
        if self._secret:
            headers["authorization"] = basic(self.client_id, self._secret)
        else:
            fields["client_id"] = self.client_id
        return await self._fetcher.post(str(metadata["token_endpoint"]), fields, headers)

    async def _metadata(self) -> Mapping[str, Json]:
        if self._endpoints:
            return self._endpoints
        fetched, known = self._known
        if known and self._monotonic() - fetched < _METADATA_SECONDS:
            return known
        try:
            known = await self._fetcher.metadata(self.rule, *_ENDPOINTS)
        except FetchFailed as error:
            raise LoginFailed(f"the issuer cannot be asked: {error}", hint="try again later") from error
        self._known = (self._monotonic(), known)
        return known


class IssuerLogin:
    """Logins at one issuer of access tokens for this gateway, `resource`."""

    def __init__(
        self, rule: IssuerSettings, login: LoginSettings, fetcher: IssuerFetcher, *, resource: str, redirect_uri: str,
        secret: str = "",
    ) -> None:  # fmt: skip
        self.rule = rule
        self.client_id = login.client_id
        self._codes = CodeLogin(
            rule, fetcher, client_id=login.client_id, redirect_uri=redirect_uri, secret=secret,
            asked={"resource": resource, "scope": login.scope}, redeeming={"resource": resource},
        )  # fmt: skip

    async def address(self, *, state: str, verifier: str) -> str:
        """Where to send the browser. `verifier` is 43 characters or more that nobody else knows. Raises LoginFailed."""
        return await self._codes.address(state=state, verifier=verifier)

    async def redeemed(self, back: Redirected, *, verifier: str) -> Presented:
        """The access token that the code stands for, unproven. Raises LoginFailed."""
        answer = await self._codes.redeemed(back, verifier=verifier)
        token, kind = answer.get("access_token"), answer.get("token_type")
        if not isinstance(token, str) or not isinstance(kind, str) or kind.lower() != "bearer":
            raise LoginFailed("the issuer gave no bearer token", hint="tell whoever runs the gateway")
        return Presented(token=token)
