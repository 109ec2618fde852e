"""What a route in FastAPI is given, and that it is given nothing where nothing was proven."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from nacl.signing import SigningKey

from act.granted import granted
from backend.forging import encoded
from onbehalf.act import claims
from onbehalf.backend.fastapi import Arguments, Call, guard
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json, UnixTime

KEY = SigningKey(b"\x07" * 32)
JWKS: dict[str, Json] = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": encoded(bytes(KEY.verify_key))}]}
GATEWAY, OWN = "https://gateway.test", "https://items.test"


def api() -> FastAPI:
    app = FastAPI()

    @app.post("/items/{item}", operation_id="addItem")
    async def add(call: Call, arguments: Arguments, item: int, note: str = "") -> dict[str, Any]:
        return {"person": call.person, "arguments": dict(arguments), "item": item, "note": note}

    @app.get("/healthz")
    async def health() -> str:
        return "ok"

    @app.get("/forgotten", operation_id="forgotten")
    async def forgotten() -> str:
        return "reached"

    return app


def token(tool: str, arguments: dict[str, Json]) -> str:
    made = granted(arguments, tool=tool, audience=OWN, now=UnixTime(int(time.time())))
    header = {"typ": "txntoken+jwt", "alg": "EdDSA", "kid": "k1"}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims(made, issuer=GATEWAY)))
    return f"{signed}.{encoded(KEY.sign(signed.encode()).signature)}"


def asked(app: FastAPI, method: str, target: str, given: str = "") -> httpx.Response:
    async def walk() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url=OWN) as http:
            return await http.request(method, target, headers={"Txn-Token": given} if given else {})

    return asyncio.run(walk())


def guarded(**settings: Any) -> FastAPI:
    app = api()
    guard(app, issuer=GATEWAY, audience=OWN, jwks=JWKS, **settings)
    return app


def test_a_route_is_given_the_proven_call_and_its_arguments() -> None:
    app = guarded()
    given = token("addItem", {"item": 7, "note": "a b"})
    answer = asked(app, "POST", "/items/7?note=a%20b", given)
    arguments = {"item": 7, "note": "a b"}
    assert answer.json() == {"person": "alice", "arguments": arguments, "item": 7, "note": "a b"}


def test_a_route_that_forgot_to_ask_is_behind_call_tokens_all_the_same() -> None:
    app = guarded(open_paths={"/healthz"})
    assert asked(app, "GET", "/forgotten").status_code == 401
    assert asked(app, "GET", "/openapi.json").status_code == 401
    assert asked(app, "GET", "/healthz").json() == "ok"
    assert asked(app, "GET", "/forgotten", token("forgotten", {})).json() == "reached"


def test_a_route_without_a_guard_in_front_serves_nobody() -> None:
    answer = asked(api(), "POST", "/items/7", token("addItem", {"item": 7}))
    assert (answer.status_code, answer.json()["detail"]["error"]) == (401, "call_token_missing")


def test_a_guard_without_a_gateway_does_not_start() -> None:
    app = api()
    guard(app, issuer="", audience=OWN, jwks=JWKS)
    with pytest.raises(ConfigInvalid):
        asked(app, "GET", "/openapi.json")
