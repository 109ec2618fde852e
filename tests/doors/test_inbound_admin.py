"""The admin port: health of every part, and counts without names."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
from prometheus_client import CollectorRegistry, Counter

from doors.inbound_house import served
from onbehalf.doors.inbound_admin import AdminApp, Check


async def asked(path: str, *, method: str = "GET", ready: dict[str, Check] | None = None) -> httpx.Response:
    registry = CollectorRegistry()
    Counter("onbehalf_refused", "refusals by code", ["code"], registry=registry).labels(code="busy").inc()
    app = AdminApp(ready=ready or {}, alive={}, metrics=registry, check_seconds=0.05)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    async with served(app, listening), httpx.AsyncClient() as client:
        return await client.request(method, f"http://127.0.0.1:{listening.getsockname()[1]}{path}")


async def _works() -> str:
    return ""


async def _hangs() -> str:
    await asyncio.Event().wait()
    return ""


def _breaks() -> str:
    raise OSError("secret path")


def test_a_house_whose_parts_all_work_is_ready() -> None:
    answer = asyncio.run(asked("/readyz", ready={"ledger": _works, "policy": lambda: ""}))
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "checks": {"ledger": "ok", "policy": "ok"}})


def test_a_part_that_says_so_hangs_or_breaks_makes_the_house_not_ready() -> None:
    parts: dict[str, Check] = {"told": lambda: "disk is full", "hangs": _hangs, "breaks": _breaks, "works": _works}
    answer = asyncio.run(asked("/readyz", ready=parts))
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "unavailable",
        "checks": {
            "told": "disk is full", "hangs": "did not answer in time", "breaks": "failed with OSError", "works": "ok",
        },
    }  # fmt: skip


def test_a_house_that_is_not_ready_is_still_alive() -> None:
    answer = asyncio.run(asked("/healthz", ready={"ledger": lambda: "closed"}))
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


def test_metrics_are_in_the_prometheus_text_format() -> None:
    answer = asyncio.run(asked("/metrics"))
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'onbehalf_refused_total{code="busy"} 1.0' in answer.text


def test_the_admin_port_only_reads_and_serves_nothing_else() -> None:
    async def run() -> None:
        for method in ("POST", "PUT", "DELETE"):
            assert (await asked("/metrics", method=method)).status_code == 405
        head: Any = await asked("/healthz", method="HEAD")
        assert (head.status_code, head.content) == (200, b"")
        for path in ("/", "/mcp", "/debug", "/metrics/"):
            assert (await asked(path)).status_code == 404

    asyncio.run(run())
