"""A real MCP server (the python SDK's) that takes people's bearers only, by the SDK's own checks, on a free port.

`Peopled` keeps what every request to it carried; who a bearer is of is told by `known`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context, MCPServer
from pydantic import AnyHttpUrl, BaseModel

OPERATOR = "the operator's own token at the server"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request: the HTTP method, the JSON-RPC method, and the headers."""

    http: str
    rpc: str
    headers: dict[str, str]

    @property
    def bearer(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


class Me(BaseModel):
    subject: str
    session: str


@dataclass(kw_only=True)
class Peopled:
    """The server. `known` gives the subject of a bearer, None for one that is no good; `refuse` refuses as many calls
    with 401."""

    known: Callable[[str], str | None]
    description: str = "Who calls."
    stateless: bool = False
    refuse: int = 0
    done: list[str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    async def verify_token(self, token: str) -> AccessToken | None:
        """The SDK's TokenVerifier."""
        subject = "operator" if token == OPERATOR else self.known(token)
        if subject is None:
            return None
        return AccessToken(token=token, client_id="c", scopes=[], subject=subject, expires_at=int(time.time()) + 60)

    def app(self) -> Any:
        """Both eras of the protocol, behind the SDK's bearer check."""
        auth = AuthSettings(
            issuer_url=AnyHttpUrl("https://login.example"), resource_server_url=AnyHttpUrl("https://code.example/mcp"),
            validate_token_resource=False,
        )  # fmt: skip
        server: MCPServer = MCPServer("code", token_verifier=self, auth=auth)

        def me(ctx: Context) -> Me:
            request, token = ctx.request_context.request, get_access_token()
            assert request is not None
            assert token is not None
            self.done.append(token.subject or "")
            return Me(subject=token.subject or "", session=request.headers.get("mcp-session-id", ""))

        server.add_tool(me, name="who", description=self.description)
        server.add_tool(me, name="change", description="Changes something.")
        inner = server.streamable_http_app(json_response=True, stateless_http=self.stateless)
        return self._recorded(inner)

    def _recorded(self, inner: Any) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await inner(scope, receive, send)
                return
            body, more = b"", True
            while more:
                event = await receive()
                body, more = body + event.get("body", b""), event.get("more_body", False)
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            rpc = json.loads(body)["method"] if body else ""
            self.asked.append(Asked(http=scope["method"], rpc=rpc, headers=headers))
            if rpc == "tools/call" and self.refuse:
                self.refuse -= 1
                await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})
                return
            parts = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def again() -> Any:
                return next(parts, None) or await receive()

            await inner(scope, again, send)

        return app

    @property
    def calls(self) -> list[Asked]:
        return [each for each in self.asked if each.rpc == "tools/call"]

    @contextmanager
    def serving(self) -> Iterator[Peopled]:
        """Served by a thread; `url` is its origin."""
        server = uvicorn.Server(
            uvicorn.Config(self.app(), port=0, log_level="error", access_log=False, timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.should_exit = True
            thread.join(10)
