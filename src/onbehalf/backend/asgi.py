"""Puts an MCP server behind call tokens: an ASGI middleware around it.

Every `tools/call` needs its own call token, a few methods that touch no one's data need none, and all else is refused.
Must not decide who may do what, or change what the server answers.

Trust: the server behind may believe `scope["onbehalf.call"]`, and nothing else about who calls. Wrap the MCP app alone,
so that no other middleware reads the body first; several worker processes need one shared `replay`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from onbehalf.backend.asgi_body import ClientGone, read_body, replayed
from onbehalf.backend.asgi_receipts import result_receipted
from onbehalf.backend.calls import Calls, note_answer, result_digest
from onbehalf.backend.keys import Keys, keys_from
from onbehalf.backend.receipt import ReceiptKey, make_receipt
from onbehalf.backend.replay import MemoryReplay, Replay
from onbehalf.backend.verify import VerifiedCall, look, prove, use_up
from onbehalf.errors import (
    BodyMalformed,
    BodyTooLarge,
    BodyTooSlow,
    CallTokenMissing,
    CallTokenRefused,
    ConfigInvalid,
    HeaderMismatch,
    MediaTypeRefused,
    MethodRefused,
    OnbehalfError,
)  # fmt: skip
from onbehalf.explain.backend_receipt import mcp_answer
from onbehalf.model import Json, UnixTime
from onbehalf.strict_json import NotStrict, strict_object

if TYPE_CHECKING:  # what a backend runs needs nothing of it
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["SCOPE_KEY", "CallTokenMiddleware"]

SCOPE_KEY = "onbehalf.call"
_HEADER = b"txn-token"
_OPEN_METHODS = frozenset({"initialize", "ping", "tools/list", "server/discover"})
_CALL_MEMBERS = frozenset({"name", "arguments", "_meta"})
"""What a call may hold. `_meta` is not covered by the token; a server must not take orders from it."""
# JSON-RPC 2.0 section 5.1 and MCP 2026-07-28: each says that nothing was begun. The refusal of a call token has a
# code of ours, outside the range that JSON-RPC keeps.
_RPC: tuple[tuple[type[OnbehalfError], int], ...] = (
    (CallTokenRefused, -31401),
    (BodyMalformed, -32700),
    (HeaderMismatch, -32020),
    (OnbehalfError, -32600),
)
_DEPTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A JSON-RPC request or notification, its shape checked and nothing proven."""

    id: Json
    method: str
    params: Mapping[str, Json]


