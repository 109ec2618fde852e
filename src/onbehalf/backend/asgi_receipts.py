"""Puts a receipt on an ASGI answer: into a header, or into the result of an MCP tool. Must not sign or judge."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from onbehalf.explain.backend_receipt import META

if TYPE_CHECKING:  # what a backend runs needs nothing of it
    from starlette.types import Message, Send

__all__ = ["receipted", "result_receipted"]

_EVENT_END = re.compile(rb"(\r\n\r\n|\n\n|\r\r)")


def receipted(send: Send, vouch: Callable[[int, bytes], tuple[str, str]]) -> Send:
    """`send`, which adds the header that `vouch` makes of the answer's status and body, where it has a value.

    The answer is held back until it is whole: its digest comes before it.
    """
    started: Message = {}
    parts: list[bytes] = []

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            started.update(message)
            return
        if message["type"] != "http.response.body" or not started:
            await send(message)
            return
        parts.append(message.get("body", b""))
        if message.get("more_body", False):
            return
        body = b"".join(parts)
        name, value = (text.encode("ascii") for text in vouch(started["status"], body))
        kept = [each for each in started.get("headers", ()) if each[0].lower() != name]
        await send({**started, "headers": [*kept, (name, value)] if value else kept})
        await send({"type": "http.response.body", "body": body})

    return send_on


def result_receipted(send: Send, vouch: Callable[[Mapping[str, Any]], str]) -> Send:
    """`send`, which puts what `vouch` makes of a tool's result into the result's `_meta` (MCP).

    An answer in JSON is held back whole; of an event stream only what is not yet a whole event. What is neither, and
    a message that is no result, goes on as it is. `vouch` gives "" where it cannot vouch.
    """
    kind, started = "", dict[str, Any]()
    waiting = b""

    async def send_on(message: Message) -> None:
        nonlocal kind, waiting
        if message["type"] == "http.response.start":
            names = {name.lower(): value for name, value in message.get("headers", ())}
            kind = names.get(b"content-type", b"").split(b";")[0].strip().decode("latin-1").lower()
            if kind == "application/json":
                started.update(message)
                return
        if message["type"] != "http.response.body" or kind not in ("application/json", "text/event-stream"):
            await send(message)
            return
        waiting, more = waiting + message.get("body", b""), message.get("more_body", False)
        if kind == "text/event-stream":
            *events, waiting = _EVENT_END.split(waiting)
            # the split keeps what ends an event, after it
            body = b"".join(_event(*pair, vouch) for pair in zip(events[::2], events[1::2], strict=True))
            await send({**message, "body": body if more else body + waiting})
        elif not more:
            body = _vouched(waiting, vouch)
            kept = [each for each in started.get("headers", ()) if each[0].lower() != b"content-length"]
            await send({**started, "headers": [*kept, (b"content-length", str(len(body)).encode("ascii"))]})
            await send({"type": "http.response.body", "body": body})

    return send_on


def _event(text: bytes, end: bytes, vouch: Callable[[Mapping[str, Any]], str]) -> bytes:
    """One event, its message vouched for. One whose data stands in several lines goes on as it is."""
    lines = text.splitlines()
    data = [at for at, line in enumerate(lines) if line.startswith(b"data:")]
    if len(data) == 1:
        lines[data[0]] = b"data: " + _vouched(lines[data[0]][5:].strip(), vouch)
    return b"\r\n".join(lines) + end if len(data) == 1 else text + end


def _vouched(body: bytes, vouch: Callable[[Mapping[str, Any]], str]) -> bytes:
    """A JSON-RPC message, with a receipt if it is a result."""
    try:
        message = json.loads(body)
    except ValueError:
        return body
    result = message.get("result") if isinstance(message, dict) else None
    receipt = vouch(result) if isinstance(result, dict) else ""
    if not receipt or not isinstance(result, dict):
        return body
    meta = result.get("_meta")
    result["_meta"] = {**(meta if isinstance(meta, dict) else {}), META: receipt}
    return json.dumps(message, separators=(",", ":")).encode("ascii")
