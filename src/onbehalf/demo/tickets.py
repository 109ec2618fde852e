"""The demo's ticket system: an MCP server of its own, in a process of its own, that believes only call tokens.

It shows what a company's own backend does with `onbehalf.backend`: no login, no session, no trust in the
network. Whose tickets are told and changed is decided by the verified token's tenant alone. Must not
import the gateway.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel, Field

from onbehalf.demo.ticket_store import TicketRow, TicketStore

__all__ = ["build", "main"]

Status = Literal["", "open", "in_progress", "closed"]
TicketId = Annotated[str, Field(max_length=40, description="Such as T-1001.")]


class Tickets(BaseModel):
    """What `list_tickets` gives."""

    tickets: list[TicketRow]


class OneTicket(BaseModel):
    """What `get_ticket` and `update_ticket` give; null where there is no such ticket."""

    ticket: TicketRow | None


def build(store: TicketStore, tenant_of: Callable[[Any], str]) -> MCPServer:
    """The server. `tenant_of` gives the verified tenant of an HTTP request, and raises where there is none."""
    server: MCPServer = MCPServer("demo-tickets", instructions="Tickets of the demo; only through the gateway.")

    def tenant(ctx: Context) -> str:
        return tenant_of(ctx.request_context.request)

    @server.tool(title="Tickets")
    def list_tickets(
        ctx: Context,
        status: Annotated[Status, Field(description="Only tickets in this state.")] = "",
        owner_id: Annotated[str, Field(max_length=100, description="Only this person's, by id such as bob.")] = "",
        queue: Annotated[str, Field(max_length=100, description="Only this queue's, such as platform.")] = "",
    ) -> Tickets:
        """Tickets that you may read, by id."""
        return Tickets(tickets=store.find(tenant(ctx), status=status, owner_id=owner_id, queue=queue))

    @server.tool(title="One ticket")
    def get_ticket(ticket_id: TicketId, ctx: Context) -> OneTicket:
        """One ticket by its id."""
        return OneTicket(ticket=store.get(tenant(ctx), ticket_id))

    @server.tool(title="Change a ticket")
    def update_ticket(
        ticket_id: TicketId,
        ctx: Context,
        status: Annotated[Status, Field(description="The new state; empty leaves it.")] = "",
        comment: Annotated[str, Field(max_length=2000, description="A new comment; empty leaves it.")] = "",
    ) -> OneTicket:
        """Change the state or the comment of a ticket."""
        return OneTicket(ticket=store.update(tenant(ctx), ticket_id, status=status, comment=comment))

    return server


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m onbehalf.demo.tickets`: serve on loopback; prints where as one JSON line."""
    reader = argparse.ArgumentParser(prog="python -m onbehalf.demo.tickets", description="The demo's ticket system.")
    reader.add_argument("--port", type=int, default=0, help="0 takes any free port")
    reader.add_argument("--data", type=Path, required=True, help="the directory with tickets.db")
    reader.add_argument("--gateway", required=True, help="origin of the gateway whose call tokens are believed")
    reader.add_argument("--gateway-jwks", default="", help="where its keys are; by default below --gateway")
    given = reader.parse_args(arguments)
    listening = socket.create_server(("127.0.0.1", given.port))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    # Imported here, so that the server's tools can be tried without a gateway's keys.
    from onbehalf.backend import SqliteCalls
    from onbehalf.demo.ticket_guard import guarded, verified_tenant

    server = build(TicketStore(given.data / "tickets.db"), verified_tenant)
    jwks = given.gateway_jwks or f"{given.gateway}/.well-known/jwks.json"
    calls = SqliteCalls(given.data / "ticket-calls.db")
    app = guarded(server.streamable_http_app(), gateway=given.gateway, jwks=jwks, audience=f"{url}/mcp", calls=calls)
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
