"""uvicorn's HTTP protocol with the bounds on request heads that it lacks, answers in one piece, and fewer timers.

An app is asked only when a head is whole, so an endless one must end here. Must not look into a request.

Trust: whoever can connect can cost one connection, `HEAD_BYTES` of memory and `HEAD_SECONDS` until a head is whole.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["BoundedHttp", "JoinedWrites"]

HEAD_BYTES = 32 * 1024  # a bearer is at most 8 KiB, and MCP mirrors some arguments
HEAD_SECONDS = 10.0
HEADERS = 128

_log = logging.getLogger(__name__)


class JoinedWrites:
    """What one answer is written to: its head leaves with the first of its body, as one packet and one waking of the
    client, or at the end of what the loop is at, whichever comes first."""

    __slots__ = ("_head", "_loop", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._head: bytes | None = None
        self._loop = loop
        self._transport = transport
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """The first is the head."""
        if self._head is None:
            self._head = data
            self._loop.call_soon(self._flush)
        elif self._head:
            data, self._head = self._head + data, b""
            self._transport.write(data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close after what was written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, refusing a head that is too large, has too many headers, or is not whole in time."""

    head_seconds = HEAD_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._head_bytes = 0
        self._in_head = True
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch_head()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # refused already; what still arrives is not worth parsing
        self._head_bytes += len(data)
        self._idle_since = None
        super().data_received(data)
        if self._in_head and self._head_bytes:
            if self._head_bytes > HEAD_BYTES:
                self._refuse(b"431 Request Header Fields Too Large")
            else:
                self._watch_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._unwatch_head()
        if len(self.headers) > HEADERS or (self._head_bytes > HEAD_BYTES and self._size() > HEAD_BYTES):
            self._refuse(b"431 Request Header Fields Too Large")
        if not self.transport.is_closing():
            super().on_headers_complete()
            if self.cycle is not None:
                self.cycle.transport = cast("asyncio.Transport", JoinedWrites(self.cycle.transport, self.loop))

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        if not self.transport.is_closing():
            super().on_message_complete()

    # uvicorn sets a timer after each answer and cancels it with the next request. Here one that is set stays, and looks
    # when it goes off how long nothing came.

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()  # which sets no timer then
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_idle_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return  # the end of what is under way sets it again
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._look_idle_in(left)
        else:
            super().timeout_keep_alive_handler()

    def _look_idle_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """Not with each request."""

    def _size(self) -> int:
        """Of the head alone: what came with it may be body."""
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _watch_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self._refuse, b"408 Request Timeout")

    def _unwatch_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: bytes) -> None:
        """Answer without the app and close. Behind an answer still under way, only close: it cannot be told apart."""
        self._unwatch_head()
        if self.transport.is_closing():
            return
        _log.info("refused a request head with %s", status[:3].decode())
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
