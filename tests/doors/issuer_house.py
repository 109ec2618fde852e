"""An issuer over real HTTP on a free loopback port, that answers as a test tells it to, and a clock to turn by hand."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from identify.minting import NOW, RESOURCE, claims, jwks, key_for, mint, public
from onbehalf.config import IssuerSettings
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.model import Caller, Presented, UnixTime

METADATA = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
KEYS = "/jwks.json"


class Hands:
    """A monotonic clock that only a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class Issuer:
    """`answers` maps a path to (status, headers, body); `pause` holds every answer back; `asked` counts by path."""

    def __init__(self, port: int, path: str = "") -> None:
        self.url = f"http://127.0.0.1:{port}{path}"
        self.asked: Counter[str] = Counter()
        self.pause = 0.0
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.forms: list[dict[str, str]] = []
        self.about: Callable[[dict[str, str]], tuple[int, dict[str, str], bytes]] | None = None
        """What a form is answered with; `forms` are those that came, with the header as `authorization`."""
        self.json(METADATA + path, {"issuer": self.url, "jwks_uri": f"{self.url}{KEYS}"})
        self.publish("ES256")

    def json(self, path: str, document: Any, status: int = 200) -> None:
        self.answers[path] = (status, {"content-type": "application/json"}, json.dumps(document).encode())

    def publish(self, *names: str) -> None:
        """Publish the ES256 keys of these names, under these names as key ids."""
        path = self.url.partition("//")[2].partition("/")[2]
        where = (f"/{path}" if path else "") + KEYS
        self.answers[where] = (200, {}, jwks(*(public("ES256", name, kid=name) for name in names)))

    def token(self, name: str = "ES256", **changes: Any) -> str:
        return mint(claims(**{"iss": self.url, **changes}), key=key_for("ES256", name), kid=name)

    def rule(self, **changes: Any) -> IssuerSettings:
        return IssuerSettings(**{"issuer": self.url, "tenant": "acme", **changes})


@contextlib.contextmanager
def issuing(path: str = "") -> Iterator[Issuer]:
    """An issuer that listens until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked[self.path] += 1
            time.sleep(issuer.pause)
            self._send(*issuer.answers.get(self.path, (404, {}, b"")))

        def do_POST(self) -> None:
            issuer.asked[self.path] += 1
            if self.path in issuer.answers:
                self._send(*issuer.answers[self.path])
                return
            text = self.rfile.read(int(self.headers["content-length"])).decode()
            form = dict(parse_qsl(text, strict_parsing=True, keep_blank_values=True))
            issuer.forms.append({**form, **{name.lower(): value for name, value in self.headers.items()}})
            time.sleep(issuer.pause)
            self._send(*(issuer.about(form) if issuer.about else (404, {}, b"")))

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        issuer = Issuer(server.server_address[1], path)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()


@contextlib.asynccontextmanager
async def callers_of(*rules: IssuerSettings, hands: Hands, **options: Any) -> Any:
    """The door for these issuers, closed at the end."""
    callers = IssuerCallers(rules, resource=RESOURCE, monotonic=hands, **options)
    try:
        yield callers
    finally:
        await callers.aclose()


async def prove(callers: IssuerCallers, token: str, now: int = NOW) -> Caller:
    return await callers.prove(Presented(token=token), now=UnixTime(now))
