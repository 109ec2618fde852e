"""The public door: plain ASGI. Routes on the path, bounds everything, and asks the house.

What every request to the MCP endpoint passes, in order:
1 room for one more; 2 Host; 3 headers that stand once; 4 Origin; 5 no token in the query; 6 one token shown, with what
proves it;
7 method and media types; 8 body bounded in size, time and depth, and with one meaning, and a large one read for a
proven caller only; 9 room for one more call; 10 the era by version. From 8 on, what is wrong is told to a proven
caller only. Whatever is refused leaves through inbound_refusal. The metadata of RFC 9728 and the gateway's public
keys need no token; the approval pages, SCIM and security events prove who comes in their own way. Imports the other
inbound files, and no other door.

Trust: this port faces clients. TLS ends at it or before it; whatever ends it before can read tokens, but no header that
it adds is read, save a client's certificate where that is configured, with the secret they share.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

from onbehalf.config import Limits, Settings
from onbehalf.doors.inbound_approve import PATH, ApprovePages
from onbehalf.doors.inbound_assertions import PATH as ASSERTIONS_PATH
from onbehalf.doors.inbound_assertions import AssertionsApp
from onbehalf.doors.inbound_body import is_small, parse, read
from onbehalf.doors.inbound_connect import PATH as CONNECT_PATH
from onbehalf.doors.inbound_connect import ConnectPages
from onbehalf.doors.inbound_gone import within
from onbehalf.doors.inbound_headers import CREDENTIALS, check_media, refuse_token_in_query, unique
from onbehalf.doors.inbound_log import PATH as LOG_PATH
from onbehalf.doors.inbound_log import LogApp
from onbehalf.doors.inbound_mcp import Modern, ServerName, request_id
from onbehalf.doors.inbound_oauth import PATH as OAUTH_PATH
from onbehalf.doors.inbound_oauth import OauthApp
from onbehalf.doors.inbound_older import Older, SessionLimits
from onbehalf.doors.inbound_proof import CertificateHeaders, certificate_of, presented
from onbehalf.doors.inbound_refusal import Challenges, refusal
from onbehalf.doors.inbound_scim import PATH as SCIM_PATH
from onbehalf.doors.inbound_scim import ScimApp
from onbehalf.doors.inbound_signals import PATH as SIGNALS_PATH
from onbehalf.doors.inbound_signals import SignalsApp
from onbehalf.doors.inbound_txn import PATH as TXN_PATH
from onbehalf.doors.inbound_txn import TxnApp
from onbehalf.doors.inbound_wire import ClientGone, Exchange, Message, Receive, Scope, Send, send_json
from onbehalf.doors.mcp_words import HANDSHAKE_PROTOCOL_VERSIONS
from onbehalf.errors import (
    Busy,
    HostRefused,
    MethodRefused,
    OnbehalfError,
    OriginRefused,
    RequestRefused,
)
from onbehalf.identify import DPOP_ALGORITHMS
from onbehalf.model import Json, Shown, Tool
from onbehalf.ports import House, Meter

__all__ = ["Catalogue", "Proving", "PublicApp", "ServerName", "SessionLimits"]

_log = logging.getLogger(__name__)
_HANDSHAKE = frozenset(version.encode() for version in HANDSHAKE_PROTOCOL_VERSIONS)
_WELL_KNOWN = "/.well-known/oauth-protected-resource"
_AS = "/.well-known/oauth-authorization-server"
_OIDC = "/.well-known/openid-configuration"
_PUBLIC_HEADERS = ((b"access-control-allow-origin", b"*"),)
_Beside: TypeAlias = ApprovePages | ScimApp | OauthApp | TxnApp | AssertionsApp | ConnectPages | SignalsApp | LogApp
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Bodies may wait for calls, but not without end: this many arrivals per admitted call.
_ARRIVALS_PER_CALL = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What is publicly known of the house: exposed tools by name, all their scopes, the public keys, what the first
    issuer publishes of itself (None while it cannot be had), and further documents by their path."""

    tool: Callable[[str], Tool | None]
    scopes: Callable[[], frozenset[str]]
    jwks: Callable[[], Mapping[str, Json]]
    issuer: Callable[[], Awaitable[Mapping[str, Json] | None]] | None = None
    documents: Mapping[str, Callable[[], Mapping[str, Json]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proving:
    """How clients prove tokens here: the headers in which certificates are read, None for none; whether they are the
    `connection`'s own; and the nonce to offer with the answer to a request whose proof was taken, "" for none."""

    certificates: CertificateHeaders | None = None
    connection: bool = False
    offered: Callable[[Shown], str] = lambda shown: ""


class PublicApp:
    """The one ASGI app of the public port.

    Serve it with ASGI lifespan on, or inside `async with app.running()` with lifespan off.
    """

    def __init__(
        self,
        house: House,
        settings: Settings,
        *,
        catalogue: Catalogue,
        server: ServerName,
        meter: Meter,
        sessions: SessionLimits | None = None,
        pages: ApprovePages | None = None,
        scim: ScimApp | None = None,
        signals: SignalsApp | None = None,
        oauth: OauthApp | None = None,
        txn: TxnApp | None = None,
        assertions: AssertionsApp | None = None,
        connect: ConnectPages | None = None,
        proving: Proving | None = None,
        log: LogApp | None = None,
    ) -> None:
        gateway = settings.gateway
        resource = urlsplit(gateway.resource)
        origin = f"{resource.scheme}://{resource.netloc}"
        self._path = resource.path or "/"
        suffix = "" if self._path == "/" else self._path
        self._limits: Limits = gateway.limits
        self._hosts = _hosts(settings)
        self._origins = frozenset(text.lower().encode() for text in (origin, *gateway.origins))
        self._metadata_paths = frozenset({_WELL_KNOWN, _WELL_KNOWN + suffix})
        self._mirror_paths = frozenset({_AS, _AS + suffix}) if catalogue.issuer else frozenset[str]()
        self._metadata: dict[str, Json] = {
            "resource": gateway.resource,
            "authorization_servers": [issuer.issuer for issuer in settings.issuers],
            "bearer_methods_supported": ["header"],
            "resource_name": server.title or server.name,
        }
        dpop_only = bool(settings.issuers) and all(issuer.proof == "dpop" for issuer in settings.issuers)
        if proving is not None:
            self._metadata["dpop_signing_alg_values_supported"] = [*DPOP_ALGORITHMS]
            self._metadata["dpop_bound_access_tokens_required"] = dpop_only
            read = proving.connection or proving.certificates is not None
            self._metadata["tls_client_certificate_bound_access_tokens"] = read
        self._proving = proving or Proving()
        certificates = self._proving.certificates
        self._credentials = CREDENTIALS | (certificates.names if certificates is not None else frozenset())
        self._catalogue = catalogue
        self._challenges = Challenges(
            metadata_url=f"{origin}{_WELL_KNOWN}{suffix}", scopes=catalogue.scopes, dpop_only=dpop_only
        )
        self._house = house
        self._meter = meter
        self._modern = Modern(house, tool=catalogue.tool, server=server, limits=gateway.limits)
        self._older = Older(house, server=server, limits=gateway.limits, sessions=sessions or SessionLimits())
        beside = (
            (PATH, pages), (SCIM_PATH, scim), (OAUTH_PATH, oauth), (TXN_PATH, txn), (ASSERTIONS_PATH, assertions),
            (CONNECT_PATH, connect), (SIGNALS_PATH, signals), (LOG_PATH, log),
        )  # fmt: skip
        self._beside = [(path, app) for path, app in beside if app is not None]
        self._oauth = oauth
        self._server_paths = frozenset({_AS, _AS + suffix, _OIDC, _OIDC + suffix}) if oauth is not None else frozenset()
        self._arrivals = 0
        self._calls = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Legacy sessions live inside this. Enter it once per app."""
        async with self._older.running():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry. A request to the MCP endpoint is answered here; whatever goes wrong is refused in one way."""
        if scope["type"] != "http" or scope["path"] != self._path:
            await self._elsewhere(scope, receive, send)
            return
        seen = _Seen(send)
        self._arrivals += 1
        try:
            await self._admitted(scope, receive, seen)
        except ClientGone:
            self._meter.refused(code="client_gone")
        except OnbehalfError as error:
            await self._refuse(error, seen, send)
        except Exception as error:  # the door's last resort: refuse without details, and log them
            _log.exception("a request failed")
            await self._refuse(OnbehalfError(type(error).__name__), seen, send)
        finally:
            self._arrivals -= 1

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif app := next((app for path, app in self._beside if scope["path"].startswith(path)), None):
            await self._passed(app, scope, receive, send)
        else:
            await self._public(scope, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self.running():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    # --- what needs no token ---------------------------------------------------------------

    async def _passed(self, app: _Beside, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            headers = unique(scope["headers"])
            self._require_host(headers)
        except OnbehalfError as error:
            await send_json(send, error.status, {"error": error.code})
            return
        await app(scope, receive, send, headers)

    async def _public(self, scope: Scope, send: Send) -> None:
        path = scope["path"]
        answer: Json
        if path == "/healthz":
            answer = {"status": "ok"}  # the process serves; readiness is the admin port's to say
        elif path in self._metadata_paths:
            answer = {**self._metadata, "scopes_supported": [*sorted(self._catalogue.scopes())]}
        elif self._oauth is not None and path in self._server_paths:
            answer = self._oauth.metadata()
        elif path == "/.well-known/jwks.json":
            answer = dict(self._catalogue.jwks())
        elif (document := self._catalogue.documents.get(path)) is not None:
            answer = dict(document())
        elif path in self._mirror_paths:
            await self._mirror(scope, send)
            return
        else:
            await send_json(send, 404, {"error": "not_found"})
            return
        if scope["method"] != "GET":
            await send_json(send, 405, {"error": "method_not_allowed"}, ((b"allow", b"GET"),))
            return
        await send_json(send, 200, answer, _PUBLIC_HEADERS)

    async def _mirror(self, scope: Scope, send: Send) -> None:
        """The first issuer's own metadata, for clients that look for it here."""
        if scope["method"] != "GET":
            await send_json(send, 405, {"error": "method_not_allowed"}, ((b"allow", b"GET"),))
            return
        try:
            self._require_host(unique(scope["headers"]))  # what causes a fetch is done under our own name only
        except OnbehalfError as error:
            await send_json(send, error.status, {"error": error.code})
            return
        assert self._catalogue.issuer is not None  # INVARIANT: there is no such path without it
        found = await self._catalogue.issuer()
        if found is None:
            await send_json(send, 502, {"error": "issuer_unavailable"}, _PUBLIC_HEADERS)
            return
        await send_json(send, 200, dict(found), _PUBLIC_HEADERS)

    # --- the MCP endpoint ------------------------------------------------------------------

    async def _refuse(self, error: OnbehalfError, seen: _Seen, send: Send) -> None:
        self._meter.refused(code=error.code)
        if error.status >= 500:
            _log.error("refused with %s: %r", error.code, error.message)  # %r: a client's bytes cannot forge a line
        else:
            _log.info("refused with %s: %r", error.code, error.message)
        if seen.started:
            return  # an answer is under way and cannot be taken back
        form = refusal(error, self._challenges, dpop=seen.dpop)
        await send_json(send, form.status, form.body(seen.request_id), form.headers)

    async def _admitted(self, scope: Scope, receive: Receive, seen: _Seen) -> None:
        if self._arrivals > self._limits.concurrency * _ARRIVALS_PER_CALL:  # 1
            raise _busy()
        headers = self._checked_headers(scope)  # 2-4
        if scope["query_string"]:
            refuse_token_in_query(scope["query_string"])  # 5
        proving = self._proving
        connection = certificate_of(scope) if proving.connection else ""
        shows = presented(  # 6
            headers, method=scope["method"], certificates=proving.certificates, connection=connection
        )
        send: Send = seen.send
        if shows.shown is not None:
            seen.dpop = shows.shown.dpop
            send = self._offering(send, shows.shown)
        exchange = Exchange(scope=scope, receive=receive, send=send, headers=headers, presented=shows)
        version = headers.get(b"mcp-protocol-version")
        legacy = version is None or version in _HANDSHAKE
        if scope["method"] != "POST":
            await self._without_body(exchange, legacy=legacy)
            return
        check_media(headers)  # 7
        if not is_small(headers):  # 8
            await self._prove(exchange)
        body = await read(receive, headers, self._limits)
        if self._calls >= self._limits.concurrency:  # 9
            raise _busy()
        self._calls += 1
        try:
            await self._answer(exchange, body, seen, legacy=legacy)
        except RequestRefused as error:
            if error.status < 500:
                await self._prove(exchange)  # a forged token must not learn what a good one would be told
            raise
        finally:
            self._calls -= 1

    def _offering(self, send: Send, shown: Shown) -> Send:
        """Send answers with a new nonce where the client's is getting old (RFC 9449 section 8.2)."""

        async def offering(message: Scope) -> None:
            if message["type"] == "http.response.start" and (nonce := self._proving.offered(shown)):
                message = {**message, "headers": [*message.get("headers", ()), (b"dpop-nonce", nonce.encode("ascii"))]}
            await send(message)

        return offering

    def _answer(self, exchange: Exchange, body: bytes, seen: _Seen, *, legacy: bool) -> Awaitable[None]:
        """The answering of what `body` says, which is looked at here and now."""
        message = parse(body, depth=self._limits.depth)
        if not isinstance(message, dict):
            raise RequestRefused("the body is not one JSON-RPC message", hint="send one message per request, no batch")
        seen.request_id = request_id(message)
        return self._older.answer(exchange, body, message) if legacy else self._modern.answer(exchange, message)  # 10

    async def _prove(self, exchange: Exchange) -> None:
        """Raises what the house says of the token; whoever it belongs to is not wanted here."""
        await within(self._limits.call_seconds, self._house.who(exchange.presented))

    async def _without_body(self, exchange: Exchange, *, legacy: bool) -> None:
        """DELETE ends a legacy session. There is no GET stream in either era."""
        if legacy and exchange.scope["method"] == "DELETE":
            await (await self._older.door()).end(exchange)
            return
        await self._prove(exchange)
        raise MethodRefused("only POST is served here", hint="send JSON-RPC by POST")

    def _checked_headers(self, scope: Scope) -> dict[bytes, bytes]:
        headers = unique(scope["headers"], self._credentials)
        self._require_host(headers)
        origin = headers.get(b"origin")
        if origin is not None and origin.lower() not in self._origins:
            raise OriginRefused(
                "the Origin header is not allowed here", hint="an administrator can allow it in `origins`"
            )
        return headers

    def _require_host(self, headers: Mapping[bytes, bytes]) -> None:
        if headers.get(b"host", b"").lower() not in self._hosts:
            raise HostRefused("the Host header is not one of this gateway's", hint="use the gateway's own URL")


class _Seen:
    """What is known of one request by the time it is refused. What goes to its client goes by `send`."""

    __slots__ = ("_send", "dpop", "request_id", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.request_id: str | int | None = None
        self.started = False
        self.dpop = False

    def send(self, message: Message) -> Awaitable[None]:
        """As ASGI's own; from then on there is an answer that cannot be taken back."""
        self.started = True
        return self._send(message)


def _busy() -> Busy:
    return Busy("more calls are under way than this gateway admits", hint="nothing was done; try again in a moment")


def _hosts(settings: Settings) -> frozenset[bytes]:
    """The Host headers that are ours: the resource's, the listening address, and the configured ones."""
    gateway = settings.gateway
    resource = urlsplit(gateway.resource)
    hosts = {resource.netloc, gateway.listen, *gateway.hosts}
    default = _DEFAULT_PORTS[resource.scheme]
    if resource.port is None:
        hosts.add(f"{resource.netloc}:{default}")
    elif resource.port == default:
        hosts.add(resource.netloc.rpartition(":")[0])
    return frozenset(host.lower().encode() for host in hosts)
