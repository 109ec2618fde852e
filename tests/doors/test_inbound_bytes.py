"""Hostile bytes on a real socket, and what an unproven sender may learn or cost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import orjson
import pytest

from doors.inbound_house import TOOLS, Door, call, door, message
from onbehalf.config import Limits
from onbehalf.doors.inbound_head import HEADERS, BoundedHttp


def with_door(check: Callable[[Door], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with door(**options) as at:
            await check(at)
            assert at.app._calls == at.app._arrivals == 0

    asyncio.run(run())


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["data"]["onbehalf/denial"]["code"]


async def settled(at: Door, refused: str) -> None:
    """Until the door has let go of what it refused as `refused`."""
    async with asyncio.timeout(5):
        while refused not in at.meter.codes or at.app._arrivals:
            await asyncio.sleep(0.005)


def test_a_truncated_body_is_dropped_and_nothing_is_called() -> None:
    async def check(at: Door) -> None:
        whole = orjson.dumps(call())
        _, writer = await asyncio.open_connection("127.0.0.1", at.port)
        more = b"Mcp-Method: tools/call\r\nMcp-Name: echo\r\n"
        writer.write(at.head(more + b"Content-Length: %d\r\n" % (len(whole) + 9)) + whole)
        await writer.drain()
        writer.close()
        await settled(at, "client_gone")
        assert at.house.requests == []

    with_door(check)


@pytest.mark.parametrize(("name", "status"), [(b"  echo\t ", b"200"), (b"echo", b"200"), (b" ec ho ", b"400")])
def test_white_space_around_a_header_is_not_part_of_its_value(name: bytes, status: bytes) -> None:
    async def check(at: Door) -> None:
        body = orjson.dumps(call())
        more = b"Mcp-Method: tools/call \r\nMcp-Name:%s\r\nConnection: close\r\nContent-Length: %d\r\n"
        answer = await at.raw(at.head(more % (name, len(body))) + body, until_close=True)
        assert answer.startswith(b"HTTP/1.1 " + status), answer

    with_door(check)


def test_a_half_closed_body_is_refused_in_time() -> None:
    async def check(at: Door) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(at.head(b"Content-Length: 100\r\n") + b'{"jsonrpc"')
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert at.house.requests == []

    with_door(check, limits=Limits(body_seconds=0.1))


@pytest.mark.parametrize("length", [b"2049", b"9999999999999999", b"9" * 19])
def test_a_declared_length_beyond_the_bound_is_refused_before_a_byte_arrives(length: bytes) -> None:
    async def check(at: Door) -> None:
        answer = await at.raw(at.head(b"Content-Length: " + length + b"\r\n"))
        assert answer.startswith(b"HTTP/1.1 413"), answer
        assert b"body_too_large" in answer

    with_door(check, limits=Limits(body_bytes=2048))


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: +2\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ],
)
def test_a_body_framed_in_two_ways_is_never_called(framing: bytes) -> None:
    async def check(at: Door) -> None:
        answer = await at.raw(at.head(framing + b"Connection: close\r\n") + b"2\r\n{}\r\n0\r\n\r\n", until_close=True)
        assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 408")), answer
        assert at.house.requests == []

    with_door(check, limits=Limits(body_seconds=0.2))


@pytest.mark.parametrize(
    "host", [b"", b"Host: \r\n", b"Host: evil.example:%d\r\n", b"Host: 127.0.0.1.evil.example:%d\r\n"]
)
def test_a_rebound_or_absent_host_is_misdirected(host: bytes) -> None:
    async def check(at: Door) -> None:
        named = host % at.port if b"%d" in host else host
        head = at.head(named + b"Origin: http://evil.example\r\nContent-Length: 2\r\nConnection: close\r\n")
        head = head.replace(b"Host: 127.0.0.1:%d\r\n" % at.port, b"", 1)
        answer = await at.raw(head + b"{}", until_close=True)
        assert answer.startswith((b"HTTP/1.1 421", b"HTTP/1.1 400")), answer
        assert at.house.proofs == 0

    with_door(check)


def test_two_host_headers_are_refused_even_where_both_agree() -> None:
    async def check(at: Door) -> None:
        again = b"Host: 127.0.0.1:%d\r\nContent-Length: 2\r\nConnection: close\r\n" % at.port
        answer = await at.raw(at.head(again) + b"{}", until_close=True)
        assert answer.startswith(b"HTTP/1.1 400"), answer
        assert at.house.proofs == 0

    with_door(check)


@pytest.mark.parametrize(
    "sent",
    [
        b"{", b'{"a":1,"a":2}', b"[]", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}},
        message("resources/list"), message(name="regional", arguments={"region": "eu"}), {**call(), "jsonrpc": "1.0"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
def test_a_forged_token_learns_nothing_of_what_else_is_wrong(sent: Any, version: str) -> None:
    async def check(at: Door) -> None:
        answer = await at.post(sent, token="forged", headers={"MCP-Protocol-Version": version})
        assert code(answer) == (401, "signature_mismatch")
        assert at.house.requests == []

    with_door(check)


def test_a_large_body_is_read_for_a_proven_caller_only() -> None:
    async def check(at: Door) -> None:
        framing = b"Content-Length: 500000\r\nConnection: close\r\n"
        forged = at.head(framing).replace(b"alice", b"forged")
        answer = await asyncio.wait_for(at.raw(forged), 2)
        assert answer.startswith(b"HTTP/1.1 401"), answer
        chunked = at.head(b"Transfer-Encoding: chunked\r\nConnection: close\r\n").replace(b"alice", b"forged")
        assert (await asyncio.wait_for(at.raw(chunked), 2)).startswith(b"HTTP/1.1 401")
        assert (await at.post(call("x" * 200_000))).status_code == 200

    with_door(check, limits=Limits(body_seconds=5))


def test_many_brackets_within_the_depth_are_read_in_time() -> None:
    async def check(at: Door) -> None:
        many = {**message(name="echo", arguments={"word": "hi", "many": [[]] * 100_000})}
        assert (await at.post(many)).status_code == 200

    with_door(check)


def test_more_arrivals_than_places_are_told_to_come_back_before_they_are_read() -> None:
    async def check(at: Door) -> None:
        framing = b"Content-Length: 100\r\nConnection: close\r\n"
        slow = [asyncio.create_task(at.raw(at.head(framing) + b"{")) for _ in range(4)]
        while at.app._arrivals < 4:
            await asyncio.sleep(0.005)
        assert code(await at.post(call())) == (503, "busy")
        await asyncio.gather(*slow)
        assert (await at.post(call())).status_code == 200

    with_door(check, limits=Limits(concurrency=1, body_seconds=0.5))


def test_answers_are_neither_stored_nor_sniffed_in_either_era() -> None:
    async def check(at: Door) -> None:
        session = await at.open_session()
        listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        answers = [await at.post(message("tools/list")), await at.legacy(listing, session=session)]
        answers += [await at.post(call(), token="forged"), await at.post(call())]
        for answer in answers:
            assert answer.headers.get_list("cache-control") == ["no-store"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        names = [[shown["name"] for shown in answer.json()["result"]["tools"]] for answer in answers[:2]]
        assert names == [sorted(TOOLS)] * 2

    with_door(check)


@pytest.mark.parametrize(
    "more",
    [
        b"X-Many: 1\r\n" * (HEADERS + 1) + b"\r\n",
        b"X-Long: " + b"a" * 40_000 + b"\r\n\r\n",
        b"X-Endless: " + b"a" * 300_000,
        b"X-Endless-" + b"a" * 300_000,
    ],
)
def test_a_head_beyond_its_bounds_never_reaches_the_app(more: bytes) -> None:
    async def check(at: Door) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 0\r\n" % at.port + more)
        try:
            answer = await asyncio.wait_for(reader.read(), 5)
        except ConnectionError:
            answer = b""  # closed with bytes unread: the refusal may be lost on its way, as TCP has it
        writer.close()
        assert answer.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")) or not answer, answer
        assert at.meter.codes == []
        assert (await at.post(call())).status_code == 200

    with_door(check)


@pytest.mark.parametrize("begun", [b"", b"POST /mcp HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_head_that_does_not_end_is_refused_in_time(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttp, "head_seconds", 0.1)

    async def check(at: Door) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(begun)
        for _ in range(3):
            await asyncio.sleep(0.02)
            writer.write(b"a" if begun else b"")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()

    with_door(check)


def test_a_second_head_on_a_kept_connection_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedHttp, "head_seconds", 0.1)

    async def check(at: Door) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in await reader.readuntil(b'{"status":"ok"}')
        writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()

    with_door(check)


def test_pipelined_requests_are_each_answered() -> None:
    async def check(at: Door) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(one * 3)
        for _ in range(3):
            assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b'{"status":"ok"}'), 5)
        writer.close()

    with_door(check)
