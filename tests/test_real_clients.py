"""Other people's clients, from discovery to a decided answer, against the running demo: nothing here is ours but a hand
on the login page. npm's SDK has its own file (node/test_npm_client.py)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
import mcp.types as types
import pytest
from fastmcp import Client as FastClient
from fastmcp.client.auth import OAuth
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

import node_peers
from house_process import Running, running_demo
from onbehalf.demo.data import DemoPerson, world
from onbehalf.demo.person_client import _Hand, _Keep, connected
from onbehalf.demo.truth import reports
from ports import free_port

HINTS = {"readOnlyHint", "destructiveHint", "openWorldHint"}
REDIRECT = "http://127.0.0.1:8113/callback"
WRITING = {"order_cancel", "order_ship", "tickets_update"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


def alice() -> DemoPerson:
    return world().person("acme", "alice")


def her_teams() -> set[str]:
    below = reports(world(), "acme", "alice")
    return {each.id for each in world().reviews if each.tenant == "acme" and each.subject_id in below}


def test_the_python_sdk_in_the_modern_era(house: Running) -> None:
    async def run() -> None:
        async with connected(house.places.resource, alice()) as client:
            assert client.protocol == "2026-07-28"
            told = await client.call("reviews_list", {"about": "team"})
            assert {str(row["id"]) for row in told.rows} == her_teams()

    asyncio.run(run())


def test_the_python_sdk_in_the_handshake_era(house: Running) -> None:
    async def run() -> None:
        hand = _Hand(alice())
        metadata = OAuthClientMetadata(
            client_name="tests", redirect_uris=[AnyUrl(REDIRECT)], token_endpoint_auth_method="none"
        )
        provider = OAuthClientProvider(
            server_url=house.places.resource, client_metadata=metadata, storage=_Keep(), redirect_handler=hand.open,
            callback_handler=hand.answer,
        )  # fmt: skip
        async with (
            httpx2.AsyncClient(auth=provider, timeout=30) as http,
            streamable_http_client(house.places.resource, http_client=http) as streams,
            ClientSession(streams[0], streams[1]) as session,
        ):
            opened = await session.initialize()
            assert opened.protocol_version == "2025-11-25"
            listed = (await session.list_tools()).tools
            assert_annotated([tool.model_dump(by_alias=True) for tool in listed])
            result = await session.call_tool("reviews_list", {"about": "team"})
            assert isinstance(result, types.CallToolResult)
            assert result.structured_content is not None
            assert {row["id"] for row in result.structured_content["rows"]} == her_teams()

    asyncio.run(run())


def test_the_fastmcp_client_logs_in_by_itself_and_gets_exactly_her_teams_reviews(house: Running) -> None:
    class Headless(OAuth):
        """Its whole flow, with the hand in place of a browser and of the server that waits for it."""

        async def redirect_handler(self, authorization_url: str) -> None:
            self.hand = _Hand(alice())
            await self.hand.open(authorization_url)

        async def callback_handler(self) -> AuthorizationCodeResult:
            return await self.hand.answer()

    async def run() -> None:
        async with FastClient(house.places.resource, auth=Headless(client_name="tests")) as client:
            listed = await client.list_tools()
            assert_annotated([tool.model_dump(by_alias=True) for tool in listed])
            result = await client.call_tool("reviews_list", {"about": "team"})
            assert {row["id"] for row in result.structured_content["rows"]} == her_teams()

    asyncio.run(run())


@pytest.fixture
def inspector(house: Running, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the inspector's command line, with a home of its own and no browser to open."""

    def start(*more: str) -> subprocess.Popen[str]:
        command = [node_peers.node(), str(node_peers.packages() / "node_modules" / ".bin" / "mcp-inspector"), "--cli"]
        own = {"NO_COLOR": "1", "HOME": str(tmp_path), "BROWSER": "true", "MCP_AUTO_OPEN_ENABLED": "true"}
        return subprocess.Popen(
            [*command, house.places.resource, "--transport", "http", *more],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **own, "MCP_INSPECTOR_SECRET_STORE": "memory"},
        )  # fmt: skip

    return start


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """What it came to: exit code, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=90)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def in_a_browser(url: str, person: DemoPerson) -> None:
    """Pick oneself on the login page, press the button, and go where one is sent."""
    with httpx2.Client(follow_redirects=False, timeout=10, trust_env=False) as browser:
        login = re.search(r'name="login" value="([^"]+)"', browser.get(url).text)
        assert login is not None
        form = {"login": login[1], "subject": person.subject}
        sent = browser.post(urljoin(url, "authorize"), data=form)
        assert browser.get(sent.headers["location"]).status_code == 200


def test_the_inspector_logs_in_through_oauth_and_calls(
    house: Running, inspector: Callable[..., subprocess.Popen[str]]
) -> None:
    back = f"http://127.0.0.1:{free_port()}/oauth/callback"
    asked = ("--method", "tools/call", "--tool-name", "reviews_list", "--tool-arg", "about=team")
    process = inspector(*asked, "--callback-url", back)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stderr is not None
        urls = (re.search(r"navigate to: (http\S+)", line) for line in process.stderr)
        url = next((found[1] for found in urls if found), "")
        assert url.startswith(f"{house.places.issuer}/authorize?")
        assert parse_qs(urlsplit(url).query)["resource"] == [house.places.resource]
        in_a_browser(url, alice())
        code, out, err = ended(process)
    finally:
        watchdog.cancel()
    assert code == 0, err
    assert {row["id"] for row in json.loads(out)["structuredContent"]["rows"]} == her_teams()


def test_the_inspector_lists_with_a_token_in_a_header(
    house: Running, inspector: Callable[..., subprocess.Popen[str]]
) -> None:
    header = ("--header", f"Authorization: Bearer {house.token(alice().subject)}")
    code, out, err = ended(inspector("--method", "tools/list", *header))
    assert code == 0, err
    tools = json.loads(out)["tools"]
    assert len(tools) == 8
    assert_annotated(tools)


def test_the_inspector_without_a_login_gets_nothing(inspector: Callable[..., subprocess.Popen[str]]) -> None:
    code, out, err = ended(inspector("--method", "tools/list", "--stored-auth-only"))
    assert code != 0
    assert "auth_required" in out + err
    assert "reviews_list" not in out


def assert_annotated(tools: list[dict[str, Any]]) -> None:
    """Every tool says of itself what hosts ask for, and what it really is."""
    for tool in tools:
        said = tool["annotations"]
        assert all(isinstance(said[name], bool) for name in HINTS), tool["name"]
        writes = tool["name"] in WRITING
        assert (said["readOnlyHint"], said["destructiveHint"]) == (not writes, writes), tool["name"]
    assert {tool["name"] for tool in tools} >= WRITING
