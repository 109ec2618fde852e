"""The sign-in broker's corridor: from what a client asks for, over a person's yes and login, to tokens and their end.

An authorization server for this gateway alone (RFC 6749, 7591, 7009, 8414, 8707, 9068, 9207). A person says yes to one
client before the company's login is asked (MCP security best practices, confused deputy); what they granted is on
record before a code leaves. Whether a person may be given a token is asked of the house's own proof and directory.
Must not hold a page, a login under way (inbound_oauth.py) or a rule of OAuth's (broker/).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from onbehalf.broker.client import METHODS, Client, from_metadata
from onbehalf.broker.grant import Code, Granted, Reused, access_claims
from onbehalf.broker.ports import Clients, Store
from onbehalf.broker.refused import OauthRefused
from onbehalf.broker.request import Authorization, authorization, pkce_fits, scope_within
from onbehalf.errors import DpopRefused, IdentifyError, NonceNeeded, OnbehalfError, ValidateError
from onbehalf.explain.erasure import login_name
from onbehalf.identify import DPOP_ALGORITHMS, Asserted, LoggedIn
from onbehalf.model import AuditEntry, Json, UnixTime
from onbehalf.ports import Clock, Ledger

__all__ = ["Asked", "Broker", "Held", "RefusedAt", "refusal_of"]

CODE_S = 60
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class RefusedAt(OauthRefused):
    """A refusal that the client may be told, at an address that is its own."""

    def __init__(self, refused: OauthRefused, *, redirect_uri: str, state: str) -> None:
        super().__init__(refused.error, refused.message, hint=refused.hint)
        self.redirect_uri = redirect_uri
        self.state = state


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A key that whoever asks for tokens proved to hold, by its `thumbprint`. `take` uses the proof up, and raises
    where that was done before: only for who may have a token, so that nobody else fills what remembers it."""

    thumbprint: str
    take: Callable[[], Awaitable[None]]


