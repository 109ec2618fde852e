"""What others need to check this gateway's assertions: a discovery document and the public keys, below `/assertions/`.

Must not sign, or say anything of calls.

Trust: nothing here is secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onbehalf.doors.inbound_wire import Receive, Scope, Send, send_json
from onbehalf.model import Json

__all__ = ["PATH", "AssertionsApp"]

PATH = "/assertions/"


class AssertionsApp:
    """The ASGI app below `/assertions/`. `issuer` is the `iss` of the assertions."""

    def __init__(self, issuer: str, jwks: Callable[[], Mapping[str, Json]]) -> None:
        self._metadata: dict[str, Json] = {"issuer": issuer, "jwks_uri": f"{issuer}/jwks.json"}
        self._jwks = jwks

    async def __call__(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[bytes, bytes]) -> None:
        """Answer one request below PATH whose Host is ours."""
        answers: dict[str, Callable[[], Mapping[str, Json]]] = {
            f"{PATH}.well-known/openid-configuration": lambda: self._metadata, f"{PATH}jwks.json": self._jwks
        }  # fmt: skip
        answer = answers.get(scope["path"])
        if answer is None:
            await send_json(send, 404, {"error": "not_found"})
        elif scope["method"] != "GET":
            await send_json(send, 405, {"error": "method_not_allowed"}, ((b"allow", b"GET"),))
        else:
            await send_json(send, 200, dict(answer()))
