"""An API with a dry run in the whole house: a real gateway, and a service that believes nothing but call tokens."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from company import Company, company, said, wait_for
from onbehalf.backend import MemoryReplay, read_keys, verify_call
from onbehalf.errors import OnbehalfError
from onbehalf.model import UnixTime
from test_app import recorded

TEXT = {"type": "string"}
BODY = {
    "type": "object",
    "required": ["ids"],
    "properties": {"ids": {"type": "array", "items": TEXT}, "dry_run": {"type": "boolean"}},
}
DOCUMENT = {
    "openapi": "3.1.0",
    "paths": {
        "/tenants/{tenant}/close": {
            "post": {
                "operationId": "closeOrders",
                "parameters": [{"name": "tenant", "in": "path", "required": True, "schema": TEXT}],
                "requestBody": {"required": True, "content": {"application/json": {"schema": BODY}}},
            }
        }
    },
}
UPSTREAM = """
  orders:
    kind: openapi
    url: "@URL@"
    document: orders.json
    digest: "@DIGEST@"
    tools:
      orders_close:
        remote: closeOrders
        action: closeOrder
        writes: true
        scoped: true
        once_seconds: 0
        bound: {tenant: {tenant: true}}
        rows: {type: Order, at: orders, attributes: {owner: owner_id User}}
        dry_run: {parameter: dry_run, value: true, compare: [orders]}
"""
SHOWN = (
    UPSTREAM.partition("    tools:\n")[2].replace("orders_close:", "orders_close_shown:").rstrip()
    + """
        preview: true
