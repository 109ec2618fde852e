"""Syslog: messages of RFC 5424, each with its length before it (RFC 5425 over TLS, RFC 6587 section 3.4.1 over TCP).

The protocol has no answer. A batch counts as delivered when the peer's machine has acknowledged every byte of it and
the connection still stands; what its daemon then loses, the indices and the batches' marks show. There is no UDP: it
loses silently. Must not read the record.

Trust: over TLS the peer is who its certificate says. Over plain TCP whoever sits between is the peer.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from onbehalf.errors import ConfigInvalid, SinkUnavailable
from onbehalf.explain.views import View
from onbehalf.explain.views_batch import Batch, Form, batch_mark, narrowed
from onbehalf.explain.views_said import said

__all__ = ["Syslog", "message"]

_SIOCOUTQ = 0x5411
_WARNING, _NOTICE, _INFO = 4, 5, 6


class Syslog:
    """One peer. A connection is kept between batches."""

    def __init__(
        self, address: str, form: Form, *, plaintext: bool, authorities: Path | None, facility: int, seconds: float,
        message_bytes: int,
    ) -> None:  # fmt: skip
        """Raises ConfigInvalid for authorities that cannot be read."""
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._form, self._facility, self._seconds, self._most = form, facility, seconds, message_bytes
        self._name = socket.gethostname()
        self._context: ssl.SSLContext | None = None
        self._socket: socket.socket | None = None
        if not plaintext:
            try:
                self._context = ssl.create_default_context(cafile=authorities)
            except (OSError, ssl.SSLError) as error:
                raise ConfigInvalid(f"`authorities` cannot be read: {error}") from error

    def deliver(self, batch: Batch) -> None:
        """Raises SinkUnavailable; then the whole batch is sent again, on a new connection."""
        data = b"".join(map(_counted, self._messages(batch)))
        until = time.monotonic() + self._seconds
        try:
            connection = self._connected(until)
            connection.settimeout(max(0.001, until - time.monotonic()))
            connection.sendall(data)
            self._drained(connection, until)
        except (OSError, ValueError) as error:  # ssl's errors are OSErrors or ValueErrors
            self.close()
            raise SinkUnavailable(f"the syslog server does not take it: {error}") from error

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _messages(self, batch: Batch) -> list[bytes]:
        made = [self._message(view) for view in batch.views]
        at = batch.views[-1].leaf.at
        mark = batch_mark(batch, self._form)
        return [*made, message(mark, at=at, name=self._name, kind="batch", priority=self._facility * 8 + _INFO)]

    def _message(self, view: View) -> bytes:
        flat = said(view)
        severity = _WARNING if flat.status == "unknown" else _NOTICE if flat.effect == "deny" else _INFO
        one = {
            "at": view.leaf.at,
            "name": self._name,
            "kind": view.leaf.kind,
            "priority": self._facility * 8 + severity,
        }
        made = message(self._form.line(view), **one)  # type: ignore[arg-type]  # they are these
        if len(made) > self._most:
            made = message(self._form.line(narrowed(view)), **one)  # type: ignore[arg-type]  # they are these
        return made

    def _connected(self, until: float) -> socket.socket:
        if self._socket is not None and _closed(self._socket):
            self.close()
        if self._socket is None:
            made = socket.create_connection((self._host, self._port), timeout=max(0.001, until - time.monotonic()))
            try:
                self._socket = self._context.wrap_socket(made, server_hostname=self._host) if self._context else made
            except BaseException:
                made.close()
                raise
        return self._socket

    def _drained(self, connection: socket.socket, until: float) -> None:
        """Wait until the peer's machine has everything, and see that it did not hang up."""
        while sys.platform == "linux":
            import fcntl

            left = struct.unpack("i", fcntl.ioctl(connection.fileno(), _SIOCOUTQ, b"\0" * 4))[0]
            if not left:
                break
            if time.monotonic() > until:
                raise TimeoutError("it was not acknowledged in time")
            time.sleep(0.005)
        if _closed(connection):
            raise ConnectionResetError("the server closed the connection")


def message(text: bytes, *, at: int, name: str, kind: str, priority: int) -> bytes:
    """One message of RFC 5424. `text` is UTF-8, and goes without the mark that would say so (MSG-ANY)."""
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    head = f"<{priority}>1 {when} {_word(name, 255)} onbehalf - {_word(kind, 32)} "
    return head.encode() + b'[origin software="onbehalf"] ' + text


def _word(text: str, most: int) -> str:
    """A header field: printable ASCII without blanks, `-` for nothing (RFC 5424 section 6)."""
    return "".join(each for each in text if "!" <= each <= "~")[:most] or "-"


def _counted(data: bytes) -> bytes:
    return b"%d %b" % (len(data), data)


def _closed(connection: socket.socket) -> bool:
    """Whether the peer hung up. It says nothing else, so whatever can be read is that."""
    readable, _, _ = select.select([connection], [], [], 0)
    if not readable:
        return False
    if isinstance(connection, ssl.SSLSocket):  # session tickets come in of themselves
        connection.setblocking(False)
        try:
            return not connection.recv(1)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True
        finally:
            connection.setblocking(True)
    return True
