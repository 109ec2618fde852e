"""An MCP server signs for its results, in JSON and in event streams, and the gateway's door takes no others."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer

from act.granted import granted
from backend.serving import KeyServer, served
from onbehalf.backend.asgi import CallTokenMiddleware
from onbehalf.backend.keys import read_keys
from onbehalf.backend.receipt import ReceiptKey, receipt_key
from onbehalf.doors.signer_file import CACHE_S, FileSigner
from onbehalf.doors.upstream_mcp import McpUpstreamServer
from onbehalf.doors.upstream_receipts import Receipts
from onbehalf.model import Done, Failed, Json, Outcome, UnixTime

GATEWAY, AUDIENCE = "https://gateway.test", "https://words.test/mcp"
KEY, OTHER = receipt_key(b"\x31" * 32), receipt_key(b"\x32" * 32)


def words() -> MCPServer:
    server = MCPServer("words")

    @server.tool()
    def repeat(text: str, times: int) -> dict[str, Any]:
        if times < 0:
            raise ValueError("fewer than none")
        return {"text": text * times, "ratio": times / 3, "nested": [None, True, {"é": "\u2028"}]}

    return server


@asynccontextmanager
async def joined(
    directory: Path, protocol: str, *, json_response: bool, receipts: ReceiptKey | None
) -> AsyncIterator[tuple[FileSigner, McpUpstreamServer]]:
    signer = FileSigner.open(directory / "keys", issuer=GATEWAY, now=UnixTime(int(time.time()) - 2 * CACHE_S))
    async with served(KeyServer(signer.jwks)) as keys:
        app = words().streamable_http_app(json_response=json_response)
        guard = CallTokenMiddleware(
            app, issuer=GATEWAY, audience=AUDIENCE, jwks_url=f"{keys}/jwks.json", receipts=receipts
        )
        async with served(guard) as origin:
            door = McpUpstreamServer(
                f"{origin}/mcp", audience=AUDIENCE, protocol=protocol, timeout=10, response_bytes=2**20,
                receipts=Receipts(read_keys({"keys": [KEY.public]}, issuer=AUDIENCE)),
            )  # fmt: skip
            try:
                yield signer, door
            finally:
                await door.aclose()


async def sent(signer: FileSigner, door: McpUpstreamServer, index: int, **arguments: Json) -> Outcome:
    now = UnixTime(int(time.time()))
    token = signer.sign(granted(arguments, tool="repeat", audience=AUDIENCE, now=now, index=index))
    return await door.send(token.grant.allow.call, token)


def run(walk: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(walk, 60))


@pytest.mark.parametrize("json_response", [True, False], ids=["json", "events"])
@pytest.mark.parametrize("protocol", ["2026-07-28", "2025-11-25"])
def test_a_signed_result_is_taken_with_its_receipt(tmp_path: Path, protocol: str, json_response: bool) -> None:
    async def walk() -> None:
        async with joined(tmp_path, protocol, json_response=json_response, receipts=KEY) as (signer, door):
            done = await sent(signer, door, 1, text="naïve ", times=2)
            assert isinstance(done, Done), done
            assert done.receipt.count(".") == 2
            assert "_meta" not in done.content
            assert "naïve naïve" in json.dumps(dict(done.content), ensure_ascii=False)
            failed = await sent(signer, door, 2, text="x", times=-1)  # the tool's own error is an answer, too
            assert isinstance(failed, Done)
            assert failed.content["isError"] is True
            assert failed.receipt != done.receipt

    run(walk())


@pytest.mark.parametrize("receipts", [None, OTHER], ids=["none", "another key's"])
@pytest.mark.parametrize("json_response", [True, False], ids=["json", "events"])
def test_a_result_without_a_good_receipt_is_refused_and_not_known_to_be_undone(
    tmp_path: Path, json_response: bool, receipts: ReceiptKey | None
) -> None:
    async def walk() -> None:
        async with joined(tmp_path, "auto", json_response=json_response, receipts=receipts) as (signer, door):
            found = await sent(signer, door, 1, text="x", times=1)
            assert isinstance(found, Failed)
            assert (found.code, found.unknown) == ("receipt_refused", True)

    run(walk())
