"""Who a client is at the token endpoint: `none`, `private_key_jwt`, or a configured client's secret.

RFC 6749 section 2.3, RFC 7523 section 3. One way at a time, and only one that the client's metadata has. Must not know
grants.

Trust: of a public client nothing is proven here; its code verifier and refresh token are all it has.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from urllib.parse import unquote_plus

from onbehalf.broker.client import Client
from onbehalf.broker.ports import Clients, Store
from onbehalf.broker.refused import OauthRefused
from onbehalf.errors import IdentifyError
from onbehalf.identify import KeysRefused, peek, public_keys, verify_client_assertion
from onbehalf.model import Presented
from onbehalf.ports import Clock

__all__ = ["Authenticator"]

_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class Authenticator:
    """`audiences` are the names by which an assertion may call this server: its issuer, and its token endpoint."""

    def __init__(self, clients: Clients, store: Store, *, audiences: frozenset[str], clock: Clock) -> None:
        self._clients = clients
        self._store = store
        self._audiences = audiences
        self._clock = clock

    async def client(self, form: Mapping[str, str], authorization: str) -> tuple[Client, bool]:
        """The client that asks, and whether it showed a key or secret. `authorization` is the header, "" for none.

        Raises OauthRefused.
        """
        ways = [bool(authorization), "client_secret" in form, "client_assertion" in form]
        if sum(ways) > 1:
            raise OauthRefused("invalid_request", "one way of authentication at a time (RFC 6749 section 2.3)")
        if ways[2]:
            return await self._by_key(form), True
        if authorization:
            id, secret = _basic(authorization)
            if form.get("client_id", id) != id:
                raise _invalid("the client is named twice, as two")
            return self._by_secret(await self._clients.find(id), secret), True
        client = await self._clients.find(form.get("client_id", ""))
        if ways[1]:
            return self._by_secret(client, form["client_secret"]), True
        if "none" not in client.methods:
            raise _invalid("the client must authenticate")
        return client, False

    def _by_secret(self, client: Client, secret: str) -> Client:
        if not client.secret or not hmac.compare_digest(client.secret.encode(), secret.encode("utf-8", "replace")):
            raise _invalid("the client's secret is not its own")
        return client

    async def _by_key(self, form: Mapping[str, str]) -> Client:
        if form.get("client_assertion_type") != _JWT_BEARER:
            raise OauthRefused("invalid_request", "`client_assertion_type` is not the one for JWTs (RFC 7523)")
        try:
            peeked = peek(Presented(token=form["client_assertion"]))
            client = await self._clients.find(peeked.claimed_issuer)
            if form.get("client_id", client.id) != client.id or "private_key_jwt" not in client.methods:
                raise _invalid("the client does not authenticate so")
            keys = public_keys(await self._clients.keys(client), issuer=client.id)
            key = keys.get(peeked.key_id)
            if key is None:
                raise _invalid("the client has no such key")
            once = verify_client_assertion(
                peeked, client=client.id, key=key, audiences=self._audiences, now=self._clock()
            )
        except (IdentifyError, KeysRefused) as error:
            raise _invalid(str(error)) from error
        if not await self._store.once(once.issuer, once.id, until=once.until, now=self._clock()):
            raise _invalid("the assertion was used before")
        return client


def _basic(header: str) -> tuple[str, str]:
    kind, _, value = header.partition(" ")
    try:
        text = base64.b64decode(value.strip(), validate=True).decode("utf-8")
    except ValueError as error:
        raise _invalid("the Authorization header cannot be read") from error
    id, colon, secret = text.partition(":")
    if kind.lower() != "basic" or not colon:
        raise _invalid("the Authorization header is not a client's id and secret")
    return unquote_plus(id), unquote_plus(secret)


def _invalid(message: str) -> OauthRefused:
    return OauthRefused("invalid_client", message, status=401)
