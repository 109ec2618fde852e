"""One JSON-RPC exchange with an MCP server over HTTP: one POST out, the one answer to it back, bounded.

The answer is JSON, or one message of an SSE stream, which is read no further. Redirects are not followed, no cookie is
kept, no proxy of the environment used, nothing unpacked. Must not know sessions, tools or what an answer means.

Trust: a server can make us wait until the caller's deadline and read `response_bytes`; of its headers only the status,
type, encoding and session id are looked at, and none goes on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from onbehalf.doors.outbound_http import ConnectFailed, DeadlinePassed, HttpClient, HttpFailed, Reply
from onbehalf.model import Json
from onbehalf.model_value import Value
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["Answer", "Garbage", "Late", "NotSent", "Rejected", "ServerAsks", "Wire", "WireError", "strict"]

_DEPTH = 64
_MAX_SESSION = 512
_ERROR_BYTES = 64 * 1024
_LINE = re.compile(rb"\r\n|\n|\r")
# Atomic, or one CRLF would count as two ends of lines.
_EVENT = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


class WireError(Exception):
    """The request may have reached the server, and there is no answer to it."""


class NotSent(WireError):
    """The request cannot have reached the server."""


class Late(WireError):
    """The request may have reached the server, which did not answer in time."""


class Garbage(WireError):
    """What came back is not the answer to the request."""


class ServerAsks(WireError):
    """The server asks something in turn: sampling, elicitation, roots. Nobody is here to answer."""


class Rejected(WireError):
    """An HTTP status in place of an answer, with a JSON-RPC error's code and data where there was one."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status
        self.code: int | None = None
        self.data: Json = None


class Answer(Value, frozen=True, kw_only=True):
    """The JSON-RPC response to our request: `result`, or `error` as its code where that is not None."""

    hidden = frozenset({"result"})

    result: dict[str, Json] = {}
    error: int | None = None
    session: str = ""


