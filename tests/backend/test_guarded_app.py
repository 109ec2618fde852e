"""How a guarded app gets its keys over real HTTP, and what it sees of requests and of clients that leave."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from act.granted import granted
from backend.forging import encoded
from backend.guarding import AUDIENCE, GATEWAY, asked, house, refused, run
from backend.serving import KeyServer, Recorder, served
from onbehalf.backend.asgi import CallTokenMiddleware
from onbehalf.demo.data import world
from onbehalf.demo.files import Places, write
from onbehalf.demo.ticket_guard import guarded, verified_tenant
from onbehalf.demo.ticket_store import TicketStore
from onbehalf.demo.tickets import build
from onbehalf.doors.signer_file import FileSigner
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json, UnixTime

# --- keys over HTTP ------------------------------------------------------------------------


def test_keys_are_fetched_when_first_needed_and_then_kept(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            await home.post(asked(method="tools/list"))
            await home.post(asked(), "x")
            assert (home.keys.asked, len(home.app.scopes)) == (0, 1)
            await asyncio.gather(*(home.post(asked(), home.token()) for _ in range(8)))
            assert (home.keys.asked, len(home.app.scopes)) == (1, 9)

    run(walk())


def test_a_rotation_is_not_noticed_by_callers_and_needs_no_fetch(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            before = home.token()
            assert (await home.post(asked(), home.token())).status_code == 200
            home.signer.rotate(UnixTime(int(time.time())))
            assert (await home.post(asked(), before)).status_code == 200
            assert (await home.post(asked(), home.token())).status_code == 200
            assert home.keys.asked == 1

    run(walk())


def test_a_gateway_that_cannot_be_asked_means_no_calls(tmp_path: Path) -> None:
    async def walk() -> None:
        async with house(tmp_path) as home:
            home.keys.status = 500
            refused(await home.post(asked(), home.token()), 401, "call_keys_unavailable")
            home.keys.status = 302
            refused(await home.post(asked(), home.token()), 401, "call_keys_unavailable")
            assert home.app.scopes == []

    run(walk())


def test_unknown_keys_do_not_make_the_backend_ask_again_and_again(tmp_path: Path) -> None:
    stranger = FileSigner.open(tmp_path / "stranger", issuer=GATEWAY, now=UnixTime(0))

    async def walk() -> None:
        async with house(tmp_path) as home:
            now = UnixTime(int(time.time()))
            token = stranger.sign(granted(audience=AUDIENCE, now=now)).compact
            for _ in range(5):
                refused(await home.post(asked(), token), 401, "call_token_refused")
            assert home.keys.asked == 1

    run(walk())


# --- the app behind ------------------------------------------------------------------------


def test_an_event_stream_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    seen = asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: one\n\n", "more_body": True})
        await seen.wait()  # the second event is sent only when the first was received
        await send({"type": "http.response.body", "body": b"data: two\n\n"})

    async def walk() -> None:
        async with house(tmp_path, stream) as home:
            headers = {"Txn-Token": home.token()}
            async with home.http.stream("POST", "/mcp", json=asked(), headers=headers) as answer:
                parts = answer.aiter_raw()
                assert await anext(parts) == b"data: one\n\n"
                seen.set()
                assert await anext(parts) == b"data: two\n\n"

    run(walk())


def test_the_app_learns_that_the_client_went_away(tmp_path: Path) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        first = await receive()
        begun.set()
        messages: list[Message] = [first, await receive()]
        assert [message["type"] for message in messages] == ["http.request", "http.disconnect"]
        gone.set()

    async def walk() -> None:
        async with house(tmp_path, waits) as home:
            asking = asyncio.create_task(home.post(asked(), home.token()))
            await begun.wait()
            asking.cancel()
            await gone.wait()

    run(walk())


def test_a_websocket_is_closed_and_the_lifespan_passed_on() -> None:
    reached: list[str] = []
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["type"])

    async def receive() -> Message:
        raise AssertionError("nothing is read")

    async def send(message: Message) -> None:
        sent.append(message)

    key = {"kty": "OKP", "crv": "Ed25519", "x": encoded(b"\x07" * 32), "kid": "k"}
    guard = CallTokenMiddleware(app, issuer=GATEWAY, audience=AUDIENCE, jwks={"keys": [key]})
    for kind in ("websocket", "lifespan", "other"):
        asyncio.run(guard({"type": kind, "headers": []}, receive, send))
    assert reached == ["lifespan"]
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": ""},
        {"audience": ""},
        {"jwks_url": ""},
        {"jwks": {"keys": []}},
        {"jwks_url": "http://gateway.test/jwks"},
        {"jwks_url": "file:///etc/passwd"},
        {"jwks_url": "https://user@gateway.test/jwks"},
    ],
)
def test_a_guard_that_would_guard_nothing_is_not_built(settings: dict[str, Any]) -> None:
    good = {"issuer": GATEWAY, "audience": AUDIENCE, "jwks_url": "https://gateway.test/jwks"}
    CallTokenMiddleware(Recorder(), **good)  # type: ignore[arg-type]
    with pytest.raises(ConfigInvalid):
        CallTokenMiddleware(Recorder(), **(good | settings))


def test_the_demo_ticket_system_believes_call_tokens_only(tmp_path: Path) -> None:
    write(
        tmp_path,
        world(),
        Places(
            gateway=GATEWAY, admin=GATEWAY, issuer=GATEWAY, tickets="http://127.0.0.1:4", orders="http://127.0.0.1:5"
        ),
    )
    server = build(TicketStore(tmp_path / "tickets.db"), verified_tenant)
    signer = FileSigner.open(tmp_path / "keys", issuer=GATEWAY, now=UnixTime(0))
    arguments: dict[str, Json] = {"ticket_id": "T-1001"}
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}

    async def walk() -> None:
        async with served(KeyServer(signer.jwks)) as gateway:
            app = guarded(server.streamable_http_app(stateless_http=True), gateway=GATEWAY, jwks=gateway, audience="a")
            async with served(app) as origin, httpx.AsyncClient(base_url=origin, trust_env=False) as http:
                body = asked("get_ticket", arguments)
                now = UnixTime(int(time.time()))
                token = signer.sign(granted(arguments, tool="get_ticket", audience="a", now=now)).compact
                answer = await http.post("/mcp", json=body, headers=headers | {"Txn-Token": token})
                assert answer.status_code == 200
                assert '"tenant":"acme"' in answer.text.replace(" ", "").replace("\\", "")
                refused(await http.post("/mcp", json=body, headers=headers), 401, "call_token_missing")

    run(walk())
