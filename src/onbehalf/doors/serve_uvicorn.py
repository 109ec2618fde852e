"""The public and the admin port, served by uvicorn in one event loop until the process is told to end.

Ports are bound before anything is said to run. SIGTERM and SIGINT let calls in flight end; SIGHUP reloads.
Trust: this process's signals come from its own user or root.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from onbehalf.doors.inbound_head import HEAD_SECONDS, BoundedHttp
from onbehalf.doors.inbound_tls import BoundedTls
from onbehalf.errors import ConfigInvalid

__all__ = ["Port", "bind", "serve"]

_log = logging.getLogger(__name__)
_GRACE_SECONDS = 2
_CONNECTIONS = 10_000
_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 65
_GOODBYE_SECONDS = 2.0
_STARTUP_FAILURE = 3

App = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An app and where it is served; with `tls` nothing is answered there in plain text."""

    app: App
    bound: socket.socket
    tls: ssl.SSLContext | None = None


class _Server(uvicorn.Server):
    """One of several servers in a process: the signals are not its own to catch."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _TlsServer(_Server):
    """As uvicorn's own, with bounds on a connection's first and last words that it lacks."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext) -> None:
        super().__init__(config)
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(_STARTUP_FAILURE)
        loop, config = asyncio.get_running_loop(), self.config

        def connected() -> asyncio.Protocol:
            return BoundedTls(config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop)

        self.servers = [
            await loop.create_server(
                connected, sock=bound, backlog=_BACKLOG, ssl=self._tls,
                ssl_handshake_timeout=HEAD_SECONDS, ssl_shutdown_timeout=_GOODBYE_SECONDS,
            )
            for bound in sockets or ()
        ]  # fmt: skip
        self.started = True


def bind(address: str) -> socket.socket:
    """A listening socket for `host:port`, `[v6]:port` included. Raises ConfigInvalid."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise ConfigInvalid(f"`{address}` is no listening address", hint="write host:port, such as 127.0.0.1:8100")
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, int(port)))
        bound.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:  # UnicodeError: a host that no name can be
        bound.close()
        raise ConfigInvalid(
            f"nothing can listen on `{address}`: {getattr(error, 'strerror', None) or error}",
            hint="is another gateway running there? `listen` and `admin` in onbehalf.yaml say where",
        ) from error
    bound.setblocking(False)
    return bound


async def serve(
    ports: Sequence[Port],
    *,
    reload: Callable[[], Awaitable[None]],
    ready: Callable[[], None],
    end_seconds: float,
) -> None:
    """Serve every app on its port until SIGTERM or SIGINT. `ready` is called once all of them answer.

    Calls in flight then have `end_seconds` to end, after which they are cancelled; a second signal does not wait.
    """
    loop = asyncio.get_running_loop()
    servers = [_server(port, end_seconds) for port in ports]
    reloads: set[asyncio.Task[None]] = set()

    def stop() -> None:
        for server in servers:
            server.should_exit = True

    def end() -> None:
        for server in servers:
            server.force_exit = server.should_exit  # asked twice: do not wait for calls in flight
        stop()

    def again() -> None:
        task = asyncio.ensure_future(_run(reload))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number, action in ((signal.SIGTERM, end), (signal.SIGINT, end), (signal.SIGHUP, again)):
        loop.add_signal_handler(number, action)
    tasks = [
        asyncio.create_task(server.serve(sockets=[port.bound])) for server, port in zip(servers, ports, strict=True)
    ]
    for task in tasks:
        task.add_done_callback(lambda _: stop())  # if one server ends, for whatever reason, all do
    while not all(server.started for server in servers) and not any(task.done() for task in tasks):  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # uvicorn has a flag for this, and no event
    if all(server.started for server in servers):
        ready()
    await asyncio.gather(*tasks)


async def _run(reload: Callable[[], Awaitable[None]]) -> None:
    try:
        await reload()
    except Exception:  # else it would be lost with its task; what stood before stands
        _log.exception("the reload was broken off")


def _server(port: Port, end_seconds: float) -> _Server:
    config = _config(port.app, end_seconds)
    return _Server(config) if port.tls is None else _TlsServer(config, port.tls)


def _config(app: App, end_seconds: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=BoundedHttp,
        ws="none",
        lifespan="on",
        proxy_headers=False,  # no header a client sends says who or where it is
        server_header=False,
        date_header=False,
        access_log=False,
        log_config=None,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(end_seconds) + _GRACE_SECONDS,
        limit_concurrency=_CONNECTIONS,
    )
