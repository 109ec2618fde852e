"""What every Upstream door owes the corridor: one act at most, bounded, and a failure is a value."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest

from doors import api_house
from doors.upstream_house import AUDIENCE, Backend, a_call, a_token, answer, result_of, serving
from onbehalf.doors.upstream_mcp import McpUpstreamServer
from onbehalf.doors.upstream_openapi_configured import open_openapi
from onbehalf.doors.upstream_postgres import PostgresUpstream, Role, Statement
from onbehalf.doors.upstream_sql import SqliteUpstream
from onbehalf.model import Done, Failed, Rows
from onbehalf.ports import Upstream
from onbehalf.validate import rows

SECONDS = 2.5
SHAPE = Rows(type="Thing", at=("rows",), id="id", tenant="tenant", attributes={"n": ("n", "Long")})
FOREVER = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) AS n FROM r"
WIDE = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 50000) SELECT n FROM r"


@dataclass(frozen=True, kw_only=True)
class House:
    """A door whose system knows the tools `get` (one row with `n` as sent), `wrong`, `hang` and `huge`."""

    door: Upstream
    calls: Callable[[], int | None]


@asynccontextmanager
async def sql(tmp_path: Path) -> AsyncIterator[House]:
    path = tmp_path / "things.db"
    sqlite3.connect(path).close()
    statements = {
        "get": "SELECT '1' AS id, 'acme' AS tenant, :n AS n",
        "wrong": "SELECT value FROM json_each(:n)",
        "hang": FOREVER,
        "huge": WIDE,
    }
    door = SqliteUpstream.open(path, audience=AUDIENCE, statements=statements, timeout=SECONDS, max_rows=1000)
    try:
        yield House(door=door, calls=lambda: None)
    finally:
        await door.aclose()


@asynccontextmanager
async def mcp(tmp_path: Path) -> AsyncIterator[House]:
    async def reply(message: dict[str, Any], headers: dict[str, Any], send: Any) -> None:
        params = message["params"]
        if params["name"] == "get":
            row = {"id": "1", "tenant": "acme", "n": params["arguments"].get("n")}
            await answer(send, result_of(message, structuredContent={"rows": [row]}))
        elif params["name"] == "hang":
            await asyncio.Event().wait()
        else:
            await answer(send, b"{" if params["name"] == "wrong" else b" " * 10**6 + result_of(message))

    backend = Backend(reply)
    async with serving(backend) as url:
        door = McpUpstreamServer(
            f"{url}/mcp", audience=AUDIENCE, protocol="2026-07-28", timeout=SECONDS, response_bytes=100_000
        )
        try:
            yield House(door=door, calls=lambda: backend.calls)
        finally:
            await door.aclose()


class Api:
    """An HTTP API with one operation for each tool."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.calls += 1
        name, sent = scope["path"].rpartition("/")[2], parse_qs(scope["query_string"].decode())
        if name == "hang":
            await asyncio.Event().wait()
        n = int(sent["n"][0]) if name == "get" else 0
        body = {"get": orjson.dumps({"rows": [{"id": "1", "tenant": "acme", "n": n}]}), "wrong": b"{"}
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body.get(name, b" " * 10**6)})


@asynccontextmanager
async def api(tmp_path: Path) -> AsyncIterator[House]:
    query = {"name": "n", "in": "query", "schema": {"type": "integer"}}
    names = ("get", "wrong", "hang", "huge")
    document = {
        "openapi": "3.1.0", "info": {"title": "t", "version": "1"},
        "paths": {f"/{name}": {"get": {"operationId": name, "parameters": [query]}} for name in names},
    }  # fmt: skip
    served = Api()
    async with serving(served) as url:
        told = api_house.settings(
            tmp_path, url, {name: {"action": "read"} for name in names}, document=document, audience=AUDIENCE,
            timeout_seconds=SECONDS, response_bytes=100_000,
        )  # fmt: skip
        door, _ = await open_openapi("api", told, base=tmp_path, insecure_http=True)
        try:
            yield House(door=door, calls=lambda: served.calls)
        finally:
            await door.aclose()


Opening = Callable[[Path], AbstractAsyncContextManager[House]]


