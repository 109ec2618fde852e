"""The older eras, loaded with the first client that speaks one: the SDK's transport is a fifth of a worker's memory.

Loading happens once, beside the calls under way. Must not know what the older eras are (inbound_legacy.py).

Trust: a stranger with a valid token can cause the loading, once.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from onbehalf.config import Limits
from onbehalf.doors.inbound_mcp import ServerName
from onbehalf.doors.inbound_wire import Exchange
from onbehalf.model import Json
from onbehalf.ports import House

if TYPE_CHECKING:
    from onbehalf.doors.inbound_legacy import Legacy

__all__ = ["Older", "SessionLimits"]


class SessionLimits:
    """How many legacy sessions there may be at once, in all and per person and client, and for how long idle."""

    max_sessions = 1000
    max_per_owner = 16
    idle_seconds = 900.0


class Older:
    """Holds the door for older clients, from the first of them until `running` ends."""

    def __init__(self, house: House, *, server: ServerName, limits: Limits, sessions: SessionLimits) -> None:
        self._house = house
        self._server = server
        self._limits = limits
        self._sessions = sessions
        self._over: asyncio.Event | None = None
        self._ready: asyncio.Future[Legacy] | None = None
        self._holding: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sessions live inside this. Once per object."""
        over = self._over = asyncio.Event()
        try:
            yield
        finally:
            self._over = None
            over.set()
            if self._holding is not None:
                await self._holding

    async def door(self) -> Legacy:
        """The door, loaded now if it is not yet. Raises RuntimeError outside of `running`, and what loading raises."""
        if self._over is None:
            raise RuntimeError("older clients are answered within `running` only")
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_future()
            self._holding = asyncio.create_task(self._hold(self._ready, self._over))
        return await asyncio.shield(self._ready)

    async def answer(self, exchange: Exchange, body: bytes, message: dict[str, Json]) -> None:
        """As the door does, once there is one."""
        await (await self.door()).answer(exchange, body, message)

    async def _hold(self, ready: asyncio.Future[Legacy], over: asyncio.Event) -> None:
        """Enter the SDK's task group and leave it in one task, whichever request came first."""
        try:
            module = await asyncio.to_thread(importlib.import_module, "onbehalf.doors.inbound_legacy")
            legacy: Legacy = module.Legacy(
                self._house, server=self._server, limits=self._limits, sessions=self._sessions
            )
            async with legacy.running():
                ready.set_result(legacy)
                await over.wait()
        except Exception as error:  # whoever waits gets it; the next one tries again
            if ready.done():
                raise
            self._ready = None
            ready.set_exception(error)
