"""Servers that are asked now and then: connections kept a URL, few of them, and an answer read whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from doors.test_outbound_http import Server, serving
from doors.tls_house import answering, authority
from onbehalf.doors import outbound_clients
from onbehalf.doors.outbound_clients import HttpClients
from onbehalf.doors.outbound_http import ConnectFailed, HttpFailed

HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


async def body(clients: HttpClients, url: str, limit: int = 5) -> bytes | None:
    async with clients.exchange("GET", url, {"accept": "text/plain"}) as reply:
        return await reply.whole(limit)


def run(walk: Callable[[HttpClients], Awaitable[None]]) -> None:
    async def walked() -> None:
        clients = HttpClients(seconds=5)
        try:
            await walk(clients)
        finally:
            await clients.aclose()

    asyncio.run(walked())


def test_a_url_that_is_asked_again_is_asked_over_the_same_connection() -> None:
    async def walk(clients: HttpClients) -> None:
        server = Server([HELLO], [HELLO])
        async with serving(server) as url:
            assert [await body(clients, url), await body(clients, url)] == [b"hello", b"hello"]
        assert (server.connections, len(server.requests)) == (1, 2)
        assert server.requests[0].startswith(b"GET /a/b HTTP/1.1\r\n")

    run(walk)


def test_more_urls_than_are_kept_are_asked_all_the_same_and_their_connections_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbound_clients, "_KEPT", 1)

    async def walk(clients: HttpClients) -> None:
        first, second = Server([HELLO], [HELLO]), Server([HELLO], [HELLO])
        async with serving(first) as one, serving(second) as two:
            assert [await body(clients, url) for url in (one, two, one)] == [b"hello"] * 3
            await asyncio.wait_for(second.ended.wait(), 5)
            assert (first.connections, second.connections, first.ended.is_set()) == (1, 1, False)

    run(walk)


def test_an_answer_that_is_too_large_or_cut_short_is_none() -> None:
    async def walk(clients: HttpClients) -> None:
        async with serving(Server([HELLO])) as url:
            assert await body(clients, url, limit=4) is None
        async with serving(Server([HELLO[:-2]], close=True)) as url:
            with pytest.raises(HttpFailed):
                await body(clients, url)

    run(walk)


def test_tls_is_to_whom_the_trust_store_vouches_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, other = authority(tmp_path, "known"), authority(tmp_path, "other")
    monkeypatch.setenv("SSL_CERT_FILE", str(known.store))

    async def walk(clients: HttpClients) -> None:
        async with answering(known.server("localhost"), HELLO, []) as port:
            assert await body(clients, f"https://localhost:{port}/") == b"hello"
        async with answering(other.server("localhost"), HELLO, []) as port:
            with pytest.raises(ConnectFailed):
                await body(clients, f"https://localhost:{port}/")

    run(walk)
