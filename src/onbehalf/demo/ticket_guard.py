"""How the ticket system is joined to `onbehalf.backend`: every call must carry a call token for it. Nothing else."""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp

from onbehalf.backend import Calls, VerifiedCall
from onbehalf.backend.asgi import SCOPE_KEY, CallTokenMiddleware

__all__ = ["guarded", "verified_tenant"]


def guarded(app: ASGIApp, *, gateway: str, jwks: str, audience: str, calls: Calls | None = None) -> ASGIApp:
    """`app` behind the check of call tokens that `gateway` signed for `audience`; `calls` keeps a row of each call."""
    return CallTokenMiddleware(app, issuer=gateway, jwks_url=jwks, audience=audience, calls=calls)


def verified_tenant(request: Any) -> str:
    """The tenant that the verified call token of an HTTP request names. Raises KeyError where there was none."""
    call: VerifiedCall = request.scope[SCOPE_KEY]
    return call.tenant
