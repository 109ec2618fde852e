"""A call with its token, made by hand, and servers on a free port: what the tests of upstream doors share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import uvicorn

from onbehalf.model import (
    Allow,
    Caller,
    CallId,
    CallToken,
    Digest,
    Evidence,
    Grant,
    Json,
    Person,
    Receipt,
    Ref,
    Rows,
    Tool,
    ToolCall,
    UnixTime,
    canonical,
    digest,
)  # fmt: skip

NOW = UnixTime(1_800_000_000)
AUDIENCE = "https://backend.test"
_EVIDENCE = Evidence(
    issuer="https://issuer.test", key="k", algorithm="ES256", token=digest(b""), issued_at=NOW,
    expires_at=UnixTime(NOW + 60),
)  # fmt: skip
_CALLER = Caller(subject="s", tenant="acme", client="c", actors=(), scopes=frozenset(), evidence=_EVIDENCE)
_PERSON = Person(
    ref=Ref(type="User", id="acme/alice"), tenant="acme", name="Alice", active=True, attributes={}, entities=(),
    revision=1,
)  # fmt: skip
_TOOL = Tool(
    name="t", title="", description="", upstream="u", remote="t", action="read", scopes=frozenset(), schema={},
    bound=(), rows=None, lookup=None, writes=False, exposed=True, definition=digest(b""),
)  # fmt: skip

Reply = Callable[[dict[str, Any], dict[str, Any], Any], Awaitable[None]]


def a_call(remote: str, arguments: Json = None, *, writes: bool = False, rows: Rows | None = None) -> ToolCall:
    body = canonical(arguments if arguments is not None else {})
    return ToolCall(
        id=CallId("call_" + "0" * 32), at=NOW, caller=_CALLER, person=_PERSON,
        tool=replace(_TOOL, remote=remote, writes=writes, rows=rows), arguments=body, digest=digest(body),
        protocol="2026-07-28", agent="test",
    )  # fmt: skip


def a_token(call: ToolCall, *, audience: str = AUDIENCE) -> CallToken:
    resource = Ref(type="Tool", id="t")
    allow = Allow(call=call, resource=resource, policies=("p",), policy=Digest(""), revision=1)
    receipt = Receipt(index=0, leaf=digest(b"leaf"))
    grant = Grant(allow=allow, receipt=receipt, audience=audience, issued_at=NOW, expires_at=UnixTime(NOW + 30))
    return CallToken(grant=grant, compact="header.payload.signature")


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """The app under uvicorn on a free port of loopback; gives its origin."""
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="error", access_log=False, timeout_graceful_shutdown=0)
    )
    running = asyncio.create_task(server.serve())
    while not server.started:
        if running.done():
            running.result()
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


class Backend:
    """A server that does as told: `reply(message, headers, send)` answers each POST with whatever bytes it likes."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.seen: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.gone = asyncio.Event()

    @property
    def calls(self) -> int:
        return sum(message.get("method") == "tools/call" for _, message, _ in self.seen)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        message = orjson.loads(body) if body else {}
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["method"], message, headers))
        work = asyncio.create_task(self.reply(message, headers, send))  # type: ignore[arg-type]
        gone = asyncio.create_task(_until_gone(receive))
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            self.gone.set()
            work.cancel()
        gone.cancel()


async def _until_gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer(send: Any, body: bytes, *, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> None:
    pairs = {"content-type": "application/json", **dict(headers)}
    raw = [(name.encode(), value.encode()) for name, value in pairs.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def result_of(message: dict[str, Any], **members: Any) -> bytes:
    result = {"content": [{"type": "text", "text": "ok"}], "isError": False, "resultType": "complete", **members}
    return orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})
