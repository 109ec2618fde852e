"""MCP 2026-07-28: one stateless request in, one JSON answer out.

The ladder, in the specification's order (basic/index, streamable-http):
1 the envelope of JSON-RPC; 2 `_meta` with version and capabilities; 3 headers agree with the body; 4 the version
is served; 5 the method is served; 6 its parameters. Then the house is asked. Must not know HTTP routing, the
challenge or the older protocol.

Trust: `clientInfo` is self-reported and goes on record as such; nothing else of the envelope outlives the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onbehalf.config import Limits
from onbehalf.doors.inbound_gone import UnderWay, within
from onbehalf.doors.inbound_headers import ParameterHeaders, check_mirrors
from onbehalf.doors.inbound_seen import brought
from onbehalf.doors.inbound_wire import Exchange, listed, send_json
from onbehalf.doors.mcp_words import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    MODERN_PROTOCOL_VERSIONS,
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
)
from onbehalf.errors import HeaderMismatch, ParametersInvalid, RequestRefused, UnknownMethod, VersionUnsupported
from onbehalf.model import Json, Reply, Tool, ToolRequest, Waiting
from onbehalf.ports import House

__all__ = ["Modern", "ServerName", "agent", "idempotency_key", "request_id"]

_LIST_TTL_MS = 60_000
_DISCOVER_TTL_MS = 3_600_000
_MAX_AGENT = 120
_IDEMPOTENCY_KEY = "onbehalf/idempotency-key"
_MAX_KEY = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerName:
    """How this gateway calls itself to clients. Self-reported; nobody decides on it."""

    name: str
    version: str
    title: str = ""
    instructions: str = ""

    def info(self) -> dict[str, Json]:
        """MCP's `serverInfo`."""
        titled: dict[str, Json] = {"title": self.title} if self.title else {}
        return {"name": self.name, "version": self.version, **titled}


class Modern:
    """Answers parsed 2026-07-28 messages. Holds no state between requests but the shown form of tools."""

    def __init__(self, house: House, *, tool: Callable[[str], Tool | None], server: ServerName, limits: Limits) -> None:
        self._house = house
        self._parameter_headers = ParameterHeaders(tool)
        self._server = server
        self._seconds = limits.call_seconds
        self._calls = UnderWay(limits.call_seconds)
        self._stamp: dict[str, Json] = {SERVER_INFO_META_KEY: server.info()}
        self._shown: dict[str, tuple[Tool, dict[str, Json]]] = {}

    async def answer(self, exchange: Exchange, message: dict[str, Json]) -> None:
        """Send the one response. Raises OnbehalfError before anything is sent, ClientGone."""
        if "id" not in message:
            await self._acknowledge(exchange, message)
            return
        # 1
        method, params, identifier = message.get("method"), message.get("params"), request_id(message)
        if message.get("jsonrpc") != "2.0" or not isinstance(method, str) or identifier is None:
            raise RequestRefused(
                "the body is not one JSON-RPC request or notification", hint="see JSON-RPC 2.0 section 4"
            )
        meta = _envelope(params)  # 2
        version = meta[PROTOCOL_VERSION_META_KEY]
        # 3
        if exchange.header(b"mcp-protocol-version") != version:
            raise HeaderMismatch(
                "header `MCP-Protocol-Version` does not match `_meta`", hint="send one version in both"
            )
        check_mirrors(exchange.headers, message, required=True)
        # 4
        if version not in MODERN_PROTOCOL_VERSIONS:
            raise _unsupported(str(version))
        assert isinstance(params, dict)  # INVARIANT: _envelope raised otherwise
        # 5
        if method == "tools/call":
            call = self._house.call(exchange.presented, self._requested(exchange, params, meta))
            reply = await self._calls.until_gone(exchange.receive, call)
            result = self._answered(reply, params, meta)
        elif method == "tools/list":
            result = await self._list(exchange, params)
        elif method == "server/discover":
            result = await self._discover(exchange)
        else:
            raise UnknownMethod("the method is not served", hint="server/discover names what is")
        await send_json(exchange.send, 200, {"jsonrpc": "2.0", "id": identifier, "result": result})

    def _requested(self, exchange: Exchange, params: dict[str, Json], meta: dict[str, Json]) -> ToolRequest:
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str):
            raise ParametersInvalid("`params.name` is not a string", hint="name the tool to call")
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, dict):
            raise ParametersInvalid("`params.arguments` is not an object", hint="send arguments as a JSON object")
        self._parameter_headers.check(name, arguments, exchange.headers)
        return ToolRequest(
            tool=name,
            arguments=arguments,
            protocol=str(meta[PROTOCOL_VERSION_META_KEY]),
            agent=agent(meta.get(CLIENT_INFO_META_KEY)),
            once=idempotency_key(meta),
            seen=brought(meta),
        )

    def _answered(self, reply: Reply, params: dict[str, Json], meta: dict[str, Json]) -> dict[str, Json]:
        content = reply.content
        # A client that was sent there once answers with what came of it: it is told in words, or it would ask for ever.
        if reply.waiting is not None and _opens_pages(meta) and params.get("inputResponses") is None:
            return self._required(reply.waiting, content.get("_meta"))
        return {"content": [], **content, **self._complete(content.get("_meta"))}

    async def _list(self, exchange: Exchange, params: dict[str, Json]) -> dict[str, Json]:
        if params.get("cursor") is not None:
            raise ParametersInvalid(
                "`params.cursor` was not given out here", hint="leave it out; the list has one page"
            )
        tools = await within(self._seconds, self._house.tools(exchange.presented))
        shown: list[Json] = [self._show(tool) for tool in sorted(tools, key=lambda tool: tool.name)]
        # private: the list is this person's own (caching section of 2026-07-28)
        return {**self._complete(), "tools": shown, "ttlMs": _LIST_TTL_MS, "cacheScope": "private"}

    async def _discover(self, exchange: Exchange) -> dict[str, Json]:
        await within(self._seconds, self._house.who(exchange.presented))
        found: dict[str, Json] = {
            **self._complete(),
            "supportedVersions": list(MODERN_PROTOCOL_VERSIONS),
            "capabilities": {"tools": {}},
            "ttlMs": _DISCOVER_TTL_MS,
            "cacheScope": "private",
        }
        if self._server.instructions:
            found["instructions"] = self._server.instructions
        return found

    async def _acknowledge(self, exchange: Exchange, message: dict[str, Json]) -> None:
        """202 for a notification: the revision defines none that act over HTTP, so it is proven and dropped."""
        method = message.get("method")
        if message.get("jsonrpc") != "2.0" or not isinstance(method, str):
            raise RequestRefused(
                "the body is not one JSON-RPC request or notification", hint="see JSON-RPC 2.0 section 4"
            )
        version = exchange.header(b"mcp-protocol-version") or ""
        if version not in MODERN_PROTOCOL_VERSIONS:
            raise _unsupported(version)
        check_mirrors(exchange.headers, message, required=False)
        await within(self._seconds, self._house.who(exchange.presented))
        await exchange.send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"0")]})
        await exchange.send({"type": "http.response.body", "body": b""})

    def _show(self, tool: Tool) -> dict[str, Json]:
        known = self._shown.get(tool.name)
        if known is None or known[0] is not tool:  # a definition does not pin scopes, so it is the object that counts
            known = self._shown[tool.name] = (tool, listed(tool))
        return known[1]

    def _required(self, waiting: Waiting, meta: Json) -> dict[str, Json]:
        """The page that somebody must see, as the client is asked to open it (client/elicitation, URL mode).

        There is no `requestState`: what was approved is known here, by what the call is.
        """
        asked: dict[str, Json] = {"mode": "url", "message": waiting.message, "url": waiting.url}
        requests: dict[str, Json] = {"approval": {"method": "elicitation/create", "params": asked}}
        return {**self._complete(meta), "resultType": "input_required", "inputRequests": requests}

    def _complete(self, meta: Json = None) -> dict[str, Json]:
        stamped = {**meta, **self._stamp} if isinstance(meta, dict) else self._stamp
        return {"resultType": "complete", "_meta": stamped}


