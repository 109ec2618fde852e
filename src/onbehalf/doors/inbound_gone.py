"""How long a client's call may go on: until its time is over, or its client has gone away.

One timer for all calls under way, not one for each: most are over before anybody need look after them. Must not know
what a call does or how it is answered.

Trust: none is asked for; a client that stays can hold one call for `seconds`, and one that goes is noticed in 100 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from onbehalf.doors.inbound_wire import ClientGone, Receive
from onbehalf.errors import CallTimedOut

__all__ = ["UnderWay", "within"]

Answer = TypeVar("Answer")

_LOOK_SECONDS = 0.05


async def within(seconds: float, work: Awaitable[Answer]) -> Answer:
    """Await `work` for at most `seconds`. Raises CallTimedOut."""
    try:
        async with asyncio.timeout(seconds) as timer:
            return await work
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise _late(seconds) from error


class UnderWay:
    """The calls under way, each for at most `seconds`. Used in one event loop at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._calls: dict[_Call, None] = {}  # oldest first
        self._loop: asyncio.AbstractEventLoop | None = None
        """Where `_look` is due, None while it is due nowhere."""

    async def until_gone(self, receive: Receive, work: Awaitable[Answer]) -> Answer:
        """As `within`; and if the client goes away first, cancel the work and raise ClientGone.

        MCP 2026-07-28 streamable-http: closing the response is how a client cancels. Clock and client are looked after
        from 50 to 100 ms on, or from the start where the time is shorter: for a call that is over by then, a timer and
        a task are dear.
        """
        loop = asyncio.get_running_loop()
        here = asyncio.current_task(loop)
        assert here is not None  # INVARIANT: a coroutine runs in a task
        call = _Call(here, receive, loop.time())
        self._calls[call] = None
        if self._loop is not loop:
            self._loop = loop  # a timer in a loop that has ended will never come
            loop.call_later(_LOOK_SECONDS, self._look, loop)
        if self._seconds < 2 * _LOOK_SECONDS:
            call.watch(loop, self._seconds)
        try:
            return await work
        except asyncio.CancelledError:
            if call.ended is not None and here.uncancel() == 0:
                raise call.ended from None
            raise
        finally:
            del self._calls[call]
            if call.clock is not None:
                call.leave()

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look after those calls that have gone on for a while, and come back if there is any call at all."""
        if self._loop is not loop:
            return  # INVARIANT: calls of another loop are not touched from here
        old = loop.time() - _LOOK_SECONDS
        for call in self._calls:
            if call.since > old:
                break
            if call.clock is None:
                call.watch(loop, self._seconds)
        if self._calls:
            loop.call_later(_LOOK_SECONDS, self._look, loop)
        else:
            self._loop = None


class _Call:
    """One call, and what looks after it: nothing at first."""

    __slots__ = ("clock", "ended", "receive", "since", "task", "watcher")

    def __init__(self, task: asyncio.Task[object], receive: Receive, since: float) -> None:
        self.task = task
        self.receive = receive
        self.since = since
        self.ended: Exception | None = None
        self.clock: asyncio.TimerHandle | None = None
        self.watcher: asyncio.Task[None] | None = None

    def watch(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """Look after its clock and its client from now on."""
        self.clock = loop.call_at(self.since + seconds, self._late, seconds)
        self.watcher = loop.create_task(self._watch())

    def leave(self) -> None:
        """Look after it no more."""
        if self.clock is not None:
            self.clock.cancel()
        if self.watcher is not None:
            self.watcher.cancel()

    async def _watch(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self._end(ClientGone())

    def _late(self, seconds: float) -> None:
        self._end(_late(seconds))

    def _end(self, why: Exception) -> None:
        if self.ended is None:
            self.ended = why
            self.task.cancel()


def _late(seconds: float) -> CallTimedOut:
    return CallTimedOut(
        f"the call took longer than {seconds:g} s",
        hint="do not repeat a change before a person has looked at the record",
    )