"""
)
SCHEMA = """
entity Order { tenant: Tenant, owner: User };
action closeOrder appliesTo { principal: User, resource: [Tool, Order], context: Context };
action readNote"""
POLICY = """
@id("own-orders") @doc("Everyone closes their own orders.") @remedy("Ask the owner.")
permit (principal, action == Action::"closeOrder", resource is Order) when { resource.owner == principal };
@id("own")"""


class Shop:
    """Orders by id, with who owns them; `asked` are the calls whose token was good, `refused` how often it was not."""

    def __init__(self, gateway: str) -> None:
        self.gateway, self.url = gateway, ""
        self.orders = {"1": "alice", "2": "alice", "3": "bob"}
        self.closed: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.replay = MemoryReplay()
        self.broken = False

    def answer(self, tenant: str, body: dict[str, Any], token: str) -> tuple[int, Any]:
        jwks = httpx2.get(f"{self.gateway}/.well-known/jwks.json", trust_env=False).content
        try:
            verify_call(
                token, keys=read_keys(jwks, issuer=self.gateway), issuer=self.gateway, audience=self.url,
                tool="closeOrders", arguments={"tenant": tenant, **body}, now=UnixTime(int(time.time())),
                replay=self.replay,
            )  # fmt: skip
        except OnbehalfError as error:
            self.refused.append(error.code)
            return 401, {}
        self.asked.append(body)
        if self.broken:
            return 500, {}
        if not body.get("dry_run"):
            self.closed |= set(body["ids"])
        found = [{"id": each, "tenant": tenant, "owner_id": self.orders[each]} for each in body["ids"]]
        return 200, {"orders": found, "at": time.time()}


@contextmanager
def shop(gateway: str) -> Iterator[Shop]:
    made = Shop(gateway)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, found = made.answer(self.path.split("/")[2], body, self.headers.get("Txn-Token", ""))
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Company, Shop]]:
    with company(tmp_path_factory.mktemp("dry") / "it") as made, shop(made.gateway) as there:
        data = json.dumps(DOCUMENT).encode()
        (made.directory / "orders.json").write_bytes(data)
        text = (UPSTREAM.rstrip() + "\n" + SHOWN.rstrip()).replace("@URL@", there.url)
        text = text.replace("@DIGEST@", "sha256:" + hashlib.sha256(data).hexdigest())
        made.edit("\nupstreams:", "\nupstreams:" + text)
        made.edit('\n@id("own")', POLICY, name="policies/own.cedar")
        made.edit("\naction readNote", SCHEMA, name="policies/own.cedarschema")
        with made.serving():
            yield made, there


@pytest.fixture
def here(around: tuple[Company, Shop]) -> tuple[Company, Shop]:
    made, there = around
    there.closed, there.asked, there.refused, there.broken = set(), [], [], False
    return made, there


def told(made: Company) -> str:
    """The story of the last call, once its outcome is on record: an answer does not wait for that."""

    def text() -> str:
        found = said("explain", "last", "-c", made.config)
        assert found.code == 0, found.err
        return " ".join(found.out.split())

    wait_for(lambda: "No outcome is on record" not in text(), what="the outcome", said=text)
    return text()


def test_it_is_tried_decided_and_done_each_by_a_token_of_its_own(here: tuple[Company, Shop]) -> None:
    made, there = here
    answer = made.call("orders_close", ids=["1", "2"])
    assert [each["id"] for each in answer["structuredContent"]["orders"]] == ["1", "2"]
    assert there.asked == [{"ids": ["1", "2"], "dry_run": True}, {"ids": ["1", "2"]}]
    assert (there.closed, there.refused) == ({"1", "2"}, [])
    story = told(made)
    assert "the gateway asked for a dry run of the tool orders_close of orders (it writes)" in story
    assert "2 rows would change, 2 of them permitted" in story
    assert "after the dry run right before it" in story
    assert "2 rows came back, 2 were released" in story


def test_an_order_of_somebody_else_spoils_the_whole_before_any_is_closed(here: tuple[Company, Shop]) -> None:
    made, there = here
    answer = made.call("orders_close", ids=["1", "3"])
    assert answer["isError"] is True
    assert "bob" not in json.dumps(answer)
    assert there.asked == [{"ids": ["1", "3"], "dry_run": True}]
    assert there.closed == set()
    assert "dry_run" not in recorded(made, "denial")[-1]["arguments"]


def test_what_was_shown_is_done_when_the_client_asks_for_exactly_that(here: tuple[Company, Shop]) -> None:
    made, there = here
    first = made.call("orders_close_shown", ids=["1"])
    assert there.closed == set()
    assert first["structuredContent"] == {"orders": [{"id": "1", "tenant": "acme", "owner_id": "alice"}]}
    change = first["_meta"]["onbehalf/change"]
    assert "isError" not in made.call("orders_close_shown", ids=["1"], change=change)
    assert (there.closed, there.refused) == ({"1"}, [])
    assert made.call("orders_close_shown", ids=["1"], change=change)["isError"] is True


def test_an_order_that_came_to_belong_to_somebody_else_makes_the_shown_change_stale(here: tuple[Company, Shop]) -> None:
    made, there = here
    change = made.call("orders_close_shown", ids=["1", "2"])["_meta"]["onbehalf/change"]
    there.orders["2"] = "bob"
    try:
        assert made.call("orders_close_shown", ids=["1", "2"], change=change)["isError"] is True
    finally:
        there.orders["2"] = "alice"
    assert there.closed == set()


@pytest.mark.parametrize("value", [False, True, None])
def test_a_model_cannot_say_whether_it_is_a_dry_run(here: tuple[Company, Shop], value: bool | None) -> None:
    made, there = here
    answer = made.call("orders_close", ids=["1"], dry_run=value)
    assert answer["_meta"]["onbehalf/denial"]["code"] == "bound_parameter"
    assert there.asked == []
    tools = made.post("tools/list").json()["result"]["tools"]
    [shown] = [each for each in tools if each["name"] == "orders_close"]
    assert "dry_run" not in json.dumps(shown)


def test_a_dry_run_that_fails_is_told_as_not_done(here: tuple[Company, Shop]) -> None:
    made, there = here
    there.broken = True
    answer = made.call("orders_close", ids=["1"])
    assert answer["_meta"]["onbehalf/denial"]["code"] == "upstream_unavailable"
    assert there.asked == [{"ids": ["1"], "dry_run": True}]
    assert "It was not done (upstream_unavailable): HTTP status 500." in told(made)


def test_check_takes_it(here: tuple[Company, Shop]) -> None:
    made, _ = here
    found = said("check", "-c", made.config)
    assert "tool orders_close: defined, mapped and pinned" in " ".join(found.out.split())
