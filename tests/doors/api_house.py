"""An HTTP API for tests: a raw server that keeps what it was sent, and a document for it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from onbehalf.config import OpenapiUpstream

TEXT: dict[str, Any] = {"type": "string"}
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "t", "version": "1"},
    "servers": [{"url": "https://evil.example"}],
    "paths": {
        "/a/{key}/z": {
            "parameters": [{"$ref": "#/components/parameters/key"}],
            "get": {
                "operationId": "find",
                "parameters": [
                    {"name": "q", "in": "query", "schema": TEXT},
                    {"name": "many", "in": "query", "schema": {"type": "array", "items": TEXT}},
                    {"name": "X-Word", "in": "header", "schema": TEXT},
                    {"name": "Txn-Token", "in": "header", "schema": TEXT},
                    {"name": "session", "in": "cookie", "schema": TEXT},
                ],
            },
        },
        "/a": {
            "get": {"operationId": "all", "parameters": [{"name": "tenant", "in": "query", "schema": TEXT}]},
            "post": {
                "operationId": "add",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {"type": "object", "required": ["text"], "properties": {"text": TEXT}}
                        }
                    },
                },
            },
        },
    },
    "components": {"parameters": {"key": {"name": "key", "in": "path", "required": True, "schema": TEXT}}},
}


class Server:
    """Answers each request with the next of `answers`, or the last; `seen` are the requests, head and body."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = [*answers] or [answer(b"{}")]
        self.seen: list[tuple[bytes, bytes]] = []
        self.url = ""
        self.pause = 0.0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0][15:])) if length else b""
                self.seen.append((head, body))
                await asyncio.sleep(self.pause)
                said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if not said:
                    break
                writer.write(said)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


def answer(body: bytes, *, status: int = 200, kind: str = "application/json", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[Server]:
    made = Server(*answers)
    listening = await asyncio.start_server(made._serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield made
    finally:
        listening.close()


def settings(directory: Path, url: str, tools: dict[str, Any], **more: Any) -> OpenapiUpstream:
    """The settings of an upstream with DOCUMENT, or another `document`, which is written into the directory."""
    import msgspec

    data = json.dumps(more.pop("document", DOCUMENT)).encode()
    (directory / "api.json").write_bytes(data)
    told = {"url": url, "document": "api.json", "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "tools": tools}
    return msgspec.convert({"kind": "openapi", **told, **more}, OpenapiUpstream)
