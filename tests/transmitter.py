"""A transmitter of security events (SSF 1.0) over real HTTP: metadata, keys, what it pushes and what can be fetched.

A thread of the test serves it. It holds a poll open until there is something to tell, as RFC 8936 lets it.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2

from identify import events
from identify.minting import jwks, key_for, public
from onbehalf.validate.signals import CAEP, SSF

BEARER = "p" * 40
"""What it shows when it pushes, and what must be shown to it."""
AUDIENCE = "https://gateway.example/signals"


class Transmitter:
    """`pause` holds back what is asked for with GET; `hold` is how long a poll is held open, in seconds."""

    def __init__(self, port: int, logins: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.logins = logins
        self.pause, self.hold, self.status = 0.0, 5.0, 200
        self.waiting: dict[str, str] = {}
        self.polls: list[dict[str, Any]] = []
        self.acked: list[str] = []
        self.errors: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self.bearers: set[str] = set()
        self.raw: bytes | None = None
        self.deaf = False
        self.more = threading.Condition()
        self.open = True
        self.published = [public("ES256", "transmitter", kid="t-1")]

    def answer(self, path: str) -> tuple[int, bytes]:
        time.sleep(self.pause)
        if path == "/.well-known/ssf-configuration":
            return 200, json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys", "spec_version": "1_0"}).encode()
        return (200, jwks(*self.published)) if path == "/keys" else (404, b"")

    def posted(self, path: str, body: dict[str, Any], bearer: str) -> tuple[int, bytes]:
        self.bearers.add(bearer)
        if path == "/verify":
            self.asked.append(body)
            return 204, b""
        with self.more:
            self.polls.append(body)
            for id_ in body.get("ack", []):
                self.acked.append(id_)
                if not self.deaf:
                    self.waiting.pop(id_, None)
            for id_, error in body.get("setErrs", {}).items():
                self.errors[id_] = error
                if not self.deaf:
                    self.waiting.pop(id_, None)
            if not body.get("returnImmediately") and not self.raw and self.status == 200:
                self.more.wait_for(lambda: self.waiting or not self.open, timeout=self.hold)
            return self.status, self.raw or json.dumps({"sets": self.waiting}).encode()

    def set(self, name: str = "session-revoked", body: Any = None, /, *, kid: str = "t-1", **changes: Any) -> str:
        """A signed SET about Alice unless said otherwise; `name` is a CAEP event or a whole URI."""
        now = int(time.time())
        about = {"format": "iss_sub", "iss": self.logins, "sub": "alice-at-login"}
        good = {"iss": self.url, "aud": AUDIENCE, "iat": now, "sub_id": about, **changes}
        claims = events.claims(name if ":" in name else f"{CAEP}{name}", {} if body is None else body, **good)
        return events.mint(claims, key=key_for("ES256", "transmitter"), kid=kid)

    def verification(self, state: str) -> str:
        return self.set(f"{SSF}verification", {"state": state}, sub_id={"format": "opaque", "id": "stream-1"})

    def offer(self, token: str, id_: str = "") -> str:
        """Let it be fetched; its id."""
        id_ = id_ or str(claims_of(token)["jti"])
        with self.more:
            self.waiting[id_] = token
            self.more.notify_all()
        return id_


def claims_of(token: str) -> dict[str, Any]:
    from identify.minting import unb64

    return dict(json.loads(unb64(token.split(".")[1].encode())))


def push(gateway: str, token: str | bytes, *, name: str = "okta", **headers: str) -> httpx2.Response:
    """Push one SET to a gateway; a header of "" is left out."""
    sent = {"authorization": f"Bearer {BEARER}", "content-type": "application/secevent+jwt", **headers}
    return httpx2.post(
        f"{gateway}/signals/{name}", content=token, headers={key: value for key, value in sent.items() if value},
        trust_env=False, timeout=20,
    )  # fmt: skip


@contextlib.contextmanager
def transmitting(logins: str) -> Iterator[Transmitter]:
    """A transmitter that listens until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*made.answer(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._send(*made.posted(self.path, body, self.headers.get("authorization", "")))

        def _send(self, status: int, body: bytes) -> None:
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        made = Transmitter(server.server_address[1], logins)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield made
        finally:
            with made.more:
                made.open = False
                made.more.notify_all()
            server.shutdown()
