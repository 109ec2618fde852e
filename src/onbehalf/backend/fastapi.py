"""FastAPI behind call tokens: `guard` puts all of an API behind them, and a route takes a `Call` and `Arguments`.

Needs FastAPI installed. Must not check anything itself: the middleware does (asgi_http.py), before any route is found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request

from onbehalf.backend.asgi_http import ARGUMENTS_KEY, CALL_KEY, HttpCallTokenMiddleware
from onbehalf.backend.calls import Calls
from onbehalf.backend.http_guard import Document
from onbehalf.backend.keys import Keys
from onbehalf.backend.receipt import ReceiptKey
from onbehalf.backend.replay import Replay
from onbehalf.backend.verify import VerifiedCall
from onbehalf.errors import CallTokenMissing
from onbehalf.model import Json

__all__ = ["Arguments", "Call", "guard", "proven_arguments", "verified_call"]


def guard(
    app: FastAPI, *, issuer: str, audience: str, operations: Document | Callable[[], Document] | None = None,
    base_path: str = "", open_paths: Collection[str] = ("/openapi.json",), jwks_url: str = "",
    jwks: Mapping[str, Json] | Keys | None = None, replay: Replay | None = None,
    max_body_bytes: int = 2**20, receipts: ReceiptKey | None = None, services: bool = False,
    calls: Calls | None = None, insecure_http_for_tests: bool = False,
) -> None:  # fmt: skip
    """Put every route of `app` behind call tokens, whether it asks for the `Call` or not.

    `operations` is by default the app's own document, which the gateway must have too, as /openapi.json gives it. Call
    this once, after every other middleware was added, so that nothing reads a request before. The other settings are
    those of `HttpCallTokenMiddleware`. Raises ConfigInvalid at the first request.
    """
    app.add_middleware(
        HttpCallTokenMiddleware, issuer=issuer, audience=audience,
        operations=app.openapi if operations is None else operations, base_path=base_path, open_paths=open_paths,
        jwks_url=jwks_url, jwks=jwks, replay=replay, max_body_bytes=max_body_bytes, receipts=receipts,
        services=services, calls=calls, insecure_http_for_tests=insecure_http_for_tests,
    )  # fmt: skip


async def verified_call(request: Request) -> VerifiedCall:
    """The proven call of this request. Raises HTTPException 401 where nothing was proven."""
    call = request.scope.get(CALL_KEY)
    if not isinstance(call, VerifiedCall):
        told = {"error": CallTokenMissing.code, "hint": "put the app behind `guard`, and this path not in the open"}
        raise HTTPException(CallTokenMissing.status, told)
    return call


async def proven_arguments(
    request: Request, call: Annotated[VerifiedCall, Depends(verified_call)]
) -> Mapping[str, Any]:
    """What the proven call is for, by name, whatever their place."""
    found: Mapping[str, Any] = request.scope[ARGUMENTS_KEY]
    return found


Call = Annotated[VerifiedCall, Depends(verified_call)]
Arguments = Annotated[Mapping[str, Any], Depends(proven_arguments)]
