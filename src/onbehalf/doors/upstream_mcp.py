"""An MCP server as an upstream: a tool call is posted once, with its call token, and its one answer is taken.

Speaks 2026-07-28 (no session, every request says all) and, to older servers, the handshake of 2025; `auto` asks the
server which. The handshake and the list of tools are asked for in the gateway's own name, without a person or a token.
No call token leaves twice: who takes it once may have used it up before refusing the call. A call that a server refused
unread, because it forgot our session, or, of one that only reads, because its person's token was over and another is
worth a try, is a failure that says so (`again_s`), for whoever makes a sending of its own of it. Must not decide
anything.

Where calls carry their person's own access token for the server, nothing is shared between them: what must be said
before a call is said with that token too, and a session is for one call, and ended.

Trust: the server does what a call token for it, and the person's token there, allow, and its words about tools and its
answers are hostile text; it gets nothing else of a person, and what it wants from us in turn (sampling, elicitation,
roots) is not answered. Where definitions are pinned, it is not asked for any.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import orjson

from onbehalf.doors.mcp_words import (
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    UNSUPPORTED_PROTOCOL_VERSION,
    encode_header,
    sdk_headers,
)
from onbehalf.doors.upstream_authorization import BearerSource, with_bearer
from onbehalf.doors.upstream_mcp_answer import (
    UNREAD_CODES,
    Described,
    Listed,
    classed,
    definition,
    done,
    listed,
    unread,
)
from onbehalf.doors.upstream_mcp_line import CLIENT, INITIALIZED, SPOKEN, Line, request
from onbehalf.doors.upstream_mcp_wire import Answer, Garbage, NotSent, Rejected, Wire, WireError
from onbehalf.doors.upstream_receipts import Receipts
from onbehalf.errors import ConfigInvalid, UpstreamUnavailable
from onbehalf.explain.backend_receipt import META, mcp_answer
from onbehalf.model import CallToken, Done, Failed, Json, Outcome, ToolCall

__all__ = ["Described", "McpUpstreamServer", "definition"]

Result = TypeVar("Result")
_Ask = Callable[[Line], Awaitable[Result]]

_OTHER_ERA = frozenset({None, -32600, -32601, -32022})
_MAX_PAGES = 32
_MAX_TOOLS = 1000


class _Departure(msgspec.Struct):
    """Whether the call may have left: from then on a failure of a write is not known to be one. Whether its token has,
    and so must not again; and after how many seconds another sending is worth a try."""

    left: bool = False
    shown: bool = False
    again_s: float | None = None


class McpUpstreamServer:
    """The Upstream port on one MCP server. Used in one event loop, ended by `aclose`."""

    def __init__(
        self, url: str, *, audience: str, protocol: str = "auto", timeout: float, response_bytes: int,
        insecure_http: bool = False, receipts: Receipts | None = None, authorizer: BearerSource | None = None,
        pinned: Listed | None = None,
    ) -> None:  # fmt: skip
        """`timeout` in seconds bounds one call with any handshake. Raises ConfigInvalid; nothing is connected yet.

        With `receipts`, a result that the server did not sign for is a failure, and what was done is not known. With
        `authorizer`, each call carries its person's own token there. With `pinned`, its tools are those and no others.

        Danger: `insecure_http` lets call tokens and data travel in the clear beyond this machine.
        """
        _require_safe(url, insecure_http)
        if protocol not in ("auto", LATEST_MODERN_VERSION, *SPOKEN):
            raise ConfigInvalid(f"MCP revision `{protocol}` is not spoken", hint=f"use auto or {LATEST_MODERN_VERSION}")
        self._url = url
        self._audience = audience
        self._protocol = protocol
        self._timeout = timeout
        self._bytes = response_bytes
        self._receipts = receipts
        self._authorizer = authorizer
        self._pinned = pinned
        self._wire: Wire | None = None
        self._closed = False
        self._line: Line | None = None
        self._lining = asyncio.Lock()
        self._modern = protocol == LATEST_MODERN_VERSION
        self._endings: set[asyncio.Task[None]] = set()
        self._listed = pinned or Listed(tools={}, odd=(), mirrors={})
        self._numbers = itertools.count(1)
        self._heads: dict[str, tuple[Line, bytes]] = {}
        self._trouble = ""

    @property
    def audience(self) -> str:
        return self._audience

    async def send(self, call: ToolCall, token: CallToken) -> Outcome:
        """Post the call, once. Never raises but for cancellation; messages hold nothing the server said."""
        granted = token.grant.allow.call
        if token.grant.audience != self._audience or (granted.id, granted.digest) != (call.id, call.digest):
            return Failed(code="wrong_grant", message="the call token is not for this call here", unknown=False)
        departure = _Departure()
        ask = partial(self._posted, call, token, departure)
        try:
            source = self._authorizer
            one = self._timed(ask, departure) if source is None else self._as_person(source, call, ask, departure)
            answer = await one
            if answer.error is not None:
                departure.left = answer.error not in UNREAD_CODES
                raise WireError(f"the server answered with error {answer.error}")
            self._trouble = ""
            return self._receipted(answer.result, token)
        except Exception as error:  # a failure is a value, whatever it was; it goes on record
            return self._failed(error, unknown=departure.left and call.tool.writes, again_s=departure.again_s)

    async def describe(self, *, bearer: str = "") -> Mapping[str, Described]:
        """The server's tools by name, all pages of them within one `timeout`; where they are pinned, those.

        `bearer` is shown to a server that lists them to people only. A tool that cannot be used as described is left
        out and named in `problems`. Raises UpstreamUnavailable.
        """
        if self._pinned is not None:
            return self._pinned.tools
        try:
            async with asyncio.timeout(self._timeout):
                items = await (self._alone(self._pages, bearer) if bearer else self._timed(self._pages))
        except Exception as error:  # whatever it was, the caller tries again later; it stands in `problems`
            failed = self._failed(error, unknown=False)
            hint = "see that the server runs and try again"
            if failed.code == "upstream_refused":
                hint = "a server that lists its tools to people only needs `definitions`: see `onbehalf tools --help`"
            raise UpstreamUnavailable(
                f"the tools of `{self._url}` cannot be listed: {failed.message}", hint=hint
            ) from error
        self._listed, self._trouble = listed(items, of=f"`{self._url}`"), ""
        self._heads.clear()  # another list may put a tool's arguments into headers
        return self._listed.tools

    async def warm(self) -> None:
        """Connect and shake hands before the first call. Never raises; what went wrong is in `problems`."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._lined(None)
        except Exception as error:  # whatever it was, the first call shows it again; it stands in `problems`
            self._failed(error, unknown=False)

    async def aclose(self) -> None:
        """End the session, where there is one, and all connections."""
        await asyncio.gather(*self._endings, return_exceptions=True)
        wire, line = self._wire, self._line
        self._closed, self._wire, self._line = True, None, None
        if wire is None:
            return
        try:
            if line is not None and line.session:
                await _ended(wire, line)
        finally:
            await wire.aclose()

    def problems(self) -> Sequence[str]:
        """What a person should look at: the last trouble reaching the server, and tools left out. No payload."""
        return (*((self._trouble,) if self._trouble else ()), *self._listed.odd)

    # --- one call ---------------------------------------------------------------------------

    async def _posted(self, call: ToolCall, token: CallToken, departure: _Departure, line: Line) -> Answer:
        """Post the call on this line. Raises WireError."""
        request_id, wire = self._id(call.id), self._wired()
        # the very bytes that the token's digest is over
        params: dict[str, Any] = {"name": call.tool.remote, "arguments": orjson.Fragment(call.arguments)}
        head, body = self._head(wire, line, call), request(line, request_id, "tools/call", params)
        departure.left = departure.shown = True
        try:
            return await wire.ask(request_id, body, head, token=token.compact)
        except NotSent:
            departure.left = departure.shown = False
            raise
        except Rejected as error:
            departure.left = not unread(error)
            self._doubted(line, error)
            raise

    def _head(self, wire: Wire, line: Line, call: ToolCall) -> bytes:
        """The beginning of the call's request. On the gateway's own line it is one for all calls of a tool, unless
        arguments stand in it. INVARIANT: what is kept has no person's token."""
        remote = call.tool.remote
        kept = self._heads.get(remote)
        if kept is not None and kept[0] is line:
            return kept[1]
        headers, mirror = line.headers("tools/call"), None
        if line.modern:
            headers["Mcp-Name"] = encode_header(remote)
            mirror = self._listed.mirrors.get(remote)
            if mirror:
                headers.update(sdk_headers().mcp_param_headers(mirror, orjson.loads(call.arguments)))
        head = wire.head(headers)
        if line is self._line and not mirror:
            self._heads[remote] = (line, head)
        return head

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

    def _failed(self, error: Exception, *, unknown: bool, again_s: float | None = None) -> Failed:
        code, message = classed(error)
        theirs = code == "upstream_refused" and self._authorizer is not None  # a person's trouble, not the server's
        if (
            code in ("upstream_unavailable", "upstream_timed_out", "upstream_refused", "upstream_garbage")
            and not theirs
        ):
            self._trouble = f"`{self._url}`: {message}"
        return Failed(code=code, message=message[:300], unknown=unknown, again_s=again_s)

    # --- lists ------------------------------------------------------------------------------

    async def _pages(self, line: Line) -> list[Json]:
        items: list[Json] = []
        cursor: Json = None
        for _ in range(_MAX_PAGES):
            params: dict[str, Json] = {} if cursor is None else {"cursor": cursor}
            answer = await self._asked(line, "tools/list", params)
            tools, cursor = answer.result.get("tools"), answer.result.get("nextCursor")
            if answer.error is not None or not isinstance(tools, list) or not isinstance(cursor, str | None):
                raise Garbage("the answer is no list of tools")
            items += tools
            if len(items) > _MAX_TOOLS:
                raise Garbage(f"the server lists more than {_MAX_TOOLS} tools")
            if cursor is None:
                return items
        raise Garbage(f"the list of tools has more than {_MAX_PAGES} pages")

    # --- in a person's name -----------------------------------------------------------------

    async def _as_person(
        self, source: BearerSource, call: ToolCall, ask: _Ask[Answer], departure: _Departure
    ) -> Answer:
        """The exchange with the person's own token there; with another one where it only reads, and the token was over
        before the call itself had left. Raises AuthorizationFailed, WireError, TimeoutError."""
        ends = asyncio.get_running_loop().time() + self._timeout
        exchange = partial(self._alone, ask)
        try:
            return await with_bearer(ends, source, call, exchange)
        except Rejected as error:
            if error.status != 401:
                raise
            async with asyncio.timeout_at(ends):
                worth_it = await source.refused(call)
            if not worth_it or call.tool.writes:
                raise
            if departure.shown:
                departure.again_s = 0.0
                raise
        return await with_bearer(ends, source, call, exchange)

    async def _alone(self, ask: _Ask[Result], bearer: str) -> Result:
        """One exchange on a line of its own, with any session it takes. INVARIANT: the line is kept nowhere."""
        line = Line(version=LATEST_MODERN_VERSION, bearer=bearer) if self._modern else await self._negotiated(bearer)
        self._modern = line.modern
        try:
            return await ask(line)
        except Rejected as error:
            if _of_other_era(error):  # the server may speak another revision since
                self._modern = self._protocol == LATEST_MODERN_VERSION
            raise
        finally:
            if line.session and self._wire is not None:
                ending = asyncio.create_task(_ended(self._wire, line))
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)

    # --- the gateway's own line -------------------------------------------------------------

    def _timed(self, ask: _Ask[Result], departure: _Departure | None = None) -> Awaitable[Result]:
        """One exchange on the line there is, or on one made now. Raises WireError, TimeoutError."""
        line = self._line
        if line is not None and not line.session:
            return ask(line)  # one exchange, which the client itself bounds by the same time
        return self._in_time(ask, departure)

    async def _in_time(self, ask: _Ask[Result], departure: _Departure | None) -> Result:
        async with asyncio.timeout(self._timeout):
            line = self._line or await self._lined(None)
            try:
                return await ask(line)
            except Rejected as error:
                if error.status != 404 or not line.session:
                    raise
                # MCP 2025-11-25 transports: the session is over and this was not read; only then once more
                if departure is not None and departure.shown:
                    self._forget(line)
                    departure.again_s = 0.0
                    raise
                return await ask(await self._lined(line))

    async def _lined(self, stale: Line | None) -> Line:
        """The line, made anew if it is `stale`, by one of all that wait for it."""
        async with self._lining:
            if self._line is None or self._line is stale:
                self._line = None
                self._line = await self._negotiated()
            return self._line

    def _forget(self, line: Line) -> None:
        if self._line is line:
            self._line = None

    def _doubted(self, line: Line, error: Rejected) -> None:
        """The server may speak another revision since."""
        if _of_other_era(error):
            self._forget(line)

    async def _negotiated(self, bearer: str = "") -> Line:
        modern = Line(version=LATEST_MODERN_VERSION, bearer=bearer)
        if self._protocol == LATEST_MODERN_VERSION:
            return modern
        if self._protocol == "auto" and await self._speaks(modern):
            return modern
        offered = LATEST_HANDSHAKE_VERSION if self._protocol == "auto" else self._protocol
        params: dict[str, Json] = {"protocolVersion": offered, "capabilities": {}, "clientInfo": CLIENT}
        answer = await self._asked(Line(bearer=bearer), "initialize", params)
        version = answer.result.get("protocolVersion")
        if version not in (SPOKEN if self._protocol == "auto" else (self._protocol,)):
            raise Garbage("the server speaks no MCP revision that we were told to speak")
        line = Line(version=str(version), session=answer.session, bearer=bearer)
        with contextlib.suppress(Rejected):  # there is nothing in it that a server could miss
            await self._wired().tell(INITIALIZED, line.headers("notifications/initialized"))
        return line

    async def _speaks(self, modern: Line) -> bool:
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

    async def _asked(self, line: Line, method: str, params: Mapping[str, Json]) -> Answer:
        request_id, wire = self._id("gateway"), self._wired()
        body = request(line, request_id, method, params)
        try:
            return await wire.ask(request_id, body, wire.head(line.headers(method)))
        except Rejected as error:
            self._doubted(line, error)
            raise

    def _id(self, about: str) -> str:
        """An id that no other request of ours ever had: a call and its lookup may go by one session."""
        return f"{about}-{next(self._numbers)}"

    def _wired(self) -> Wire:
        if self._closed:
            raise NotSent("the door is closed")
        if self._wire is None:  # here and not before: its connections belong to the running loop
            self._wire = Wire(self._url, timeout=self._timeout, response_bytes=self._bytes)
        return self._wire


async def _ended(wire: Wire, line: Line) -> None:
    """End a session, as far as the server lets us."""
    with contextlib.suppress(WireError, TimeoutError):
        async with asyncio.timeout(1):
            await wire.end(line.named)


def _of_other_era(error: Rejected) -> bool:
    """Whether a refusal may mean that the server speaks another revision."""
    return error.status not in (401, 403, 429) and error.status < 500 and error.code in _OTHER_ERA


def _require_safe(url: str, insecure_http: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ConfigInvalid("an upstream's url is not a plain http(s) URL", hint="no user, query or fragment in it")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1") and not insecure_http:
        raise ConfigInvalid(f"`{url}` is not https", hint="use https; only loopback addresses may be http")
