"""A client that holds a key or a certificate, and sends real HTTP to a served gateway."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import httpx2

from company import MODERN, Company
from identify.minting import Key, key_for
from identify.proving import proof

__all__ = ["Prover", "body_of", "headers_of"]


def headers_of(method: str = "tools/list", *, name: str = "") -> dict[str, str]:
    """The headers of a request of 2026-07-28, without any that says who sends it."""
    named = {"Mcp-Name": name} if name else {}
    accept = "application/json, text/event-stream"
    return {"Accept": accept, "MCP-Protocol-Version": MODERN, "Mcp-Method": method, **named}


def body_of(method: str = "tools/list", **params: Any) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "prover", "version": "1"},
    }
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta, **params}}


@dataclass(kw_only=True)
class Prover:
    """`nonce` is the last one that the gateway gave, as a client keeps it (RFC 9449 section 8.2)."""

    at: Company
    key: Key = field(default_factory=lambda: key_for("ES256", "client"))
    nonce: str | None = None

    def token(self, **changes: Any) -> str:
        """An access token that is bound to this client's key."""
        return self.at.token(**{"cnf": {"jkt": self.key.thumbprint()}, **changes})

    def proof(self, token: str, **changes: Any) -> str:
        here = {"htu": f"{self.at.gateway}/mcp", "iat": int(time.time()), "nonce": self.nonce}
        return proof(token=token, key=self.key, **{**here, **changes})

    def send(
        self, *lines: tuple[str, str], method: str = "POST", body: Any = None, more: Any = None
    ) -> httpx2.Response:
        """One request with these header lines, as they are."""
        asked = body or body_of()
        name = asked["params"].get("name", "")
        headers = [*{**headers_of(asked["method"], name=name), **(more or {})}.items(), *lines]
        return httpx2.request(
            method, f"{self.at.gateway}/mcp", json=asked if method == "POST" else None, headers=headers, timeout=20,
            trust_env=False,
        )  # fmt: skip

    def post(
        self, token: str, *, text: str | None = None, body: Any = None, more: Any = None, **changes: Any
    ) -> httpx2.Response:
        """One request under DPoP, once again where a nonce is asked for; `text` is a proof made before."""
        lines = lambda: (("Authorization", f"DPoP {token}"), ("DPoP", text or self.proof(token, **changes)))  # noqa: E731
        answer = self.send(*lines(), body=body, more=more)
        self.nonce = answer.headers.get("dpop-nonce", self.nonce)
        if text is None and "use_dpop_nonce" in answer.headers.get("www-authenticate", "") and "nonce" not in changes:
            answer = self.send(*lines(), body=body, more=more)
            self.nonce = answer.headers.get("dpop-nonce", self.nonce)
        return answer

    def call(self, token: str, tool: str, **arguments: Any) -> Any:
        return self.post(token, body=body_of("tools/call", name=tool, arguments=arguments)).json()
