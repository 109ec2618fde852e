"""Ports are bound before anything runs, and signals reach the house: SIGHUP reloads, SIGTERM ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvloop

from doors.tls_house import authority
from onbehalf.doors import serve_uvicorn
from onbehalf.doors.serve_uvicorn import Port
from onbehalf.errors import ConfigInvalid


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"here"})


def url_of(bound: socket.socket) -> str:
    return f"http://127.0.0.1:{bound.getsockname()[1]}/"


@pytest.mark.parametrize(
    "address",
    ["", ":", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:-1", "127.0.0.1:65536", "127.0.0.1:" + "9" * 5000,
     "a..b:80", "x" * 300 + ":80", "[::1:80]", "127.0.0.1:8 0", "256.1.1.1:80"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_a_hint(address: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        serve_uvicorn.bind(address)
    assert refused.value.hint


def test_a_port_that_is_taken_is_refused_and_named() -> None:
    with serve_uvicorn.bind("127.0.0.1:0") as first:
        address = f"127.0.0.1:{first.getsockname()[1]}"
        with pytest.raises(ConfigInvalid, match=address):
            serve_uvicorn.bind(address)


def test_an_ipv6_address_stands_in_brackets() -> None:
    try:
        bound = serve_uvicorn.bind("[::1]:0")
    except ConfigInvalid:
        pytest.skip("there is no IPv6 here")
    with bound:
        assert bound.family == socket.AF_INET6


def test_sighup_reloads_a_reload_that_breaks_ends_nothing_and_sigterm_ends_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[str] = []

    async def run() -> None:
        again, up = asyncio.Event(), asyncio.Event()

        async def reload() -> None:
            calls.append("reload")
            again.set()
            if len(calls) == 1:
                raise ZeroDivisionError("nobody thought of this")

        sockets = [serve_uvicorn.bind("127.0.0.1:0") for _ in range(2)]
        serving = asyncio.create_task(
            serve_uvicorn.serve(
                [Port(app=app, bound=each) for each in sockets], reload=reload, ready=up.set, end_seconds=1
            )
        )
        await asyncio.wait_for(up.wait(), 10)
        async with httpx2.AsyncClient(trust_env=False) as http:
            for _ in range(2):
                again.clear()
                os.kill(os.getpid(), signal.SIGHUP)
                await asyncio.wait_for(again.wait(), 10)
                for each in sockets:
                    assert (await http.get(url_of(each))).text == "here"
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 10)

    asyncio.run(run())
    assert calls == ["reload", "reload"]
    assert "the reload was broken off" in caplog.text


def test_with_tls_who_does_not_shake_hands_in_time_is_let_go_and_an_open_connection_does_not_keep_it_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_uvicorn, "HEAD_SECONDS", 0.2)
    trusted = authority(tmp_path)
    client = ssl.create_default_context(cafile=str(trusted.store))

    async def run() -> None:
        up, bound = asyncio.Event(), serve_uvicorn.bind("127.0.0.1:0")
        port = Port(app=app, bound=bound, tls=trusted.server("localhost"))

        async def reload() -> None:
            raise AssertionError

        serving = asyncio.create_task(serve_uvicorn.serve([port], reload=reload, ready=up.set, end_seconds=1))
        await asyncio.wait_for(up.wait(), 10)
        number = bound.getsockname()[1]
        silent, closing = await asyncio.open_connection("127.0.0.1", number)
        assert await asyncio.wait_for(silent.read(), 5) == b""
        closing.close()
        async with httpx2.AsyncClient(trust_env=False, verify=client) as http:
            assert (await http.get(f"https://localhost:{number}/")).text == "here"
            with pytest.raises(httpx2.TransportError):
                await http.get(f"http://localhost:{number}/")
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(serving, 5)

    uvloop.run(run())
