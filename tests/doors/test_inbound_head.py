"""How an answer leaves: its head with its body, never later than the app said; and how long a connection is kept."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
import uvicorn

from doors.inbound_house import served
from onbehalf.doors.inbound_head import BoundedHttp, JoinedWrites


class Wire:
    """Stands for a transport: what was written, each time."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.written.append(b"<closed>")

    def is_closing(self) -> bool:
        return False


def joined(wire: Wire) -> JoinedWrites:
    return JoinedWrites(cast("asyncio.Transport", wire), asyncio.get_running_loop())


def test_a_head_leaves_with_the_first_of_its_body_as_one() -> None:
    async def answer() -> list[bytes]:
        wire = Wire()
        out = joined(wire)
        for piece in (b"head ", b"body ", b"more"):
            out.write(piece)
        await asyncio.sleep(0)
        return wire.written

    assert asyncio.run(answer()) == [b"head body ", b"more"]


def test_a_head_without_a_body_does_not_wait_for_one() -> None:
    async def answer() -> list[bytes]:
        wire = Wire()
        out = joined(wire)
        out.write(b"head")
        await asyncio.sleep(0)
        out.write(b"event")
        return wire.written

    assert asyncio.run(answer()) == [b"head", b"event"]


def test_closing_lets_the_head_out_first() -> None:
    async def answer() -> list[bytes]:
        wire = Wire()
        out = joined(wire)
        out.write(b"head")
        out.close()
        await asyncio.sleep(0)
        return wire.written

    assert asyncio.run(answer()) == [b"head", b"<closed>"]


# --- kept connections ---

_ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_ANSWER = b"\r\n\r\nok"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers at once, or to `/slow` in a while."""
    if scope["type"] == "lifespan":
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.4)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


Check = Callable[[asyncio.StreamReader, asyncio.StreamWriter, uvicorn.Server], Awaitable[None]]


def on_a_connection(check: Check, *, keep_alive: float) -> None:
    async def run() -> None:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        async with served(app, listening, keep_alive=keep_alive) as server:
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            await asyncio.wait_for(check(reader, writer, server), 10)
            writer.close()

    asyncio.run(run())


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """For how many seconds each keep-alive timer was set."""
    found: list[float] = []
    before = BoundedHttp._look_idle_in

    def look(self: BoundedHttp, seconds: float) -> None:
        found.append(seconds)
        before(self, seconds)

    with monkeypatch.context() as patched:
        patched.setattr(BoundedHttp, "_look_idle_in", look)
        yield found


@pytest.mark.parametrize("requests", [1, 3])
def test_a_connection_that_is_idle_for_long_is_closed_and_not_before(requests: int) -> None:
    async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: uvicorn.Server) -> None:
        loop = asyncio.get_running_loop()
        for number in range(requests):
            await asyncio.sleep(0.1 * bool(number))
            last = loop.time()
            writer.write(_ASK)
            await reader.readuntil(_ANSWER)
        assert await reader.read() == b""
        assert loop.time() - last >= 0.29

    on_a_connection(check, keep_alive=0.3)


def test_many_requests_on_one_connection_take_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: uvicorn.Server) -> None:
        for _ in range(5):
            writer.write(_ASK)
            await reader.readuntil(_ANSWER)
        (connection,) = cast("set[BoundedHttp]", server.server_state.connections)
        timer = connection.timeout_keep_alive_task
        assert timer is not None
        writer.close()
        while server.server_state.connections:
            await asyncio.sleep(0.005)
        assert timer.cancelled()
        assert server.server_state.total_requests == 5

    with counted(monkeypatch) as timers:
        on_a_connection(check, keep_alive=30)
    assert timers == [30]


def test_an_answer_that_takes_longer_than_a_connection_may_be_idle_is_given() -> None:
    async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: uvicorn.Server) -> None:
        writer.write(_ASK)
        await reader.readuntil(_ANSWER)
        writer.write(_ASK.replace(b"/", b"/slow", 1))
        await reader.readuntil(_ANSWER)
        assert await reader.read() == b""

    on_a_connection(check, keep_alive=0.2)


def test_a_head_that_was_begun_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttp, "head_seconds", 0.5)

    async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: uvicorn.Server) -> None:
        writer.write(_ASK)
        await reader.readuntil(_ANSWER)
        writer.write(b"GET / HT")
        assert (await reader.read()).startswith(b"HTTP/1.1 408")

    on_a_connection(check, keep_alive=0.1)