def request_id(message: Mapping[str, Json]) -> str | int | None:
    """The id of a request, or None where it has none that JSON-RPC for MCP allows."""
    identifier = message.get("id")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int):
        return None
    return identifier


def agent(info: Json) -> str:
    """What the client calls itself, bounded and printable; "" where it says nothing."""
    if not isinstance(info, dict):
        return ""
    parts = [part for part in (info.get("name"), info.get("version")) if isinstance(part, str) and part]
    text = "/".join(parts)[:_MAX_AGENT]
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def idempotency_key(meta: Mapping[str, Json]) -> str:
    """The key by which the client wants this call to be known when it sends it again; "" where it gives none."""
    key = meta.get(_IDEMPOTENCY_KEY)
    if key is None:
        return ""
    if not isinstance(key, str) or not 1 <= len(key) <= _MAX_KEY or not (key.isascii() and key.isprintable()):
        raise ParametersInvalid(
            f"`_meta.{_IDEMPOTENCY_KEY}` is no key", hint=f"send 1 to {_MAX_KEY} visible ASCII characters"
        )
    return key


def _envelope(params: Json) -> dict[str, Json]:
    meta = params.get("_meta") if isinstance(params, dict) else None
    if not isinstance(meta, dict):
        raise ParametersInvalid(
            "`params._meta` is missing",
            hint=f"send `{PROTOCOL_VERSION_META_KEY}` and `{CLIENT_CAPABILITIES_META_KEY}` in it",
        )
    for key in (PROTOCOL_VERSION_META_KEY, CLIENT_CAPABILITIES_META_KEY):
        if key not in meta:
            raise ParametersInvalid(f"`params._meta` lacks `{key}`", hint="send it with every request (MCP 2026-07-28)")
    if not isinstance(meta[CLIENT_CAPABILITIES_META_KEY], dict):
        raise ParametersInvalid(f"`{CLIENT_CAPABILITIES_META_KEY}` is not an object", hint="send `{}` for none")
    return meta


def _opens_pages(meta: Mapping[str, Json]) -> bool:
    """Whether the client declared that it can show people a page: it must not be asked to otherwise."""
    capabilities = meta.get(CLIENT_CAPABILITIES_META_KEY)
    elicitation = capabilities.get("elicitation") if isinstance(capabilities, dict) else None
    return isinstance(elicitation, dict) and isinstance(elicitation.get("url"), dict)


def _unsupported(version: str) -> VersionUnsupported:
    return VersionUnsupported(
        "this MCP revision is not served", requested=version[:40], hint=f"use {', '.join(MODERN_PROTOCOL_VERSIONS)}"
    )
