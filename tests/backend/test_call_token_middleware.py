"""What an MCP server behind call tokens refuses and serves, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from backend.forging import encoded
from backend.guarding import AUDIENCE, GATEWAY, asked, house, refused, run
from backend.serving import Recorder
from onbehalf.backend import MemoryReplay, VerifiedCall, asgi_body
from onbehalf.backend.asgi import CallTokenMiddleware
from onbehalf.model import UnixTime


def test_a_call_with_its_token_is_served_and_proven(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            answer = await home.post(asked(), home.token())
            assert answer.json() == {"served": True}
            call = home.app.scopes[0]["onbehalf.call"]
            assert isinstance(call, VerifiedCall)
            assert (call.tenant, call.person, call.tool) == ("acme", "alice", "update_ticket")
            assert json.loads(home.app.bodies[0]) == asked()
            assert b"txn-token" not in dict(home.app.scopes[0]["headers"])

    run(walk())


def test_each_refusal_has_its_status_and_code_and_nothing_reaches_the_app(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            refused(await home.post(asked()), 401, "call_token_missing")
            refused(await home.post(asked(), home.token(), home.token()), 401, "call_token_missing")
            same = home.token()
            refused(await home.post(asked(), same, same), 401, "call_token_missing")
            refused(await home.post(asked(), f"{same}, {same}"), 401, "call_token_refused")
            refused(await home.post(asked(), ""), 401, "call_token_missing")
            refused(await home.post(asked(), "x"), 401, "call_token_refused")
            refused(await home.post(asked("get_ticket"), home.token()), 401, "call_token_mismatch")
            refused(await home.post(asked(arguments={}), home.token()), 401, "call_token_mismatch")
            refused(await home.post(asked(), home.token({})), 401, "call_token_mismatch")
            refused(await home.post(asked(), home.token(audience="sql:hr")), 401, "call_token_refused")
            old = UnixTime(int(time.time()) - 36)
            refused(await home.post(asked(), home.token(now=old)), 401, "call_token_expired")
            early = UnixTime(int(time.time()) + 20)
            refused(await home.post(asked(), home.token(now=early)), 401, "call_token_expired")
            assert home.app.scopes == []

    run(walk())


def test_a_token_in_the_authorization_header_is_no_call_token(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            answer = await home.post(asked(), authorization=f"Bearer {home.token()}")
            refused(answer, 401, "call_token_missing")

    run(walk())


def test_a_token_is_served_once_however_many_try_at_once(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            token = home.token()
            answers = await asyncio.gather(*(home.post(asked(), token) for _ in range(12)))
            assert sorted(answer.status_code for answer in answers) == [200] + [401] * 11
            assert len(home.app.scopes) == 1
            refused(await home.post(asked(), token), 401, "call_token_replayed")

    run(walk())


def test_a_full_replay_memory_serves_no_more_calls(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path, replay=MemoryReplay(capacity=2)) as home:
            for _ in range(2):
                assert (await home.post(asked(), home.token())).status_code == 200
            refused(await home.post(asked(), home.token()), 401, "replay_unknown")
            assert len(home.app.scopes) == 2

    run(walk())


def test_a_token_from_before_a_restart_is_refused(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            before = UnixTime(int(time.time()) - 4)
            refused(await home.post(asked(), home.token(now=before)), 401, "replay_unknown")

    run(walk())


OPEN = ["initialize", "ping", "tools/list", "server/discover", "notifications/initialized", "notifications/x"]


def test_methods_that_touch_no_ones_data_need_no_token_and_prove_nothing(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            for method in OPEN:
                assert (await home.post(asked(method=method))).status_code == 200
                assert (await home.post(asked(method=method), home.token())).status_code == 200
                for scope in home.app.scopes:
                    assert "onbehalf.call" not in scope
                    assert b"txn-token" not in dict(scope["headers"])

    run(walk())


CLOSED = ["resources/read", "prompts/get", "tools/Call", "tools/call ", "notifications", "", "completion/complete"]


def test_every_other_method_is_refused_with_and_without_a_token(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            for method in CLOSED:
                refused(await home.post(asked(method=method)), 401, "call_token_missing")
                refused(await home.post(asked(method=method), home.token()), 401, "call_token_refused")
                assert home.app.scopes == []

    run(walk())


ONE = json.dumps(asked()).encode()


UNCLEAR = [
    b"",
    b"null",
    b"[" + ONE + b"]",
    b"[]",
    ONE + ONE,
    b"\xef\xbb\xbf" + ONE,
    ONE.decode().encode("utf-16"),
    ONE.replace(b'"method"', b'"method": "ping", "method"'),
    ONE.replace(b'"name"', b'"name": "get_ticket", "name"'),
    ONE.replace(b'"status"', b'"status": "open", "status"'),
    ONE.replace(b'"status"', b'"\\u0073tatus": "open", "status"'),
    ONE.replace(b'"2.0"', b'"1.0"'),
    ONE.replace(b"1.5", b"NaN"),
    ONE.replace(b"1.5", b"[" * 100 + b"]" * 100),
    b'{"jsonrpc":"2.0","id":7,"result":{}}',
    b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
    b'{"jsonrpc":"2.0","id":true,"method":"ping"}',
    b'{"jsonrpc":"2.0","id":7,"method":"ping","params":[]}',
    b'{"jsonrpc":"2.0","id":7,"method":"ping","extra":1}',
]


def test_a_body_that_is_not_one_clear_request_is_refused(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            for body in UNCLEAR:
                refused(await home.post(body, home.token()), 400, "body_malformed", None)
                assert home.app.scopes == []

    run(walk())


@pytest.mark.parametrize(
    "params", [{}, {"name": 1}, {"name": "x", "arguments": []}, {"name": "x", "arguments": None}, {"task": {}}]
)
def test_a_call_that_its_token_would_not_cover_is_refused(tmp_path: Path, params: dict[str, Any]) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            body = asked() | {"params": (asked()["params"] if "task" in params else {}) | params}
            refused(await home.post(body, home.token()), 400, "body_malformed")

    run(walk())


def test_a_method_header_that_disagrees_with_the_body_is_refused(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            answer = await home.post(asked(method="tools/list"), **{"mcp-method": "tools/call"})
            refused(answer, 400, "header_mismatch")

    run(walk())


def test_a_body_is_bounded_whether_it_says_its_length_or_not(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 1000

    async def walk() -> None:
        async with house(tmp_path, max_body_bytes=10_000) as home:
            refused(await home.post(b"x" * 10_001), 413, "body_too_large", None)
            with contextlib.suppress(httpx.TransportError):  # refused while still sending: the answer may be lost
                refused(await home.http.post("/mcp", content=chunks()), 413, "body_too_large", None)
            assert home.app.scopes == []

    run(walk())


NOT_POST = ["GET", "DELETE", "PUT", "HEAD", "OPTIONS"]


def test_only_post_is_served(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            for method in NOT_POST:
                answer = await home.http.request(method, "/mcp", headers={"Txn-Token": home.token()})
                assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
                assert home.app.scopes == []

    run(walk())


def test_a_compressed_body_is_refused(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            refused(await home.post(asked(), **{"content-encoding": "gzip"}), 415, "media_type_refused", None)

    run(walk())


STATIC = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": encoded(b"\x07" * 32), "kid": "k"}]}


async def answered(messages: list[Message], **scope: Any) -> tuple[list[Message], Recorder]:
    """What a guard with given keys sends for these messages; after the last one nothing ever comes."""
    app, sent = Recorder(), list[Message]()

    async def receive() -> Message:
        return messages.pop(0) if messages else await asyncio.get_running_loop().create_future()

    async def send(message: Message) -> None:
        sent.append(message)

    guard = CallTokenMiddleware(app, issuer=GATEWAY, audience=AUDIENCE, jwks=STATIC)
    await guard({"type": "http", "method": "POST", "headers": [], **scope}, receive, send)
    return sent, app


def test_a_proof_that_was_in_the_scope_before_is_taken_out() -> None:
    body = json.dumps(asked(method="tools/list")).encode()
    message = {"type": "http.request", "body": body}
    _, app = asyncio.run(answered([message], **{"onbehalf.call": "forged", "path": "/mcp"}))
    assert "onbehalf.call" not in app.scopes[0]
    assert app.scopes[0]["path"] == "/mcp"


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_body, "BODY_SECONDS", 0.05)
    sent, app = asyncio.run(answered([{"type": "http.request", "body": b"{", "more_body": True}]))
    assert (sent[0]["status"], app.scopes) == (408, [])
    assert json.loads(sent[1]["body"])["error"]["data"]["code"] == "body_too_slow"


def test_a_client_that_goes_away_while_sending_is_not_answered() -> None:
    part = {"type": "http.request", "body": ONE, "more_body": True}
    sent, app = asyncio.run(answered([part, {"type": "http.disconnect"}]))
    assert (sent, app.scopes) == ([], [])
