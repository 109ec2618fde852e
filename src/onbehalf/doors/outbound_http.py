"""HTTP/1.1 exchanges on the event loop's own connections, kept between calls; parsed by httptools, TLS by Python's ssl.

For the path of a call: a library's client costs more there than all else that a call does (decision 7). What is asked
now and then goes by it too (outbound_clients.py), so that a gateway needs no second client. One exchange at a time on a
connection, sent once and never again. No redirects, no proxy, no cookies, no unpacking: there is no code for them. Must
not know what is sent or what an answer means.

Trust: a server can make us wait until the deadline, keep `_HEAD_BYTES` of its head and `_AHEAD_BYTES` of a body that
nobody reads. What it sends beyond its one answer ends the connection.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Iterable
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

__all__ = ["ConnectFailed", "DeadlinePassed", "HttpClient", "HttpFailed", "Reply", "trusting"]

_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 4.0
"""Under the five seconds after which common servers close an idle connection: a call on a closing one may be lost."""
_HEAD_BYTES = 64 * 1024
_HEADERS = 128
_AHEAD_BYTES = 256 * 1024
_KEPT = 256
_NEVER = float("inf")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


class HttpFailed(Exception):
    """The request may have left, and there is no whole answer."""


class ConnectFailed(HttpFailed):
    """Nothing was sent."""


class DeadlinePassed(HttpFailed):
    """The request may have left; there was no whole answer in time."""


class Reply:
    """The answer to one request, from its head on. `headers` have lower-case names; one that stands twice is joined."""

    __slots__ = ("_connection", "client", "headers", "pieces", "size", "status")

    def __init__(self, connection: _Connection, status: int, headers: dict[str, str]) -> None:
        self._connection = connection
        self.client: HttpClient | None = None
        self.pieces: list[bytes] = []
        """What has come and was not taken, of `size` bytes."""
        self.size = 0
        self.status = status
        self.headers = headers

    async def piece(self) -> bytes | None:
        """Some more of the body, None after its end. Raises HttpFailed where it ends too early."""
        while not self.pieces:
            if self._connection.whole:
                return None
            await self._connection.more()
        return self._taken()

    async def whole(self, limit: int) -> bytes | None:
        """The rest of the body, None where it is, or says that it is, larger than `limit` bytes. Raises HttpFailed as
        `piece` does."""
        if self._connection.whole:  # as most are that came with their head
            return self._taken() if self.size <= limit else None
        declared = self.headers.get("content-length", "")
        if declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
            return None
        parts, size = [], 0
        while (piece := await self.piece()) is not None:
            size += len(piece)
            if size > limit:
                return None
            parts.append(piece)
        return b"".join(parts)

    def close(self) -> None:
        """Give the connection back. Where the end of the body was not reached, it is dropped."""
        client, self.client = self.client, None
        if client is not None:
            client.put(self._connection)

    def _taken(self) -> bytes:
        found = b"".join(self.pieces)
        self.pieces.clear()
        self.size = 0
        self._connection.flow()
        return found


class HttpClient:
    """Exchanges with one server, within `seconds` each. Used in one event loop, ended by `aclose`."""

    def __init__(self, url: str, *, seconds: float, tls: ssl.SSLContext | None = None) -> None:
        """`tls` is by default the platform's trust store, host names checked. Raises ValueError for no plain URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http(s) URL")
        self._tls = (tls or trusting()) if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port or (443 if self._tls else 80)
        self._seconds = seconds
        # Connecting ends well before the deadline, or a call that never left could not be told from one that did.
        self._connect_seconds = min(_CONNECT_SECONDS, seconds / 2)
        path = _visible(f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/")
        named = f"[{self._host}]" if ":" in self._host else self._host
        host = named if parts.port is None else f"{named}:{parts.port}"
        self._target = f" {path} HTTP/1.1\r\nhost: {_visible(host)}\r\nuser-agent: onbehalf\r\n".encode("ascii")
        self._free: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._closed = False

    def send(self, method: str, headers: Iterable[tuple[str, str]], body: bytes | None = None) -> Awaitable[Reply]:
        """As `post`, with a head made for this request."""
        return self.post(self.head(method, headers), (), body)

    def head(self, method: str, headers: Iterable[tuple[str, str]]) -> bytes:
        """The beginning of requests, checked once for all of them. Raises ValueError as `post` does."""
        return method.encode("ascii") + self._target + _lines(headers)

    async def post(self, head: bytes, headers: Iterable[tuple[str, str]], body: bytes | None) -> Reply:
        """Send one request, once; the answer, from its head on, which is the caller's to `close`.

        `head` is one of `head`; `headers` are those that this request has besides. Raises HttpFailed, as may reading
        the answer, and ValueError for a header value that is not visible ASCII.
        """
        lines = _lines(headers)
        whole = head + lines + (b"\r\n" if body is None else b"content-length: %d\r\n\r\n%b" % (len(body), body))
        now = asyncio.get_running_loop().time()
        connection = self._take(now) or await self._connected()
        self._busy.add(connection)
        try:
            connection.begin(whole, now + self._seconds)
            while (reply := connection.reply) is None:
                await connection.more()
        except BaseException:
            self.put(connection)
            raise
        reply.client = self
        return reply

    def put(self, connection: _Connection) -> None:
        """Take a connection back after an exchange; only Reply and `send` do so."""
        self._busy.discard(connection)
        if not connection.release() or self._closed or len(self._free) >= _KEPT:
            connection.drop()
            return
        now = connection.since = connection.loop.time()
        self._free.append(connection)
        while self._free and now - self._free[0].since >= _IDLE_SECONDS:
            self._free.pop(0).drop()

    async def aclose(self) -> None:
        """Close all connections; exchanges under way fail."""
        self._closed = True
        for connection in (*self._free, *self._busy):
            connection.drop()
        self._free.clear()

    def _take(self, now: float) -> _Connection | None:
        """The connection that was used last, if it is fresh; all older ones are as stale as it, or staler."""
        while self._free:
            connection = self._free.pop()
            if connection.usable and now - connection.since < _IDLE_SECONDS:
                return connection
            connection.drop()
        return None

    async def _connected(self) -> _Connection:
        if self._closed:
            raise ConnectFailed("the client is closed")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, protocol = await loop.create_connection(
                    lambda: _Connection(loop), self._host, self._port, ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )  # fmt: skip
        except (OSError, ssl.SSLError, TimeoutError, UnicodeError) as error:  # UnicodeError: a host that is no name
            raise ConnectFailed("the server cannot be reached") from error
        return protocol


class _Connection(asyncio.Protocol):
    """One connection and the one exchange under way on it, if any."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.since = 0.0
        self.whole = True
        """Whether the answer has come to its end; nothing may come before another request."""
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)  # INVARIANT: set before anything is sent
        self._parser: Any = httptools.HttpResponseParser(self)  # Any: it has no types
        self.reply: Reply | None = None
        """The answer, as soon as its head is there."""
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until = _NEVER
        self._fault: HttpFailed | None = None
        self._headers: dict[str, str] = {}
        self._head = self._fields = 0
        self._paused = self._keep = self._gone = False

    # --- for the client ---------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return not self._gone and not self._transport.is_closing()

    def begin(self, request: bytes, until: float) -> None:
        """Send; the answer is to be whole by `until`, which is later for each request."""
        self.reply, self._headers, self._head, self._fields = None, {}, 0, 0
        self.whole = self._keep = False
        self._until = until
        if self._timer is None:  # one that is set already goes off before this exchange is late, and is set anew then
            self._timer = self.loop.call_at(until, self._look)
        self._transport.write(request)

    def more(self) -> asyncio.Future[None]:
        """What to wait for until something came. Raises HttpFailed where nothing more will."""
        if self._fault is not None:
            raise self._fault
        self._waiter = self.loop.create_future()
        return self._waiter

    def flow(self) -> None:
        """Read on, where reading was held up by a body that nobody took."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def release(self) -> bool:
        """End the exchange. Whether the connection can take another."""
        self.reply, self._until = None, _NEVER
        return self.whole and self._keep and not self._gone and not self._paused

    def drop(self) -> None:
        """Close at once."""
        self._fail(HttpFailed("the connection was closed"))

    # --- asyncio.Protocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.whole:  # nobody asked: the next answer would be taken for another's
            self.drop()
            return
        if self.reply is None:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, _Refused, UnicodeError):
            self._fail(HttpFailed("the answer is not HTTP/1.1"))
            return
        if self.reply is not None:
            self._wake()
        elif self._head > _HEAD_BYTES:
            self._fail(HttpFailed("the head of the answer is too large"))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._parser = None  # it holds us
        unframed = not self._headers.keys() & {"content-length", "transfer-encoding"}
        if exc is None and self.reply is not None and unframed and not self.whole:
            self.whole = True  # RFC 9112 section 6.3: a body without a length ends with the connection
            self._wake()
        elif not self.whole:
            self._fail(HttpFailed("the connection was lost"))

    # --- httptools ----------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("ascii").lower(), value.decode("latin-1")
        self._fields += 1
        if self._fields > _HEADERS or (key in self._headers and key in _ONCE):
            raise _Refused
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        if self.whole:
            raise _Refused  # a second answer
        status = self._parser.get_status_code()
        if status < 200:  # what an interim answer says is of no use (RFC 9110 section 15.2); nobody asked to upgrade
            self._headers = {}
            return
        if self._headers.keys() >= {"content-length", "transfer-encoding"}:
            raise _Refused  # RFC 9112 section 6.3: two lengths are an attack
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            raise _Refused
        self.reply = Reply(self, status, self._headers)

    def on_body(self, piece: bytes) -> None:
        reply = self.reply
        if reply is None:
            return
        reply.pieces.append(piece)
        reply.size += len(piece)
        if reply.size >= _AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.reply is None:
            return  # that was an interim answer
        self.whole, self._keep = True, self._parser.should_keep_alive()

    # --- within -------------------------------------------------------------------------------

    def _look(self) -> None:
        self._timer = None
        if self._until <= self.loop.time():
            self._fail(DeadlinePassed("there was no whole answer in time"))
        elif self._until < _NEVER:
            self._timer = self.loop.call_at(self._until, self._look)

    def _fail(self, fault: HttpFailed) -> None:
        if self._fault is None:
            self._fault = fault
        self._end()
        self._transport.abort()
        self._wake()

    def _end(self) -> None:
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        """Let who waits look again, at what came or at the fault."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class _Refused(Exception):
    """Raised within the parser: the answer may not be read on."""


_PRINTABLE = bytes(range(0x20, 0x7F))
_ONCE = frozenset({"content-length", "transfer-encoding", "content-type", "content-encoding", "mcp-session-id"})


def _lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Headers as they are sent. Raises ValueError for what is not visible ASCII."""
    lines = [*map(": ".join, headers)]
    if "".join(lines).encode("utf-8", "surrogatepass").translate(None, _PRINTABLE):
        raise ValueError("a header is not visible ASCII")
    return "\r\n".join((*lines, "")).encode("ascii")


def _visible(text: str) -> str:
    """Text that can stand in the first lines of a request. Raises ValueError."""
    if _VISIBLE.fullmatch(text) is None:
        raise ValueError("the URL is not visible ASCII")
    return text


def trusting() -> ssl.SSLContext:
    """TLS to whom the platform's trust store vouches for, host names checked. Reading the store takes milliseconds."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context
