"""The admin door: health, readiness and metrics on a port of its own.

Read-only, and without any name of a person, tool argument or token. Must not reach into the house: it is given
callables. Imports inbound_wire, and no other door.

Trust: no authentication; whoever reaches this port sees counts and the state of the parts, so it must not face clients.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from onbehalf.doors.inbound_wire import Receive, Scope, Send, send_json

__all__ = ["AdminApp", "Check"]

Check = Callable[[], "str | Awaitable[str]"]
"""Says "" when a part works, else why not in a few words."""

_log = logging.getLogger(__name__)


class AdminApp:
    """The one ASGI app of the admin port. `/healthz` is the process, `/readyz` every part, `/metrics` the counts."""

    def __init__(
        self,
        *,
        ready: Mapping[str, Check],
        alive: Mapping[str, Check],
        metrics: CollectorRegistry,
        check_seconds: float = 2.0,
    ) -> None:
        self._checks = {"/healthz": dict(alive), "/readyz": dict(ready)}
        self._metrics = metrics
        self._seconds = check_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["method"] not in ("GET", "HEAD"):
            await send_json(send, 405, {"error": "method_not_allowed"}, ((b"allow", b"GET, HEAD"),))
        elif scope["path"] in self._checks:
            await self._health(self._checks[scope["path"]], send)
        elif scope["path"] == "/metrics":
            await self._expose(send)
        else:
            await send_json(send, 404, {"error": "not_found"})

    async def _health(self, checks: Mapping[str, Check], send: Send) -> None:
        found = dict(zip(checks, await asyncio.gather(*map(self._asked, checks.values())), strict=True))
        reasons = {name: reason for name, reason in found.items() if reason}
        status = "unavailable" if reasons else "ok"
        answer = {"status": status, "checks": {name: reason or "ok" for name, reason in found.items()}}
        await send_json(send, 503 if reasons else 200, answer)

    async def _asked(self, check: Check) -> str:
        """One part's own word; a part that fails or hangs while asked is not ready."""
        try:
            async with asyncio.timeout(self._seconds):
                answer = check()
                return await answer if inspect.isawaitable(answer) else answer
        except TimeoutError:
            return "did not answer in time"
        except Exception as error:  # a door: the check's own failure is its answer, and is logged
            _log.exception("a health check failed")
            return f"failed with {type(error).__name__}"

    async def _expose(self, send: Send) -> None:
        body = generate_latest(self._metrics)
        headers = [
            (b"content-type", CONTENT_TYPE_LATEST.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
