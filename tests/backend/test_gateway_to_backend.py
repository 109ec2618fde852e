"""From a grant to a ticket: the gateway's own upstream door, a real signer, and a backend behind call tokens."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from act.granted import granted
from backend.serving import KeyServer, served
from onbehalf.demo.data import world
from onbehalf.demo.files import Places, write
from onbehalf.demo.ticket_guard import guarded, verified_tenant
from onbehalf.demo.ticket_store import TicketStore
from onbehalf.demo.tickets import build
from onbehalf.doors.signer_file import FileSigner
from onbehalf.doors.upstream_mcp import McpUpstreamServer
from onbehalf.model import CallToken, Done, Failed, Json, UnixTime

GATEWAY = "https://gateway.test"
AUDIENCE = "https://tickets.test/mcp"
ERAS = ["auto", "2026-07-28", "2025-11-25"]
ASKED: dict[str, Json] = {"ticket_id": "T-1001"}
CHANGED: dict[str, Json] = {"ticket_id": "T-1001", "comment": "naïve — “quoted” \u2028 1.0"}


@asynccontextmanager
async def joined(directory: Path, protocol: str) -> AsyncIterator[tuple[FileSigner, McpUpstreamServer, TicketStore]]:
    write(
        directory,
        world(),
        Places(
            gateway=GATEWAY, admin=GATEWAY, issuer=GATEWAY, tickets="http://127.0.0.1:4", orders="http://127.0.0.1:5"
        ),
    )
    store = TicketStore(directory / "tickets.db")
    signer = FileSigner.open(directory / "keys", issuer=GATEWAY, now=UnixTime(0))
    async with served(KeyServer(signer.jwks)) as keys:
        app = build(store, verified_tenant).streamable_http_app()
        async with served(guarded(app, gateway=GATEWAY, jwks=keys, audience=AUDIENCE)) as origin:
            door = McpUpstreamServer(
                f"{origin}/mcp", audience=AUDIENCE, protocol=protocol, timeout=10, response_bytes=2**20
            )
            try:
                yield signer, door, store
            finally:
                await door.aclose()


def signed(signer: FileSigner, tool: str, arguments: dict[str, Json], *, index: int = 1) -> CallToken:
    return signer.sign(granted(arguments, tool=tool, audience=AUDIENCE, now=UnixTime(int(time.time())), index=index))


@pytest.mark.parametrize("protocol", ERAS)
def test_a_granted_call_is_done_once_in_the_persons_tenant(tmp_path: Path, protocol: str) -> None:
    async def walk() -> None:
        async with joined(tmp_path, protocol) as (signer, door, store):
            asks = signed(signer, "get_ticket", ASKED)
            found = await door.send(asks.grant.allow.call, asks)
            assert isinstance(found, Done)
            assert '"acme"' in json.dumps(dict(found.content))
            changes = signed(signer, "update_ticket", CHANGED, index=2)
            assert isinstance(await door.send(changes.grant.allow.call, changes), Done)
            ticket = store.get("acme", "T-1001")
            assert ticket is not None
            assert ticket.comment == CHANGED["comment"]
            again = await door.send(changes.grant.allow.call, changes)
            assert isinstance(again, Failed)
            assert (again.code, again.unknown) == ("upstream_refused", False)

    asyncio.run(asyncio.wait_for(walk(), 30))


@pytest.mark.parametrize("protocol", ERAS[:1])
def test_a_token_for_another_call_is_refused_and_known_not_to_be_done(tmp_path: Path, protocol: str) -> None:
    async def walk() -> None:
        async with joined(tmp_path, protocol) as (signer, door, store):
            before = store.get("acme", "T-1001")
            token = signed(signer, "get_ticket", ASKED)
            other = signed(signer, "update_ticket", ASKED, index=2)
            swapped = replace(other, compact=token.compact)  # a gateway that sends the wrong token
            refused = await door.send(other.grant.allow.call, swapped)
            assert isinstance(refused, Failed)
            assert (refused.code, refused.unknown) == ("upstream_refused", False)
            assert store.get("acme", "T-1001") == before

    asyncio.run(asyncio.wait_for(walk(), 30))
