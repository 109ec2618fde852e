"""An HTTP API behind call tokens, served over WSGI or ASGI, and the gateway's own door to it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socketserver
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.validate import validator

import httpx
import msgspec

from act.granted import granted
from backend.api_document import BYTES
from backend.serving import KeyServer, served
from onbehalf.backend import VerifiedCall, asgi_http, wsgi
from onbehalf.config import OpenapiUpstream
from onbehalf.doors.signer_file import CACHE_S, FileSigner
from onbehalf.doors.upstream_openapi import OpenapiServer
from onbehalf.doors.upstream_openapi_configured import open_openapi
from onbehalf.model import CallToken, Json, Outcome, Tool, UnixTime
from replacing import replace

GATEWAY = "https://gateway.test"
AUDIENCE = "https://items.test"
TOOLS: dict[str, Any] = {
    "list": {"remote": "listItems", "action": "read"},
    "get": {"remote": "getItem", "action": "read"},
    "change": {"remote": "changeItem", "action": "change", "writes": True, "waived": ["more"]},
    "put": {"remote": "putItems", "action": "put", "writes": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What reached the API behind."""

    call: VerifiedCall | None
    arguments: Any
    body: bytes
    token: Any


@dataclass(slots=True, kw_only=True)
class ApiHouse:
    signer: FileSigner
    keys: KeyServer
    seen: list[Seen]
    http: httpx.AsyncClient
    door: OpenapiServer
    tools: dict[str, Tool]
    sent: int = 0

    def token(self, tool: str, arguments: dict[str, Json], **other: Any) -> CallToken:
        self.sent += 1
        now = UnixTime(int(time.time()))
        made = granted(arguments, tool=tool, **({"audience": AUDIENCE, "now": now, "index": self.sent} | other))
        return self.signer.sign(made)

    async def send(self, tool: str, arguments: dict[str, Json]) -> Outcome:
        """One call, as the gateway sends it."""
        made = self.tools[tool]
        token = self.token(made.remote, arguments)
        call = replace(token.grant.allow.call, tool=made)
        grant = replace(token.grant, allow=replace(token.grant.allow, call=call))
        return await self.door.send(call, CallToken(grant=grant, compact=token.compact))

    async def ask(self, method: str, target: str, *tokens: str, body: bytes = b"", **headers: str) -> httpx.Response:
        given = [*(("Txn-Token", each) for each in tokens), *((key.replace("_", "-"), headers[key]) for key in headers)]
        return await self.http.request(method, target, content=body, headers=given)


def _wsgi_app(seen: list[Seen], status: int) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        call, arguments = environ.get(wsgi.CALL_KEY), environ.get(wsgi.ARGUMENTS_KEY)
        seen.append(Seen(call=call, arguments=arguments, body=body, token=environ.get("HTTP_TXN_TOKEN")))
        start_response(f"{status} OK", [("content-type", "application/json")])
        return [b'{"served":true}']

    return app


def _asgi_app(seen: list[Seen], status: int) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = (await receive()).get("body", b"")
        call, arguments = scope.get(asgi_http.CALL_KEY), scope.get(asgi_http.ARGUMENTS_KEY)
        token = dict(scope["headers"]).get(b"txn-token")
        seen.append(Seen(call=call, arguments=arguments, body=body, token=token))
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        )
        await send({"type": "http.response.body", "body": b'{"served":true}'})

    return app


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


class _Threads(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64


@asynccontextmanager
async def wsgi_served(app: Any) -> AsyncIterator[str]:
    """The origin of a WSGI app, served in threads by the standard library, which also looks how well it behaves."""
    server = make_server("127.0.0.1", 0, app, server_class=_Threads, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()


@asynccontextmanager
async def api_house(
    directory: Path, kind: str, *, status: int = 200, given_receipts: Any = None, **settings: Any
) -> AsyncIterator[ApiHouse]:
    """`kind` is "wsgi" or "asgi". The API answers with `status`; `given_receipts` are the keys that the gateway has."""
    signer = FileSigner.open(directory / "keys", issuer=GATEWAY, now=UnixTime(int(time.time()) - 2 * CACHE_S))
    keys, seen = KeyServer(signer.jwks), list[Seen]()
    async with served(keys) as gateway:
        told: dict[str, Any] = {
            "issuer": GATEWAY, "audience": AUDIENCE, "operations": BYTES, "base_path": "/v1",
            "jwks_url": f"{gateway}/.well-known/jwks.json", **settings,
        }  # fmt: skip
        serve: Callable[[Any], Any] = served
        app: Any
        if kind == "wsgi":
            app, serve = validator(wsgi.HttpCallTokenMiddleware(_wsgi_app(seen, status), **told)), wsgi_served
        else:
            app = asgi_http.HttpCallTokenMiddleware(_asgi_app(seen, status), **told)
        async with serve(app) as origin, httpx.AsyncClient(base_url=origin, trust_env=False) as http:
            door, made = await _door(directory, f"{origin}/v1", given_receipts)
            try:
                by_name = {each.name: each for each in made}
                yield ApiHouse(signer=signer, keys=keys, seen=seen, http=http, door=door, tools=by_name)
            finally:
                await door.aclose()


async def _door(directory: Path, url: str, receipts: Any) -> tuple[OpenapiServer, Any]:
    (directory / "api.json").write_bytes(BYTES)
    digest = f"sha256:{hashlib.sha256(BYTES).hexdigest()}"
    text = {"kind": "openapi", "url": url, "document": "api.json", "digest": digest, "audience": AUDIENCE}
    if receipts is not None:
        (directory / "receipts.json").write_text(json.dumps(receipts))
        text["receipt_keys"] = "receipts.json"
    settings = msgspec.convert({**text, "tools": TOOLS}, OpenapiUpstream)
    return await open_openapi("items", settings, base=directory, insecure_http=True)


def told(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal."""
    return answer.status_code, json.loads(answer.content)["error"]
