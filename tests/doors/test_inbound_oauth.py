"""The broker's endpoints by themselves: what cannot be seen over http on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onbehalf.broker import redirect
from onbehalf.broker.client import Client
from onbehalf.broker.refused import OauthRefused
from onbehalf.broker.request import authorization, pkce_fits
from onbehalf.brokering import Broker
from onbehalf.config_broker import BrokerLogin
from onbehalf.doors.broker_authenticate import Authenticator
from onbehalf.doors.broker_login import OidcLogin
from onbehalf.doors.inbound_oauth import OauthApp
from onbehalf.model import UnixTime

RESOURCE = "https://gateway.example/mcp"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
QUERY = {
    "response_type": "code", "client_id": "c", "redirect_uri": "https://client.example/back",
    "code_challenge": CHALLENGE, "code_challenge_method": "S256",
}  # fmt: skip


class Clients:
    async def find(self, id: str) -> Client:
        return Client(id=id, name="C", redirect_uris=(QUERY["redirect_uri"],), methods=("none",), origin="configured")

    async def keys(self, client: Client) -> bytes:
        raise OauthRefused("invalid_client", "none")


def app(issuer: str) -> OauthApp:
    nothing: Any = None
    broker = Broker(
        issuer=issuer, resource=RESOURCE, scopes=lambda: frozenset({"a"}), clients=Clients(), store=nothing,
        sign=nothing, known=nothing, ended=nothing, ledger=nothing, clock=lambda: UnixTime(0), fresh=nothing,
        access_s=300, refresh_s=3600, registration=True,
    )  # fmt: skip
    settings = BrokerLogin(issuer="https://login.example", client_id="x", tenant="acme")
    login = OidcLogin(settings, redirect_uri=f"{issuer}/oauth/callback", secret="")
    authenticator = Authenticator(Clients(), nothing, audiences=frozenset(), clock=lambda: UnixTime(0))
    return OauthApp(
        broker,
        login,
        authenticator,
        family_of=nothing,
        jwks=lambda: {"keys": []},
        secrets_taken=False,
        dpop=nothing,
        seconds=5,
    )


def got(issuer: str, path: str, query: Mapping[str, str]) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"method": "GET", "path": path, "query_string": urlencode(query).encode()}

    async def run() -> None:
        await app(issuer)(scope, receive, send, {})

    asyncio.run(run())
    return sent[0]["status"], sent[0]["headers"], sent[1]["body"]


def test_over_https_the_cookie_is_of_this_host_alone() -> None:
    status, headers, _ = got("https://gateway.example", "/oauth/authorize", QUERY)
    assert status == 200
    [cookie] = [value.decode() for name, value in headers if name == b"set-cookie"]
    assert cookie.startswith("__Host-onbehalf-browser=")
    assert cookie.endswith("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure")


def test_the_verifier_of_rfc_7636_fits_its_challenge_and_nothing_else_does() -> None:
    assert pkce_fits(VERIFIER, CHALLENGE)  # appendix B
    for other in ("", VERIFIER[:-1], VERIFIER + "a", VERIFIER.lower(), CHALLENGE, "é" * 43):
        assert not pkce_fits(other, CHALLENGE)


@given(st.text(max_size=60), st.text(max_size=60))
@example("http://[", "http://127.0.0.1/")
def test_an_address_matches_only_itself_but_for_a_loopback_port(one: str, other: str) -> None:
    assert redirect.matches(one, one)
    if one != other:
        assert not redirect.matches(one, other)
        assert not redirect.matches(f"https://{one}", f"https://{other}")


@given(
    host=st.sampled_from(["127.0.0.1", "localhost", "[::1]"]),
    ports=st.tuples(st.integers(1, 65535), st.integers(1, 65535)),
    path=st.sampled_from(["", "/", "/a", "/a/b"]), other=st.sampled_from(["", "/", "/a", "/a/b"]),
)  # fmt: skip
def test_on_loopback_any_port_of_the_same_host_and_path(
    host: str, ports: tuple[int, int], path: str, other: str
) -> None:
    assert redirect.matches(f"http://{host}:{ports[0]}{path}", f"http://{host}:{ports[1]}{other}") == (path == other)
    assert not redirect.matches(f"https://{host}:1{path}", f"https://{host}:2{path}")


@given(st.text(max_size=80))
def test_whatever_is_allowed_can_be_put_into_a_header_and_a_page(uri: str) -> None:
    if redirect.allowed(uri):
        assert uri.isascii()
        assert uri.isprintable()
        assert not set(uri) & set(' "<>\\#')
        assert not uri.lower().startswith(("javascript:", "data:", "file:", "vbscript:", "blob:"))


@pytest.mark.parametrize(
    "uri",
    [
        "cursor://anysphere.cursor-mcp/oauth/callback", "http://localhost:8787/callback", "http://127.0.0.1:33418/",
        "https://vscode.dev/redirect", "https://claude.ai/api/mcp/auth_callback", "com.example.app:/oauth",
        "https://chatgpt.com/connector_platform_oauth_redirect",
    ],
)  # fmt: skip
def test_the_addresses_that_known_clients_use_are_allowed(uri: str) -> None:
    assert redirect.allowed(uri)
    assert redirect.place(uri)


@given(scope=st.text(max_size=40))
def test_what_is_granted_is_always_of_what_there_is_and_of_what_was_asked(scope: str) -> None:
    there, wanted = {"a", "b", "c"}, set(scope.split(" ")) - {"", "offline_access"}
    asked = {**QUERY, "scope": scope}
    if wanted and not wanted & there:
        with pytest.raises(OauthRefused, match="none of the scopes"):
            authorization(asked, redirect_uri="https://client.example/back", resource=RESOURCE, scopes=there)
        return
    granted = authorization(asked, redirect_uri="https://client.example/back", resource=RESOURCE, scopes=there).scope
    assert set(granted) == (wanted & there if wanted else there)
