"""Puts a plain HTTP API behind call tokens: an ASGI middleware around it, for Starlette, FastAPI and the like.

Every request needs its own call token, for its one operation and arguments. Must not decide who may do what, or change
what the API answers.

Trust: the API behind may believe `scope["onbehalf.call"]` and `scope["onbehalf.arguments"]`, and nothing else about who
calls. Let no other middleware read the body first; several worker processes need one shared `replay`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

from onbehalf.backend.asgi_body import ClientGone, read_body, replayed
from onbehalf.backend.asgi_receipts import receipted
from onbehalf.backend.calls import Calls
from onbehalf.backend.http_guard import HEADER, Document, HttpGuard, Proven, refusal
from onbehalf.backend.keys import Keys, keys_from
from onbehalf.backend.operations import HttpRequest
from onbehalf.backend.receipt import ReceiptKey
from onbehalf.backend.replay import Replay
from onbehalf.errors import BodyMalformed, OnbehalfError
from onbehalf.model import Json

if TYPE_CHECKING:  # what a backend runs needs nothing of it
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["ARGUMENTS_KEY", "CALL_KEY", "HttpCallTokenMiddleware"]

CALL_KEY = "onbehalf.call"
ARGUMENTS_KEY = "onbehalf.arguments"


class HttpCallTokenMiddleware:
    """`app`, reached only by calls that the gateway `issuer` signed for `audience`.

    Settings are those of the WSGI middleware of the same name (wsgi.py). The proven `VerifiedCall` is in
    `scope["onbehalf.call"]` and what it is for in `scope["onbehalf.arguments"]`; `Txn-Token` goes no further.
    """

    def __init__(
        self, app: ASGIApp, *, issuer: str, audience: str, operations: Document | Callable[[], Document],
        base_path: str = "", open_paths: Collection[str] = (), jwks_url: str = "",
        jwks: Mapping[str, Json] | Keys | None = None, replay: Replay | None = None,
        max_body_bytes: int = 2**20, receipts: ReceiptKey | None = None, services: bool = False,
        calls: Calls | None = None, insecure_http_for_tests: bool = False,
    ) -> None:  # fmt: skip
        self._app = app
        self._guard = HttpGuard(
            issuer=issuer, audience=audience, operations=operations, base_path=base_path, open_paths=open_paths,
            max_body_bytes=max_body_bytes, replay=replay, receipts=receipts, services=services, calls=calls,
        )  # fmt: skip
        self._keys: Keys = keys_from(
            issuer=issuer, jwks_url=jwks_url, jwks=jwks, insecure_http_for_tests=insecure_http_for_tests
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request, or pass on the lifespan. Nothing else is served."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        kept = [(name, value) for name, value in scope["headers"] if name.lower() != HEADER.encode()]
        passed = {key: value for key, value in scope.items() if key not in (CALL_KEY, ARGUMENTS_KEY)}
        passed["headers"] = kept
        try:
            if not self._guard.open(scope["method"], scope["path"]):
                proven, body = await self._admitted(scope, receive)
                passed |= {CALL_KEY: proven.call, ARGUMENTS_KEY: proven.arguments}
                receive = replayed(body, receive)
                if self._guard.vouches:
                    vouch = partial(self._guard.vouch, proven.call)
                    send = receipted(send, lambda status, answer: vouch(status=status, answer=answer))
        except ClientGone:
            return
        except OnbehalfError as error:
            await _refuse(send, error)
            return
        await self._app(passed, receive, send)

    async def _admitted(self, scope: Scope, receive: Receive) -> tuple[Proven, bytes]:
        """The proven call and the whole body. Raises OnbehalfError, ClientGone."""
        headers = tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"])
        peeked = self._guard.begin(headers)
        body = await read_body(receive, most=self._guard.max_body_bytes)
        key = await self._keys.find(peeked.key_id)
        try:
            query = scope.get("query_string", b"").decode("ascii")
        except UnicodeDecodeError as error:
            raise BodyMalformed("the query is not ASCII") from error
        request = HttpRequest(method=scope["method"], path=scope["path"], query=query, headers=headers, body=body)
        return self._guard.finish(peeked, key=key, request=request), body


async def _refuse(send: Send, error: OnbehalfError) -> None:
    status, headers, body = refusal(error)
    named = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": named})
    await send({"type": "http.response.body", "body": body})