def postgres_opening(dsn: str) -> Opening:
    @asynccontextmanager
    async def postgres(tmp_path: Path) -> AsyncIterator[House]:
        texts = {
            "get": "SELECT '1' AS id, 'acme' AS tenant, :n::int AS n",
            "wrong": "SELECT :n::int AS n",
            "hang": FOREVER,
            "huge": "SELECT n FROM generate_series(1, 50000) AS n",
        }
        statements = {name: Statement(text=text, writes=False) for name, text in texts.items()}
        door = await PostgresUpstream.open(
            Role(dsn=dsn, wall=None), None, audience=AUDIENCE, statements=statements, timeout=SECONDS, max_rows=1000
        )
        try:
            yield House(door=door, calls=lambda: None)
        finally:
            await door.aclose()

    return postgres


@pytest.fixture(params=["sql", "mcp", "openapi", "postgres"])
def opening(request: pytest.FixtureRequest) -> Opening:
    if request.param == "postgres":
        return postgres_opening(request.getfixturevalue("postgres"))
    return {"sql": sql, "mcp": mcp, "openapi": api}[request.param]


def test_a_good_call_is_done_and_its_rows_are_found(opening: Opening, tmp_path: Path) -> None:
    async def walk() -> None:
        async with opening(tmp_path) as house:
            call = a_call("get", {"n": 5}, rows=SHAPE)
            done = await house.door.send(call, a_token(call))
            assert isinstance(done, Done), done
            assert set(done.content) == {"content", "structuredContent", "isError"}
            [row] = rows.extract(SHAPE, done.content, limit=10).rows
            assert row.entity.attributes["n"] == 5
            assert house.calls() in (None, 1)

    asyncio.run(walk())


def test_the_audience_is_what_the_door_was_given(opening: Opening, tmp_path: Path) -> None:
    async def walk() -> None:
        async with opening(tmp_path) as house:
            assert house.door.audience == AUDIENCE

    asyncio.run(walk())


def test_a_token_for_another_audience_or_another_call_is_never_sent(opening: Opening, tmp_path: Path) -> None:
    async def walk() -> None:
        async with opening(tmp_path) as house:
            call = a_call("get", {"n": 5})
            for token in (a_token(call, audience="https://other.test"), a_token(a_call("get", {"n": 6}))):
                failed = await house.door.send(call, token)
                assert failed == Failed(
                    code="wrong_grant", message="the call token is not for this call here", unknown=False
                )
            assert house.calls() in (None, 0)

    asyncio.run(walk())


@pytest.mark.parametrize("remote", ["wrong", "hang", "huge", "absent"])
def test_a_failure_is_a_value_within_the_time_and_leaves_the_door_working(
    opening: Opening, tmp_path: Path, remote: str
) -> None:
    async def walk() -> None:
        async with opening(tmp_path) as house:
            call = a_call(remote, {"n": "x"} if remote == "wrong" else {})
            async with asyncio.timeout(SECONDS + 1):
                failed = await house.door.send(call, a_token(call))
            assert isinstance(failed, Failed), failed
            assert not failed.unknown  # nothing was asked to change
            assert failed.code
            assert len(failed.message) <= 300
            again = a_call("get", {"n": 1})
            assert isinstance(await house.door.send(again, a_token(again)), Done)

    asyncio.run(walk())


def test_a_call_can_be_cancelled_and_leaves_the_door_working(opening: Opening, tmp_path: Path) -> None:
    async def walk() -> None:
        async with opening(tmp_path) as house:
            call = a_call("hang")
            tasks = [asyncio.ensure_future(house.door.send(call, a_token(call))) for _ in range(8)]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert all(task.cancelled() for task in tasks)
            again = a_call("get", {"n": 1})
            assert isinstance(await house.door.send(again, a_token(again)), Done)

    asyncio.run(walk())


def test_many_calls_at_once_each_get_their_own_answer(opening: Opening, tmp_path: Path) -> None:
    async def walk() -> None:
        async with opening(tmp_path) as house:
            calls = [a_call("get", {"n": n}, rows=SHAPE) for n in range(50)]
            outcomes = await asyncio.gather(*(house.door.send(call, a_token(call)) for call in calls))
            for n, outcome in enumerate(outcomes):
                assert isinstance(outcome, Done), outcome
                assert rows.extract(SHAPE, outcome.content, limit=1).rows[0].entity.attributes["n"] == n

    asyncio.run(walk())


def test_a_call_after_the_end_is_a_failure(opening: Opening, tmp_path: Path) -> None:
    async def walk() -> None:
        async with opening(tmp_path) as house:
            await house.door.aclose()  # type: ignore[attr-defined]  # ending is each door's own, not the port's
            call = a_call("get", {"n": 1}, writes=True)
            outcome = await house.door.send(call, a_token(call))
            assert isinstance(outcome, Failed)
            assert not outcome.unknown

    asyncio.run(walk())
