"""How a call ends before it is done: its time is over, or its client has gone; and that nothing of it stays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from onbehalf.doors import inbound_gone
from onbehalf.doors.inbound_gone import UnderWay
from onbehalf.doors.inbound_wire import ClientGone
from onbehalf.errors import CallTimedOut


class Client:
    """Stands for a client's connection: it sends nothing more, until it goes."""

    def __init__(self) -> None:
        self.left = asyncio.Event()
        self.asked = asyncio.Event()

    async def receive(self) -> MutableMapping[str, Any]:
        self.asked.set()
        await self.left.wait()
        return {"type": "http.disconnect"}


async def settled(calls: UnderWay) -> None:
    """Until no timer is set any more for calls that are over; nothing else may go on then."""
    assert not calls._calls
    async with asyncio.timeout(5):
        while calls._loop is not None or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.005)


def in_loop(check: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await check()

    asyncio.run(run())


def test_a_call_that_is_over_at_once_is_not_looked_after() -> None:
    async def check() -> None:
        calls, client = UnderWay(5), Client()

        async def work() -> str:
            await asyncio.sleep(0)
            return "done"

        assert await calls.until_gone(client.receive, work()) == "done"
        assert not client.asked.is_set()
        await settled(calls)

    in_loop(check)


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.08, 0.1, 0.2])
def test_a_call_ends_when_its_time_is_over_and_not_before(seconds: float) -> None:
    async def check() -> None:
        calls, loop = UnderWay(seconds), asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(CallTimedOut, match=f"{seconds:g} s"):
            await calls.until_gone(Client().receive, asyncio.sleep(30))
        assert loop.time() - began >= seconds - 0.002  # a loop's clock may be in whole milliseconds
        await settled(calls)

    in_loop(check)


def test_a_client_that_goes_at_once_ends_its_call_as_soon_as_it_is_looked_after() -> None:
    async def check() -> None:
        calls, client = UnderWay(30), Client()
        client.left.set()
        with pytest.raises(ClientGone):
            await calls.until_gone(client.receive, asyncio.sleep(30))
        await settled(calls)

    in_loop(check)


def test_a_client_that_goes_later_ends_its_call_and_no_other() -> None:
    async def check() -> None:
        calls, going, staying = UnderWay(30), Client(), Client()
        free = asyncio.Event()
        other = asyncio.create_task(calls.until_gone(staying.receive, free.wait()))
        ended = asyncio.create_task(calls.until_gone(going.receive, asyncio.sleep(30)))
        await asyncio.wait_for(asyncio.gather(going.asked.wait(), staying.asked.wait()), 5)
        going.left.set()
        with pytest.raises(ClientGone):
            await ended
        free.set()
        assert await other
        await settled(calls)

    in_loop(check)


def test_a_call_that_begins_between_two_looks_is_looked_after_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        monkeypatch.setattr(inbound_gone, "_LOOK_SECONDS", 0.02)
        calls, client = UnderWay(30), Client()
        first = asyncio.create_task(calls.until_gone(Client().receive, asyncio.sleep(30)))
        for _ in range(5):
            await asyncio.sleep(0.007)
            await calls.until_gone(client.receive, asyncio.sleep(0))
        client.left.set()
        with pytest.raises(ClientGone):
            await calls.until_gone(client.receive, asyncio.sleep(30))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await settled(calls)

    in_loop(check)


@pytest.mark.parametrize("looked_after", [False, True])
def test_whoever_else_cancels_is_not_taken_for_the_clock(looked_after: bool) -> None:
    async def check() -> None:
        calls, client = UnderWay(30), Client()
        task = asyncio.create_task(calls.until_gone(client.receive, asyncio.sleep(30)))
        await (client.asked.wait() if looked_after else asyncio.sleep(0))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settled(calls)

    in_loop(check)


def test_a_cancellation_beside_the_clocks_own_goes_on() -> None:
    async def check() -> None:
        calls, client = UnderWay(30), Client()
        task = asyncio.create_task(calls.until_gone(client.receive, asyncio.sleep(30)))
        await client.asked.wait()
        (call,) = calls._calls
        call._end(ClientGone())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await settled(calls)

    in_loop(check)


def test_what_the_work_raises_is_raised() -> None:
    async def check() -> None:
        calls = UnderWay(30)

        async def work() -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await calls.until_gone(Client().receive, work())
        await settled(calls)

    in_loop(check)


def test_calls_in_one_loop_after_another_are_looked_after_in_each() -> None:
    calls = UnderWay(0.15)

    async def late() -> None:
        with pytest.raises(CallTimedOut):
            await calls.until_gone(Client().receive, asyncio.sleep(30))

    async def short() -> None:  # its loop ends with a timer set
        await calls.until_gone(Client().receive, asyncio.sleep(0))

    for each in (short, late, short, late):
        asyncio.run(each())
        assert not calls._calls
