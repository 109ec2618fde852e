"""Older clients: sessions that prove nothing, and no way around the modern checks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from doors.inbound_house import Door, call, door
from onbehalf.doors.inbound_http import SessionLimits


def with_door(check: Callable[[Door], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with door(**options) as at:
            await check(at)

    asyncio.run(run())


def old_call(word: str = "hi") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "echo", "arguments": {"word": word}}}


def assert_code(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    body = answer.json()
    told = body["error"]["data"] if "error" in body else body["result"]["_meta"]
    assert told["onbehalf/denial"]["code"] == code


@pytest.mark.parametrize("thief", ["bob", "alice-elsewhere", "alice-of-other"])
def test_a_session_replayed_by_another_subject_client_or_issuer_does_not_exist(thief: str) -> None:
    async def check(at: Door) -> None:
        session = await at.open_session("alice")
        assert_code(await at.legacy(old_call(), token=thief, session=session), 404, "session_foreign")
        headers = {"Authorization": f"Bearer {thief}", "Mcp-Session-Id": session}
        async with httpx.AsyncClient(headers=headers) as client:
            assert_code(await client.delete(at.url), 404, "session_foreign")
        assert at.house.requests == []
        assert (await at.legacy(old_call(), session=session)).status_code == 200

    with_door(check)


def test_a_foreign_session_reads_the_same_as_none() -> None:
    async def check(at: Door) -> None:
        session = await at.open_session("alice")
        foreign = await at.legacy(old_call(), token="bob", session=session)
        absent = await at.legacy(old_call(), token="bob", session="0" * 32)
        assert foreign.content == absent.content

    with_door(check)


def test_a_session_id_without_a_good_token_is_nothing() -> None:
    async def check(at: Door) -> None:
        session = await at.open_session("alice")
        for token, code in (("expired", "token_expired"), ("forged", "signature_mismatch")):
            assert_code(await at.legacy(old_call(), token=token, session=session), 401, code)
        async with httpx.AsyncClient(headers={"Mcp-Session-Id": session}) as client:
            for method in ("GET", "DELETE", "POST"):
                assert_code(await client.request(method, at.url), 401, "token_missing")
            client.headers["Authorization"] = "Bearer forged"
            for method in ("GET", "DELETE"):
                assert_code(await client.request(method, at.url), 401, "signature_mismatch")
        assert at.house.requests == []

    with_door(check)


def test_a_call_is_made_with_the_token_of_its_own_request() -> None:
    async def check(at: Door) -> None:
        session = await at.open_session("alice")
        words = [f"w{number}" for number in range(8)]
        tokens = ["alice", "alice-again"] * 4
        answers = await asyncio.gather(
            *(
                at.legacy({**old_call(word), "id": word}, token=token, session=session)
                for word, token in zip(words, tokens, strict=True)
            )
        )
        got = [answer.json()["result"]["structuredContent"] for answer in answers]
        assert got == [{"word": word, "token": token} for word, token in zip(words, tokens, strict=True)]

    with_door(check)


def test_an_ended_session_is_gone() -> None:
    async def check(at: Door) -> None:
        session = await at.open_session()
        async with httpx.AsyncClient(headers={"Authorization": "Bearer alice", "Mcp-Session-Id": session}) as client:
            assert (await client.delete(at.url)).status_code == 200
            assert_code(await client.get(at.url), 405, "method_refused")
        assert_code(await at.legacy(old_call(), session=session), 404, "session_foreign")

    with_door(check)


def test_an_idle_session_expires() -> None:
    class Brief(SessionLimits):
        idle_seconds = 0.5

    async def check(at: Door) -> None:
        session = await at.open_session()
        while (await at.app._older.door())._manager._server_instances:
            await asyncio.sleep(0.01)
        assert_code(await at.legacy(old_call(), session=session), 404, "session_foreign")

    with_door(check, sessions=Brief())


def test_one_owner_keeps_only_the_newest_sessions_and_others_keep_theirs() -> None:
    class Few(SessionLimits):
        max_per_owner = 2

    async def check(at: Door) -> None:
        hers = await at.open_session("bob")
        first, second, third = [await at.open_session() for _ in range(3)]
        assert_code(await at.legacy(old_call(), session=first), 404, "session_foreign")
        for token, session in (("alice", second), ("alice", third), ("bob", hers)):
            assert (await at.legacy(old_call(), token=token, session=session)).status_code == 200

    with_door(check, sessions=Few())


def test_more_sessions_than_the_cap_are_told_to_come_back() -> None:
    class One(SessionLimits):
        max_sessions = 1

    async def check(at: Door) -> None:
        await at.open_session("alice")
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
        answer = await at.legacy({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}, token="bob")
        assert_code(answer, 503, "busy")

    with_door(check, sessions=One())


@pytest.mark.parametrize(
    ("word", "status", "code"),
    [("scope", 403, "insufficient_scope"), ("ledger", 503, "ledger_unavailable"), ("crash", 500, "internal")],
)
def test_a_refusal_by_the_house_has_its_http_status_here_too(word: str, status: int, code: str) -> None:
    async def check(at: Door) -> None:
        session = await at.open_session()
        answer = await at.legacy(old_call(word), session=session)
        assert_code(answer, status, code)
        assert answer.json()["id"] == 5
        assert "secret" not in answer.text
        assert len(answer.headers.get_list("www-authenticate")) == (1 if word == "scope" else 0)

    with_door(check)


@pytest.mark.parametrize("version", [None, "2025-11-25", "2024-11-05"])
def test_a_modern_body_with_an_older_header_cannot_choose_the_older_door(version: str | None) -> None:
    async def check(at: Door) -> None:
        session = await at.open_session()
        headers = {"Mcp-Session-Id": session} | ({"MCP-Protocol-Version": version} if version else {})
        drop = () if version else ("MCP-Protocol-Version",)
        assert_code(await at.post(call(), headers=headers, drop=drop), 400, "header_mismatch")
        assert at.house.requests == []

    with_door(check)


def test_an_older_body_with_a_modern_header_is_not_served_by_the_modern_door() -> None:
    async def check(at: Door) -> None:
        session = await at.open_session()
        answer = await at.post(old_call(), headers={"Mcp-Session-Id": session})
        assert_code(answer, 400, "parameters_invalid")
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
        assert_code(await at.post(hello), 400, "parameters_invalid")
        assert at.house.requests == []

    with_door(check)


def test_a_mirrored_header_must_be_true_for_older_clients_too() -> None:
    async def check(at: Door) -> None:
        session = await at.open_session()
        for lie in ({"Mcp-Method": "tools/list"}, {"Mcp-Name": "zebra"}, {"Mcp-Param-Region": "eu"}):
            headers = {"MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": session, **lie}
            assert_code(await at.post(old_call(), headers=headers), 400, "header_mismatch")
        assert at.house.requests == []

    with_door(check)


def test_a_modern_method_is_not_served_in_an_older_session() -> None:
    async def check(at: Door) -> None:
        session = await at.open_session()
        answer = await at.legacy({"jsonrpc": "2.0", "id": 2, "method": "server/discover"}, session=session)
        assert answer.json()["error"]["code"] == -32601

    with_door(check)


def test_a_ping_is_answered_in_an_older_session() -> None:
    async def check(at: Door) -> None:
        session = await at.open_session()
        answer = await at.legacy({"jsonrpc": "2.0", "id": 2, "method": "ping"}, session=session)
        assert answer.json() == {"jsonrpc": "2.0", "id": 2, "result": {}}

    with_door(check)


def test_a_session_ends_with_its_persons_access_and_each_request_asks_again() -> None:
    async def check(at: Door) -> None:
        session = await at.open_session()
        listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        assert (await at.legacy(old_call(), session=session)).status_code == 200
        at.house.removed.add("alice")
        assert_code(await at.legacy(old_call(), session=session), 403, "person_unknown")
        assert_code(await at.legacy(listing, session=session), 403, "person_unknown")
        at.house.revoked.add("alice")
        for sent in (old_call(), listing, {"jsonrpc": "2.0", "id": 2, "method": "ping"}):
            assert_code(await at.legacy(sent, session=session), 401, "token_expired")
        assert len(at.house.requests) == 1

    with_door(check)


@pytest.mark.parametrize("owner", ["alice", "bob"])
def test_a_session_id_on_a_2026_request_proves_and_changes_nothing(owner: str) -> None:
    async def check(at: Door) -> None:
        session = await at.open_session(owner)
        answer = await at.post(call(), token="alice-again", headers={"Mcp-Session-Id": session})
        assert answer.json()["result"]["structuredContent"]["token"] == "alice-again"
        assert "mcp-session-id" not in answer.headers
        assert_code(
            await at.post(call(), token="forged", headers={"Mcp-Session-Id": session}), 401, "signature_mismatch"
        )
        assert_code(await at.post(call(), token=None, headers={"Mcp-Session-Id": session}), 401, "token_missing")

    with_door(check)


def test_an_initialize_cannot_be_talked_up_to_the_newer_revision() -> None:
    async def check(at: Door) -> None:
        hello = {"protocolVersion": "2026-07-28", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
        answer = await at.legacy({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
        assert answer.json()["result"]["protocolVersion"] == "2025-11-25"

    with_door(check)


def test_a_request_without_a_session_is_refused_and_leaves_none_behind() -> None:
    async def check(at: Door) -> None:
        for sent in (old_call(), {"jsonrpc": "2.0", "method": "notifications/initialized"}):
            assert (await at.legacy(sent)).status_code == 400
        async with httpx.AsyncClient(headers={"Authorization": "Bearer alice"}) as client:
            assert_code(await client.delete(at.url), 400, "request_refused")
        assert not (await at.app._older.door())._manager._server_instances
        assert at.house.requests == []

    with_door(check)


def test_ended_and_long_unused_sessions_go_before_one_in_use() -> None:
    class Few(SessionLimits):
        max_per_owner = 2

    async def check(at: Door) -> None:
        used = await at.open_session()
        async with httpx.AsyncClient(headers={"Authorization": "Bearer alice"}) as client:
            for _ in range(3):
                client.headers["Mcp-Session-Id"] = await at.open_session()
                assert (await client.delete(at.url)).status_code == 200
        unused = await at.open_session()
        assert (await at.legacy(old_call(), session=used)).status_code == 200
        await at.open_session()
        assert (await at.legacy(old_call(), session=used)).status_code == 200
        assert_code(await at.legacy(old_call(), session=unused), 404, "session_foreign")

    with_door(check, sessions=Few())


@pytest.mark.parametrize("identifier", [None, True, 1.5, [1]])
def test_an_id_that_is_neither_text_nor_whole_number_is_refused(identifier: Any) -> None:
    async def check(at: Door) -> None:
        session = await at.open_session()
        answer = await at.legacy({**old_call(), "id": identifier}, session=session)
        assert_code(answer, 400, "request_refused")
        assert at.house.requests == []

    with_door(check)


def test_an_idempotency_key_of_an_older_client_goes_to_the_house_too() -> None:
    async def check(at: Door) -> None:
        session = await at.open_session("alice")
        sent = old_call()
        sent["params"]["_meta"] = {"onbehalf/idempotency-key": "order 7"}
        assert (await at.legacy(sent, session=session)).status_code == 200
        sent["params"]["_meta"] = {"onbehalf/idempotency-key": "a\nb"}
        assert_code(await at.legacy(sent, session=session), 400, "parameters_invalid")
        assert [request.once for _, request in at.house.requests] == ["order 7"]

    with_door(check)
