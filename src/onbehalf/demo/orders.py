"""The demo's orders: an HTTP API in a process of its own, which serves nothing without a call token for it.

Its OpenAPI document is orders.json, beside this file. Orders are in a SQLite file, or in memory. Must not decide
who may see an order: the gateway does; this only keeps to the verified tenant.
"""

from __future__ import annotations

import argparse
import json
import socket
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from onbehalf.backend import Keys, MemoryReplay, RemoteKeys, VerifiedCall
from onbehalf.backend.verify import look, prove, use_up
from onbehalf.demo.data import Order
from onbehalf.errors import OnbehalfError
from onbehalf.model import Json, UnixTime
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["Order", "build", "main"]

_MAX_BODY = 64 * 1024
_STATES = ("open", "shipped", "cancelled")


_ORDERS = (
    Order(id="O-1", tenant="acme", owner_id="alice", status="open", total=1200),
    Order(id="O-2", tenant="acme", owner_id="bob", status="open", total=99),
    Order(id="O-3", tenant="globex", owner_id="hank", status="shipped", total=5),
)


class _Shelf:
    """All orders, by tenant and id; a change is on disk before it is told, where they came from a file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._orders = {(each.tenant, each.id): each for each in (_read(path) if path else _ORDERS)}

    def of(self, tenant: str) -> list[Order]:
        return [each for (whose, _), each in sorted(self._orders.items()) if whose == tenant]

    def get(self, tenant: str, order_id: str) -> Order | None:
        return self._orders.get((tenant, order_id))

    def put(self, order: Order) -> None:
        if self._path:
            with closing(sqlite3.connect(self._path, timeout=5)) as base, base:
                where = (order.status, order.tenant, order.id)
                base.execute("UPDATE orders SET status = ? WHERE tenant = ? AND id = ?", where)
        self._orders[order.tenant, order.id] = order


def _read(path: Path) -> list[Order]:
    with closing(sqlite3.connect(path, timeout=5)) as base:
        base.row_factory = sqlite3.Row
        return [Order(**dict(row)) for row in base.execute("SELECT * FROM orders")]


class _Guard:
    """Proves the call token of one request against what this server is about to do, and uses it up."""

    def __init__(self, keys: Keys, *, issuer: str, audience: str) -> None:
        self._keys, self._issuer, self._audience = keys, issuer, audience
        self._replay = MemoryReplay(since=_now())

    async def __call__(self, request: Request, tool: str, arguments: dict[str, Json]) -> VerifiedCall:
        """Raises OnbehalfError."""
        given = request.headers.getlist("txn-token")
        peeked = look(given[0] if len(given) == 1 else "", issuer=self._issuer)
        key, now = await self._keys.find(peeked.key_id), _now()
        call = prove(peeked, key=key, audience=self._audience, tool=tool, arguments=arguments, now=now)
        use_up(peeked, call, replay=self._replay, now=now)
        return call


def build(keys: Keys, *, issuer: str, audience: str, path: Path | None = None) -> Starlette:
    """The API, for calls that the gateway `issuer` signed for `audience`. `path` is a file of orders."""
    guard = _Guard(keys, issuer=issuer, audience=audience)
    orders = _Shelf(path)

    async def listed(request: Request) -> Response:
        arguments: dict[str, Json] = {**request.path_params, **request.query_params}
        call = await guard(request, "listOrders", arguments)
        found = orders.of(call.tenant) if call.tenant == arguments["tenant"] else []
        wanted = arguments.get("status")
        return JSONResponse({"orders": [asdict(each) for each in found if wanted in (None, each.status)]})

    async def one(request: Request) -> Response:
        arguments: dict[str, Json] = {**request.path_params, **request.query_params}
        call = await guard(request, "getOrder", arguments)
        found = orders.get(call.tenant, str(arguments["order_id"]))
        if found is None or call.tenant != arguments["tenant"]:
            return JSONResponse({"error": "there is no such order"}, status_code=404)
        return JSONResponse({"order": asdict(found)})

    async def change(request: Request) -> Response:
        body = await _body(request)
        call = await guard(request, "changeOrder", {**body, **request.path_params})
        found, status = orders.get(call.tenant, str(request.path_params["order_id"])), body.get("status")
        if found is None or call.tenant != request.path_params["tenant"]:
            return JSONResponse({"error": "there is no such order"}, status_code=404)
        if set(body) != {"status"} or status not in _STATES:
            return JSONResponse({"error": "expected `status`"}, status_code=400)
        changed = replace(found, status=str(status))
        orders.put(changed)
        return JSONResponse({"order": asdict(changed)})

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, OnbehalfError)
        return JSONResponse({"error": error.code}, status_code=401)

    async def unread(_: Request, __: Exception) -> Response:
        return JSONResponse({"error": "the body is not a JSON object"}, status_code=400)

    routes = [
        Route("/tenants/{tenant}/orders", listed, methods=["GET"]),
        Route("/tenants/{tenant}/orders/{order_id}", one, methods=["GET"]),
        Route("/tenants/{tenant}/orders/{order_id}", change, methods=["PATCH"]),
    ]
    return Starlette(routes=routes, exception_handlers={OnbehalfError: refused, NotStrict: unread})


async def _body(request: Request) -> dict[str, Json]:
    """The JSON object sent, of at most 64 KiB. Raises NotStrict."""
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > _MAX_BODY:
            raise NotStrict("too large")
    return strict_object(data, depth=8)


def _now() -> UnixTime:
    return UnixTime(int(time.time()))


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m onbehalf.demo.orders`: serve on loopback; prints where as one JSON line."""
    reader = argparse.ArgumentParser(prog="python -m onbehalf.demo.orders", description="The demo's orders.")
    reader.add_argument("--port", type=int, default=0, help="0 takes any free port")
    reader.add_argument("--gateway", required=True, help="origin of the gateway whose call tokens are believed")
    reader.add_argument("--data", type=Path, help="directory with orders.db; without it, three orders in memory")
    given = reader.parse_args(arguments)
    listening = socket.create_server(("127.0.0.1", given.port))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    keys = RemoteKeys(f"{given.gateway}/.well-known/jwks.json", issuer=given.gateway)
    path = given.data / "orders.db" if given.data else None
    app = build(keys, issuer=given.gateway, audience=url, path=path)
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
