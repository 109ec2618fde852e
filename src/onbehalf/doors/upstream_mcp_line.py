"""How one MCP server is spoken to: the revision, the session where it keeps one, and in whose name.

Makes the bytes and headers of requests. Must not send one.

Trust: a bearer stands in a line of its own, made for one person's call, and in no other request's headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from onbehalf.doors.mcp_words import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_MODERN_VERSION,
    PROTOCOL_VERSION_META_KEY,
)
from onbehalf.model import Json

__all__ = ["CLIENT", "INITIALIZED", "SPOKEN", "Line", "request"]

CLIENT: dict[str, Json] = {"name": "onbehalf", "version": "1"}
INITIALIZED = orjson.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"})
_OLDEST = HANDSHAKE_PROTOCOL_VERSIONS.index("2025-03-26")  # the first with this transport
SPOKEN = HANDSHAKE_PROTOCOL_VERSIONS[_OLDEST:]
"""The revisions with a handshake, oldest first."""
_MODERN_META = orjson.Fragment(
    orjson.dumps(
        {
            PROTOCOL_VERSION_META_KEY: LATEST_MODERN_VERSION,
            CLIENT_CAPABILITIES_META_KEY: {},
            CLIENT_INFO_META_KEY: CLIENT,
        }
    )
)
_POST = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How a server is spoken to. `version` is "" before a handshake, `session` where the server keeps none, `bearer`
    where it is spoken to in the gateway's own name."""

    version: str = ""
    session: str = ""
    bearer: str = field(default="", repr=False)

    @property
    def modern(self) -> bool:
        """Whether every request says all, without a handshake before it."""
        return self.version == LATEST_MODERN_VERSION

    def headers(self, method: str) -> dict[str, str]:
        """The headers of a request."""
        headers = {**_POST, **self.named}
        if self.modern:
            headers["Mcp-Method"] = method
        return headers

    @property
    def named(self) -> dict[str, str]:
        """What every request to the server has, whatever its HTTP method."""
        headers = {"MCP-Protocol-Version": self.version} if self.version else {}
        if self.session:
            headers["Mcp-Session-Id"] = self.session
        if self.bearer:
            headers["Authorization"] = f"Bearer {self.bearer}"
        return headers


def request(line: Line, request_id: str, method: str, params: Mapping[str, Any]) -> bytes:
    """The body of a request."""
    whole = {**params, "_meta": _MODERN_META} if line.modern else params
    return orjson.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": whole})