class Asserts(Protocol):
    """Proves for whom a client may act, as the company's login asserts."""

    async def __call__(
        self, assertion: str, *, audience: str, resource: str, client: str, holds: str, now: UnixTime
    ) -> Asserted: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A sound request of a known client."""

    client: Client
    request: Authorization


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The authorization server. `issuer` is its identifier, `resource` the one it issues for, `scopes` all there are.

    `sign` makes an access token of claims; `known` raises where the person of such a token may not come in; `ended`
    is told whenever a grant is over before its time. `asserts` is None where no assertions are taken.
    """

    issuer: str
    resource: str
    scopes: Callable[[], frozenset[str]]
    clients: Clients
    store: Store
    sign: Callable[[bytes], str] = field(repr=False)
    known: Callable[[str], Awaitable[None]]
    ended: Callable[[], None]
    ledger: Ledger
    clock: Clock
    fresh: Callable[[], str]
    access_s: int
    refresh_s: int
    registration: bool
    asserts: Asserts | None = None

    async def asked(self, query: Mapping[str, str]) -> Asked:
        """A client's authorization request. Raises RefusedAt, and OauthRefused where no address may be believed."""
        client = await self.clients.find(query.get("client_id", ""))
        redirect_uri = client.redirect(query.get("redirect_uri", ""))
        try:
            request = authorization(query, redirect_uri=redirect_uri, resource=self.resource, scopes=self.scopes())
        except OauthRefused as refused:
            state = query.get("state", "")
            raise RefusedAt(refused, redirect_uri=redirect_uri, state=state if len(state) <= 2048 else "") from refused
        return Asked(client=client, request=request)

    async def granted(self, asked: Asked, person: LoggedIn) -> str:
        """The code for what a person granted, who said yes and then logged in. Raises OnbehalfErrors.

        On record before it is kept, and kept before it leaves.
        """
        now = self.clock()
        granted = Granted(
            family=self.fresh(), client=asked.client.id, subject=person.subject, tenant=person.tenant,
            resource=asked.request.resource, scope=asked.request.scope, at=now, until=UnixTime(now + self.refresh_s),
            told=person.told,
        )  # fmt: skip
        await self.known(self._access(granted, granted.scope, issued_at=now))
        await self._note("login", granted, redirect_uri=asked.request.redirect_uri, origin=asked.client.origin)
        code = self.fresh()
        request = asked.request
        kept = Code(granted=granted, redirect_uri=request.redirect_uri, challenge=request.challenge, key=request.key)
        await self.store.granted(code, kept, until=UnixTime(now + CODE_S))
        return code

    async def token(
        self, client: Client, form: Mapping[str, str], *, proven: bool, held: Held | None = None
    ) -> dict[str, Json]:
        """The answer of the token endpoint; `proven` says whether the client has shown a key or secret of its own.

        With a key that it `held` the access token is bound to that key, and a public client's refresh tokens are too
        (RFC 9449 section 5). Raises OauthRefused, OnbehalfErrors.
        """
        kind = form.get("grant_type")
        if client.dpop and held is None:
            raise OauthRefused("invalid_dpop_proof", "the client says of itself that it proves a key, and does not")
        if kind == "authorization_code":
            return await self._from_code(client, form, held, proven=proven)
        if kind == "refresh_token":
            return await self._from_refresh(client, form, held, proven=proven)
        if kind == _JWT_BEARER and self.asserts is not None:
            if not proven:  # whoever finds an assertion must not be able to use it
                raise OauthRefused("unauthorized_client", "assertions are taken from clients that authenticate")
            return await self._from_assertion(client, form, self.asserts, held)
        raise OauthRefused("unsupported_grant_type", "this grant type is not taken here")

    async def register(self, document: Mapping[str, Json]) -> dict[str, Json]:
        """Register a client (RFC 7591 section 3). Raises OauthRefused."""
        if not self.registration:
            raise OauthRefused("access_denied", "clients cannot register themselves here", status=403)
        client = from_metadata(document, id=f"client-{self.fresh()}", origin="registered")
        metadata: dict[str, Json] = {
            "client_name": client.name, "redirect_uris": [*client.redirect_uris],
            "token_endpoint_auth_method": client.methods[0], "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"], **({"jwks": dict(client.keys)} if client.keys else {}),
            **({"jwks_uri": client.keys_at} if client.keys_at else {}),
            **({"dpop_bound_access_tokens": True} if client.dpop else {}),
        }  # fmt: skip
        now = self.clock()
        await self.store.register(client.id, metadata, now=now)
        return {"client_id": client.id, "client_id_issued_at": now, **metadata}

    async def revoke(self, client: Client, token: str, family_of: Callable[[str], tuple[str, str] | None]) -> None:
        """End the grant of a token, if it is the client's (RFC 7009). `family_of` reads a sound access token: its
        client and grant."""
        granted = await self.store.find_refresh(token, now=self.clock())
        found = (granted.client, granted.family) if granted is not None else family_of(token)
        if found is not None and found[0] == client.id:
            await self._end(found[1], client.id, "its client revoked it")

    def metadata(self, *, assertions: bool, secrets: bool) -> dict[str, Json]:
        """What is published of this server (RFC 8414 section 2), in the words of OpenID Connect Discovery as well."""
        at = f"{self.issuer}/oauth"
        methods: list[Json] = [*METHODS, *(("client_secret_basic", "client_secret_post") if secrets else ())]
        found: dict[str, Json] = {
            "issuer": self.issuer, "authorization_endpoint": f"{at}/authorize", "token_endpoint": f"{at}/token",
            "revocation_endpoint": f"{at}/revoke", "jwks_uri": f"{at}/jwks.json",
            "scopes_supported": [*sorted(self.scopes())], "response_types_supported": ["code"],
            "response_modes_supported": ["query"], "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported": methods,
            "token_endpoint_auth_signing_alg_values_supported": ["ES256", "PS256", "RS256", "EdDSA", "Ed25519"],
            "revocation_endpoint_auth_methods_supported": methods, "code_challenge_methods_supported": ["S256"],
            "client_id_metadata_document_supported": True, "authorization_response_iss_parameter_supported": True,
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["EdDSA"],
            "protected_resources": [self.resource], "dpop_signing_alg_values_supported": [*DPOP_ALGORITHMS],
        }  # fmt: skip
        if self.registration:
            found["registration_endpoint"] = f"{at}/register"
        if assertions:
            found["grant_types_supported"] = ["authorization_code", "refresh_token", _JWT_BEARER]
            found["authorization_grant_profiles_supported"] = ["urn:ietf:params:oauth:grant-profile:id-jag"]
        return found

    async def _from_code(
        self, client: Client, form: Mapping[str, str], held: Held | None, *, proven: bool
    ) -> dict[str, Json]:
        code = await self.store.take_code(form.get("code", ""), now=self.clock())
        if isinstance(code, Reused):
            await self._end(code.family, client.id, "its code was shown twice")
        if not isinstance(code, Code):
            raise OauthRefused("invalid_grant", "the code is unknown, over or used")
        # INVARIANT: from here on the code is spent, whatever else is wrong with the request.
        granted = code.granted
        if granted.client != client.id or form.get("redirect_uri", code.redirect_uri) != code.redirect_uri:
            raise OauthRefused("invalid_grant", "the code is of another client or redirect address")
        if not pkce_fits(form.get("code_verifier", ""), code.challenge):
            raise OauthRefused("invalid_grant", "the code verifier does not fit (RFC 7636)")
        _require_key(code.key, held)
        self._require_resource(form)
        access = await self._allowed(granted, granted.scope, held)
        if held is not None and not proven:
            await self.store.bind(granted.family, held.thumbprint)
        refresh = self.fresh()
        await self.store.keep_refresh(refresh, granted.family)
        return self._answer(access, granted.scope, refresh, held)

    async def _from_refresh(
        self, client: Client, form: Mapping[str, str], held: Held | None, *, proven: bool
    ) -> dict[str, Json]:
        shown = form.get("refresh_token", "")
        granted = await self.store.find_refresh(shown, now=self.clock())
        if granted is None:
            raise OauthRefused("invalid_grant", "the refresh token is unknown or over")
        if granted.client != client.id:  # it has leaked, and who shows it is not who it was given to
            await self._end(granted.family, client.id, "a refresh token was shown by another client")
            raise OauthRefused("invalid_grant", "the refresh token is of another client")
        _require_key(granted.key, held)  # before it counts as used: who found it cannot end the owner's login with it
        self._require_resource(form)
        scope = scope_within(form.get("scope", ""), granted.scope)
        access = await self._allowed(granted, scope, held)
        fresh = self.fresh()
        if not await self.store.rotate(shown, fresh):
            await self._end(granted.family, client.id, "a refresh token was shown twice")
            raise OauthRefused("invalid_grant", "the refresh token was used before, so all of its login is over")
        if held is not None and not proven:
            await self.store.bind(granted.family, held.thumbprint)
        return self._answer(access, scope, fresh, held)

    async def _from_assertion(
        self, client: Client, form: Mapping[str, str], asserts: Asserts, held: Held | None
    ) -> dict[str, Json]:
        now = self.clock()
        try:
            found = await asserts(
                form.get("assertion", ""), audience=self.issuer, resource=self.resource, client=client.id,
                holds=held.thumbprint if held is not None else "", now=now,
            )  # fmt: skip
        except IdentifyError as error:
            raise OauthRefused("invalid_grant", error.message) from error
        if not await self.store.once(found.once.issuer, found.once.id, until=found.once.until, now=now):
            raise OauthRefused("invalid_grant", "the assertion was used before")
        self._require_resource(form)
        allowed = scope_within(form.get("scope", ""), sorted(self.scopes()))
        said = None if found.scope is None else set(found.scope.split(" "))
        scope = tuple(each for each in allowed if said is None or each in said)
        granted = Granted(
            family=self.fresh(), client=client.id, subject=found.subject, tenant=found.tenant, resource=self.resource,
            scope=scope, at=now, until=UnixTime(now + self.access_s), told=found.told,
        )  # fmt: skip
        access = await self._allowed(granted, scope, held)
        await self._note("assertion", granted, jti=found.once.id)
        return self._answer(access, scope, "", held)

    def _require_resource(self, form: Mapping[str, str]) -> None:
        if form.get("resource", self.resource) != self.resource:
            raise OauthRefused("invalid_target", f"`resource` must be `{self.resource}` (RFC 8707)")

    async def _allowed(self, granted: Granted, scope: tuple[str, ...], held: Held | None) -> str:
        """An access token, of somebody who may come in now, bound to the key that is held, whose proof is then used up.

        Raises OauthRefused, DpopRefused, and what says that it is not known.
        """
        try:
            # as of the login: what was revoked since then has ended it, and no refresh makes it young again; and not
            # bound, as it is shown to nobody but ourselves
            await self.known(self._access(granted, scope, issued_at=granted.at))
        except (IdentifyError, ValidateError) as error:
            if error.status >= 500:
                raise
            raise OauthRefused("invalid_grant", error.message, hint=error.hint) from error
        if held is None:
            return self._access(granted, scope)
        await held.take()
        return self._access(granted, scope, key=held.thumbprint)

    def _access(
        self, granted: Granted, scope: tuple[str, ...], issued_at: UnixTime | None = None, key: str = ""
    ) -> str:
        claims = access_claims(
            granted, issuer=self.issuer, scope=scope, id=self.fresh(), now=self.clock(), seconds=self.access_s,
            issued_at=issued_at, key=key,
        )  # fmt: skip
        return self.sign(orjson.dumps(claims))

    def _answer(self, access: str, scope: tuple[str, ...], refresh: str, held: Held | None) -> dict[str, Json]:
        answer: dict[str, Json] = {
            "access_token": access, "token_type": "Bearer" if held is None else "DPoP", "expires_in": self.access_s,
            "scope": " ".join(scope),
        }  # fmt: skip
        return {**answer, "refresh_token": refresh} if refresh else answer

    async def _end(self, family: str, client: str, why: str) -> None:
        await self.store.end(family, why)
        self.ended()
        facts: dict[str, Json] = {"grant": family, "client": client, "why": why}
        await self.ledger.append(AuditEntry(kind="grant_ended", call="", at=self.clock(), facts=facts))

    async def _note(self, kind: str, granted: Granted, **more: Json) -> None:
        facts: dict[str, Json] = {
            "grant": granted.family, "client": granted.client, "subject": granted.subject, "tenant": granted.tenant,
            "scopes": [*granted.scope], "until": granted.until, **more,
        }  # fmt: skip
        about = login_name(self.issuer, granted.subject)
        await self.ledger.append(AuditEntry(kind=kind, call="", at=granted.at, facts=facts, about=about))


def _require_key(key: str, held: Held | None) -> None:
    """Raise OauthRefused unless it is bound to no key, or to the one that is held."""
    if key and (held is None or not hmac.compare_digest(key, held.thumbprint)):
        raise OauthRefused("invalid_grant", "it is bound to another key than was proven (RFC 9449 sections 5 and 10)")


def refusal_of(error: OnbehalfError) -> tuple[int, dict[str, Json]]:
    """Status and body of a refusal at an endpoint that clients ask (RFC 6749 section 5.2)."""
    if isinstance(error, OauthRefused):
        return error.http, {"error": error.error, "error_description": error.message}
    if isinstance(error, NonceNeeded):  # RFC 9449 section 8
        return 400, {"error": "use_dpop_nonce", "error_description": error.message}
    if isinstance(error, DpopRefused):  # RFC 9449 section 5
        return 400, {"error": "invalid_dpop_proof", "error_description": error.message}
    if error.status >= 500:
        return 503, {"error": "temporarily_unavailable", "error_description": "try again later"}
    return 400, {"error": "invalid_request", "error_description": error.message}
