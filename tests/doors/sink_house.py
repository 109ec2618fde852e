"""A ledger to be followed, and servers on loopback that take what is sent: HTTP, and syslog as RFC 6587 counts it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from explain import viewed
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.sink_source import Cursor, Source
from onbehalf.explain.seal import LedgerKeys
from onbehalf.explain.views import View, read_json_line
from onbehalf.model import AuditEntry, Json, UnixTime

LOG = viewed.LOG


@dataclass(kw_only=True)
class Book:
    """A ledger's file with its keys. `write` adds calls: an intent and its outcome each."""

    directory: Path
    keys: LedgerKeys

    @property
    def path(self) -> Path:
        return self.directory / "ledger.db"

    def write(self, calls: int, *, at: int = viewed.AT, facts: dict[str, Json] | None = None) -> None:
        asyncio.run(self._write(calls, at, facts or {}))

    async def _write(self, calls: int, at: int, facts: dict[str, Json]) -> None:
        ledger = SqliteLedger.open(self.path, keys=self.keys, origin=LOG, now=lambda: UnixTime(at))
        try:
            for number in range(calls):
                call = f"call_{number:032x}"
                intent = AuditEntry(kind="intent", call=call, at=UnixTime(at), facts={**viewed.INTENT, **facts})
                receipt = await ledger.append(intent)
                place: Json = {"index": receipt.index, "leaf": receipt.leaf}
                told = {**viewed.OUTCOME, "intent": place}
                await ledger.append(AuditEntry(kind="outcome", call=call, at=UnixTime(at), facts=told))
        finally:
            ledger.close()

    @contextlib.contextmanager
    def source(self, name: str = "one", *, payload: bool = False) -> Iterator[Source]:
        cursor = Cursor(self.directory / "sinks" / f"{name}.json", log=LOG)
        try:
            yield Source(self.path, keys=self.keys, payload=payload, cursor=cursor)
        finally:
            cursor.close()


def book(directory: Path, *, calls: int = 3) -> Book:
    made = Book(directory=directory, keys=open_ledger_keys(directory / "keys", origin=LOG))
    made.write(calls)
    return made


def indices(text: bytes) -> list[int]:
    """Which records stand in lines; each is read back, and so proven to be whole."""
    found = [line for line in text.split(b"\n") if line and not line.startswith(b'{"batch"')]
    return [read(line).index for line in found]


def read(line: bytes) -> View:
    return read_json_line(line)


@dataclass(kw_only=True)
class Taker:
    """An HTTP server. It answers with `answers` in turn, and then with 200; it `holds` requests while that is set."""

    url: str = ""
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    holding: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def taking() -> Iterator[Taker]:
    taker = Taker()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            taker.got.append(({key.lower(): value for key, value in self.headers.items()}, body))
            taker.arrived.set()
            if taker.holding.is_set():
                taker.go_on.wait(60)
            status, answer = taker.answers.pop(0) if taker.answers else (200, b"{}")
            with contextlib.suppress(OSError):
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("location", "/elsewhere")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    taker.url = f"http://127.0.0.1:{server.server_port}/records"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield taker
    finally:
        taker.go_on.set()
        server.shutdown()
        server.server_close()


@dataclass(kw_only=True)
class Counted:
    """A TCP server that reads messages by the length before each. `closes_after` bytes of a connection it hangs up,
    and closes one that has brought `closes_at` messages once it `may_close`."""

    port: int
    messages: list[bytes] = field(default_factory=list)
    closes_after: int = -1
    closes_at: int = 0
    may_close: threading.Event = field(default_factory=threading.Event)
    errors: list[str] = field(default_factory=list)


@contextlib.contextmanager
def counting(context: ssl.SSLContext | None = None) -> Iterator[Counted]:
    listening = socket.create_server(("127.0.0.1", 0))
    counted = Counted(port=listening.getsockname()[1])

    def one(plain: socket.socket) -> None:
        try:
            connection = context.wrap_socket(plain, server_side=True) if context else plain
            with connection, connection.makefile("rb") as stream:
                if counted.closes_after >= 0:
                    stream.read(counted.closes_after)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    return
                brought = 0
                while digits := _digits(stream):
                    counted.messages.append(stream.read(int(digits)))
                    brought += 1
                    if brought == counted.closes_at:
                        counted.may_close.wait(10)
                        return
        except (OSError, ValueError) as error:
            counted.errors.append(str(error))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield counted
    finally:
        listening.close()


def _digits(stream: Any) -> bytes:
    found = b""
    while (each := stream.read(1)) not in (b"", b" "):
        found += each
    return found


def body(request: tuple[dict[str, str], bytes]) -> Any:
    return json.loads(request[1])
