"""What the inbound files share: ASGI types, one exchange, sending JSON, and a tool as MCP clients see it.

Must not refuse, decide or call the house.

Trust: what is sent from here was decided elsewhere; a header value is never taken from a client.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

import orjson

from onbehalf.model import Json, Presented, Tool
from onbehalf.model_value import Value

__all__ = ["ClientGone", "Exchange", "Message", "Receive", "Scope", "Send", "listed", "send_json"]

Scope = MutableMapping[str, Any]  # Any: ASGI's own loose dictionaries
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_JSON_HEADERS = (
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)


class ClientGone(Exception):  # not a refusal: there is nobody to answer
    """The client closed the connection; what was under way for it is cancelled."""


class Exchange(Value, frozen=True, kw_only=True):
    """One authenticated-looking HTTP request to the MCP endpoint. Headers are unique and lower-case."""

    scope: Scope
    receive: Receive
    send: Send
    headers: dict[bytes, bytes]
    presented: Presented

    def header(self, name: bytes) -> str | None:
        """A header's text, or None."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")


async def send_json(send: Send, status: int, value: object, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Answer with JSON, not to be cached or sniffed."""
    try:
        body = orjson.dumps(value)
    except TypeError:
        # integers beyond 64 bits that an upstream sent
        body = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*_JSON_HEADERS, length, *headers]})
    await send({"type": "http.response.body", "body": body})


def listed(tool: Tool) -> dict[str, Json]:
    """A tool as tools/list shows it, with the hints and security schemes that hosts ask for."""
    scopes: list[Json] = [*sorted(tool.scopes)]
    schemes: list[Json] = [{"type": "oauth2", "scopes": scopes}]
    shown: dict[str, Json] = {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": _schema(tool.schema),
        "annotations": {"readOnlyHint": not tool.writes, "destructiveHint": tool.writes, "openWorldHint": False},
        "securitySchemes": schemes,
        "_meta": {"securitySchemes": schemes},
    }
    if tool.title:
        shown["title"] = tool.title
    return shown


def _schema(schema: Mapping[str, Json]) -> dict[str, Json]:
    return {"type": "object", **schema}
