"""A real authorization server (npm's `oidc-provider`) in a process of its own, for tokens that a gateway is to take.

Its tokens are opaque or JWTs; it answers about them, signed or not, and gives people and programs theirs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from typing import Any
from urllib.parse import quote_plus, urlencode, urljoin

import httpx2
from joserfc.jwk import RSAKey

import node_peers
from broker_house import Browser, company_key
from ports import free_port

__all__ = ["GATEWAY", "GATEWAY_SECRET", "ROBOT", "ROBOT_SECRET", "TokenServer", "token_server"]

GATEWAY, GATEWAY_SECRET = "onbehalf gateway", "what only it & the gateway know: 100%"
ROBOT, ROBOT_SECRET = "nightly-export", "what only it and the robot know"
_BACK = "http://127.0.0.1:33418/back"


@dataclass(frozen=True, kw_only=True)
class TokenServer:
    """The server that runs: its issuer identifier."""

    issuer: str

    def person(self, account: str, *, resource: str, scope: str) -> dict[str, Any]:
        """What the token endpoint gives for a person's login in a browser."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code", "client_id": "desktop", "redirect_uri": _BACK, "state": "s", "scope": scope,
            "resource": resource, "code_challenge": challenge, "code_challenge_method": "S256",
        }  # fmt: skip
        browser = Browser()
        page = browser.get(f"{self.issuer}/auth?{urlencode(asked)}")
        for _ in range(4):
            if page.url.startswith(_BACK):
                break
            action = re.search(r'action="([^"]+)"', page.text)
            assert action, page.text[:2000]
            prompt = page.field("prompt")
            form = {"prompt": prompt, **({"login": account, "password": "any"} if prompt == "login" else {})}
            page = browser.post(urljoin(page.url, unescape(action[1])), form)
        return self.token(
            {
                "grant_type": "authorization_code", "client_id": "desktop", "code": page.query["code"],
                "redirect_uri": _BACK, "code_verifier": verifier, "resource": resource,
            }
        )  # fmt: skip

    def program(self, *, resource: str, scope: str) -> dict[str, Any]:
        """What the token endpoint gives for a program's own credentials (RFC 6749 section 4.4)."""
        form = {"grant_type": "client_credentials", "resource": resource, "scope": scope}
        return self.token(form, auth=(quote_plus(ROBOT), quote_plus(ROBOT_SECRET)))

    def token(self, form: dict[str, str], *, auth: tuple[str, str] | None = None) -> dict[str, Any]:
        answer = httpx2.post(f"{self.issuer}/token", data=form, auth=auth, timeout=20, trust_env=False)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def revoked(self, token: str) -> None:
        """End a token there (RFC 7009)."""
        form = {"token": token, "client_id": "desktop"}
        answer = httpx2.post(f"{self.issuer}/token/revocation", data=form, timeout=20, trust_env=False)
        assert answer.status_code == 200, answer.text


def _known_by(key: RSAKey | None) -> dict[str, Any]:
    if key is None:
        return {"client_secret": GATEWAY_SECRET}
    public = {**key.as_dict(private=False), "use": "sig"}
    return {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [public]}}


@contextmanager
def token_server(
    *, format: str = "opaque", signed: bool = False, life: int = 3600, gateway_key: RSAKey | None = None
) -> Iterator[TokenServer]:
    """The server until the context ends. With `signed` it signs its answers to the gateway, which it knows by
    `gateway_key` where there is one, and by its secret otherwise."""
    port = free_port()
    clients: list[dict[str, Any]] = [
        {
            "client_id": "desktop", "redirect_uris": [_BACK], "application_type": "native",
            "token_endpoint_auth_method": "none", "grant_types": ["authorization_code", "refresh_token"],
        },
        {
            "client_id": GATEWAY, **_known_by(gateway_key), "redirect_uris": [], "response_types": [],
            "grant_types": [], **({"introspection_signed_response_alg": "RS256"} if signed else {}),
        },
        {
            "client_id": ROBOT, "client_secret": ROBOT_SECRET, "redirect_uris": [], "response_types": [],
            "grant_types": ["client_credentials"], "scope": "notes.read desk.write",
        },
    ]  # fmt: skip
    argument = {
        "port": port, "key": company_key().as_dict(private=True), "format": format, "life": life,
        "scope": "notes.read desk.write", "clients": clients,
    }  # fmt: skip
    script = str(node_peers.packages() / "oidc_tokens.mjs")
    process = subprocess.Popen(
        (node_peers.node(), script, json.dumps(argument)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield TokenServer(issuer=f"http://127.0.0.1:{port}")
    finally:
        process.communicate()
