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
from collections import deque
from collections.abc import Iterable
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
_VISIBLE = re.compile(r"[\x21-\x7e]+")


class HttpFailed(Exception):
    """The request may have left, and there is no whole answer."""


class ConnectFailed(HttpFailed):
    """Nothing was sent."""


class DeadlinePassed(HttpFailed):
    """The request may have left; there was no whole answer in time."""


class Reply:
    """The answer to one request, from its head on. `headers` have lower-case names; one that stands twice is joined."""

    __slots__ = ("_connection", "_pieces", "_size", "client", "headers", "status")

    def __init__(self, connection: _Connection, status: int, headers: dict[str, str]) -> None:
        self._connection = connection
        self.client: HttpClient | None = None
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self.status = status
        self.headers = headers

    async def piece(self) -> bytes | None:
        """Some more of the body, None after its end. Raises HttpFailed where it ends too early."""
        connection = self._connection
        while not self._pieces:
            if connection.whole:
                return None
            await connection.wait()
        found = b"".join(self._pieces) if len(self._pieces) > 1 else self._pieces[0]
        self._pieces.clear()
        self._size = 0
        connection.flow()
        return found

    def close(self) -> None:
        """Give the connection back. Where the end of the body was not reached, it is dropped."""
        client, self.client = self.client, None
        if client is not None:
            client.put(self._connection)

    def take(self, piece: bytes) -> bool:
        """Keep a piece until it is asked for. Whether there is room for more."""
        self._pieces.append(piece)
        self._size += len(piece)
        return self._size < _AHEAD_BYTES


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

    async def send(self, method: str, headers: Iterable[tuple[str, str]], body: bytes | None = None) -> Reply:
        """Send one request, once; the answer, from its head on, which is the caller's to `close`.

        Raises HttpFailed, as may `Reply.piece`, and ValueError for a header value that is not visible ASCII.
        """
        whole = self._request(method, headers, body)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds
        connection = self._take(loop.time()) or await self._connected()
        self._busy.add(connection)
        try:
            reply = await connection.exchange(whole, until)
        except BaseException:
            self.put(connection)
            raise
        reply.client = self
        return reply

    def put(self, connection: _Connection) -> None:
        """Take a connection back after an exchange; only Reply and `send` do so."""
        now = connection.loop.time()
        self._busy.discard(connection)
        if not connection.release() or self._closed or len(self._free) >= _KEPT:
            connection.drop()
            return
        connection.since = now
        self._free.append(connection)
        while self._free and now - self._free[0].since >= _IDLE_SECONDS:
            self._free.pop(0).drop()

    async def aclose(self) -> None:
        """Close all connections; exchanges under way fail."""
        self._closed = True
        for connection in (*self._free, *self._busy):
            connection.drop()
        self._free.clear()

    def _request(self, method: str, headers: Iterable[tuple[str, str]], body: bytes | None) -> bytes:
        lines = [f"{name}: {value}" for name, value in headers]
        if body is not None:
            lines.append(f"content-length: {len(body)}")
        text = "\r\n".join(lines)
        if not text.isascii() or not "".join(lines).isprintable():
            raise ValueError("a header is not visible ASCII")
        return b"%b%b%b\r\n\r\n%b" % (method.encode("ascii"), self._target, text.encode("ascii"), body or b"")

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
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reply: Reply | None = None
        self._fault: HttpFailed | None = None
        self._headers: dict[str, str] = {}
        self._head = self._fields = 0
        self._paused = self._keep = self._gone = False

    # --- for the client ---------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return not self._gone and not self._transport.is_closing()

    async def exchange(self, request: bytes, until: float) -> Reply:
        """Send and wait for the head of the answer. Raises HttpFailed."""
        self._reply, self._headers, self._head, self._fields = None, {}, 0, 0
        self.whole = self._keep = False
        self._timer = self.loop.call_at(until, self._late)
        self._transport.write(request)
        while (reply := self._begun()) is None:
            await self.wait()
        return reply

    async def wait(self) -> None:
        """Until something came. Raises HttpFailed where nothing more will."""
        if self._fault is not None:
            raise self._fault
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def flow(self) -> None:
        """Read on, where reading was held up by a body that nobody took."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def release(self) -> bool:
        """End the exchange. Whether the connection can take another."""
        if self._timer is not None:
            self._timer.cancel()
        self._reply = self._timer = None
        return self.whole and self._keep and self._fault is None and self.usable

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
        if self._reply is None:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, _Refused, UnicodeError):
            self._fail(HttpFailed("the answer is not HTTP/1.1"))
            return
        if self._reply is None and self._head > _HEAD_BYTES:
            self._fail(HttpFailed("the head of the answer is too large"))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._parser = None  # it holds us
        unframed = not self._headers.keys() & {"content-length", "transfer-encoding"}
        if exc is None and self._reply is not None and unframed and not self.whole:
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
        self._reply = Reply(self, status, self._headers)
        self._wake()

    def on_body(self, piece: bytes) -> None:
        if self._reply is None:
            return
        if not self._reply.take(piece) and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self._reply is None:
            return  # that was an interim answer
        self.whole, self._keep = True, self._parser.should_keep_alive()
        self._wake()

    # --- within -------------------------------------------------------------------------------

    def _begun(self) -> Reply | None:
        return self._reply

    def _late(self) -> None:
        self._fail(DeadlinePassed("there was no whole answer in time"))

    def _fail(self, fault: HttpFailed) -> None:
        if self._fault is None:
            self._fault = fault
        self._gone = True
        self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if self._fault is not None:
            self._waiter.set_exception(self._fault)
        else:
            self._waiter.set_result(None)


class _Refused(Exception):
    """Raised within the parser: the answer may not be read on."""


_ONCE = frozenset({"content-length", "transfer-encoding", "content-type", "content-encoding", "mcp-session-id"})


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
