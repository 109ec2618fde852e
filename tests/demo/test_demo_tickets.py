"""The demo's ticket system: a tenant sees its own, and nothing happens without a call token."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from onbehalf.demo.data import world
from onbehalf.demo.files import Places, write
from onbehalf.demo.ticket_store import TicketStore
from onbehalf.demo.tickets import build

WORLD = world()
URL = "http://127.0.0.1:4"


@pytest.fixture
def store(tmp_path: Path) -> TicketStore:
    write(
        tmp_path,
        WORLD,
        Places(
            gateway="http://127.0.0.1:1",
            admin="http://127.0.0.1:2",
            issuer="http://127.0.0.1:3",
            tickets=URL,
            orders="http://127.0.0.1:5",
        ),
    )
    return TicketStore(tmp_path / "tickets.db")


async def called(
    store: TicketStore, tool: str, arguments: dict[str, Any], *, mode: str = "auto", tenant: str = "acme"
) -> Any:
    """One call over HTTP, with the tenant where a verified one would come from: the HTTP request."""
    app = build(store, lambda request: str(request.headers["x-test-tenant"])).streamable_http_app()
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url=URL, headers={"x-test-tenant": tenant}) as http,
        Client(streamable_http_client(f"{URL}/mcp", http_client=http), mode=mode) as client,
    ):
        return await client.call_tool(tool, arguments)


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
def test_one_ticket_of_the_verified_tenant_is_given_in_both_eras(store: TicketStore, mode: str) -> None:
    result = asyncio.run(called(store, "get_ticket", {"ticket_id": "T-1001"}, mode=mode))
    assert result.structured_content["ticket"]["tenant"] == "acme"
    assert result.structured_content["ticket"]["owner_id"] == "bob"


def test_the_same_id_in_another_tenant_is_another_ticket(store: TicketStore) -> None:
    result = asyncio.run(called(store, "get_ticket", {"ticket_id": "T-1001"}, tenant="globex"))
    assert result.structured_content["ticket"]["tenant"] == "globex"


def test_a_list_holds_the_tenant_only(store: TicketStore) -> None:
    result = asyncio.run(called(store, "list_tickets", {"status": "open"}))
    tickets = result.structured_content["tickets"]
    assert {(ticket["tenant"], ticket["status"]) for ticket in tickets} == {("acme", "open")}
    assert len(tickets) == sum(1 for t in WORLD.tickets if t.tenant == "acme" and t.status == "open")


def test_an_update_changes_one_ticket_of_one_tenant(store: TicketStore) -> None:
    asked = {"ticket_id": "T-1001", "status": "in_progress", "comment": "on it"}
    result = asyncio.run(called(store, "update_ticket", asked))
    assert result.structured_content["ticket"]["status"] == "in_progress"
    changed = [store.get(t.tenant, t.id) for t in WORLD.tickets]
    assert sum(1 for ticket in changed if ticket and ticket.comment) == 1


def test_a_ticket_that_is_not_there_is_null(store: TicketStore) -> None:
    result = asyncio.run(called(store, "get_ticket", {"ticket_id": "T-1130"}, tenant="globex"))
    assert result.structured_content == {"ticket": None}


@pytest.mark.parametrize("arguments", [{}, {"ticket_id": "T" * 41}, {"ticket_id": "T-1001", "status": "gone"}])
def test_arguments_that_do_not_fit_change_nothing(store: TicketStore, arguments: dict[str, Any]) -> None:
    assert asyncio.run(called(store, "update_ticket", arguments)).is_error
