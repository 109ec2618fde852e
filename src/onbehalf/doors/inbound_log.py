"""The log at `/log/`, read only, as C2SP tlog-tiles: the checkpoint, tiles of hashes and, where configured, leaves.
Besides, changes of the log's key, at `handovers`.

Needs no token: what is here was chosen to be public (`public_log`). Bounded: GET and HEAD without a body, one tile an
answer, a few readings at a time, each in a thread. Must not read the ledger itself.

Trust: as inbound_http.py. A leaf tells that something happened and when, its kind, its call and the names of its facts;
of what the facts say it holds salted commitments only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal, Protocol

from onbehalf.doors.inbound_wire import Receive, Scope, Send, send_json
from onbehalf.errors import Busy, OnbehalfError, RecordMissing
from onbehalf.explain.tiles import Tile, parse

__all__ = ["PATH", "LogApp", "Tiles"]

PATH = "/log/"
_AT_A_TIME = 4
_WAITING = 64
_MAX_PATH = 200
_FOREVER = b"public, max-age=31536000, immutable"
_BRIEFLY = b"no-cache"


class Tiles(Protocol):
    """What is served. All block while they read."""

    def checkpoint(self) -> tuple[int, str]: ...
    def handovers(self) -> str: ...
    def read(self, tile: Tile) -> bytes: ...


class LogApp:
    """The ASGI app below `/log/`. With `hashes` it serves no leaves."""

    def __init__(self, tiles: Tiles, *, public: Literal["hashes", "leaves"]) -> None:
        self._tiles = tiles
        self._leaves = public == "leaves"
        self._room = asyncio.Semaphore(_AT_A_TIME)
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        """Answer one request below PATH whose Host is ours."""
        if scope["method"] not in ("GET", "HEAD"):
            await send_json(send, 405, {"error": "method_not_allowed"}, ((b"allow", b"GET, HEAD"),))
            return
        if self._inside >= _WAITING:
            await send_json(send, 503, {"error": Busy.code}, ((b"retry-after", b"1"),))
            return
        self._inside += 1
        try:
            await self._answer(scope, send)
        finally:
            self._inside -= 1

    async def _answer(self, scope: Scope, send: Send) -> None:
        rest = scope["path"][len(PATH) :]
        tile = parse(rest) if len(rest) <= _MAX_PATH else None
        known = rest in ("checkpoint", "handovers") or (tile is not None and (self._leaves or not tile.entries))
        if not known:
            await send_json(send, 404, {"error": "not_found"})
            return
        try:
            async with self._room:
                if tile is not None:
                    body = await asyncio.to_thread(self._tiles.read, tile)
                elif rest == "handovers":
                    body = (await asyncio.to_thread(self._tiles.handovers)).encode()
                else:
                    body = (await asyncio.to_thread(self._tiles.checkpoint))[1].encode()
        except RecordMissing:
            await send_json(send, 404, {"error": "not_found"})  # may be there later, so it is not to be kept
            return
        except OnbehalfError as error:
            await send_json(send, 503, {"error": error.code}, ((b"retry-after", b"1"),))
            return
        kind = b"text/plain; charset=utf-8" if tile is None else b"application/octet-stream"
        kept = _BRIEFLY if tile is None else _FOREVER  # a partial tile of one width never changes either
        sent = [
            (b"content-type", kind), (b"content-length", str(len(body)).encode()), (b"cache-control", kept),
            (b"x-content-type-options", b"nosniff"), (b"access-control-allow-origin", b"*"),
        ]  # fmt: skip
        await send({"type": "http.response.start", "status": 200, "headers": sent})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
