"""MCP as an upstream: real servers of both eras, and one that misbehaves in every way we could think of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel

from act import granted
from doors.upstream_house import AUDIENCE, Backend, Reply, a_call, a_token, answer, result_of, serving
from onbehalf.backend.asgi import CallTokenMiddleware
from onbehalf.doors.signer_file import FileSigner
from onbehalf.doors.upstream_mcp import McpUpstreamServer, definition
from onbehalf.errors import ConfigInvalid, UpstreamUnavailable
from onbehalf.model import Done, Failed, Json, Outcome, canonical

MODERN, LEGACY = "2026-07-28", "2025-11-25"
JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream"}


class Said(BaseModel):
    said: str
    token: str


def real_server() -> MCPServer:
    server: MCPServer = MCPServer("real")

    @server.tool(title="Say it")
    def say(word: str, ctx: Context) -> Said:
        """Says a word."""
        request = ctx.request_context.request
        return Said(said=word, token=request.headers.get("txn-token", "") if request is not None else "")

    @server.tool()
    def fail() -> str:
        """Fails."""
        raise RuntimeError("secret inside")

    @server.tool()
    async def chatty(ctx: Context) -> str:
        """Tells progress first."""
        await ctx.report_progress(1, 2)
        return "done"

    return server


@asynccontextmanager
async def upstream(
    url: str, *, protocol: str = "auto", timeout: float = 5.0, response_bytes: int = 100_000
) -> AsyncIterator[McpUpstreamServer]:
    made = McpUpstreamServer(
        f"{url}/mcp", audience=AUDIENCE, protocol=protocol, timeout=timeout, response_bytes=response_bytes
    )
    try:
        yield made
    finally:
        await made.aclose()


async def sent(door: McpUpstreamServer, remote: str, arguments: Json = None, *, writes: bool = False) -> Outcome:
    call = a_call(remote, arguments, writes=writes)
    return await door.send(call, a_token(call))


def against(
    reply: Reply, act: Callable[[McpUpstreamServer], Awaitable[Any]], *, protocol: str = MODERN, **bounds: Any
) -> tuple[Any, Backend]:
    """What `act` gives on a door to a backend that replies so."""

    async def walk() -> tuple[Any, Backend]:
        backend = Backend(reply)
        async with serving(backend) as url, upstream(url, protocol=protocol, **bounds) as door:
            return await act(door), backend

    return asyncio.run(walk())


def read(door: McpUpstreamServer) -> Awaitable[Outcome]:
    return sent(door, "t", {"a": 1})


def write(door: McpUpstreamServer) -> Awaitable[Outcome]:
    return sent(door, "t", {"a": 1}, writes=True)


# --- real servers -------------------------------------------------------------------------


@pytest.mark.parametrize("json_response", [True, False])
@pytest.mark.parametrize("stateless", [True, False])
@pytest.mark.parametrize("protocol", ["auto", MODERN, LEGACY, "2025-06-18"])
def test_a_real_server_is_called_in_every_revision(protocol: str, stateless: bool, json_response: bool) -> None:
    async def walk() -> None:
        app = real_server().streamable_http_app(json_response=json_response, stateless_http=stateless)
        async with serving(app) as url, upstream(url, protocol=protocol) as door:
            await door.warm()
            described = await door.describe()
            assert set(described) == {"say", "fail", "chatty"}
            assert (described["say"].title, described["say"].description) == ("Say it", "Says a word.")
            assert described["say"].schema["required"] == ["word"]
            assert described["say"].output is not None
            assert canonical(definition(described["say"]))
            done = await sent(door, "say", {"word": "grüß"})
            assert isinstance(done, Done), done
            assert done.content["structuredContent"] == {"said": "grüß", "token": "header.payload.signature"}
            assert done.content["isError"] is False
            assert set(done.content) == {"content", "structuredContent", "isError"}
            failed = await sent(door, "fail")
            assert isinstance(failed, Done)
            assert failed.content["isError"] is True
            assert isinstance(await sent(door, "chatty"), Done)
            many = await asyncio.gather(*(sent(door, "say", {"word": str(n)}) for n in range(20)))
            assert [one.content["structuredContent"]["said"] if isinstance(one, Done) else one for one in many] == [
                str(n) for n in range(20)
            ]
            assert door.problems() == ()

    asyncio.run(walk())


def test_a_session_that_the_server_forgot_is_made_anew_and_another_sending_of_the_call_worth_it() -> None:
    sessions: set[str] = set()

    async def reply(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
        method = message.get("method")
        if method == "initialize":
            sessions.add(f"s{len(sessions)}")
            result = {"protocolVersion": LEGACY, "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
            body = orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})
            await answer(send, body, headers={"mcp-session-id": max(sessions)}.items())
        elif method == "notifications/initialized":
            await answer(send, b"", status=202)
        elif headers.get("mcp-session-id") != "s1":
            await answer(send, b"", status=404)
        else:
            await answer(send, result_of(message))

    async def both(door: McpUpstreamServer) -> list[Outcome]:
        return [*await asyncio.gather(write(door), write(door)), *await asyncio.gather(write(door), write(door))]

    outcomes, backend = against(reply, both, protocol=LEGACY)
    forgotten = Failed(code="upstream_error", message="HTTP status 404", unknown=False, again_s=0.0)
    assert outcomes[:2] == [forgotten] * 2
    assert [isinstance(each, Done) for each in outcomes[2:]] == [True] * 2
    methods = [message.get("method") for _, message, _ in backend.seen]
    assert methods.count("initialize") == 2
    assert backend.seen[-1][0] == "DELETE"


def test_a_session_that_is_refused_is_a_failure_and_not_a_loop() -> None:
    async def reply(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
        if message.get("method") == "initialize":
            body = orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": LEGACY}})
            await answer(send, body, headers={"mcp-session-id": "s"}.items())
        else:
            await answer(send, b"", status=404)

    outcome, backend = against(reply, write, protocol=LEGACY)
    assert outcome == Failed(code="upstream_error", message="HTTP status 404", unknown=False, again_s=0.0)
    assert backend.calls == 1


@pytest.mark.parametrize("status", [400, 404, 405, 406])
def test_auto_falls_back_to_the_handshake(status: int) -> None:
    async def reply(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
        if message.get("method") == "server/discover":
            await answer(send, b"no", status=status, headers={"content-type": "text/plain"}.items())
        elif message.get("method") == "initialize":
            assert "mcp-protocol-version" not in headers
            assert "txn-token" not in headers
            body = orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": "2025-03-26"}})
            await answer(send, body)
        elif message.get("method") == "tools/call":
            assert headers["mcp-protocol-version"] == "2025-03-26"
            assert "_meta" not in message["params"]
            await answer(send, result_of(message))
        else:
            await answer(send, b"", status=202)

    outcome, _ = against(reply, read, protocol="auto")
    assert isinstance(outcome, Done)


@pytest.mark.parametrize(("status", "code"), [(401, "upstream_refused"), (503, "upstream_unavailable")])
def test_a_failing_discovery_is_no_answer_about_the_revision(status: int, code: str) -> None:
    async def reply(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
        await answer(send, b"", status=status)

    outcome, backend = against(reply, write, protocol="auto")
    assert (outcome.code, outcome.unknown) == (code, False)
    assert len(backend.seen) == 1


def test_a_call_carries_what_2026_asks_for_and_nothing_else() -> None:
    async def reply(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
        await answer(send, result_of(message), headers={"set-cookie": "a=b", "mcp-session-id": "s"}.items())

    async def twice(door: McpUpstreamServer) -> Outcome:
        await read(door)
        return await sent(door, "tööl", {"a": "x\r\ny"})

    _, backend = against(reply, twice)
    _, message, headers = backend.seen[1]
    assert set(headers) == {
        "content-type", "accept", "mcp-protocol-version", "mcp-method", "mcp-name", "txn-token", "user-agent", "host",
        "content-length",
    }  # fmt: skip
    assert headers["mcp-name"].startswith("=?base64?")
    assert headers["mcp-method"] == "tools/call"
    assert message["id"].startswith("call_" + "0" * 32)
    assert message["params"]["arguments"] == {"a": "x\r\ny"}
    assert set(message["params"]["_meta"]) == {
        f"io.modelcontextprotocol/{key}" for key in ("protocolVersion", "clientCapabilities", "clientInfo")
    }


# --- a server that misbehaves --------------------------------------------------------------


def body_reply(body: Callable[[dict[str, Any]], bytes], status: int = 200, kind: dict[str, str] = JSON) -> Reply:
    async def reply(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
        await answer(send, body(message), status=status, headers=kind.items())

    return reply


def response(message: dict[str, Any], **members: Any) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": message["id"], **members})


def event(data: bytes) -> bytes:
    return b"event: message\r\ndata: " + data + b"\r\n\r\n"


def nested(message: dict[str, Any]) -> bytes:
    return result_of(message).replace(b'"ok"', b"[" * 20_000 + b"]" * 20_000)


def doubled(message: dict[str, Any]) -> bytes:
    return result_of(message).replace(b'"isError":false', b'"isError":true,"isError":false')


ASKS = {"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {}}
GARBAGE: dict[str, tuple[Callable[[dict[str, Any]], bytes], dict[str, str], str]] = {
    "no json": (lambda m: b"<html>", JSON, "upstream_garbage"),
    "empty": (lambda m: b"", JSON, "upstream_garbage"),
    "another type": (result_of, {"content-type": "text/html"}, "upstream_garbage"),
    "packed": (result_of, {**JSON, "content-encoding": "gzip"}, "upstream_garbage"),
    "wrong id": (lambda m: result_of({"id": "other"}), JSON, "upstream_garbage"),
    "no id": (lambda m: result_of({"id": None}), JSON, "upstream_garbage"),
    "batch": (lambda m: b"[" + result_of(m) + b"]", JSON, "upstream_garbage"),
    "both": (lambda m: response(m, result={}, error={"code": 1}), JSON, "upstream_garbage"),
    "neither": (response, JSON, "upstream_garbage"),
    "odd result": (lambda m: response(m, result=[1]), JSON, "upstream_garbage"),
    "odd content": (lambda m: result_of(m, content="text"), JSON, "upstream_garbage"),
    "odd error": (lambda m: result_of(m, isError="no"), JSON, "upstream_garbage"),
    "odd kind": (lambda m: result_of(m, resultType="task"), JSON, "upstream_garbage"),
    "input": (lambda m: result_of(m, resultType="input_required", inputRequests={}), JSON, "upstream_asks"),
    "asks": (lambda m: orjson.dumps(ASKS), JSON, "upstream_asks"),
    "deep": (nested, JSON, "upstream_garbage"),
    "doubled": (doubled, JSON, "upstream_garbage"),
    "oversized": (lambda m: result_of(m, structuredContent={"x": "y" * 200_000}), JSON, "upstream_garbage"),
    "bom": (lambda m: b"\xef\xbb\xbf" + result_of(m), JSON, "upstream_garbage"),
    "stream asks": (lambda m: event(orjson.dumps(ASKS)) + event(result_of(m)), SSE, "upstream_asks"),
    "stream ends": (lambda m: event(b'{"jsonrpc":"2.0","method":"notifications/x"}'), SSE, "upstream_garbage"),
    "stream wrong id": (lambda m: event(result_of({"id": 5})), SSE, "upstream_garbage"),
    "stream cut": (lambda m: event(result_of(m))[:-4], SSE, "upstream_garbage"),
    "stream twice": (lambda m: event(result_of(m)) * 2, SSE, "upstream_garbage"),
    "stream oversized": (lambda m: b": padding\n\n" * 20_000 + event(result_of(m)), SSE, "upstream_garbage"),
    "server error": (lambda m: response(m, error={"code": -32603, "message": "boom"}), JSON, "upstream_error"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_a_failure_and_of_a_write_the_effect_is_unknown(name: str) -> None:
    body, kind, code = GARBAGE[name]

    async def both(door: McpUpstreamServer) -> tuple[Outcome, Outcome]:
        return await read(door), await write(door)

    (a_read, a_write), backend = against(body_reply(body, kind=kind), both)
    assert (a_read.code, a_read.unknown) == (code, False)
    assert (a_write.code, a_write.unknown) == (code, True)
    assert backend.calls == 2


@pytest.mark.parametrize(
    ("status", "code", "unknown"),
    [
        (202, "upstream_error", True),
        (302, "upstream_error", True),
        (307, "upstream_error", True),
        (400, "upstream_error", False),
        (401, "upstream_refused", False),
        (403, "upstream_refused", False),
        (408, "upstream_error", True),
        (429, "upstream_error", False),
        (500, "upstream_unavailable", True),
        (503, "upstream_unavailable", True),
    ],
)
def test_a_status_says_whether_a_write_may_have_happened(status: int, code: str, unknown: bool) -> None:
    reply = body_reply(lambda message: b"", status=status, kind={"location": "/other", "content-type": "text/plain"})
    outcome, backend = against(reply, write)
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.unknown) == (code, unknown)
    assert len(backend.seen) == 1


@pytest.mark.parametrize(("number", "unknown"), [(-32602, False), (-32601, False), (-32020, False), (-1, True)])
@pytest.mark.parametrize("status", [200, 400])
def test_an_error_says_whether_a_write_may_have_happened(number: int, status: int, unknown: bool) -> None:
    def body(message: dict[str, Any]) -> bytes:
        return response(message, error={"code": number, "message": "secret words of the server"})

    outcome, _ = against(body_reply(body, status=status), write)
    assert (outcome.code, outcome.unknown) == ("upstream_error", unknown)
    assert "secret" not in outcome.message


def test_an_answer_among_notifications_is_taken_however_it_is_cut() -> None:
    async def reply(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
        note = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'
        parts = (
            b": hi\n\nid: 1\ndata:\n\nretry: 5\n\n"
            + event(note)
            + event(result_of(message).replace(b",", b",\r\ndata:", 1))
        )
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for at in range(0, len(parts), 3):
            await send({"type": "http.response.body", "body": parts[at : at + 3], "more_body": True})
            await asyncio.sleep(0)
        await asyncio.Event().wait()  # the stream stays open: nobody may wait for its end

    outcome, backend = against(reply, read, timeout=4)
    assert isinstance(outcome, Done)
    assert backend.gone.is_set()


async def hang(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
    await asyncio.Event().wait()


async def drip(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    while True:
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("reply", [hang, drip])
def test_a_slow_server_costs_no_more_than_the_timeout(reply: Reply) -> None:
    async def timed(door: McpUpstreamServer) -> tuple[Outcome, float]:
        started = asyncio.get_running_loop().time()
        return await write(door), asyncio.get_running_loop().time() - started

    (outcome, seconds), backend = against(reply, timed, timeout=0.3)
    assert (outcome.code, outcome.unknown) == ("upstream_timed_out", True)
    assert seconds < 2.0
    assert backend.gone.is_set()


def test_a_server_that_hangs_before_the_call_left_nothing_unknown() -> None:
    outcome, backend = against(hang, write, protocol="auto", timeout=0.3)
    assert (outcome.code, outcome.unknown) == ("upstream_timed_out", False)
    assert backend.calls == 0


@pytest.mark.parametrize(
    "half", [b"", b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{", b"x"]
)
def test_a_connection_lost_on_the_way_leaves_a_write_unknown(half: bytes) -> None:
    async def walk() -> tuple[Outcome, int]:
        calls = 0

        async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal calls
            await reader.readuntil(b"\r\n\r\n")
            calls += 1
            writer.write(half)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(drop, "127.0.0.1", 0)
        async with server, upstream(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", protocol=MODERN) as door:
            return await write(door), calls

    outcome, calls = asyncio.run(walk())
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.unknown, calls) == ("upstream_error", True, 1)


def test_a_connection_that_was_never_made_leaves_nothing_unknown() -> None:
    async def walk() -> tuple[Outcome, tuple[str, ...]]:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        async with upstream(f"http://127.0.0.1:{port}", protocol=MODERN) as door:
            await door.warm()
            with pytest.raises(UpstreamUnavailable):
                await door.describe()
            return await write(door), tuple(door.problems())

    outcome, problems = asyncio.run(walk())
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.unknown) == ("upstream_unavailable", False)
    assert len(problems) == 1


def test_a_handshake_of_tls_that_hangs_leaves_nothing_unknown() -> None:
    async def walk() -> Outcome:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, upstream(f"https://127.0.0.1:{port}", protocol=MODERN, timeout=3) as door:
            return await write(door)

    outcome = asyncio.run(walk())
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.unknown) == ("upstream_unavailable", False)


@pytest.mark.parametrize(("reply", "timeout"), [(hang, 1.0), (drip, 30.0)])
def test_a_cancelled_call_closes_its_connection(reply: Reply, timeout: float) -> None:
    """At once where the answer had begun; otherwise at the timeout, for the HTTP client holds on to it until then."""

    async def walk() -> None:
        backend = Backend(reply)
        async with serving(backend) as url, upstream(url, protocol=MODERN, timeout=timeout) as door:
            task = asyncio.ensure_future(write(door))
            while not backend.seen:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with asyncio.timeout(5):
                await backend.gone.wait()

    asyncio.run(walk())


# --- lists ---------------------------------------------------------------------------------


def listing(*pages: list[Any], endless: bool = False) -> Reply:
    async def reply(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
        if message["method"] != "tools/list":
            await answer(send, result_of(message))
            return
        page = int(message["params"].get("cursor", 0))
        result: dict[str, Any] = {
            "resultType": "complete",
            "tools": pages[page % len(pages)],
            "ttlMs": 0,
            "cacheScope": "public",
        }
        if endless or page + 1 < len(pages):
            result["nextCursor"] = str(page + 1)
        await answer(send, response(message, result=result))

    return reply


def tool(name: Any = "a", **members: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object", "properties": {}}, **members}


def test_all_pages_are_read_and_odd_tools_are_left_out_and_named() -> None:
    header = {"type": "object", "properties": {"r": {"type": "string", "x-mcp-header": "bad header"}}}
    odd = [
        tool("b c"), tool(5), tool("s", inputSchema={"type": "array"}), tool("d", description=5), 7,
        tool("n", inputSchema={"type": "object", "x": 2**60}), tool("h", inputSchema=header), tool("a"),
        tool("w", description="x" * 70_000),
    ]  # fmt: skip

    async def act(door: McpUpstreamServer) -> tuple[Any, Any]:
        return await door.describe(), door.problems()

    (found, problems), _ = against(listing([tool("a")], odd, [tool("z", annotations={"title": "Z"})]), act)
    assert list(found) == ["z"], "a name that stands twice could be either tool"
    assert found["z"].title == "Z"
    assert len(problems) == len(odd)


@pytest.mark.parametrize(
    "reply",
    [listing([tool()], endless=True), listing([tool(str(n)) for n in range(1001)]), listing({}), hang],  # type: ignore[arg-type]
)
def test_an_endless_list_is_refused(reply: Reply) -> None:
    async def act(door: McpUpstreamServer) -> None:
        with pytest.raises(UpstreamUnavailable):
            await door.describe()

    against(reply, act, timeout=2.0)


def test_arguments_that_a_schema_marks_go_in_headers_as_well() -> None:
    marked = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}

    async def act(door: McpUpstreamServer) -> Outcome:
        await door.describe()
        return await sent(door, "a", {"region": "eu"})

    _, backend = against(listing([tool(inputSchema=marked)]), act)
    assert backend.seen[-1][2]["mcp-param-region"] == "eu"


def test_what_calls_of_a_tool_have_in_common_is_said_by_the_newest_list() -> None:
    marked = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}

    async def act(door: McpUpstreamServer) -> None:
        for region in ("eu", "us"):
            await sent(door, "a", {"region": region})
        assert list(door._heads) == ["a"]
        await door.describe()
        for region in ("eu", "us"):
            await sent(door, "a", {"region": region})
        await sent(door, "b")
        assert list(door._heads) == ["b"], "arguments are of one call"

    _, backend = against(listing([tool(inputSchema=marked)]), act)
    calls = [headers for _, message, headers in backend.seen if message["method"] == "tools/call"]
    assert [headers.get("mcp-param-region") for headers in calls] == [None, None, "eu", "us", None]
    assert [headers["mcp-name"] for headers in calls] == ["a", "a", "a", "a", "b"]


def test_after_a_server_changed_its_revision_calls_say_the_new_one() -> None:
    async def changing(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
        method = message["method"]
        if headers.get("mcp-protocol-version") == MODERN and changed:
            error = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32022, "message": "no"}}
            await answer(send, orjson.dumps(error), status=400)
        elif method == "initialize":
            hello = {"protocolVersion": LEGACY, "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
            await answer(send, orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "result": hello}))
        elif "id" not in message:
            await answer(send, b"", status=202)
        else:
            versions = {"supportedVersions": [MODERN]} if method == "server/discover" else {}
            await answer(send, result_of(message, **versions))

    changed: list[bool] = []

    async def act(door: McpUpstreamServer) -> list[Outcome]:
        outcomes = [await read(door)]
        changed.append(True)
        return [*outcomes, *[await read(door) for _ in range(2)]]

    outcomes, backend = against(changing, act, protocol="auto")
    assert [type(outcome) for outcome in outcomes] == [Done, Failed, Done]
    calls = [headers for _, message, headers in backend.seen if message["method"] == "tools/call"]
    assert [headers["mcp-protocol-version"] for headers in calls] == [MODERN, MODERN, LEGACY]
    assert "mcp-name" not in calls[-1]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/mcp",
        "ftp://127.0.0.1/",
        "https://u:p@x.test/",
        "https://x.test/?a",
        "http://127.0.0.1.x.test/",
    ],
)
def test_an_unsafe_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigInvalid):
        McpUpstreamServer(url, audience=AUDIENCE, timeout=1, response_bytes=1024)


@pytest.mark.parametrize("stateless", [True, False])
@pytest.mark.parametrize("protocol", ["auto", LEGACY])
def test_a_backend_that_believes_only_call_tokens_believes_what_is_sent(
    protocol: str, stateless: bool, tmp_path: Path
) -> None:
    signer = FileSigner.open(tmp_path, issuer=granted.ISSUER, now=granted.NOW)
    server: MCPServer = MCPServer("guarded")

    @server.tool()
    def update_ticket(ticket_id: str, status: str, tags: list[str], weight: float, ctx: Context) -> str:
        request = ctx.request_context.request
        assert request is not None
        return f"{ticket_id} {request.scope['onbehalf.call'].tenant} {'txn-token' in request.headers}"

    async def walk() -> None:
        app = CallTokenMiddleware(
            server.streamable_http_app(stateless_http=stateless),
            issuer=granted.ISSUER,
            audience=granted.AUDIENCE,
            jwks=signer.jwks(),
            clock=lambda: granted.NOW,
        )
        async with serving(app) as url:
            door = McpUpstreamServer(
                f"{url}/mcp", audience=granted.AUDIENCE, protocol=protocol, timeout=5, response_bytes=100_000
            )
            assert set(await door.describe()) == {"update_ticket"}
            token = signer.sign(granted.granted())
            call = token.grant.allow.call
            done = await door.send(call, token)
            assert isinstance(done, Done), done
            assert done.content["content"] == [{"type": "text", "text": "T-1001 acme False"}]
            again = await door.send(call, token)
            assert again == Failed(code="upstream_refused", message="HTTP status 401", unknown=False)
            await door.aclose()

    asyncio.run(walk())
