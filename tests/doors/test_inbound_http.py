"""What the public door refuses, and how it says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from doors.inbound_house import Door, call, door, message
from onbehalf.config import Limits


def with_door(check: Callable[[Door], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with door(**options) as at:
            await check(at)
            assert at.app._calls == at.app._arrivals == 0

    asyncio.run(run())


def refused(answer: httpx.Response, status: int, rpc: int, code: str) -> dict[str, Any]:
    """The refusal has this HTTP status, JSON-RPC code and stable code."""
    assert (answer.status_code, answer.json().get("error", {}).get("code")) == (status, rpc), answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["data"]["onbehalf/denial"]["code"] == code
    return error


def test_a_bad_host_is_misdirected() -> None:
    async def check(at: Door) -> None:
        refused(await at.post(call(), headers={"Host": "evil.example"}), 421, -31421, "host_refused")
        refused(await at.post(call(), headers={"Host": f"localhost:{at.port}"}), 421, -31421, "host_refused")
        assert at.house.proofs == 0
        assert at.meter.codes == ["host_refused"] * 2

    with_door(check)


def test_a_foreign_origin_is_forbidden_and_allowed_ones_pass() -> None:
    async def check(at: Door) -> None:
        for origin in ("https://evil.example", "null", f"http://127.0.0.1:{at.port}.evil.example"):
            refused(await at.post(call(), headers={"Origin": origin}), 403, -31403, "origin_refused")
        for origin in ("https://page.example", at.origin):
            assert (await at.post(call(), headers={"Origin": origin})).status_code == 200

    with_door(check)


def test_without_a_token_the_one_challenge_names_no_error() -> None:
    async def check(at: Door) -> None:
        answer = await at.post(call(), token=None)
        error = refused(answer, 401, -31401, "token_missing")
        challenges = answer.headers.get_list("www-authenticate")
        metadata = f"{at.origin}/.well-known/oauth-protected-resource/mcp"
        assert challenges == [f'Bearer resource_metadata="{metadata}", scope="echo:use zebra:use"']
        assert error["data"]["mcp/www_authenticate"] == challenges
        refused(await at.post(call(), headers={"Authorization": "Basic eDp5"}), 401, -31401, "token_missing")
        async with httpx.AsyncClient() as client:
            assert (await client.get(at.url)).status_code == 401

    with_door(check)


def test_an_invalid_token_is_challenged_and_nothing_can_leave_the_quotes() -> None:
    async def check(at: Door) -> None:
        answer = await at.post(call(), token="expired")
        error = refused(answer, 401, -31401, "token_expired")
        [challenge] = answer.headers.get_list("www-authenticate")
        assert "error=\"invalid_token\", error_description=\"log in 'again'''X-Evil: 1\"" in challenge
        assert "x-evil" not in answer.headers
        assert "secret-person" not in answer.text
        assert error["message"].startswith("who calls is not proven")
        refused(await at.post(call(), token="forged"), 401, -31401, "signature_mismatch")
        refused(await at.post(call(), headers={"Authorization": "Bearer a b"}), 401, -31401, "token_malformed")
        assert at.house.requests == []

    with_door(check)


def test_a_missing_scope_is_a_403_that_names_all_scopes_of_the_operation() -> None:
    async def check(at: Door) -> None:
        answer = await at.post(call("scope"))
        assert answer.status_code == 403
        result = answer.json()["result"]
        [challenge] = answer.headers.get_list("www-authenticate")
        assert 'scope="reviews:read team:read", error="insufficient_scope"' in challenge
        assert result["_meta"]["mcp/www_authenticate"] == [challenge]
        assert result["_meta"]["onbehalf/denial"]["code"] == "insufficient_scope"
        assert result["isError"] is True

    with_door(check)


def test_a_refusal_that_login_does_not_help_has_no_challenge() -> None:
    async def check(at: Door) -> None:
        answer = await at.post(call("person"))
        refused(answer, 403, -31403, "person_unknown")
        assert "www-authenticate" not in answer.headers

    with_door(check)


def test_an_unavailable_ledger_is_a_503_without_its_path() -> None:
    async def check(at: Door) -> None:
        answer = await at.post(call("ledger"))
        refused(answer, 503, -31503, "ledger_unavailable")
        assert "secret" not in answer.text
        assert answer.headers["retry-after"] == "1"

    with_door(check)


def test_an_unexpected_error_tells_no_details() -> None:
    async def check(at: Door) -> None:
        answer = await at.post(call("crash"))
        error = refused(answer, 500, -32603, "internal")
        assert error["message"] == "internal error"
        assert "ZeroDivision" not in answer.text

    with_door(check)


def test_two_authorization_headers_are_refused() -> None:
    async def check(at: Door) -> None:
        headers = [
            ("Authorization", "Bearer alice"),
            ("Authorization", "Bearer bob"),
            ("Content-Type", "application/json"),
        ]
        async with httpx.AsyncClient() as client:
            answer = await client.post(at.url, json=call(), headers=headers)
        refused(answer, 400, -32600, "credentials_refused")
        assert 'error="invalid_request"' in answer.headers["www-authenticate"]
        assert at.house.proofs == 0

    with_door(check)


@pytest.mark.parametrize("query", ["access_token=alice", "ACCESS_TOKEN=alice", "access%5Ftoken=alice", "token"])
def test_a_token_in_the_query_is_refused_even_beside_a_good_one(query: str) -> None:
    async def check(at: Door) -> None:
        at.url += f"?{query}"
        refused(await at.post(call()), 400, -32600, "credentials_refused")

    with_door(check)


def test_client_sent_identity_headers_never_reach_the_house() -> None:
    async def check(at: Door) -> None:
        names = ("X-User-Id", "X-User-Email", "X-Tenant-Id", "Txn-Token", "X-Forwarded-Host", "X-Forwarded-For")
        forged = {name: f"forged-{name}" for name in (*names, "Forwarded", "Cookie", "X-Remote-User")}
        assert (await at.post(call(), headers=forged)).status_code == 200
        session = await at.open_session()
        assert (await at.legacy(call_legacy("hi"), session=session, headers=forged)).status_code == 200
        for token, request in at.house.requests:
            assert (token, request.tool, request.arguments) == ("alice", "echo", {"word": "hi"})
            assert "forged" not in f"{request.protocol} {request.agent} {request.arguments}"

    with_door(check)


def test_a_forwarded_host_cannot_stand_in_for_the_host() -> None:
    async def check(at: Door) -> None:
        forged = {"Host": "evil.example", "X-Forwarded-Host": f"127.0.0.1:{at.port}"}
        refused(await at.post(call(), headers=forged), 421, -31421, "host_refused")

    with_door(check)


def test_media_types_are_checked_both_ways() -> None:
    async def check(at: Door) -> None:
        refused(await at.post(call(), headers={"Content-Type": "text/plain"}), 415, -31415, "media_type_refused")
        refused(await at.post(call(), headers={"Accept": "text/html"}), 406, -31406, "not_acceptable")
        assert (
            await at.post(call(), headers={"Accept": "*/*", "Content-Type": "application/json; charset=utf-8"})
        ).is_success

    with_door(check)


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"", b"\xef\xbb\xbf{}", b'{"a":"\xff"}', b'{"a":NaN}', b'{"a":1e999}', b'"' + b"\\" * 1001,
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"tools/list"}',
        b'{"id":1,"params":{"arguments":{"person":"bob","\\u0070erson":"alice"}}}',
    ],
)  # fmt: skip
def test_a_body_without_exactly_one_meaning_is_refused(body: bytes) -> None:
    async def check(at: Door) -> None:
        refused(await at.post(body), 400, -32700, "body_malformed")
        refused(await at.post(body, headers={"MCP-Protocol-Version": "2025-11-25"}), 400, -32700, "body_malformed")

    with_door(check)


def test_deep_json_is_refused_before_it_is_parsed() -> None:
    async def check(at: Door) -> None:
        deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        refused(await at.post(deep), 400, -32700, "body_malformed")
        brackets_in_text = call('"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\{{{{')
        assert (await at.post(brackets_in_text)).status_code == 200

    with_door(check)


def test_an_oversized_body_is_refused_by_its_declared_length() -> None:
    async def check(at: Door) -> None:
        refused(await at.post(b" " * 3000), 413, -31413, "body_too_large")

    with_door(check, limits=Limits(body_bytes=2048))


def test_an_oversized_chunked_body_is_refused_while_it_arrives() -> None:
    async def check(at: Door) -> None:
        head = at.head(b"Transfer-Encoding: chunked\r\n")
        endless = (b"400\r\n" + b" " * 1024 + b"\r\n") * 4
        answer = await at.raw(head + endless)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"body_too_large" in answer
        assert b"connection: close" in answer.lower()

    with_door(check, limits=Limits(body_bytes=2048))


def test_a_slow_body_is_refused_in_time() -> None:
    async def check(at: Door) -> None:
        answer = await at.raw(at.head(b"Content-Length: 100\r\n") + b"{")
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"body_too_slow" in answer

    with_door(check, limits=Limits(body_seconds=0.05))


def test_a_call_that_takes_too_long_is_cancelled_and_denied_with_a_code() -> None:
    async def check(at: Door) -> None:
        error = refused(await at.post(call("hang")), 504, -31504, "call_timed_out")
        assert "do not repeat" in error["message"]
        assert at.house.cancelled.is_set()
        at.house.cancelled.clear()
        session = await at.open_session()
        refused(await at.legacy(call_legacy("hang"), session=session), 504, -31504, "call_timed_out")
        assert at.house.cancelled.is_set()

    with_door(check, limits=Limits(call_seconds=0.1))


def test_a_client_that_goes_away_cancels_its_call() -> None:
    async def check(at: Door) -> None:
        async with httpx.AsyncClient() as client:
            gone = asyncio.create_task(
                client.post(at.url, json=call("hang"), headers={
                    "Authorization": "Bearer alice", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call",
                    "Mcp-Name": "echo",
                })
            )  # fmt: skip
            await at.house.entered.wait()
            gone.cancel()
        await asyncio.wait_for(at.house.cancelled.wait(), 5)
        while at.app._calls:
            await asyncio.sleep(0.005)

    with_door(check)


def test_one_call_too_many_is_told_to_come_back() -> None:
    async def check(at: Door) -> None:
        first = asyncio.create_task(at.post(call("hang")))
        await at.house.entered.wait()
        answer = await at.post(call())
        refused(answer, 503, -31503, "busy")
        assert answer.headers["retry-after"] == "1"
        assert (await first).status_code == 504

    with_door(check, limits=Limits(concurrency=1, call_seconds=0.5))


def test_slow_bodies_do_not_take_the_place_of_calls() -> None:
    async def check(at: Door) -> None:
        slow = asyncio.create_task(at.raw(at.head(b"Content-Length: 100\r\n") + b"{"))
        while not at.app._arrivals:
            await asyncio.sleep(0.005)
        assert (await at.post(call())).status_code == 200
        await slow

    with_door(check, limits=Limits(concurrency=1, body_seconds=0.5))


def test_metadata_stands_at_both_well_known_places_without_a_token() -> None:
    async def check(at: Door) -> None:
        async with httpx.AsyncClient() as client:
            for path in ("", "/mcp"):
                answer = await client.get(f"{at.origin}/.well-known/oauth-protected-resource{path}")
                assert answer.json() == {
                    "resource": at.url,
                    "authorization_servers": ["https://idp.example"],
                    "scopes_supported": ["echo:use", "zebra:use"],
                    "bearer_methods_supported": ["header"],
                    "resource_name": "onbehalf",
                }
            assert (await client.get(f"{at.origin}/.well-known/jwks.json")).json() == {"keys": []}
            assert (await client.get(f"{at.origin}/healthz")).json() == {"status": "ok"}
            assert (await client.post(f"{at.origin}/healthz")).status_code == 405
            for path in ("/metrics", "/readyz", "/mcp/", "/mcp/x", "//mcp", "/.well-known/oauth-protected-resource/x"):
                assert (await client.get(at.origin + path)).status_code == 404, path
        assert at.house.proofs == 0

    with_door(check)


def test_the_routed_path_counts_and_not_the_request_url() -> None:
    async def check(at: Door) -> None:
        absolute = (
            b"POST http://127.0.0.1/healthz HTTP/1.1\r\nHost: evil\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        assert b"200 OK" not in await at.raw(absolute, until_close=True)

    with_door(check)


def call_legacy(word: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "echo", "arguments": {"word": word}}}


def test_a_get_or_delete_in_the_modern_era_is_not_served() -> None:
    async def check(at: Door) -> None:
        headers = {"Authorization": "Bearer alice", "MCP-Protocol-Version": "2026-07-28"}
        async with httpx.AsyncClient(headers=headers) as client:
            for method in ("GET", "DELETE", "PUT"):
                answer = await client.request(method, at.url)
                refused(answer, 405, -31405, "method_refused")
                assert answer.headers["allow"] == "POST"
            client.headers["Authorization"] = "Bearer forged"
            refused(await client.get(at.url), 401, -31401, "signature_mismatch")

    with_door(check)


def test_the_request_id_comes_back_in_a_refusal() -> None:
    async def check(at: Door) -> None:
        answer = await at.post({**message("tools/list"), "id": "seven"}, token="forged")
        assert answer.json()["id"] == "seven"

    with_door(check)
