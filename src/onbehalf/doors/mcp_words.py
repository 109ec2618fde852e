"""MCP's own names and numbers, and its header rules, without the weight of the whole SDK in every worker.

The values are the SDK's, and a test compares them. Its rules for headers are the SDK's code, loaded when a header or a
schema first needs more than the plain case. Other doors import this one; it imports none.

Trust: nothing here decides; a header that cannot be read as the SDK reads it matches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

import orjson

from onbehalf.model import Json

__all__ = [
    "CLIENT_CAPABILITIES_META_KEY", "CLIENT_INFO_META_KEY", "HANDSHAKE_PROTOCOL_VERSIONS", "LATEST_HANDSHAKE_VERSION",
    "LATEST_MODERN_VERSION", "MODERN_PROTOCOL_VERSIONS", "PROTOCOL_VERSION_META_KEY", "SERVER_INFO_META_KEY",
    "UNSUPPORTED_PROTOCOL_VERSION", "decode_header", "encode_header", "marks_headers", "sdk_headers",
]  # fmt: skip

CLIENT_CAPABILITIES_META_KEY = "io.modelcontextprotocol/clientCapabilities"
CLIENT_INFO_META_KEY = "io.modelcontextprotocol/clientInfo"
PROTOCOL_VERSION_META_KEY = "io.modelcontextprotocol/protocolVersion"
SERVER_INFO_META_KEY = "io.modelcontextprotocol/serverInfo"
UNSUPPORTED_PROTOCOL_VERSION = -32022
HANDSHAKE_PROTOCOL_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_PROTOCOL_VERSIONS = ("2026-07-28",)
LATEST_HANDSHAKE_VERSION = HANDSHAKE_PROTOCOL_VERSIONS[-1]
LATEST_MODERN_VERSION = MODERN_PROTOCOL_VERSIONS[-1]

_PLAIN = re.compile(r"[A-Za-z0-9_./:-]+")


def decode_header(value: str) -> str | None:
    """What a mirrored header says; None where its encoding is broken."""
    decoded: str | None = value if _PLAIN.fullmatch(value) else sdk_headers().decode_header_value(value)
    return decoded


def encode_header(value: str) -> str:
    """A value as a mirrored header."""
    encoded: str = value if _PLAIN.fullmatch(value) else sdk_headers().encode_header_value(value)
    return encoded


def marks_headers(schema: Mapping[str, Json]) -> bool:
    """Whether the mark of arguments that go into headers, `x-mcp-header`, stands anywhere in a schema."""
    return b'"x-mcp-header"' in orjson.dumps(schema)


@cache
def sdk_headers() -> ModuleType | Any:
    """The SDK's rules for headers (`mcp.shared.inbound`), loaded with all of the SDK when first needed."""
    from mcp.shared import inbound  # 50 MB, which a worker does without as long as nobody marks headers

    return inbound
