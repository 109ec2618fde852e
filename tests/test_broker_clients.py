"""Clients that publish their metadata, authenticate with keys, or come with the company's word (ID-JAG), for real.

The gateway runs in a thread of the test, so that the one name that is looked up can lead to a server of the test's own;
that server has a certificate of an authority which the gateway trusts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from broker_house import BROKER, Asking, BrokerHouse, Browser, broker_house, company_key
from company import company, wait_for
from doors.tls_house import authority
from identify.minting import key_for
from identify.proving import proof, thumbprint
from onbehalf.app import building
from onbehalf.doors import broker_fetch
from onbehalf.doors.outbound_address import AddressRefused

CLIENT = "https://client.test/oauth/client.json"
BACK = "http://127.0.0.1:33418/cimd"


class Publisher:
    """An https server for `client.test`. `documents` are by path: status, body, and headers to add."""

    def __init__(self, context: Any) -> None:
        self.documents: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.asked: list[str] = []
        self.pause = 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def publish(self, path: str, document: Any, status: int = 200, **headers: str) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.documents[path] = (status, body, headers)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked.append(self.path)
                time.sleep(publisher.pause)
                status, body, headers = publisher.documents.get(self.path, (404, b"{}", {}))
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in {"content-length": str(len(body)), **headers}.items():
                        self.send_header(name.replace("_", "-"), value)
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


class House:
    """The gateway in a thread, with what clients publish and what the company asserts."""

    def __init__(self, made: BrokerHouse, publisher: Publisher) -> None:
        self.broker = made
        self.publisher = publisher
        self.key = ECKey.generate_key("P-256", {"kid": "client-1", "use": "sig", "alg": "ES256"})

    def client(self, path: str = "", **changes: Any) -> str:
        """Publish a client; its id."""
        path = path or f"/clients/{secrets.token_hex(4)}.json"
        id = f"https://client.test{path}"
        document = {
            "client_id": id, "client_name": "The Client", "redirect_uris": [BACK],
            "token_endpoint_auth_method": "none", **changes,
        }  # fmt: skip
        self.publisher.publish(path, {name: value for name, value in document.items() if value is not None})
        return id

    def asking(self, client: str) -> Asking:
        return Asking(client_id=client, redirect_uri=BACK)

    def assertion(self, client: str, *, key: ECKey | None = None, **changes: Any) -> dict[str, str]:
        now = int(time.time())
        claims = {
            "iss": client, "sub": client, "aud": self.broker.at, "jti": secrets.token_hex(8), "iat": now,
            "exp": now + 60, **changes,
        }  # fmt: skip
        made = jwt.encode({"alg": "ES256", "kid": "client-1"}, claims, key or self.key, algorithms=["ES256"])
        return {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "client_assertion": made
        }  # fmt: skip


@contextlib.contextmanager
def served(config: Path) -> Iterator[None]:
    ready, done = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    async def run() -> None:
        async with building(config) as app:
            host, _, port = app.settings.gateway.listen.partition(":")
            server = uvicorn.Server(uvicorn.Config(app.public, host=host, port=int(port), log_config=None))
            serving = asyncio.create_task(server.serve())
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            ready.set()
            await asyncio.to_thread(done.wait)
            server.should_exit = True
            await serving

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)
            ready.set()

    running = threading.Thread(target=thread)
    running.start()
    try:
        assert ready.wait(30)
        assert not failed, failed
        yield
    finally:
        done.set()
        running.join(30)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("clients")
    ca = authority(tmp_path_factory.mktemp("ca"))
    publisher = Publisher(ca.server("client.test"))

    async def pinned(url: str, *, private: bool, seconds: float) -> tuple[str, str, int]:
        host = url.split("/")[2]
        assert not private
        if host != "client.test":
            raise AddressRefused("the server's name leads to an address that is not permitted")
        return "client.test", "127.0.0.1", publisher.port

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(ca.store))
        patch.setattr(broker_fetch, "pinned", pinned)
        marks = {"    claims: [groups]": "    claims: [groups]\n    assertions: true"}
        with broker_house(directory, **marks) as made, served(made.company.config):
            yield House(made, publisher)
    publisher.stop()


# --- published clients -------------------------------------------------------------------------


def test_a_client_that_publishes_its_metadata_needs_no_registration(house: House) -> None:
    client = house.client()
    asking = house.asking(client)
    page = Browser().get(house.broker.authorize(asking))
    assert "The Client" in page.text
    assert "client.test" in page.text
    code = house.broker.code(asking, browser=Browser())
    answer = house.broker.redeemed(asking, code)
    assert answer.status_code == 200, answer.text
    result = house.broker.company.call("notes_list", token=answer.json()["access_token"])
    assert [row["text"] for row in result["structuredContent"]["rows"]] == ["mine"]
    assert house.publisher.asked.count(client.removeprefix("https://client.test")) == 1, "kept as long as it may be"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"client_id": "https://client.test/other"}, "another client"),
        ({"client_id": None}, "another client"),
        ({"redirect_uris": ["http://evil.example/"]}, "redirect address"),
        ({"redirect_uris": ["https://evil.example/"]}, "redirect address"),
        ({"client_name": None}, "client_name"),
        ({"client_secret": "x"}, "secret"),
        ({"token_endpoint_auth_method": "client_secret_basic"}, "authentication methods"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "jwks"),
    ],
)
def test_published_metadata_that_is_not_sound_is_no_client(house: House, changes: dict[str, Any], told: str) -> None:
    page = Browser().get(house.broker.authorize(house.asking(house.client(**changes))))
    assert page.status in (400, 401)
    assert told in page.text
    assert "evil.example" not in page.text


@pytest.mark.parametrize(
    "published",
    [
        (302, b"", {"location": "https://client.test/elsewhere.json"}), (404, b"{}", {}), (200, b"", {}),
        (200, b"[]", {}), (200, b'{"client_id": 1, "client_id": 2}', {}), (200, b"{" * 100_000, {}),
        (200, b'{"client_name":"' + b"x" * 70_000 + b'"}', {}), (200, b"\xff", {}),
        (200, b"\x1f\x8b", {"content_encoding": "gzip"}),
    ],
    ids=["redirect", "absent", "empty", "list", "twice", "deep", "huge", "no text", "packed"],
)  # fmt: skip
def test_what_a_clients_server_answers_is_bounded_and_never_followed(house: House, published: Any) -> None:
    path = f"/clients/{secrets.token_hex(4)}.json"
    house.publisher.documents[path] = published
    house.client("/elsewhere.json")
    before = len(house.publisher.asked)
    page = Browser().get(house.broker.authorize(house.asking(f"https://client.test{path}")))
    assert page.status in (400, 401, 503)
    assert house.publisher.asked[before:] == [path]


@pytest.mark.parametrize(
    "id",
    [
        "https://localhost/client.json", "https://127.0.0.1/client.json", "https://[::1]/client.json",
        "https://169.254.169.254/latest/meta-data", "https://internal.corp/client.json", "http://client.test/a.json",
        "https://client.test/", "https://client.test/a/../b.json", "https://u@client.test/a.json",
        "https://client.test/a.json#x", "https://client.test/a.json?x=1", "https://CLIENT.test/a.json",
        "https://client.test\\@evil.example/a.json", "file:///etc/passwd", "https://x.localhost/a.json",
    ],
)  # fmt: skip
def test_ssrf_an_id_that_leads_into_the_house_is_not_fetched(house: House, id: str) -> None:
    before = len(house.publisher.asked)
    assert Browser().get(house.broker.authorize(house.asking(id))).status in (400, 401)
    assert len(house.publisher.asked) == before


def test_a_slow_server_of_a_client_holds_up_nobody_else(house: House) -> None:
    client = house.client()
    house.publisher.pause = 1.5
    slow = threading.Thread(target=lambda: Browser().get(house.broker.authorize(house.asking(client))))
    began = len(house.publisher.asked)
    slow.start()
    wait_for(lambda: len(house.publisher.asked) > began, what="the fetch")
    try:
        assert Browser().get(house.broker.authorize(Asking())).status == 200
        assert slow.is_alive()
    finally:
        house.publisher.pause = 0
        slow.join()


# --- private_key_jwt ---------------------------------------------------------------------------


def keyed(house: House, **changes: Any) -> str:
    keys = KeySet([house.key]).as_dict(private=False)
    return house.client(**{"token_endpoint_auth_method": "private_key_jwt", "jwks": keys, **changes})


@pytest.mark.parametrize("at", ["jwks", "jwks_uri"])
def test_a_client_proves_itself_by_its_key_and_without_gets_nothing(house: House, at: str) -> None:
    client = keyed(house)
    if at == "jwks_uri":
        house.publisher.publish("/keys.json", KeySet([house.key]).as_dict(private=False))
        client = keyed(house, jwks=None, jwks_uri="https://client.test/keys.json")
    asking = house.asking(client)
    code = house.broker.code(asking)
    assert house.broker.redeemed(asking, code).json()["error"] == "invalid_client"
    assert house.broker.redeemed(asking, code, **house.assertion(client)).status_code == 200


def test_a_clients_assertion_is_its_own_for_here_for_now_and_once(house: House) -> None:
    client, other = keyed(house), keyed(house)
    stranger = ECKey.generate_key("P-256", {"kid": "client-1"})
    now = int(time.time())
    bad: list[dict[str, str]] = [
        house.assertion(client, key=stranger), house.assertion(client, aud="https://other.example"),
        house.assertion(client, aud=[house.broker.at, "https://other.example"]), house.assertion(client, sub="x"),
        house.assertion(client, exp=now - 60, iat=now - 120), house.assertion(client, exp=now + 3600),
        house.assertion(client, jti=None), {**house.assertion(client), "client_id": other},
        {**house.assertion(client), "client_secret": "x"},
        {**house.assertion(client), "client_assertion_type": "urn:other"},
    ]  # fmt: skip
    form = {"grant_type": "refresh_token", "refresh_token": "made up"}
    for each in bad:
        answer = house.broker.token(**{**form, **each})
        assert answer.json()["error"] in ("invalid_client", "invalid_request"), each
    good = house.assertion(client)
    assert house.broker.token(**form, **good).json()["error"] == "invalid_grant", "the client was believed"
    assert house.broker.token(**form, **good).json()["error"] == "invalid_client", "and only once"


# --- the company's word (ID-JAG) ---------------------------------------------------------------


def jag(house: House, client: str, *, key: Any, **changes: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": house.broker.login, "sub": "alice-at-login", "aud": house.broker.at, "client_id": client,
        "resource": house.broker.resource, "jti": secrets.token_hex(8), "iat": now, "exp": now + 60,
        "scope": "notes.read", **changes,
    }  # fmt: skip
    claims = {name: value for name, value in claims.items() if value is not None and name != "typ"}
    typ = changes.get("typ", "oauth-id-jag+jwt")
    return jwt.encode({"alg": "RS256", "kid": "company-1", "typ": typ}, claims, key, algorithms=["RS256"])


def presented(house: House, client: str, assertion: str, **changes: str) -> httpx2.Response:
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    return house.broker.token(**{**form, **house.assertion(client), **changes})


def test_the_companys_word_gives_a_token_without_a_login_for_exactly_whom_and_what_it_says(house: House) -> None:
    client = keyed(house)
    key = company_key()
    answer = presented(house, client, jag(house, client, key=key))
    assert answer.status_code == 200, answer.text
    got = answer.json()
    assert got["scope"] == "notes.read"
    assert "refresh_token" not in got
    result = house.broker.company.call("notes_list", token=got["access_token"])
    assert [row["text"] for row in result["structuredContent"]["rows"]] == ["mine"]


def test_an_assertion_that_is_not_for_here_this_client_or_once_gives_nothing(house: House) -> None:
    client, key = keyed(house), company_key()
    now = int(time.time())
    for changes in (
        {"typ": "JWT"}, {"typ": "at+jwt"}, {"aud": "https://other.example"}, {"aud": [house.broker.at, "https://o"]},
        {"client_id": "https://client.test/other.json"}, {"resource": "https://other.example/mcp"}, {"resource": None},
        {"iss": "https://evil.example"}, {"exp": now - 60, "iat": now - 90}, {"exp": now + 7200}, {"jti": None},
        {"sub": None}, {"sub": "nobody-here"}, {"cnf": {"jkt": "x"}},
    ):  # fmt: skip
        answer = presented(house, client, jag(house, client, key=key, **changes))
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant"), changes
    good = jag(house, client, key=key)
    stranger = house.client()
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": good, "client_id": stranger}
    assert house.broker.token(**form).json()["error"] == "unauthorized_client"
    assert presented(house, client, good).status_code == 200
    assert presented(house, client, good).json()["error"] == "invalid_grant", "once"
    forged = jag(house, client, key=RSAKey.generate_key(2048, {"kid": "company-1"}))
    assert presented(house, client, forged).json()["error"] == "invalid_grant"


def test_a_configured_client_with_an_address_that_none_may_have_is_refused_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGIN_SECRET", "x")
    with company(tmp_path) as around:
        wrong = BROKER.replace("@LOGIN@", around.issuer.url).replace("http://127.0.0.1/back", "http://evil.example/")
        around.config.write_text(around.config.read_text() + wrong)
        command = [sys.executable, "-m", "onbehalf.cli.main", "serve", "--config", str(around.config)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "client `desktop` cannot be answered at `http://evil.example/`" in " ".join(ended.stderr.split())


def test_an_assertion_that_is_bound_to_a_key_is_worth_nothing_without_its_proof(house: House) -> None:
    client, key, nonces = keyed(house), company_key(), [""]

    def ask(jag: str, name: str) -> httpx2.Response:
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": jag,
            **house.assertion(client),
        }
        nonce = nonces[-1] or None
        made = proof(
            token=None,
            key=key_for("ES256", name),
            htu=f"{house.broker.at}/oauth/token",
            iat=int(time.time()),
            nonce=nonce,
        )
        answer = httpx2.post(
            f"{house.broker.at}/oauth/token", data=form, headers={"DPoP": made}, timeout=20, trust_env=False
        )
        nonces.append(answer.headers.get("dpop-nonce", nonces[-1]))
        return answer

    bound = jag(house, client, key=key, cnf={"jkt": thumbprint()})
    assert ask(bound, "client").json()["error"] == "use_dpop_nonce"
    assert presented(house, client, bound).json()["error"] == "invalid_grant", "no proof"
    assert ask(bound, "thief").json()["error"] == "invalid_grant"
    answer = ask(bound, "client")
    assert (answer.status_code, answer.json()["token_type"]) == (200, "DPoP"), answer.text
    certificate = jag(house, client, key=key, cnf={"x5t#S256": thumbprint()})
    assert ask(certificate, "client").json()["error"] == "invalid_grant"
    unbound = ask(jag(house, client, key=key), "client")
    assert (unbound.status_code, unbound.json()["token_type"]) == (200, "DPoP"), "of a key that is proven all the same"