class Wire:
    """One server's address and its pooled connections. Made inside the running loop, ended by `aclose`."""

    def __init__(self, url: str, *, timeout: float, response_bytes: int) -> None:
        self._bytes = response_bytes
        self._client = HttpClient(url, seconds=timeout)

    def head(self, headers: Mapping[str, str]) -> bytes:
        """The beginning of requests with these headers, which may serve for many. Raises ValueError."""
        return self._client.head("POST", headers.items())

    async def ask(self, request_id: str, body: bytes, head: bytes, *, token: str = "") -> Answer:
        """Post one request, once, and read until its answer. Raises WireError, Late after `timeout`."""
        try:
            reply = await self._client.post(head, (("Txn-Token", token),) if token else (), body)
            try:
                return await self._answer(reply, request_id)
            finally:
                reply.close()
        except HttpFailed as error:
            raise _wire_error(error) from error

    async def tell(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Post one notification. Raises WireError where it is not accepted."""
        try:
            reply = await self._client.send("POST", headers.items(), body)
            reply.close()
        except HttpFailed as error:
            raise _wire_error(error) from error
        if reply.status not in (200, 202, 204):
            raise Rejected(reply.status)

    async def end(self, headers: Mapping[str, str]) -> None:
        """DELETE a session. Raises WireError."""
        try:
            (await self._client.send("DELETE", headers.items())).close()
        except HttpFailed as error:
            raise _wire_error(error) from error

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _answer(self, reply: Reply, request_id: str) -> Answer:
        if reply.headers.get("content-encoding") not in (None, "identity"):
            raise Garbage("the answer is packed, which nobody asked for")
        kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if reply.status != 200:
            raise await self._rejection(reply, kind)
        session = _session(reply.headers["mcp-session-id"]) if "mcp-session-id" in reply.headers else ""
        if kind == "application/json":
            return _response(strict(_bounded(await reply.whole(self._bytes), self._bytes)), request_id, session)
        if kind == "text/event-stream":
            return await self._streamed(reply, request_id, session)
        raise Garbage("the answer is neither JSON nor an event stream")

    async def _rejection(self, reply: Reply, kind: str) -> Rejected:
        """The status, with the code of the JSON-RPC error that newer servers send along. Its id may be null."""
        rejected = Rejected(reply.status)
        if kind == "application/json" and 400 <= reply.status < 500:
            try:
                limit = min(self._bytes, _ERROR_BYTES)
                message = strict(_bounded(await reply.whole(limit), limit))
            except Garbage:
                return rejected
            error = message.get("error")
            code = error.get("code") if isinstance(error, dict) else None
            if isinstance(error, dict) and isinstance(code, int):
                rejected.code, rejected.data = code, error.get("data")
        return rejected

    async def _streamed(self, reply: Reply, request_id: str, session: str) -> Answer:
        """The answer among an event stream's messages. Notifications on the way are dropped."""
        events = _Events()
        answer: Answer | None = None
        size = 0
        while answer is None and (chunk := await reply.piece()) is not None:
            size += len(chunk)
            if size > self._bytes:
                raise Garbage(f"the answer is larger than {self._bytes} bytes")
            for data in events.feed(chunk):
                message = strict(data)
                if "method" in message and "id" not in message:
                    continue
                if answer is not None:
                    raise Garbage("the request is answered twice")
                answer = _response(message, request_id, session)
        if answer is None:
            raise Garbage("the event stream ended before the answer")
        return answer


class _Events:
    """The data of an SSE stream's messages, as they are complete (WHATWG HTML section 9.2.6)."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._seen = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Data of the events that end in this chunk."""
        self._rest += chunk
        found: list[bytes] = []
        start, at = 0, max(0, self._seen - 3)
        while end := _EVENT.search(self._rest, at):
            data = _data(bytes(self._rest[start : end.start()]))
            if data:
                found.append(data)
            start = at = end.end()
        del self._rest[:start]
        self._seen = len(self._rest)
        return found


def _data(event: bytes) -> bytes:
    kind, parts = b"message", list[bytes]()
    for line in _LINE.split(event):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            parts.append(value)
        elif name == b"event":
            kind = value
    return b"\n".join(parts) if kind == b"message" else b""


def _bounded(body: bytes | None, limit: int) -> bytes:
    if body is None:
        raise Garbage(f"the answer is larger than {limit} bytes")
    return body


def _response(message: Mapping[str, Json], request_id: str, session: str) -> Answer:
    if "method" in message:
        raise ServerAsks("the server asked something in place of an answer")
    if message.get("jsonrpc") != "2.0" or message.get("id") != request_id:
        raise Garbage("the answer is not to this request")
    if ("result" in message) == ("error" in message):
        raise Garbage("the answer has not exactly one of result and error")
    result, error = message.get("result"), message.get("error")
    if isinstance(result, dict):
        return Answer(result=result, session=session)
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, bool) or not isinstance(code, int):
        raise Garbage("the answer is no JSON-RPC response")
    return Answer(error=code, session=session)


def strict(data: bytes) -> dict[str, Json]:
    """The one JSON object that `data` is, as `strict_object` reads it. Raises Garbage."""
    try:
        return strict_object(data, depth=_DEPTH)
    except NotStrict as error:
        raise Garbage(f"the answer is refused: {error}") from error


def _session(given: str) -> str:
    """A session id: visible ASCII (MCP 2025-11-25 transports). Raises Garbage."""
    if len(given) > _MAX_SESSION or _VISIBLE.fullmatch(given) is None:
        raise Garbage("the session id is not visible ASCII")
    return given


def _wire_error(error: HttpFailed) -> WireError:
    if isinstance(error, ConnectFailed):
        return NotSent("the server cannot be reached")
    if isinstance(error, DeadlinePassed):
        return Late("the server did not answer in time")
    return WireError(str(error))
