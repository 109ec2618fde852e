"""A house with plain values behind the real public door, served by real uvicorn on a free port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn

from onbehalf.config import GatewaySettings, IssuerSettings, Limits, Settings
from onbehalf.doors.inbound_head import BoundedHttp
from onbehalf.doors.inbound_http import Catalogue, PublicApp, ServerName, SessionLimits
from onbehalf.errors import (
    LedgerUnavailable,
    OnbehalfError,
    PersonUnknown,
    ScopeMissing,
    SignatureMismatch,
    TokenExpired,
)
from onbehalf.model import Caller, CallId, Digest, Evidence, Presented, Receipt, Reply, Tool, ToolRequest, UnixTime

MODERN = "2026-07-28"
PEOPLE = {
    "alice": ("https://idp.example", "alice", "claude"),
    "alice-again": ("https://idp.example", "alice", "claude"),
    "alice-elsewhere": ("https://idp.example", "alice", "cursor"),
    "alice-of-other": ("https://other.example", "alice", "claude"),
    "bob": ("https://idp.example", "bob", "claude"),
}


def tool(name: str, *, schema: dict[str, Any] | None = None, writes: bool = False) -> Tool:
    return Tool(
        name=name, title=name.title(), description=f"does {name}", upstream="hr", remote=name, action=name,
        scopes=frozenset({f"{name}:use"}),
        schema=schema or {"type": "object", "properties": {"word": {"type": "string"}}},
        bound=(), rows=None, lookup=None, writes=writes, exposed=True, definition=Digest(f"sha256:{name}"),
    )  # fmt: skip


TOOLS = {
    "zebra": tool("zebra", writes=True),
    "echo": tool("echo"),
    "regional": tool(
        "regional", schema={"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}, "required": []}
    ),
}


class FakeHouse:
    def __init__(self) -> None:
        self.requests: list[tuple[str, ToolRequest]] = []
        self.cancelled = asyncio.Event()
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.proofs = 0
        self.removed: set[str] = set()
        self.revoked: set[str] = set()

    async def who(self, presented: Presented) -> Caller:
        self.proofs += 1
        if presented.token in self.revoked:
            raise TokenExpired("revoked", hint="log in again")
        if presented.token == "expired":
            raise TokenExpired("the token of `secret-person` expired", hint='log in "again"\r\nX-Evil: 1')
        if presented.token not in PEOPLE:
            raise SignatureMismatch("inner detail", hint="log in again")
        issuer, subject, client = PEOPLE[presented.token]
        evidence = Evidence(
            issuer=issuer,
            key="k",
            algorithm="EdDSA",
            token=Digest("sha256:0"),
            issued_at=UnixTime(0),
            expires_at=UnixTime(9),
        )
        return Caller(
            subject=subject, tenant="acme", client=client, actors=(), scopes=frozenset({"echo:use"}), evidence=evidence
        )

    async def tools(self, presented: Presented) -> list[Tool]:
        caller = await self.who(presented)
        if caller.subject in self.removed:
            raise PersonUnknown("inner", hint="ask for an entry")
        return list(TOOLS.values()) if caller.subject == "alice" else [TOOLS["echo"]]

    async def call(self, presented: Presented, request: ToolRequest) -> Reply:
        caller = await self.who(presented)
        if caller.subject in self.removed:
            raise PersonUnknown("inner", hint="ask for an entry")
        self.requests.append((presented.token, request))
        word = request.arguments.get("word")
        errors: dict[Any, OnbehalfError] = {
            "scope": ScopeMissing("inner", scopes=frozenset({"reviews:read", "team:read"}), hint="ask for the scopes"),
            "ledger": LedgerUnavailable("disk /secret/path is full", hint="tell an administrator"),
            "person": PersonUnknown("inner", hint="ask for an entry"),
        }
        if word in errors:
            raise errors[word]
        if word == "crash":
            raise ZeroDivisionError("secret detail")
        if word == "hang":
            self.entered.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        denied = word == "denied"
        content: dict[str, Any] = {
            "content": [{"type": "text", "text": f"{word}"}],
            "structuredContent": {"word": word, "token": presented.token},
            "isError": denied,
            "_meta": {"onbehalf/call": "call_1"},
        }
        return Reply(
            call=CallId("call_1"), content=content, receipt=Receipt(index=1, leaf=Digest("sha256:1")),
            denial="not_permitted" if denied else "",
        )  # fmt: skip


class CountingMeter:
    def __init__(self) -> None:
        self.codes: list[str] = []

    def decided(self, *, tool: str, decision: str, code: str) -> None: ...
    def acted(self, *, upstream: str, outcome: str, seconds: float) -> None: ...

    def refused(self, *, code: str) -> None:
        self.codes.append(code)


class Door:
    """A served public door and what stands behind it."""

    def __init__(self, port: int, limits: Limits, sessions: SessionLimits | None) -> None:
        self.port = port
        self.origin = f"http://127.0.0.1:{port}"
        self.url = f"{self.origin}/mcp"
        self.house = FakeHouse()
        self.meter = CountingMeter()
        self.server: uvicorn.Server
        settings = Settings(
            gateway=GatewaySettings(
                resource=self.url, listen="127.0.0.1:0", origins=("https://page.example",), limits=limits
            ),
            issuers=(IssuerSettings(issuer="https://idp.example", tenant="acme"),),
            upstreams={},
        )
        catalogue = Catalogue(
            tool=TOOLS.get, scopes=lambda: frozenset({"echo:use", "zebra:use"}), jwks=lambda: {"keys": []}
        )
        server = ServerName(name="onbehalf", version="1")
        self.app = PublicApp(
            self.house, settings, catalogue=catalogue, server=server, meter=self.meter, sessions=sessions
        )

    async def post(
        self,
        body: object,
        *,
        token: str | None = "alice",
        headers: dict[str, str] | None = None,
        drop: tuple[str, ...] = (),
    ) -> httpx.Response:
        """One modern POST; `body` is a message or raw bytes, `headers` overrule and `drop` takes away."""
        message: Any = body
        sent = {
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": MODERN,
        }
        if isinstance(message, dict):
            sent["Mcp-Method"] = message.get("method", "")
            if message.get("method") == "tools/call":
                sent["Mcp-Name"] = message["params"].get("name", "")
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        sent.update(headers or {})
        for name in drop:
            del sent[name]
        async with httpx.AsyncClient() as client:
            if isinstance(body, bytes):
                return await client.post(self.url, content=body, headers=sent)
            return await client.post(self.url, json=body, headers=sent)

    async def legacy(
        self, body: object, *, token: str = "alice", session: str = "", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """One 2025-11-25 POST."""
        more = {"Mcp-Session-Id": session} if session else {}
        return await self.post(
            body, token=token, headers={"MCP-Protocol-Version": "2025-11-25", **more, **(headers or {})},
            drop=("Mcp-Method", "Mcp-Name") if isinstance(body, dict) and body.get("method") == "tools/call"
            else ("Mcp-Method",),
        )  # fmt: skip

    async def open_session(self, token: str = "alice") -> str:
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
        answer = await self.legacy({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}, token=token)
        assert answer.status_code == 200, answer.text
        session = answer.headers["mcp-session-id"]
        ready = await self.legacy(
            {"jsonrpc": "2.0", "method": "notifications/initialized"}, token=token, session=session
        )
        assert ready.status_code == 202, ready.text
        return session

    def head(self, framing: bytes, *, method: bytes = b"POST") -> bytes:
        """The head of a raw request, up to what frames its body."""
        lines = (
            f"/mcp HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer alice\r\n"
            f"Content-Type: application/json\r\nAccept: */*\r\nMCP-Protocol-Version: {MODERN}\r\n"
        )
        return method + b" " + lines.encode() + framing + b"\r\n"

    async def raw(self, data: bytes, *, until_close: bool = False) -> bytes:
        """Bytes on a socket, and what comes back first (or all of it)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        await writer.drain()
        answer = await (reader.read() if until_close else reader.readuntil(b"}}}"))
        writer.close()
        return answer


def message(method: str = "tools/call", *, id: Any = 1, **params: Any) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "probe", "version": "1"},
    }
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": {"_meta": meta, **params}}


def call(word: str | None = "hi", name: str = "echo") -> dict[str, Any]:
    return message(name=name, arguments={} if word is None else {"word": word})


@asynccontextmanager
async def door(*, limits: Limits | None = None, sessions: SessionLimits | None = None) -> AsyncIterator[Door]:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    built = Door(listening.getsockname()[1], limits or Limits(), sessions)
    async with served(built.app, listening) as built.server:
        yield built


@asynccontextmanager
async def served(
    app: Callable[..., Any], listening: socket.socket, *, keep_alive: float = 5
) -> AsyncIterator[uvicorn.Server]:
    config = uvicorn.Config(
        app, log_level="error", lifespan="on", http=BoundedHttp, ws="none", timeout_graceful_shutdown=1
    )
    config.timeout_keep_alive = keep_alive  # type: ignore[assignment]  # uvicorn says whole seconds, and takes others
    server = uvicorn.Server(config)
    server.config.load()
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        await asyncio.sleep(0.005)
        assert not task.done(), task.exception()
    try:
        yield server
    finally:
        server.should_exit = True
        await task
