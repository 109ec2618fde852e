"""An API of another domain: the person is known there by a token of that domain's own authorization server.

That server is a second gateway's broker, which takes the first one's assertions; the API takes that broker's tokens.
"""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from company import Company, company, wait_for

SECRET = "what the gateway is known by in the other domain"
DOCUMENT = {
    "openapi": "3.1.0", "info": {"title": "partner", "version": "1"},
    "paths": {"/orders": {"get": {
        "operationId": "orders", "summary": "Orders.", "parameters": [],
        "responses": {"200": {"description": "ok", "content": {"application/json": {"schema": {"type": "object"}}}}},
    }}},
}  # fmt: skip


class Api:
    """The partner's API. It takes tokens of its own authorization server, and keeps what it was sent."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.refuse = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.seen.append({name.lower(): value for name, value in self.headers.items()})
                status = 401 if api.refuse else 200
                api.refuse = max(0, api.refuse - 1)
                body = b'{"orders": []}'
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


class Domains:
    """Our gateway `ours`, the partner's broker `partner` and its API."""

    def __init__(self, ours: Company, partner: Company, api: Api, process: subprocess.Popen[str]) -> None:
        self.ours, self.partner, self.api, self._process = ours, partner, api, process

    def reload_partner(self) -> None:
        """Have the partner take over its files, and wait until it has."""
        before = self.partner.served_log().count("people ")
        self._process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.partner.served_log().count("people ") > before, what="the reload")

    def call(self, subject: str = "alice-at-login", **claims: Any) -> Any:
        return self.ours.call("orders", token=self.ours.token(subject, **claims))

    def claims(self, bearer: str) -> dict[str, Any]:
        """The token as the API would check it. Fails where it is not good."""
        keys = KeySet.import_key_set(httpx2.get(f"{self.partner.gateway}/oauth/jwks.json", trust_env=False).json())
        token = jwt.decode(bearer.removeprefix("Bearer "), keys, algorithms=["EdDSA"])
        JWTClaimsRegistry(
            iss={"essential": True, "value": self.partner.gateway},
            aud={"essential": True, "value": f"{self.partner.gateway}/mcp"},
        ).validate(token.claims)
        assert token.header["typ"] == "at+jwt"
        return dict(token.claims)


def written(ours: Company, partner: Company, api: Api) -> None:
    document = json.dumps(DOCUMENT).encode()
    (ours.directory / "partner.json").write_bytes(document)
    known_by(ours, partner)
    text = ours.config.read_text(encoding="utf-8")
    text += f"""  partner:
    kind: openapi
    url: "{api.url}"
    document: partner.json
    digest: "sha256:{hashlib.sha256(document).hexdigest()}"
    authorization:
      issuer: "{partner.gateway}"
      token_endpoint: "{partner.gateway}/oauth/token"
      client_id: ours
      client_secret: file:partner.secret
      resource: "{partner.gateway}/mcp"
      scope: notes.read
    tools:
      orders: {{action: readDesk}}
"""
    ours.config.write_text(text, encoding="utf-8")


def known_by(ours: Company, partner: Company) -> None:
    """Have the partner's broker take our gateway's word for who a person is."""
    (ours.directory / "partner.secret").write_text(SECRET)
    (partner.directory / "ours.secret").write_text(SECRET)
    (partner.directory / "login.secret").write_text("unused")
    text = partner.config.read_text(encoding="utf-8")
    start, end = text.index("issuers:"), text.index("upstreams:")
    text = (
        text[:start]
        + text[end:]
        + f"""broker:
  login: {{issuer: "{ours.gateway}/assertions", client_id: none, tenant: acme, assertions: true, algorithms: [EdDSA]}}
  clients: [{{id: ours, name: Ours, client_secret: "file:ours.secret"}}]
"""
    )
    partner.config.write_text(text, encoding="utf-8")
    people = partner.config.with_name("people.yaml")
    known = people.read_text(encoding="utf-8").replace(partner.issuer.url, partner.gateway)
    people.write_text(known.replace("alice-at-login", "acme/alice"), encoding="utf-8")


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domains]:
    api = Api()
    with ExitStack() as stack:
        ours = stack.enter_context(company(tmp_path_factory.mktemp("ours")))
        partner = stack.enter_context(company(tmp_path_factory.mktemp("partner")))
        written(ours, partner, api)
        stack.enter_context(ours.serving())
        yield Domains(ours, partner, api, stack.enter_context(partner.serving()))
    api.server.shutdown()


def test_the_api_learns_the_person_from_its_own_authorization_server(domains: Domains) -> None:
    result = domains.call()
    assert not result.get("isError"), result
    sent = domains.api.seen[-1]
    claims = domains.claims(sent["authorization"])
    assert (claims["sub"], claims["client_id"], claims["scope"]) == ("acme/alice", "ours", "notes.read")
    assert sent["txn-token"].count(".") == 2


def test_the_persons_own_token_goes_nowhere(domains: Domains) -> None:
    own = domains.ours.token()
    domains.ours.call("orders", token=own)
    assert own not in json.dumps(domains.api.seen)
    asked = domains.partner.served_log()
    assert own not in asked


def test_a_token_is_kept_for_its_own_login_and_no_other(domains: Domains) -> None:
    token = domains.ours.token()
    for _ in range(2):
        domains.ours.call("orders", token=token)
    one, two = (each["authorization"] for each in domains.api.seen[-2:])
    assert one == two
    other = domains.ours.token(jti="another")
    domains.ours.call("orders", token=other)
    assert domains.api.seen[-1]["authorization"] != one


def test_whom_the_other_domain_does_not_know_is_not_sent(domains: Domains) -> None:
    before = len(domains.api.seen)
    people = domains.partner.config.with_name("people.yaml")
    text = people.read_text(encoding="utf-8")
    people.write_text(text.replace("acme/alice", "acme/somebody"), encoding="utf-8")
    try:
        domains.reload_partner()
        result = domains.call(jti="unknown there")
    finally:
        people.write_text(text, encoding="utf-8")
        domains.reload_partner()
    assert result["isError"] is True
    assert result["_meta"]["onbehalf/denial"]["code"] == "upstream_login_failed"
    assert len(domains.api.seen) == before


def test_a_token_that_the_api_refuses_is_forgotten(domains: Domains) -> None:
    token = domains.ours.token(jti="refused once")
    domains.ours.call("orders", token=token)
    domains.api.refuse = 1
    assert domains.ours.call("orders", token=token)["isError"] is True
    assert not domains.ours.call("orders", token=token).get("isError")
    before, refused, after = (each["authorization"] for each in domains.api.seen[-3:])
    assert before == refused != after


def test_an_assertion_is_published_checkable_and_of_an_issuer_of_its_own(domains: Domains) -> None:
    published = domains.ours.get("/assertions/.well-known/openid-configuration", public=True).json()
    assert published["issuer"] == f"{domains.ours.gateway}/assertions"
    keys = httpx2.get(published["jwks_uri"], trust_env=False).json()["keys"]
    calls = domains.ours.get("/.well-known/jwks.json", public=True).json()["keys"]
    assert {key["kid"] for key in keys}.isdisjoint({key["kid"] for key in calls})
    assert base64.urlsafe_b64decode(keys[0]["x"] + "==")
