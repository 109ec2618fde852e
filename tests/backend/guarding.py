"""A recording app behind call tokens, with a real signer whose keys are fetched over real HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from act.granted import ARGUMENTS, granted
from backend.serving import KeyServer, Recorder, served
from onbehalf.backend.asgi import CallTokenMiddleware
from onbehalf.doors.signer_file import CACHE_S, FileSigner
from onbehalf.model import Json, UnixTime

AUDIENCE = "https://tickets.test/mcp"
GATEWAY = "https://gateway.test"


@dataclass(slots=True, kw_only=True)
class House:
    signer: FileSigner
    keys: KeyServer
    app: Recorder
    http: httpx.AsyncClient
    sent: int = 0

    def token(self, arguments: dict[str, Json] | None = None, *, tool: str = "update_ticket", **other: Any) -> str:
        self.sent += 1
        now = UnixTime(int(time.time()))
        made = granted(arguments, tool=tool, **({"audience": AUDIENCE, "now": now, "index": self.sent} | other))
        return self.signer.sign(made).compact

    async def post(self, body: Any, *tokens: str, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = [("content-type", "application/json"), *(("Txn-Token", token) for token in tokens), *headers.items()]
        return await self.http.post("/mcp", content=content, headers=given)


def asked(name: str = "update_ticket", arguments: Any = None, *, method: str = "tools/call") -> dict[str, Any]:
    params = {"name": name, "arguments": ARGUMENTS if arguments is None else arguments}
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


@asynccontextmanager
async def house(directory: Path, app: Any = None, **settings: Any) -> AsyncIterator[House]:
    signer = FileSigner.open(directory / "keys", issuer=GATEWAY, now=UnixTime(int(time.time()) - 2 * CACHE_S))
    keys, recorder = KeyServer(signer.jwks), Recorder()
    async with served(keys) as gateway:
        guard = CallTokenMiddleware(
            app or recorder,
            issuer=GATEWAY,
            audience=AUDIENCE,
            jwks_url=f"{gateway}/.well-known/jwks.json",
            **settings,
        )
        async with served(guard) as origin, httpx.AsyncClient(base_url=origin, trust_env=False) as http:
            yield House(signer=signer, keys=keys, app=recorder, http=http)


def run(walk: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(walk, 30))


def refused(answer: httpx.Response, status: int, code: str, request_id: Any = 7) -> None:
    body = answer.json()
    assert (answer.status_code, body["error"]["data"]["code"], body["id"]) == (status, code, request_id)
    assert body["jsonrpc"] == "2.0"
    assert set(body["error"]["data"]) == {"code", "hint"}
    assert ("www-authenticate" in answer.headers) == (status == 401)
