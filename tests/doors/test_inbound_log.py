"""`/log/` of a whole gateway: nothing until it is chosen, then exactly that, cached as what never changes may be."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from company import company
from onbehalf.doors.inbound_log import LogApp
from onbehalf.errors import LedgerUnavailable
from onbehalf.explain import tree
from onbehalf.explain.tiles import Tile


@pytest.mark.parametrize("public", ["none", "hashes", "leaves"])
def test_a_gateway_shows_what_was_chosen_to_be_public(tmp_path: Path, public: str) -> None:
    with company(tmp_path / "it") as made:
        text = made.config.read_text()
        made.config.write_text(text.replace("gateway:\n", f"gateway:\n  public_log: {public}\n"))
        with made.serving():
            log = f"{made.gateway}/log"
            head = httpx2.get(f"{log}/checkpoint")
            if public == "none":
                assert head.status_code == 404
                return
            size = int(head.text.splitlines()[1])
            assert (head.headers["content-type"], head.headers["cache-control"]) == (
                "text/plain; charset=utf-8", "no-cache"
            )  # fmt: skip
            tile = httpx2.get(f"{log}/tile/0/000.p/{size}")
            hashes = [tile.content[start : start + 32] for start in range(0, len(tile.content), 32)]
            assert base64.b64encode(tree.root(hashes)).decode() == head.text.splitlines()[2]
            assert tile.headers["cache-control"].endswith("immutable")
            entries = httpx2.get(f"{log}/tile/entries/000.p/{size}")
            assert entries.status_code == (200 if public == "leaves" else 404)
            if public == "leaves":
                first = entries.content[2 : 2 + int.from_bytes(entries.content[:2], "big")]
                assert tree.leaf_hash(first) == hashes[0]
            for path in (f"tile/0/000.p/{size + 1}", "tile/0/000", "tile/0/0", "", "tile/1/000.p/1", "checkpoint/"):
                assert httpx2.get(f"{log}/{path}").status_code == 404
            assert httpx2.post(f"{log}/checkpoint").status_code == 405
            assert httpx2.get(f"{log}/checkpoint", headers={"host": "elsewhere.example"}).status_code == 421


class _Slow:
    def __init__(self) -> None:
        self.fails = False

    def checkpoint(self) -> tuple[int, str]:
        raise LedgerUnavailable("secret path")

    def handovers(self) -> str:
        return ""

    def read(self, tile: Tile) -> bytes:
        return b"x"


async def asked(app: LogApp, path: str, method: str = "GET") -> tuple[int, bytes]:
    sent: list[Mapping[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    await app({"type": "http", "method": method, "path": path}, receive, send, {})
    return sent[0]["status"], sent[1]["body"]


def test_a_ledger_that_cannot_be_read_is_a_503_without_its_reason() -> None:
    status, body = asyncio.run(asked(LogApp(_Slow(), public="leaves"), "/log/checkpoint"))
    assert (status, body) == (503, b'{"error":"ledger_unavailable"}')


def test_head_has_no_body_and_many_at_once_are_bounded() -> None:
    async def flood() -> list[tuple[int, bytes]]:
        app = LogApp(_Slow(), public="hashes")
        assert await asked(app, "/log/tile/0/000", "HEAD") == (200, b"")
        return list(await asyncio.gather(*(asked(app, "/log/tile/0/000") for _ in range(200))))

    statuses = [status for status, _ in asyncio.run(flood())]
    assert statuses.count(200) == 64
    assert statuses.count(503) == 136
