"""An MCP server as fast as Python allows, so that what is measured is what stands before it.

    python bench/backend.py PORT

It reads HTTP by hand and answers with prepared text; it checks nothing and is no example of a server.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

import uvloop

_ID = re.compile(rb'"id":\s*("[^"]*"|\d+)')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_NAME = re.compile(rb'"name":\s*"(echo|rows)"')
_TOOL = {"inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}, "description": "For the bench."}
_ROWS = [{"id": n, "tenant": "acme", "owner_id": "p0", "text": f"row {n}"} for n in range(20)]


def _result(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


_COMPLETE = {"resultType": "complete"}
_ANSWERS = {
    b"echo": _result(
        {"content": [{"type": "text", "text": "hello"}], "structuredContent": {"said": "hello"}} | _COMPLETE
    ),
    b"rows": _result({"content": [{"type": "text", "text": "rows"}], "structuredContent": {"rows": _ROWS}} | _COMPLETE),
    b"tools/list": _result(
        {"tools": [{"name": name, **_TOOL} for name in ("echo", "rows")], "ttlMs": 0, "cacheScope": "public"}
        | _COMPLETE
    ),
    b"server/discover": _result(
        {
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "bench", "version": "1"},
            "ttlMs": 0,
            "cacheScope": "public",
        }
        | _COMPLETE
    ),
    b"initialize": _result(
        {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "bench", "version": "1"},
        }
    ),
}


class Backend(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._rest, 0, end + 2)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._rest) < whole:
                return
            body, self._rest = self._rest[end + 4 : whole], self._rest[whole:]
            self._transport.write(_answer(body))  # type: ignore[attr-defined]  # a stream's transport


def _answer(body: bytes) -> bytes:
    found = _ID.search(body)
    if found is None:  # a notification, a GET or a DELETE
        return b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
    named = _NAME.search(body) if b'"tools/call"' in body else None
    kind = named[1] if named else next((name for name in _ANSWERS if b'"' + name + b'"' in body), b"echo")
    text = b'{"jsonrpc":"2.0","id":' + found[1] + b',"result":' + _ANSWERS[kind] + b"}"
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text)


async def _main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
