"""An API of the company's own login: a recording API, a relay that keeps every byte, and token endpoints that answer
as a test tells them to, or as npm's `oidc-provider` does."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from joserfc.jwt import JWTClaimsRegistry

import node_peers
from broker_house import Asking, Browser, at_provider, company_key
from company import Company
from ports import free_port

CLIENT, SECRET, API = "the-gateway", "how the gateway is known at the company's login", "urn:orders-api"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
DOCUMENT = {
    "openapi": "3.1.0", "info": {"title": "orders", "version": "1"},
    "paths": {"/orders": {
        method: {
            "operationId": f"{method}_orders", "summary": "Orders.", "parameters": [],
            "responses": {
                "200": {"description": "ok", "content": {"application/json": {"schema": {"type": "object"}}}}
            },
        } for method in ("get", "post")
    }},
}  # fmt: skip


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Where it listens."""
    with Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def sent(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send an answer, as far as anybody takes it."""
    with contextlib.suppress(OSError):
        handler.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


class TokenEndpoint:
    """Answers with what `answer` makes of the form; `forms` and `heads` are what it was asked."""

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.heads: list[dict[str, str]] = []
        self.pause = 0.0
        self.status = 200
        self.headers: dict[str, str] = {}
        self.answer: Callable[[dict[str, str]], Any] = good
        self.url = ""

    @contextmanager
    def serving(self) -> Iterator[TokenEndpoint]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["content-length"])).decode()
                pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True)
                assert len(dict(pairs)) == len(pairs)
                endpoint.forms.append(dict(pairs))
                endpoint.heads.append({name.lower(): value for name, value in self.headers.items()})
                time.sleep(endpoint.pause)
                said = endpoint.answer(dict(pairs))
                status, said = said if isinstance(said, tuple) else (endpoint.status, said)
                body = said if isinstance(said, bytes) else json.dumps(said).encode()
                sent(self, status, body, endpoint.headers)

            def log_message(self, *_: Any) -> None:
                pass

        with listening(Handler) as url:
            self.url = f"{url}/token"
            yield self


def good(form: Mapping[str, str], **changes: Any) -> dict[str, Any]:
    """A good answer; a change to None leaves a member out."""
    token = hashlib.sha256(json.dumps(sorted(form.items())).encode()).hexdigest()
    answer = {"access_token": token, "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 300}
    return {name: value for name, value in {**answer, **changes}.items() if value is not None}


class OrdersApi:
    """Keeps the heads of its requests; answers 401 as long as `refuse` says."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.refuse = 0

    @property
    def bearers(self) -> list[str]:
        return [each.get("authorization", "").removeprefix("Bearer ") for each in self.seen]

    @contextmanager
    def serving(self) -> Iterator[str]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                api.seen.append({name.lower(): value for name, value in self.headers.items()})
                status = 401 if api.refuse else 200
                api.refuse = max(0, api.refuse - 1)
                sent(self, status, b'{"orders": []}', {})

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        with listening(Handler) as url:
            yield url


class Relay:
    """Stands before a server and keeps every byte that goes to it."""

    def __init__(self, target: str) -> None:
        self._target = (urlsplit(target).hostname, urlsplit(target).port)
        self._kept: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def kept(self) -> bytes:
        return b"".join(self._kept)

    def close(self) -> None:
        self._socket.close()

    def _run(self) -> None:
        while True:
            try:
                near, _ = self._socket.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)  # type: ignore[arg-type]
            threading.Thread(target=self._pump, args=(near, far, self._kept), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, []), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, kept: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                kept.append(data)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def written(made: Company, url: str, exchange: str) -> None:
    """Put the API at `url` into the configuration, with these lines under `exchange`."""
    document = json.dumps(DOCUMENT).encode()
    (made.directory / "orders.json").write_bytes(document)
    (made.directory / "exchange.secret").write_text(SECRET)
    lines = "".join(f"      {line}\n" for line in exchange.strip().splitlines())
    text = made.config.read_text(encoding="utf-8")
    text += f"""  orders:
    kind: openapi
    url: "{url}"
    document: orders.json
    digest: "sha256:{hashlib.sha256(document).hexdigest()}"
    exchange:
{lines}    tools:
      orders: {{action: readDesk, remote: get_orders}}
      order: {{action: writeDesk, remote: post_orders, writes: true, once_seconds: 0}}
"""
    made.config.write_text(text, encoding="utf-8")


class Provider:
    """The company's OpenID provider, at `issuer`; `told` are the exchanges that it made."""

    def __init__(self, issuer: str, told: list[dict[str, str]]) -> None:
        self.issuer, self.told = issuer, told

    def token(self, made: Company, account: str = "alice-at-login") -> str:
        """An access token for the gateway, as a client gets it for a person who logs in."""
        asking, browser, resource = Asking(), Browser(), f"{made.gateway}/mcp"
        page = browser.get(f"{self.issuer}/auth?{urlencode(asking.query(resource))}")
        back = at_provider(browser, page, account)
        form = {
            "grant_type": "authorization_code", "client_id": asking.client_id, "code": back.query["code"],
            "redirect_uri": asking.redirect_uri, "code_verifier": asking.verifier, "resource": resource,
        }  # fmt: skip
        answer = httpx2.post(f"{self.issuer}/token", data=form, timeout=20, trust_env=False)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def checked(self, bearer: str) -> dict[str, Any]:
        """The claims of a token, as the API checks it. Fails where it is not good."""
        keys = KeySet.import_key_set(httpx2.get(f"{self.issuer}/jwks", trust_env=False).json())
        token = jwt.decode(bearer, keys, algorithms=["RS256"])
        JWTClaimsRegistry(
            iss={"essential": True, "value": self.issuer}, aud={"essential": True, "value": API}
        ).validate(token.claims)
        assert token.header["typ"] == "at+jwt"
        return dict(token.claims)


@contextmanager
def exchanging_provider(made: Company, key: RSAKey | None = None) -> Iterator[Provider]:
    """npm's `oidc-provider` with the token exchange grant; the gateway is known there by its secret, or by `key`."""
    port = free_port()
    argument = {
        "port": port, "gateway": f"{made.gateway}/mcp", "api": API, "client": CLIENT, "secret": SECRET,
        "key": company_key().as_dict(private=True), "publicKey": company_key().as_dict(private=False),
        "clientKey": None if key is None else {**key.as_dict(private=False), "use": "sig"},
    }  # fmt: skip
    script = str(node_peers.packages() / "exchange_provider.mjs")
    process = subprocess.Popen(
        (node_peers.node(), script, json.dumps(argument)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    told: list[dict[str, str]] = []
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"

        def listen() -> None:
            for line in process.stdout or ():
                if line.startswith("{"):  # it says other things, too
                    told.append(json.loads(line))

        threading.Thread(target=listen, daemon=True).start()
        yield Provider(f"http://127.0.0.1:{port}", told)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


def files(directory: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below, with what stands in it."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield path, path.read_bytes()
