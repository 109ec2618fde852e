"""An MCP server as an upstream: a tool call is posted once, with its call token, and its one answer is taken.

Speaks 2026-07-28 (no session, every request says all) and, to older servers, the handshake of 2025; `auto` asks the
server which. The handshake and the list of tools are asked for in the gateway's own name, without a person or a token.
Nothing is sent twice but a call that a server refused unread because it forgot our session. Must not decide anything.

Trust: the server does what a call token for it allows, and its words about tools and its answers are hostile text; it
gets nothing else of a person, and what it wants from us in turn (sampling, elicitation, roots) is not answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson

from onbehalf.doors.mcp_words import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    PROTOCOL_VERSION_META_KEY,
    UNSUPPORTED_PROTOCOL_VERSION,
    encode_header,
    marks_headers,
    sdk_headers,
)
from onbehalf.doors.upstream_mcp_answer import Described, definition, described, done
from onbehalf.doors.upstream_mcp_wire import Answer, Garbage, Late, NotSent, Rejected, ServerAsks, Wire, WireError
from onbehalf.doors.upstream_receipts import Receipts
from onbehalf.errors import ConfigInvalid, ReceiptRefused, UpstreamUnavailable
from onbehalf.explain.backend_receipt import META, mcp_answer
from onbehalf.model import CallToken, Done, Failed, Json, Outcome, ToolCall

__all__ = ["Described", "McpUpstreamServer", "definition"]

Result = TypeVar("Result")

_CLIENT: dict[str, Json] = {"name": "onbehalf", "version": "1"}
_MODERN_META: dict[str, Json] = {
    PROTOCOL_VERSION_META_KEY: LATEST_MODERN_VERSION,
    CLIENT_CAPABILITIES_META_KEY: {},
    CLIENT_INFO_META_KEY: _CLIENT,
}
_OLDEST = HANDSHAKE_PROTOCOL_VERSIONS.index("2025-03-26")  # the first with this transport
_SPOKEN = HANDSHAKE_PROTOCOL_VERSIONS[_OLDEST:]
_UNREAD_CODES = frozenset({-32700, -32600, -32601, -32602, -32020, -32021, -32022})
"""Errors that say the call was not begun: JSON-RPC 2.0 section 5.1 and MCP 2026-07-28's own."""
_OTHER_ERA = frozenset({None, -32600, -32601, -32022})
_MAX_PAGES = 32
_MAX_TOOLS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """How this server is spoken to. `session` is "" where it keeps none."""

    version: str
    session: str = ""

    @property
    def modern(self) -> bool:
        return self.version == LATEST_MODERN_VERSION

    def headers(self, method: str) -> dict[str, str]:
        headers = {**_POST, "MCP-Protocol-Version": self.version}
        if self.modern:
            headers["Mcp-Method"] = method
        if self.session:
            headers["Mcp-Session-Id"] = self.session
        return headers


_POST = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@dataclass(slots=True)
class _Departure:
    """Whether the call may have left: from then on a failure of a write is not known to be one."""

    left: bool = field(default=False)


