"""Real MCP clients, of both eras, through the real door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from doors.inbound_house import Door, door


@asynccontextmanager
async def client(at: Door, mode: str, token: str = "alice") -> AsyncIterator[Any]:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http,
        Client(streamable_http_client(at.url, http_client=http), mode=mode) as made,
    ):
        yield made


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy", "auto"])
def test_a_real_client_of_either_era_lists_and_calls(mode: str) -> None:
    async def run() -> None:
        async with door() as at, client(at, mode) as session:
            tools = (await session.list_tools()).tools
            assert [tool.name for tool in tools] == ["echo", "regional", "zebra"]
            assert tools[0].annotations.read_only_hint
            assert tools[2].annotations.destructive_hint
            result = await session.call_tool("echo", {"word": "grüße"})
            assert result.structured_content == {"word": "grüße", "token": "alice"}
            assert not result.is_error
            assert result.meta["onbehalf/call"] == "call_1"
            [(token, request)] = at.house.requests
            assert (token, request.tool, dict(request.arguments)) == ("alice", "echo", {"word": "grüße"})
            assert request.protocol == ("2025-11-25" if mode == "legacy" else "2026-07-28")
            assert request.agent

    asyncio.run(run())


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
def test_a_denial_by_policy_is_a_tool_result_the_model_can_read(mode: str) -> None:
    async def run() -> None:
        async with door() as at, client(at, mode) as session:
            result = await session.call_tool("echo", {"word": "denied"})
            assert result.is_error
            assert result.content[0].text == "denied"

    asyncio.run(run())


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
def test_the_tool_list_is_the_persons_own(mode: str) -> None:
    async def run() -> None:
        async with door() as at, client(at, mode, "bob") as session:
            assert [tool.name for tool in (await session.list_tools()).tools] == ["echo"]

    asyncio.run(run())


def test_a_modern_client_mirrors_declared_parameters_into_headers() -> None:
    async def run() -> None:
        async with door() as at, client(at, "2026-07-28") as session:
            await session.list_tools()
            result = await session.call_tool("regional", {"region": "süd"})
            assert not result.is_error

    asyncio.run(run())
