"""The story, before a stand-in gateway: it passes with an honest one and notices each kind of dishonest one.

The stand-in is the SDK's own resource server, so the SDK's client goes through its whole OAuth flow
against the demo issuer: discovery, registration, PKCE, the login page, the token endpoint.
"""

from __future__ import annotations

import io
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import KeySet
from mcp.server import Server
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from rich.console import Console
from starlette.applications import Starlette
from starlette.testclient import TestClient

from onbehalf.demo.data import DemoPerson, world
from onbehalf.demo.files import Places, write
from onbehalf.demo.issuer import build
from onbehalf.demo.story import run_story
from onbehalf.demo.telling import Stage, StoryResult, table
from onbehalf.demo.ticket_store import TicketStore
from onbehalf.demo.truth import readable_orders, readable_reviews, reports

WORLD = world()
PAGE = "http://127.0.0.1:1/approvals/x"


@contextmanager
def serving(listening: socket.socket, app: Any) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(timeout=10)


class StandIn:
    """Answers as the gateway must, from the made-up world; `flaw` makes it wrong in one way."""

    def __init__(self, directory: Path, flaw: str) -> None:
        self.flaw = flaw
        self.tickets = TicketStore(directory / "tickets.db")
        self.calls = 0
        self.said: dict[str, str] = {}
        self.orders = directory / "orders.db"
        self.shipped: set[str] = set()
        self.approved = False

    async def list_tools(self, ctx: Any, params: Any) -> types.ListToolsResult:
        names = (
            "reviews_list",
            "tickets_get",
            "tickets_update",
            "orders_list",
            "order_get",
            "order_ship",
            "order_cancel",
        )
        return types.ListToolsResult(tools=[types.Tool(name=n, input_schema={"type": "object"}) for n in names])

    async def call_tool(self, ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        token = get_access_token()
        assert token is not None
        person = next(p for p in WORLD.people if p.subject == token.subject)
        arguments = params.arguments or {}
        self.calls += 1
        call = f"call_{self.calls:032x}"
        self.said[call] = f"{person.name} called {params.name} with {arguments}, approved by ben"
        result = (self.order if "order" in params.name else self.answer)(params.name, person, arguments)
        if isinstance(result, str):
            meta = {"onbehalf/denial": {"code": result, "call": call, "remedy": "ask the owner"}, "onbehalf/call": call}
            content = [types.TextContent(type="text", text=f"refused: {result}, see {PAGE}")]
            return types.CallToolResult(content=content, is_error=True, _meta=meta)
        return types.CallToolResult(content=[], structured_content=result, _meta={"onbehalf/call": call})

    def answer(self, tool: str, person: DemoPerson, arguments: dict[str, Any]) -> dict[str, Any] | str:
        if tool == "reviews_list":
            return self.reviews(person, arguments)
        ticket = self.tickets.get(person.tenant, arguments["ticket_id"])
        assert ticket is not None
        if tool == "tickets_update":
            if ticket.owner_id != person.id and self.flaw != "any_ticket":
                return "not_permitted"
            asked = {"status": arguments.get("status", ""), "comment": arguments.get("comment", "")}
            ticket = self.tickets.update(person.tenant, ticket.id, **asked) if self.flaw != "lost_write" else ticket
            assert ticket is not None
        return {"ticket": ticket.model_dump()}

    def order(self, tool: str, person: DemoPerson, arguments: dict[str, Any]) -> dict[str, Any] | str:
        if "tenant" in arguments:
            return "bound_parameter"
        may = readable_orders(WORLD, person.tenant, person.id)
        rows = [
            row for (tenant, id), row in table(self.orders, "orders").items() if (tenant, id in may) == ("acme", True)
        ]
        for row in rows:
            if row["owner_id"] != person.id and self.flaw != "no_mask":
                row["email"] = None
        if tool == "orders_list":
            return {"orders": rows}
        found = next((row for row in rows if row["id"] == arguments["order_id"]), None)
        if tool == "order_get":
            return {"order": found}
        if found is None:
            return "not_permitted"
        if tool == "order_ship" and found["id"] in self.shipped and self.flaw != "twice":
            return "done_before"
        if tool == "order_cancel" and not self.approved and self.flaw != "unasked":
            return "approval_required"
        self.shipped.add(found["id"])
        status = "shipped" if tool == "order_ship" else "cancelled"
        with closing(sqlite3.connect(self.orders)) as base, base:
            base.execute("UPDATE orders SET status = ? WHERE tenant = 'acme' AND id = ?", (status, found["id"]))
        return {"order": {**found, "status": status}}

    async def say(self, url: str, person: DemoPerson, word: str) -> str:
        assert url == PAGE
        self.approved = person.id == "ben" or self.flaw == "anybody"
        return "This is approved" if self.approved else "There is nothing here for you"

    def reviews(self, person: DemoPerson, arguments: dict[str, Any]) -> dict[str, Any] | str:
        if {"tenant_id", "me"} & set(arguments) and self.flaw != "ignores_bound":
            return "bound_parameter"
        may = readable_reviews(WORLD, person.tenant, person.id)
        if self.flaw == "misses_one":
            may = set(sorted(may)[1:])
        rows = [r for r in WORLD.reviews if (r.tenant == person.tenant and r.id in may) or self.flaw == "leaks"]
        if arguments.get("about") == "team":
            rows = [r for r in rows if r.subject_id in reports(WORLD, person.tenant, person.id)]
        for key in ("subject_id", "status", "period"):
            rows = [r for r in rows if key not in arguments or getattr(r, key) == arguments[key]]
        names = ("tenant", "id", "subject_id", "author_id", "period", "rating", "status", "feedback")
        return {"rows": [{name: getattr(r, name) for name in names} for r in rows]}


class Verifier:
    def __init__(self, issuer: Starlette, url: str, resource: str) -> None:
        self.keys = KeySet.import_key_set(TestClient(issuer, base_url=url).get("/jwks.json").json())
        self.resource = resource

    async def verify_token(self, token: str) -> AccessToken | None:
        claims = jwt.decode(token, self.keys, algorithms=["ES256"]).claims
        if claims["aud"] != self.resource:
            return None
        scopes = str(claims["scope"]).split()
        return AccessToken(token=token, client_id=claims["client_id"], scopes=scopes, subject=claims["sub"])


def told(directory: Path, flaw: str = "") -> tuple[StoryResult, str]:
    issuer_socket, gateway_socket = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    issuer_url, gateway_url = (f"http://127.0.0.1:{s.getsockname()[1]}" for s in (issuer_socket, gateway_socket))
    places = Places(
        gateway=gateway_url,
        admin="http://127.0.0.1:1",
        issuer=issuer_url,
        tickets="http://127.0.0.1:2",
        orders="http://127.0.0.1:5",
    )
    write(directory, WORLD, places)
    issuer: Any = build(issuer_url, WORLD.people, [places.resource])
    stand_in = StandIn(directory, flaw)
    server: Server[Any] = Server("stand-in", on_list_tools=stand_in.list_tools, on_call_tool=stand_in.call_tool)
    auth = AuthSettings.model_validate(
        {
            "issuer_url": issuer_url,
            "resource_server_url": places.resource,
            "required_scopes": ["reviews.read"],
            "validate_token_resource": False,
        }
    )
    app = server.streamable_http_app(auth=auth, token_verifier=Verifier(issuer, issuer_url, places.resource))
    stage = Stage(
        gateway=places.resource,
        directory=directory,
        world=WORLD,
        verify=lambda: (flaw != "bad_record", "the record was checked"),
        explain=lambda call: "" if flaw == "mute" else stand_in.said[call],
        say=stand_in.say,
        reviews=lambda: table(directory / "hr.db", "reviews"),
    )
    out = io.StringIO()
    with serving(issuer_socket, issuer), serving(gateway_socket, app):
        return run_story(stage, Console(file=out, width=200)), out.getvalue()


def test_before_an_honest_gateway_every_step_is_as_told(tmp_path: Path) -> None:
    result, text = told(tmp_path)
    assert result.ok, text
    assert len(result.steps) >= 20
    assert "\x1b" not in text, "plain where nobody watches"


@pytest.mark.parametrize(
    ("flaw", "noticed"),
    [
        ("leaks", "his own team's, none of acme's"),
        ("misses_one", "only his own, once final"),
        ("ignores_bound", "an injected `tenant_id` is refused"),
        ("any_ticket", "Carol's ticket is as it was"),
        ("no_mask", "of his team's, no address of a customer"),
        ("twice", "sent again, it is not done again"),
        ("unasked", "it waits, nothing is done"),
        ("anybody", "he cannot approve it himself"),
        ("lost_write", "his own T-1001 is changed, and nothing else is"),
        ("bad_record", "the record verifies"),
        ("mute", "the denied call is explained"),
    ],
)
def test_the_story_notices(tmp_path: Path, flaw: str, noticed: str) -> None:
    result, text = told(tmp_path, flaw)
    assert not result.ok
    assert noticed in {step.title for step in result.steps if not step.ok}, text


async def nobody(url: str, person: DemoPerson, word: str) -> str:
    raise RuntimeError("no page")


def test_no_gateway_at_all_is_a_failed_story(tmp_path: Path) -> None:
    write(
        tmp_path,
        WORLD,
        Places(
            gateway="http://127.0.0.1:9",
            admin="http://a:1",
            issuer="http://a:2",
            tickets="http://a:3",
            orders="http://127.0.0.1:5",
        ),
    )
    stage = Stage(
        gateway="http://127.0.0.1:9/mcp",
        directory=tmp_path,
        world=WORLD,
        verify=lambda: (False, ""),
        explain=lambda call: "",
        say=nobody,
        reviews=dict,
    )
    result = run_story(stage, Console(file=io.StringIO()))
    assert not result.ok
    assert not any(step.ok for step in result.steps)
