"""A reverse proxy on loopback that adds a bearer token: the conformance suite has no way to send one.

Bytes go through as they are, for the suite tries odd headers on purpose. Only three kinds of header are touched: the
token is added, the proxy's own address is exchanged for the gateway's in Host and Origin (any other is left for the
gateway to refuse), and each connection carries one request, so that no second head has to be found in the stream.
"""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

__all__ = ["bearer_shim"]

_HEAD_BYTES = 64 * 1024
_DROPPED = re.compile(rb"^(?:connection|keep-alive|authorization)[ \t]*:[^\r\n]*\r\n", re.I | re.M)
_NAMED = re.compile(rb"^(?P<name>host|origin)(?P<gap>[ \t]*:[^\r\n]*)\r\n", re.I | re.M)


class _Exchange(socketserver.BaseRequestHandler):
    server: _Shim

    def handle(self) -> None:
        head, rest = self._head()
        if not head:
            return
        with socket.create_connection(self.server.to) as gateway:
            gateway.sendall(self.server.changed(head) + rest)
            sender = threading.Thread(target=_pumped, args=(self.request, gateway), daemon=True)
            sender.start()
            _pumped(gateway, self.request)
            with suppress(OSError):
                self.request.shutdown(socket.SHUT_RD)
            sender.join(5)

    def _head(self) -> tuple[bytes, bytes]:
        data = b""
        while b"\r\n\r\n" not in data and len(data) < _HEAD_BYTES:
            chunk = self.request.recv(1 << 16)
            if not chunk:
                return b"", b""
            data += chunk
        head, end, rest = data.partition(b"\r\n\r\n")
        return head + end, rest


class _Shim(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, to: tuple[str, int], token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Exchange)
        self.to, self._token = to, token.encode("ascii")

    def changed(self, head: bytes) -> bytes:
        line, _, headers = head.partition(b"\r\n")
        ours = b"127.0.0.1:%d" % self.server_address[1]
        theirs = b"%s:%d" % (self.to[0].encode(), self.to[1])
        headers = _NAMED.sub(lambda found: found[0].replace(ours, theirs), _DROPPED.sub(b"", headers))
        return b"".join((line, b"\r\nAuthorization: Bearer ", self._token, b"\r\nConnection: close\r\n", headers))


def _pumped(source: socket.socket, target: socket.socket) -> None:
    """All bytes of one direction, then its end."""
    with suppress(OSError):
        while chunk := source.recv(1 << 16):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def bearer_shim(url: str, token: str) -> Iterator[str]:
    """The address that `url` has for those who bring no token."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    with _Shim((parts.hostname, parts.port), token) as shim:
        thread = threading.Thread(target=shim.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{shim.server_address[1]}{parts.path}"
        finally:
            shim.shutdown()
            thread.join()
