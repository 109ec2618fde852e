"""A plain HTTP API behind call tokens, over WSGI and over ASGI: called by the gateway's own door, and by others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.api_document import BYTES
from backend.api_guarding import ApiHouse, api_house, told
from onbehalf.backend import MemoryReplay, asgi_http, wsgi
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Done, Json, UnixTime

CALLS: list[tuple[str, dict[str, Json]]] = [
    ("list", {}),
    ("list", {"state": "open & shut", "limit": 10, "ratio": 0.5, "all": False, "ids": ["a", "b,c"], "sizes": [1, 2.5]}),
    ("list", {"X-Trace": "a b", "X-Levels": [1, 2]}),
    ("get", {"id": "naïve — “quoted” 100%"}),
    ("change", {"id": "7", "dry_run": True, "note": 'é "x" \n', "amount": 1.25, "tags": [], "more": {"a": [None]}}),
    ("change", {"id": "7"}),
    ("put", {"body": [1, 2, 3]}),
]


@pytest.fixture(params=["wsgi", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(walk: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(walk, 60))


def test_every_call_of_the_gateway_is_proven_and_its_arguments_are_given(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind) as home:
            for tool, arguments in CALLS:
                done = await home.send(tool, arguments)
                assert isinstance(done, Done), (tool, done)
                seen = home.seen[-1]
                assert seen.call is not None
                assert (seen.call.tenant, seen.call.person) == ("acme", "alice")
                assert seen.call.token_id == f"{seen.call.call}.{home.sent}"
                assert seen.arguments == arguments
                assert seen.token is None
            assert json.loads(home.seen[4].body)["note"] == 'é "x" \n'
            assert home.keys.asked == 1

    run(walk())


def test_each_refusal_has_its_status_and_code_and_nothing_reaches_the_api(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind) as home:
            old, early = (UnixTime(int(time.time()) + seconds) for seconds in (-36, 20))
            cases: list[tuple[tuple[int, str], list[str]]] = [
                ((401, "call_token_missing"), []),
                ((401, "call_token_missing"), [""]),
                ((401, "call_token_refused"), ["x"]),
                ((401, "call_token_mismatch"), [_get(home, "8")]),
                ((401, "call_token_mismatch"), [home.token("listItems", {"id": "7"}).compact]),
                ((401, "call_token_refused"), [_get(home, audience="sql:hr")]),
                ((401, "call_token_expired"), [_get(home, now=old)]),
                ((401, "call_token_expired"), [_get(home, now=early)]),
            ]
            for expected, tokens in cases:
                answer = await home.ask("GET", "/v1/items/7", *tokens)
                assert told(answer) == expected
                assert answer.headers["www-authenticate"] == "Txn-Token"
                assert answer.headers["cache-control"] == "no-store"
            two = await home.ask("GET", "/v1/items/7", _get(home), _get(home))
            assert two.status_code == 401
            assert home.seen == []

    run(walk())


def _get(home: ApiHouse, item: str = "7", **other: Any) -> str:
    return home.token("getItem", {"id": item}, **other).compact


ANOTHER = [
    ("GET", "/v1/items/8"), ("GET", "/v1/items/7?x=1"), ("HEAD", "/v1/items/7"), ("GET", "/v1/items"),
    ("DELETE", "/v1/items/7"), ("GET", "/items/7"), ("GET", "/v1/items/7/"), ("GET", "/v1/items/7%2F"),
    ("GET", "/v1/items/newest"),
]  # fmt: skip


def test_a_token_for_one_request_is_not_taken_for_another(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind) as home:
            for method, target in ANOTHER:
                answer = await home.ask(method, target, _get(home))
                assert answer.status_code == 401
                assert method == "HEAD" or told(answer)[1] == "call_token_mismatch"
            override = await home.ask("GET", "/v1/items/7", _get(home), X_HTTP_Method_Override="DELETE")
            assert told(override) == (400, "request_refused")
            packed = await home.ask("GET", "/v1/items/7", _get(home), body=b"{}", content_type="application/json")
            assert told(packed) == (401, "call_token_mismatch")
            assert home.seen == []

    run(walk())


def test_a_changed_body_is_refused_though_path_and_query_are_the_tokens(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind) as home:
            for body, status in ((b'{"note":"b"}', 401), (b'{"note":"a","amount":1}', 401), (b"", 401), (b"{", 400)):
                token = home.token("changeItem", {"id": "7", "note": "a"}).compact
                answer = await home.ask("PATCH", "/v1/items/7", token, body=body, content_type="application/json")
                assert answer.status_code == status
            assert home.seen == []
            answer = await home.ask(
                "PATCH", "/v1/items/7", token, body=b'{ "note": "a" }', content_type="application/json; charset=utf-8"
            )
            assert answer.json() == {"served": True}

    run(walk())


def test_a_token_is_served_once_however_many_try_at_once(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind) as home:
            token = _get(home)
            answers = await asyncio.gather(*(home.ask("GET", "/v1/items/7", token) for _ in range(12)))
            assert sorted(answer.status_code for answer in answers) == [200] + [401] * 11
            assert told(await home.ask("GET", "/v1/items/7", token)) == (401, "call_token_replayed")
            assert len(home.seen) == 1
            assert home.keys.asked == 1

    run(walk())


def test_a_full_or_fresh_memory_of_used_tokens_serves_nothing(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path / "1", kind, replay=MemoryReplay(capacity=1)) as home:
            assert (await home.ask("GET", "/v1/items/7", _get(home))).status_code == 200
            assert told(await home.ask("GET", "/v1/items/7", _get(home))) == (401, "replay_unknown")
        async with api_house(tmp_path / "2", kind) as home:
            before = UnixTime(int(time.time()) - 4)
            assert told(await home.ask("GET", "/v1/items/7", _get(home, now=before))) == (401, "replay_unknown")

    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    run(walk())


def test_a_body_is_bounded_whether_it_says_its_length_or_not(tmp_path: Path, kind: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 1000

    async def walk() -> None:
        async with api_house(tmp_path, kind, max_body_bytes=10_000) as home:
            token = home.token("putItems", {"body": []}).compact
            with contextlib.suppress(httpx.TransportError):  # refused while still sending: the answer may be lost
                answer = await home.ask("PUT", "/v1/items", token, body=b"x" * 10_001, content_type="application/json")
                assert told(answer) == (413, "body_too_large")
            with contextlib.suppress(httpx.TransportError):
                answer = await home.http.put("/v1/items", content=chunks(), headers={"Txn-Token": token})
                assert answer.status_code in (400, 413)
            assert home.seen == []

    run(walk())


def test_no_body_is_read_for_nobody(kind: str) -> None:
    statuses: list[Any] = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    settings: dict[str, Any] = {"issuer": "g", "audience": "a", "operations": BYTES, "jwks": _Keys()}
    if kind == "asgi":
        scope = {"type": "http", "method": "PUT", "path": "/items", "headers": []}
        app = asgi_http.HttpCallTokenMiddleware(_unreached, **settings)
        run(app(scope, _unreached, send))  # type: ignore[arg-type]  # never asked
    else:
        environ = {"REQUEST_METHOD": "PUT", "PATH_INFO": "/items", "wsgi.input": None, "CONTENT_LENGTH": "9"}
        guard: Any = wsgi.HttpCallTokenMiddleware(_unreached, **settings)
        guard(environ, lambda status, headers: statuses.append(int(status[:3])))
    assert statuses[0] == 401


def _unreached(*_: Any) -> list[bytes]:
    raise AssertionError("the app was reached")


class _Keys:
    def find_blocking(self, key_id: str) -> bytes:
        raise AssertionError("no key is needed")


def test_keys_that_cannot_be_had_refuse_the_call(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind) as home:
            home.keys.status = 500
            assert told(await home.ask("GET", "/v1/items/7", _get(home))) == (401, "call_keys_unavailable")
            assert home.seen == []

    run(walk())


def test_an_open_path_is_answered_to_reading_alone_and_proves_nothing(tmp_path: Path, kind: str) -> None:
    async def walk() -> None:
        async with api_house(tmp_path, kind, open_paths={"/healthz"}) as home:
            assert (await home.ask("GET", "/healthz", _get(home))).status_code == 200
            assert home.seen[0].call is home.seen[0].arguments is home.seen[0].token is None
            for method, target in (("POST", "/healthz"), ("GET", "/healthz/"), ("GET", "/healthz/x"), ("GET", "/")):
                assert (await home.ask(method, target)).status_code == 401
            assert len(home.seen) == 1

    run(walk())


def test_a_websocket_is_closed_before_it_is_open() -> None:
    sent: list[Any] = []

    async def walk() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        app = asgi_http.HttpCallTokenMiddleware(
            _unreached, issuer="g", audience="a", operations=BYTES, jwks_url="https://g.test/jwks"
        )  # type: ignore[arg-type]  # never called
        await app({"type": "websocket"}, None, send)  # type: ignore[arg-type]  # never asked

    run(walk())
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": ""}, {"audience": ""}, {"jwks_url": ""}, {"jwks": {"keys": []}}, {"operations": b"{}"},
        {"open_paths": "/healthz"}, {"jwks_url": "http://gateway.test/jwks"},
    ],
)  # fmt: skip
def test_a_middleware_that_could_prove_nothing_is_not_made(wrong: dict[str, Any], kind: str) -> None:
    settings: dict[str, Any] = {
        "issuer": "g", "audience": "a", "operations": BYTES, "jwks_url": "https://g.test/jwks", **wrong,
    }  # fmt: skip
    made: Any = wsgi.HttpCallTokenMiddleware if kind == "wsgi" else asgi_http.HttpCallTokenMiddleware
    with pytest.raises(ConfigInvalid):
        made(_unreached, **settings)