class CallTokenMiddleware:
    """`app`, reached only by calls that the gateway `issuer` signed for `audience`.

    The gateway's keys are fetched from `jwks_url` when first needed, or given as `jwks`. `replay` is by default a
    memory of this process. The proven call is in `scope["onbehalf.call"]` as a `VerifiedCall`; `Txn-Token` goes no
    further. With `services` programs' calls reach it as well (`kind`). Answers of the app are passed on as they come;
    with `receipts` the result of a call is signed for; `calls` keeps a row of each call that is taken.
    """

    def __init__(
        self, app: ASGIApp, *, issuer: str, audience: str, jwks_url: str = "",
        jwks: Mapping[str, Json] | Keys | None = None, replay: Replay | None = None, max_body_bytes: int = 2**20,
        receipts: ReceiptKey | None = None, services: bool = False, calls: Calls | None = None,
        clock: Callable[[], UnixTime] = lambda: UnixTime(int(time.time())), insecure_http_for_tests: bool = False,
    ) -> None:  # fmt: skip
        if not issuer or not audience:
            raise ConfigInvalid("call tokens need an issuer and an audience", hint="name the gateway and this backend")
        self._app, self._issuer, self._audience = app, issuer, audience
        self._keys: Keys = keys_from(
            issuer=issuer, jwks_url=jwks_url, jwks=jwks, insecure_http_for_tests=insecure_http_for_tests
        )
        self._replay = replay if replay is not None else MemoryReplay(since=clock())
        self._max_body_bytes = max_body_bytes
        self._receipts = receipts
        self._services = services
        self._calls = calls
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request, or pass on the lifespan. Nothing else is served."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        request: _Request | None = None
        try:
            body = await self._body(scope, receive)
            request = _parsed(body)
            call = await self._admitted(scope, request)
        except ClientGone:
            return
        except OnbehalfError as error:
            await _refuse(send, error, request.id if request else None)
            return
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != _HEADER]
        passed = {key: value for key, value in scope.items() if key != SCOPE_KEY} | {"headers": headers}
        if call is not None:
            passed[SCOPE_KEY] = call
            if self._receipts is not None or self._calls is not None:
                send = result_receipted(send, partial(self._vouch, call))
        await self._app(passed, replayed(body, receive), send)

    def _vouch(self, call: VerifiedCall, result: Mapping[str, Json]) -> str:
        """Keep what was answered, and give the receipt of a tool's result; "" without a key for it, and where it has no
        one spelling, so that the gateway will not take it."""
        if self._calls is not None:
            with contextlib.suppress(TypeError):  # a result that has no spelling has no digest either
                note_answer(self._calls, call, answer=result_digest(result), status=200)
        if self._receipts is None:
            return ""
        try:
            answer = mcp_answer(result)
        except ValueError:
            return ""
        return make_receipt(
            call, key=self._receipts, backend=self._audience, gateway=self._issuer, answer=answer, status=200,
            now=self._clock(),
        )  # fmt: skip

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body of a POST, bounded in size and time."""
        if scope["method"] != "POST":
            # MCP lets a server decline GET streams and DELETE of sessions in just this way.
            raise MethodRefused("only POST is served here")
        encodings = [value.strip().lower() for name, value in scope["headers"] if name.lower() == b"content-encoding"]
        if any(encoding != b"identity" for encoding in encodings):
            raise MediaTypeRefused("a compressed body is not read here", hint="send it as it is")
        return await read_body(receive, most=self._max_body_bytes)

    async def _admitted(self, scope: Scope, request: _Request) -> VerifiedCall | None:
        """The proven call; None for a method that needs none. Raises OnbehalfError."""
        _check_mirrors(scope, request)
        if request.method in _OPEN_METHODS or request.method.startswith("notifications/"):
            return None
        tokens = [value for name, value in scope["headers"] if name.lower() == _HEADER]
        if len(tokens) != 1:
            raise CallTokenMissing(
                f"expected exactly one `Txn-Token` header, found {len(tokens)}",
                hint="call through the gateway, which sets it",
            )
        if request.method != "tools/call":
            raise CallTokenRefused("a call token is for `tools/call` only", hint="no other method is served here")
        peeked = look(tokens[0].decode("latin-1"), issuer=self._issuer)
        key = await self._keys.find(peeked.key_id)
        tool, arguments = _asked(request)
        now = self._clock()
        call = prove(
            peeked, key=key, audience=self._audience, tool=tool, arguments=arguments, now=now, services=self._services
        )
        use_up(peeked, call, replay=self._replay, now=now)
        if self._calls is not None:
            self._calls.accept(call, now=now)
        return call


def _parsed(body: bytes) -> _Request:
    """One JSON-RPC request. A batch, a response or a doubtful JSON text is refused."""
    try:
        message = strict_object(body, depth=_DEPTH)
    except NotStrict as error:
        raise BodyMalformed(f"the body is not one JSON-RPC request: {error}", hint="batches are not served") from error
    method, params = message.get("method"), message.get("params", {})
    identifier = message.get("id")
    if message.get("jsonrpc") != "2.0" or not isinstance(method, str) or not isinstance(params, dict):
        raise BodyMalformed("the body is not a JSON-RPC 2.0 request with named parameters")
    if not isinstance(identifier, str | int | None) or isinstance(identifier, bool):
        raise BodyMalformed("the JSON-RPC `id` is not a string or a whole number")
    if not message.keys() <= {"jsonrpc", "id", "method", "params"}:
        raise BodyMalformed("the JSON-RPC request has unknown members")
    return _Request(id=identifier, method=method, params=params)


def _asked(request: _Request) -> tuple[str, Mapping[str, Json]]:
    """The tool and the arguments of a call, and nothing beside them that its token would not cover."""
    name, arguments = request.params.get("name"), request.params.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise BodyMalformed("`tools/call` needs a `name` and, if any, an object of `arguments`")
    if not request.params.keys() <= _CALL_MEMBERS:
        raise BodyMalformed("`tools/call` has parameters that a call token does not cover")
    return name, arguments


def _check_mirrors(scope: Scope, request: _Request) -> None:
    """MCP 2026-07-28 mirrors the method in a header; who routes by it must not see another one."""
    for name, value in scope["headers"]:
        if name.lower() == b"mcp-method" and value.decode("latin-1") != request.method:
            raise HeaderMismatch("the `Mcp-Method` header is not the body's method")


async def _refuse(send: Send, error: OnbehalfError, request_id: Json) -> None:
    """Answer a refusal. Its message speaks of the request's form only, so it may be told."""
    rpc = (
        -(31000 + error.status) if error.status == 401 else next(code for kind, code in _RPC if isinstance(error, kind))
    )
    data: dict[str, Any] = {"code": error.code, "hint": error.hint}
    answer = {"jsonrpc": "2.0", "id": request_id, "error": {"code": rpc, "message": error.message, "data": data}}
    body = json.dumps(answer).encode("ascii")
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"cache-control", b"no-store"),
    ]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Txn-Token"))  # RFC 9110 section 15.5.2 wants one
    if isinstance(error, MethodRefused):
        headers.append((b"allow", b"POST"))
    if isinstance(error, BodyTooLarge | BodyTooSlow):
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
