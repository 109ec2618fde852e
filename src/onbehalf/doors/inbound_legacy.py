"""MCP 2025-11-25 and older: the SDK's own transport behind the same checks and the same house.

A session is state of the SDK's, never proof: the bearer of every HTTP request is proven before the transport
sees it, a session answers only the issuer, subject and client that opened it, and a call is made with the token
of the request that carries it. There is no GET stream: nothing is ever sent unasked, and a stream would outlive
its token. A lost connection is not a cancellation here (2025-11-25 transports): `notifications/cancelled` is, and
time is. Must not know HTTP routing, hosts or bodies.

Trust: whoever guesses a session id still needs a token of the same person through the same client.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from pydantic import ValidationError

from onbehalf.config import Limits
from onbehalf.doors.inbound_gone import within
from onbehalf.doors.inbound_headers import check_mirrors
from onbehalf.doors.inbound_mcp import ServerName, idempotency_key, request_id
from onbehalf.doors.inbound_older import SessionLimits
from onbehalf.doors.inbound_seen import brought
from onbehalf.doors.inbound_wire import Exchange, Message, Receive, listed
from onbehalf.errors import Busy, HeaderMismatch, OnbehalfError, RequestRefused, SessionForeign
from onbehalf.model import Caller, Json, ToolRequest
from onbehalf.ports import House

__all__ = ["Legacy"]

_log = logging.getLogger(__name__)
_EXCHANGE = "onbehalf.exchange"
_MESSAGE = "onbehalf.message"
_REFUSED = "onbehalf.refused"
_UNSTORED = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
# The SDK's own time for what surrounds a call: without an end, an answer it loses would hold its place for good.
_MARGIN_SECONDS = 5.0

Owner = tuple[str, str, str]


class Legacy:
    """Answers older clients. `running()` must be entered once around serving."""

    def __init__(self, house: House, *, server: ServerName, limits: Limits, sessions: SessionLimits) -> None:
        self._house = house
        self._seconds = limits.call_seconds
        self._limits = sessions
        self._opened: OrderedDict[Owner, OrderedDict[str, None]] = OrderedDict()
        self._under_way: set[tuple[Owner, str, str]] = set()
        sdk: Server[Any] = Server(  # Any: the SDK's lifespan type, which we do not use
            server.name,
            version=server.version,
            title=server.title or None,
            instructions=server.instructions or None,
            on_list_tools=self._list,
            on_call_tool=self._call,
        )
        self._manager = StreamableHTTPSessionManager(
            sdk,
            json_response=True,
            session_idle_timeout=sessions.idle_seconds,
            max_request_body_size=limits.body_bytes,
            max_sessions=sessions.max_sessions,
        )
        self._running = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sessions live inside this. Once per object."""
        async with self._manager.run():
            self._running = True
            try:
                yield
            finally:
                self._running = False

    async def answer(self, exchange: Exchange, body: bytes, message: dict[str, Json]) -> None:
        """Pass one checked POST to the SDK. Raises OnbehalfError before anything is sent."""
        _refuse_modern_body(exchange, message)
        check_mirrors(exchange.headers, message, required=False)
        owner, scope = await self._proven(exchange, message)
        # The SDK keeps waiting requests by the text of their id: a second one would take the first one's answer.
        place = (owner, exchange.header(b"mcp-session-id") or "", str(request_id(message)))
        if "id" not in message or not place[1]:
            await self._pass(exchange, owner, scope, _replay(body, exchange.receive))
            return
        if request_id(message) is None:
            raise RequestRefused("the id is neither a string nor an integer", hint="see JSON-RPC 2.0 section 4")
        if place in self._under_way:
            raise RequestRefused("a request with this id is under way in this session", hint="give each its own id")
        self._under_way.add(place)
        try:
            await self._pass(exchange, owner, scope, _replay(body, exchange.receive))
        finally:
            self._under_way.discard(place)

    async def end(self, exchange: Exchange) -> None:
        """DELETE: end the session, if it is the caller's."""
        owner, scope = await self._proven(exchange, {})
        session = exchange.header(b"mcp-session-id")
        if session is None:
            raise RequestRefused("header `Mcp-Session-Id` is missing", hint="name the session to end")
        await self._pass(exchange, owner, scope, _replay(b"", exchange.receive))
        self._opened.get(owner, OrderedDict()).pop(session, None)

    async def _proven(self, exchange: Exchange, message: dict[str, Json]) -> tuple[Owner, dict[str, Any]]:
        """Who owns what this request touches, and the ASGI scope that tells the SDK so."""
        if not self._running:
            raise Busy("legacy sessions are not running", hint="try again later")
        caller = await within(self._seconds, self._house.who(exchange.presented))
        owner = (caller.evidence.issuer, caller.subject, caller.client)
        return owner, {**exchange.scope, "user": _user(caller), _EXCHANGE: exchange, _MESSAGE: message}

    async def _pass(self, exchange: Exchange, owner: Owner, scope: dict[str, Any], receive: Receive) -> None:
        relay = _Relay(exchange, scope)
        await within(self._seconds + _MARGIN_SECONDS, self._manager.handle_request(scope, receive, relay))
        if relay.error is not None:
            raise relay.error
        if session := relay.opened or exchange.header(b"mcp-session-id"):
            await self._remember(owner, session, scope)

    async def _remember(self, owner: Owner, session: str, scope: MutableMapping[str, Any]) -> None:
        """Bound the sessions of one owner by ending the one longest unused, so that nobody can use up all there are."""
        mine = self._opened.setdefault(owner, OrderedDict())
        self._opened.move_to_end(owner)
        mine[session] = None
        mine.move_to_end(session)
        while len(self._opened) > self._limits.max_sessions:
            self._opened.popitem(last=False)
        if len(mine) > self._limits.max_per_owner:
            oldest, _ = mine.popitem(last=False)
            headers = [pair for pair in scope["headers"] if pair[0] not in (b"mcp-session-id", b"content-length")]
            headers.append((b"mcp-session-id", oldest.encode("latin-1")))
            ended = {**scope, "method": "DELETE", "headers": headers}
            await self._manager.handle_request(ended, _replay(b"", _never), _discard)

    async def _list(
        self, ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        exchange = _exchange(ctx)
        try:
            tools = await within(self._seconds, self._house.tools(exchange.presented))
            shown = [types.Tool.model_validate(listed(tool)) for tool in sorted(tools, key=lambda tool: tool.name)]
            return types.ListToolsResult(tools=shown)
        except Exception as error:  # the door's last resort: _refuse records what is not a refusal
            _refuse(ctx, error)
            return types.ListToolsResult(tools=[])

    async def _call(self, ctx: ServerRequestContext[Any], params: types.CallToolRequestParams) -> types.CallToolResult:
        exchange = _exchange(ctx)
        try:
            request = ToolRequest(
                tool=params.name,
                arguments=_arguments(ctx),
                protocol=ctx.protocol_version or "",
                agent=_agent(ctx),
                once=idempotency_key(_params(ctx).get("_meta") or {}),
                seen=brought(_params(ctx).get("_meta") or {}),
            )
            reply = await within(self._seconds, self._house.call(exchange.presented, request))
            return _result(reply.content)
        except Exception as error:  # the door's last resort: _refuse records what is not a refusal
            _refuse(ctx, error)
            return types.CallToolResult(content=[], is_error=True)


class _Relay:
    """An ASGI send that lets the SDK's answer through, unless a refusal takes its place."""

    def __init__(self, exchange: Exchange, scope: MutableMapping[str, Any]) -> None:
        self._exchange = exchange
        self._scope = scope
        self.error: Exception | None = None
        self.opened = ""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._look(message)
            message = {**message, "headers": [*message.get("headers", ()), *_UNSTORED]}
        if self.error is None:
            await self._exchange.send(message)

    def _look(self, message: Message) -> None:
        session = self._exchange.header(b"mcp-session-id")
        self.error = self._scope.get(_REFUSED)
        status = message["status"]
        if self.error is None and status == 404 and session is not None:
            # One answer for absent, expired and another's: an id must not be worth guessing.
            self.error = SessionForeign("there is no such session", hint="initialize a new session")
        elif self.error is None and status == 503:
            self.error = Busy("too many sessions are open", hint="end one, or try again later")
        elif session is None and status == 200:
            given = dict(message.get("headers", ())).get(b"mcp-session-id", b"")
            self.opened = given.decode("latin-1")


def _refuse_modern_body(exchange: Exchange, message: dict[str, Json]) -> None:
    """What claims the newer revision must not choose the door with the fewer checks."""
    if any(name.startswith(b"mcp-param-") for name in exchange.headers):
        raise HeaderMismatch("header `Mcp-Param-*` is not of this MCP revision", hint="send it with 2026-07-28 only")
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    claimed = meta.get(types.PROTOCOL_VERSION_META_KEY) if isinstance(meta, dict) else None
    if claimed is not None and claimed != exchange.header(b"mcp-protocol-version"):
        raise HeaderMismatch("header `MCP-Protocol-Version` does not match `_meta`", hint="send one version in both")


def _user(caller: Caller) -> AuthenticatedUser:
    """Who owns sessions, in the SDK's words. The token itself stays out of them."""
    token = AccessToken(
        token="",
        client_id=caller.client,
        scopes=[],
        subject=caller.subject,
        claims={"iss": caller.evidence.issuer},
    )
    return AuthenticatedUser(token)


def _exchange(ctx: ServerRequestContext[Any]) -> Exchange:
    """The HTTP exchange that carries the message being answered: never the one that opened the session."""
    request = ctx.request
    exchange = request.scope.get(_EXCHANGE) if request is not None else None
    if not isinstance(exchange, Exchange):
        raise RequestRefused("a message without its HTTP request")
    return exchange


def _arguments(ctx: ServerRequestContext[Any]) -> dict[str, Json]:
    arguments: dict[str, Json] | None = _params(ctx).get("arguments")
    return arguments or {}


def _params(ctx: ServerRequestContext[Any]) -> dict[str, Any]:
    """The parameters as the checked body holds them: a second parser must not give them a second meaning."""
    assert ctx.request is not None  # INVARIANT: _exchange found it
    params: dict[str, Any] = ctx.request.scope[_MESSAGE]["params"]
    return params


def _refuse(ctx: ServerRequestContext[Any], error: Exception) -> None:
    """Have the refusal take the place of the SDK's answer, in `_Relay`."""
    if not isinstance(error, OnbehalfError):
        _log.error("a legacy call failed", exc_info=error)
    assert ctx.request is not None  # INVARIANT: _exchange found it
    ctx.request.scope[_REFUSED] = error


def _result(content: Any) -> types.CallToolResult:  # Any: MCP members, validated here by the SDK's own model
    members = dict(content)
    if not isinstance(members.get("structuredContent", {}), dict):
        del members["structuredContent"]  # before 2026-07-28 only an object may stand there
    try:
        return types.CallToolResult.model_validate({"content": [], **members})
    except ValidationError as error:
        raise RuntimeError("the reply is not a tool result") from error


def _agent(ctx: ServerRequestContext[Any]) -> str:
    params = ctx.session.client_params
    if params is None:
        return ""
    text = f"{params.client_info.name}/{params.client_info.version}"[:120]
    return "".join(char if char.isprintable() else "?" for char in text)


def _replay(body: bytes, then: Receive) -> Receive:
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            return await then()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def _discard(message: Message) -> None:
    """The answer to an ending that nobody asked for."""