class McpUpstreamServer:
    """The Upstream port on one MCP server. Used in one event loop, ended by `aclose`."""

    def __init__(
        self, url: str, *, audience: str, protocol: str = "auto", timeout: float, response_bytes: int,
        insecure_http: bool = False, receipts: Receipts | None = None,
    ) -> None:  # fmt: skip
        """`timeout` in seconds bounds one call with any handshake. Raises ConfigInvalid; nothing is connected yet.

        With `receipts`, a result that the server did not sign for is a failure, and what was done is not known.

        Danger: `insecure_http` lets call tokens and data travel in the clear beyond this machine.
        """
        _require_safe(url, insecure_http)
        if protocol not in ("auto", LATEST_MODERN_VERSION, *_SPOKEN):
            raise ConfigInvalid(f"MCP revision `{protocol}` is not spoken", hint=f"use auto or {LATEST_MODERN_VERSION}")
        self._url = url
        self._audience = audience
        self._protocol = protocol
        self._timeout = timeout
        self._bytes = response_bytes
        self._receipts = receipts
        self._wire: Wire | None = None
        self._closed = False
        self._line: _Line | None = None
        self._lining = asyncio.Lock()
        self._mirrors: dict[str, dict[tuple[str, ...], str]] = {}
        self._numbers = itertools.count(1)
        self._trouble = ""
        self._odd: tuple[str, ...] = ()

    @property
    def audience(self) -> str:
        return self._audience

    async def send(self, call: ToolCall, token: CallToken) -> Outcome:
        """Post the call, once. Never raises but for cancellation; messages hold nothing the server said."""
        granted = token.grant.allow.call
        if token.grant.audience != self._audience or (granted.id, granted.digest) != (call.id, call.digest):
            return Failed(code="wrong_grant", message="the call token is not for this call here", unknown=False)
        departure = _Departure()

        async def ask(line: _Line) -> Answer:
            request_id = self._id(call.id)
            body, headers = self._call_request(line, request_id, call)
            wire = self._wired()
            departure.left = True
            try:
                return await wire.ask(request_id, body, headers, token=token.compact)
            except NotSent:
                departure.left = False
                raise
            except Rejected as error:
                departure.left = not _unread(error)
                raise

        try:
            answer = await self._timed(ask)
            if answer.error is not None:
                departure.left = answer.error not in _UNREAD_CODES
                raise WireError(f"the server answered with error {answer.error}")
            self._trouble = ""
            return self._receipted(answer.result, token)
        except Exception as error:  # a failure is a value, whatever it was; it goes on record
            return self._failed(error, unknown=departure.left and call.tool.writes)

    async def describe(self) -> Mapping[str, Described]:
        """The server's tools by name, all pages of them within one `timeout`. Raises UpstreamUnavailable.

        A tool that cannot be used as described is left out and named in `problems`.
        """
        try:
            async with asyncio.timeout(self._timeout):
                listed = await self._pages()
        except Exception as error:  # whatever it was, the caller tries again later; it stands in `problems`
            failed = self._failed(error, unknown=False)
            raise UpstreamUnavailable(
                f"the tools of `{self._url}` cannot be listed: {failed.message}",
                hint="see that the server runs and try again",
            ) from error
        found: dict[str, Described] = {}
        odd: list[str] = []
        mirrors: dict[str, dict[tuple[str, ...], str]] = {}
        seen: set[str] = set()
        for item in listed:
            tool, reason = described(item)
            if tool is not None and tool.name not in seen:
                seen.add(tool.name)
                found[tool.name] = tool
                if marks_headers(tool.schema):
                    mirrors[tool.name] = sdk_headers().x_mcp_header_map(dict(tool.schema))
                continue
            if tool is not None:  # which of the two a call would meet is a guess
                found.pop(tool.name, None)
            odd.append(f"a tool of `{self._url}` is left out: {reason or 'its name stands twice'}")
        self._mirrors, self._odd, self._trouble = mirrors, tuple(odd), ""
        return found

    async def warm(self) -> None:
        """Connect and shake hands before the first call. Never raises; what went wrong is in `problems`."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._lined(None)
        except Exception as error:  # whatever it was, the first call shows it again; it stands in `problems`
            self._failed(error, unknown=False)

    async def aclose(self) -> None:
        """End the session, where there is one, and all connections."""
        wire, line = self._wire, self._line
        self._closed, self._wire, self._line = True, None, None
        if wire is None:
            return
        try:
            if line is not None and line.session:
                with contextlib.suppress(WireError, TimeoutError):
                    async with asyncio.timeout(1):
                        await wire.end({"MCP-Protocol-Version": line.version, "Mcp-Session-Id": line.session})
        finally:
            await wire.aclose()

    def problems(self) -> Sequence[str]:
        """What a person should look at: the last trouble reaching the server, and tools left out. No payload."""
        return (*((self._trouble,) if self._trouble else ()), *self._odd)

    # --- one call ---------------------------------------------------------------------------

    def _call_request(self, line: _Line, request_id: str, call: ToolCall) -> tuple[bytes, dict[str, str]]:
        # the very bytes that the token's digest is over
        params: dict[str, Any] = {"name": call.tool.remote, "arguments": orjson.Fragment(call.arguments)}
        headers = line.headers("tools/call")
        if line.modern:
            headers["Mcp-Name"] = encode_header(call.tool.remote)
            mirror = self._mirrors.get(call.tool.remote)
            if mirror:
                headers.update(sdk_headers().mcp_param_headers(mirror, orjson.loads(call.arguments)))
        return _request(line, request_id, "tools/call", params), headers

    def _receipted(self, result: Mapping[str, Json], token: CallToken) -> Done:
        """The result; only with a good receipt, where those are asked for. Raises ReceiptRefused, WireError."""
        found = done(result)
        if self._receipts is None:
            return found
        meta = result.get("_meta")
        given = meta.get(META) if isinstance(meta, dict) else None
        try:
            answer = mcp_answer(found.content)
        except ValueError as error:
            raise Garbage("the result has no canonical form, which its receipt needs") from error
        text = given if isinstance(given, str) else ""
        receipt = self._receipts.require(text, token, answer=answer, status=200)
        return Done(content=found.content, digest=found.digest, receipt=receipt)

    def _failed(self, error: Exception, *, unknown: bool) -> Failed:
        code, message = _classed(error)
        if code in ("upstream_unavailable", "upstream_timed_out", "upstream_refused", "upstream_garbage"):
            self._trouble = f"`{self._url}`: {message}"
        return Failed(code=code, message=message[:300], unknown=unknown)

    # --- lists ------------------------------------------------------------------------------

    async def _pages(self) -> list[Json]:
        listed: list[Json] = []
        cursor: Json = None
        for _ in range(_MAX_PAGES):
            params: dict[str, Json] = {} if cursor is None else {"cursor": cursor}

            async def ask(line: _Line, params: dict[str, Json] = params) -> Answer:
                return await self._asked(line, "tools/list", params)

            answer = await self._timed(ask)
            tools, cursor = answer.result.get("tools"), answer.result.get("nextCursor")
            if answer.error is not None or not isinstance(tools, list) or not isinstance(cursor, str | None):
                raise Garbage("the answer is no list of tools")
            listed += tools
            if len(listed) > _MAX_TOOLS:
                raise Garbage(f"the server lists more than {_MAX_TOOLS} tools")
            if cursor is None:
                return listed
        raise Garbage(f"the list of tools has more than {_MAX_PAGES} pages")

    # --- the line ---------------------------------------------------------------------------

    async def _timed(self, ask: Callable[[_Line], Awaitable[Result]]) -> Result:
        """Do one exchange on the line there is, or on one made now. Raises WireError, TimeoutError."""
        line = self._line
        if line is not None and not line.session:
            return await self._on(line, ask)  # one exchange, which the client itself bounds by the same time
        async with asyncio.timeout(self._timeout):
            line = self._line or await self._lined(None)
            try:
                return await self._on(line, ask)
            except Rejected as error:
                if error.status == 404 and line.session:
                    # MCP 2025-11-25 transports: the session is over and this was not read; only then once more
                    return await ask(await self._lined(line))
                raise

    async def _on(self, line: _Line, ask: Callable[[_Line], Awaitable[Result]]) -> Result:
        try:
            return await ask(line)
        except Rejected as error:
            if error.status not in (401, 403, 429) and error.status < 500 and error.code in _OTHER_ERA:
                self._forget(line)  # the server may speak another revision since
            raise

    async def _lined(self, stale: _Line | None) -> _Line:
        """The line, made anew if it is `stale`, by one of all that wait for it."""
        async with self._lining:
            if self._line is None or self._line is stale:
                self._line = None
                self._line = await self._negotiated()
            return self._line

    def _forget(self, line: _Line) -> None:
        if self._line is line:
            self._line = None

    async def _negotiated(self) -> _Line:
        modern = _Line(version=LATEST_MODERN_VERSION)
        if self._protocol == LATEST_MODERN_VERSION:
            return modern
        if self._protocol == "auto" and await self._speaks(modern):
            return modern
        offered = LATEST_HANDSHAKE_VERSION if self._protocol == "auto" else self._protocol
        params: dict[str, Json] = {"protocolVersion": offered, "capabilities": {}, "clientInfo": _CLIENT}
        request_id = self._id("gateway")
        answer = await self._wired().ask(request_id, _request(None, request_id, "initialize", params), _POST)
        version = answer.result.get("protocolVersion")
        if version not in (_SPOKEN if self._protocol == "auto" else (self._protocol,)):
            raise Garbage("the server speaks no MCP revision that we were told to speak")
        line = _Line(version=str(version), session=answer.session)
        told = orjson.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"})
        with contextlib.suppress(Rejected):  # there is nothing in it that a server could miss
            await self._wired().tell(told, line.headers("notifications/initialized"))
        return line

    async def _speaks(self, modern: _Line) -> bool:
        """Whether the server answers 2026-07-28. A server that fails, or wants a login, has not said no."""
        try:
            answer = await self._asked(modern, "server/discover", {})
        except Rejected as error:
            if error.code == UNSUPPORTED_PROTOCOL_VERSION or (
                400 <= error.status < 500 and error.status not in (401, 403, 408, 429)
            ):
                return False
            raise
        versions = answer.result.get("supportedVersions")
        return isinstance(versions, list) and LATEST_MODERN_VERSION in versions

    async def _asked(self, line: _Line, method: str, params: Mapping[str, Json]) -> Answer:
        request_id = self._id("gateway")
        return await self._wired().ask(request_id, _request(line, request_id, method, params), line.headers(method))

    def _id(self, about: str) -> str:
        """An id that no other request of ours ever had: a call and its lookup may go by one session."""
        return f"{about}-{next(self._numbers)}"

    def _wired(self) -> Wire:
        if self._closed:
            raise NotSent("the door is closed")
        if self._wire is None:  # here and not before: its connections belong to the running loop
            self._wire = Wire(self._url, timeout=self._timeout, response_bytes=self._bytes)
        return self._wire


def _request(line: _Line | None, request_id: str, method: str, params: Mapping[str, Any]) -> bytes:
    whole = {**params, "_meta": _MODERN_META} if line is not None and line.modern else params
    return orjson.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": whole})


def _unread(error: Rejected) -> bool:
    """Whether a status says that the call was not begun. 408 and all of 3xx and 5xx may come after it was."""
    if error.code is not None:
        return error.code in _UNREAD_CODES or error.status in (401, 403, 404)
    return 400 <= error.status < 500 and error.status != 408


def _classed(error: Exception) -> tuple[str, str]:
    """The stable code of a failure, and a message of our own words."""
    if isinstance(error, TimeoutError | Late):
        return "upstream_timed_out", "the server did not answer in time"
    if isinstance(error, ReceiptRefused):
        return error.code, error.message
    if isinstance(error, NotSent):
        return "upstream_unavailable", str(error)
    if isinstance(error, ServerAsks):
        return "upstream_asks", str(error)
    if isinstance(error, Garbage):
        return "upstream_garbage", str(error)
    if isinstance(error, Rejected):
        if error.status in (401, 403):
            return "upstream_refused", str(error)
        return "upstream_unavailable" if error.status >= 500 else "upstream_error", str(error)
    if isinstance(error, WireError):
        return "upstream_error", str(error)
    return "upstream_error", f"the exchange failed: {type(error).__name__}"


def _require_safe(url: str, insecure_http: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ConfigInvalid("an upstream's url is not a plain http(s) URL", hint="no user, query or fragment in it")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1") and not insecure_http:
        raise ConfigInvalid(f"`{url}` is not https", hint="use https; only loopback addresses may be http")
