"""The 2026-07-28 endpoint: its ladder, its results, and the mirrored headers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from doors.inbound_house import MODERN, Door, call, door, message

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


def with_door(check: Callable[[Door], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with door(**options) as at:
            await check(at)

    asyncio.run(run())


def assert_refused(answer: httpx.Response, status: int, rpc: int) -> dict[str, Any]:
    assert (answer.status_code, answer.json().get("error", {}).get("code")) == (status, rpc), answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def test_every_result_says_it_is_complete_and_who_answers() -> None:
    async def check(at: Door) -> None:
        for sent in (call(), message("tools/list"), message("server/discover")):
            result = (await at.post(sent)).json()["result"]
            assert result["resultType"] == "complete"
            assert result["_meta"]["io.modelcontextprotocol/serverInfo"] == {"name": "onbehalf", "version": "1"}

    with_door(check)


def test_discover_names_versions_and_the_only_capability() -> None:
    async def check(at: Door) -> None:
        result = (await at.post(message("server/discover"))).json()["result"]
        assert result["supportedVersions"] == [MODERN]
        assert result["capabilities"] == {"tools": {}}
        assert_refused(await at.post(message("server/discover"), token="forged"), 401, -31401)

    with_door(check)


def test_the_list_is_private_ordered_and_names_what_each_tool_asks_for() -> None:
    async def check(at: Door) -> None:
        answer = await at.post(message("tools/list"))
        result = answer.json()["result"]
        assert [tool["name"] for tool in result["tools"]] == ["echo", "regional", "zebra"]
        assert (result["cacheScope"], result["ttlMs"] >= 0) == ("private", True)
        assert result["tools"][0]["securitySchemes"] == [{"type": "oauth2", "scopes": ["echo:use"]}]
        assert "mcp-session-id" not in answer.headers
        assert_refused(await at.post(message("tools/list", cursor="x")), 400, -32602)

    with_door(check)


@pytest.mark.parametrize("missing", ["_meta", VERSION, CAPABILITIES])
def test_a_missing_meta_is_refused(missing: str) -> None:
    async def check(at: Door) -> None:
        sent = call()
        if missing == "_meta":
            del sent["params"]["_meta"]
        else:
            del sent["params"]["_meta"][missing]
        assert_refused(await at.post(sent), 400, -32602)
        assert at.house.requests == []

    with_door(check)


@pytest.mark.parametrize(
    "headers",
    [
        {"Mcp-Method": "tools/list"}, {"Mcp-Name": "zebra"}, {"Mcp-Name": "=?base64?ZWNobw=?="},
        {"Mcp-Name": "=?base64?ZWNobx==?="}, {"MCP-Protocol-Version": "2027-01-01"}, {"Mcp-Method": "TOOLS/CALL"},
    ],
)  # fmt: skip
def test_a_header_that_disagrees_with_the_body_is_refused(headers: dict[str, str]) -> None:
    async def check(at: Door) -> None:
        assert_refused(await at.post(call(), headers=headers), 400, -32020)
        assert at.house.requests == []

    with_door(check)


@pytest.mark.parametrize("name", ["Mcp-Method", "Mcp-Name"])
def test_a_mirrored_header_that_is_missing_is_refused(name: str) -> None:
    async def check(at: Door) -> None:
        assert_refused(await at.post(call(), drop=(name,)), 400, -32020)

    with_door(check)


@pytest.mark.parametrize("name", ["Mcp-Method", "Mcp-Name", "MCP-Protocol-Version", "Mcp-Param-Region"])
def test_a_duplicate_header_is_refused_even_where_both_agree(name: str) -> None:
    async def check(at: Door) -> None:
        values = {
            "Mcp-Method": "tools/call",
            "Mcp-Name": "echo",
            "MCP-Protocol-Version": MODERN,
            "Mcp-Param-Region": "x",
        }
        pairs = [*values.items(), ("Authorization", "Bearer alice")]
        pairs.append((name, dict(pairs)[name]))
        async with httpx.AsyncClient() as client:
            assert_refused(await client.post(at.url, json=call(), headers=pairs), 400, -32020)

    with_door(check)


def test_a_base64_name_is_decoded_before_it_is_compared() -> None:
    async def check(at: Door) -> None:
        wrapped = "=?base64?" + base64.b64encode(b"echo").decode() + "?="
        assert (await at.post(call(), headers={"Mcp-Name": wrapped})).status_code == 200

    with_door(check)


@pytest.mark.parametrize(
    ("arguments", "header", "ok"),
    [
        ({"region": "eu"}, "eu", True),
        ({"region": "eu"}, "us", False),
        ({"region": "eu"}, None, False),
        ({}, "eu", False),
        ({}, None, True),
        ({"region": ["eu"]}, "eu", False),
    ],
)
def test_a_declared_parameter_header_agrees_with_the_argument_or_the_call_is_refused(
    arguments: dict[str, Any], header: str | None, ok: bool
) -> None:
    async def check(at: Door) -> None:
        headers = {} if header is None else {"Mcp-Param-Region": header}
        answer = await at.post(message(name="regional", arguments=arguments), headers=headers)
        if ok:
            assert answer.status_code == 200
        else:
            assert_refused(answer, 400, -32020)
            assert at.house.requests == []

    with_door(check)


def test_an_unknown_version_names_the_supported_ones() -> None:
    async def check(at: Door) -> None:
        sent = call()
        sent["params"]["_meta"][VERSION] = "2027-01-01"
        error = assert_refused(await at.post(sent, headers={"MCP-Protocol-Version": "2027-01-01"}), 400, -32022)
        assert (error["data"]["supported"], error["data"]["requested"]) == ([MODERN], "2027-01-01")

    with_door(check)


@pytest.mark.parametrize("method", ["ping", "initialize", "resources/list", "subscriptions/listen", "logging/setLevel"])
def test_an_unknown_method_is_not_found(method: str) -> None:
    async def check(at: Door) -> None:
        assert_refused(await at.post(message(method)), 404, -32601)

    with_door(check)


def test_a_batch_a_posted_response_and_a_broken_envelope_are_refused() -> None:
    async def check(at: Door) -> None:
        for sent in (b"[]", b"[{}]", b'"x"', b"{}", b'{"jsonrpc":"2.0","id":1,"result":{}}', b"null"):
            assert_refused(await at.post(sent), 400, -32600)
            assert_refused(await at.post(sent, headers={"MCP-Protocol-Version": "2026-07-28"}), 400, -32600)
        identifiers: tuple[Any, ...] = (None, True, 1.5, [1], {})
        for identifier in identifiers:
            assert_refused(await at.post({**call(), "id": identifier}), 400, -32600)
        assert_refused(await at.post({**call(), "jsonrpc": "1.0"}), 400, -32600)

    with_door(check)


def test_parameters_of_the_wrong_shape_are_refused() -> None:
    async def check(at: Door) -> None:
        assert_refused(await at.post(message(name="echo", arguments=[1])), 400, -32602)
        assert_refused(await at.post(message(name=7), headers={"Mcp-Name": "7"}), 400, -32020)
        assert at.house.requests == []

    with_door(check)


def test_a_notification_is_proven_acknowledged_and_dropped() -> None:
    async def check(at: Door) -> None:
        sent = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        answer = await at.post(sent)
        assert (answer.status_code, answer.content) == (202, b"")
        assert_refused(await at.post(sent, token="forged"), 401, -31401)
        assert_refused(await at.post(sent, headers={"MCP-Protocol-Version": "2030-01-01"}), 400, -32022)

    with_door(check)


def test_what_the_client_calls_itself_is_bounded_and_printable() -> None:
    async def check(at: Door) -> None:
        sent = call()
        sent["params"]["_meta"]["io.modelcontextprotocol/clientInfo"] = {"name": "a\r\nb" + "x" * 500, "version": 3}
        assert (await at.post(sent)).status_code == 200
        [(_, request)] = at.house.requests
        assert request.agent.startswith("a??bxxx")
        assert len(request.agent) == 120

    with_door(check)


def test_an_idempotency_key_goes_to_the_house_and_what_is_none_is_refused() -> None:
    async def check(at: Door) -> None:
        sent = call()
        sent["params"]["_meta"]["onbehalf/idempotency-key"] = "order 7"
        assert (await at.post(sent)).status_code == 200
        for wrong in ("", "x" * 256, "é", "a\nb", 7, True, ["a"], {}):
            sent["params"]["_meta"]["onbehalf/idempotency-key"] = wrong
            assert_refused(await at.post(sent), 400, -32602)
        assert (await at.post(call())).status_code == 200
        assert [request.once for _, request in at.house.requests] == ["order 7", ""]

    with_door(check)


def test_a_denial_is_a_result_with_its_call_on_record() -> None:
    async def check(at: Door) -> None:
        answer = await at.post(call("denied"))
        assert answer.status_code == 200
        result = answer.json()["result"]
        assert result["isError"] is True
        assert result["_meta"]["onbehalf/call"] == "call_1"

    with_door(check)
