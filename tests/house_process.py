"""The gateway, the demo and their issuer as processes, for tests that come in through the front door.

Each is a context manager that gives where things listen and ends what it started, by its id. Ports are always free
ones.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
from rich.console import Console

from onbehalf.demo import run as demo
from onbehalf.demo.files import Places
from ports import free_port

__all__ = ["Running", "bearer", "running_demo", "running_gateway", "running_issuer"]

_REDIRECT = "http://127.0.0.1:8113/callback"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A demo that runs: where its parts listen, its configuration and its data."""

    places: Places
    config: Path
    directory: Path

    def token(self, subject: str, **asked: str) -> str:
        """An access token for the gateway, of the person whom the issuer calls `subject`."""
        return bearer(self.places.issuer, self.places.resource, subject, **asked)


@contextmanager
def running_demo(directory: Path) -> Iterator[Running]:
    """The demo as `onbehalf demo` starts it, without its story: issuer, ticket system and gateway, all ready."""
    with ExitStack() as house:
        console = Console(file=io.StringIO())
        gateway, admin, issuer, tickets, orders = (free_port() for _ in range(5))
        ports = demo.Ports(gateway=gateway, admin=admin, issuer=issuer, tickets=tickets, orders=orders)
        places, config = demo._start(house, directory, ports, demo.serve_gateway, console)
        yield Running(places=places, config=config, directory=directory)


@contextmanager
def running_gateway(config: Path, *, admin: str) -> Iterator[None]:
    """`onbehalf serve` with this configuration, until the context ends. `admin` is its admin origin."""
    with demo.serve_gateway(config) as process:
        if not _ready(process, admin):
            log = (config.parent / "gateway.log").read_text(encoding="utf-8")
            raise AssertionError(f"the gateway is not ready: {log[-4000:]}")
        yield


def _ready(process: subprocess.Popen[str], admin: str) -> bool:
    """Wait until it is ready, as long as it lives."""
    until = time.monotonic() + 40
    while time.monotonic() < until and process.poll() is None:
        with suppress(httpx2.TransportError):
            if httpx2.get(f"{admin}/readyz", timeout=2, trust_env=False).status_code == 200:
                return True
        time.sleep(0.05)
    return False


@contextmanager
def running_issuer(directory: Path, *, port: int, resource: str) -> Iterator[str]:
    """The demo issuer, giving tokens for `resource`; its address."""
    command = (sys.executable, "-m", "onbehalf.demo.issuer", "--port", str(port), "--resource", resource)
    with ExitStack() as house:
        demo._start_part(house, command, directory)
        yield f"http://127.0.0.1:{port}"


def bearer(issuer: str, resource: str, subject: str, *, scope: str = "") -> str:
    """An access token, got as a client gets it: registration, PKCE and the login page."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    with httpx2.Client(follow_redirects=False, timeout=10, trust_env=False) as http:
        registered = http.post(f"{issuer}/register", json={"redirect_uris": [_REDIRECT], "client_name": "tests"})
        asked = {
            "response_type": "code",
            "client_id": registered.json()["client_id"],
            "redirect_uri": _REDIRECT,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "resource": resource,
        }
        page = http.get(f"{issuer}/authorize", params={**asked, **({"scope": scope} if scope else {})})
        login = re.search(r'name="login" value="([^"]+)"', page.text)
        assert login, page.text
        sent = http.post(urljoin(str(page.url), "authorize"), data={"login": login[1], "subject": subject})
        [code] = parse_qs(urlsplit(sent.headers["location"]).query)["code"]
        form = {
            "grant_type": "authorization_code",
            "client_id": asked["client_id"],
            "redirect_uri": _REDIRECT,
            "code": code,
            "code_verifier": verifier,
            "resource": resource,
        }
        token = http.post(f"{issuer}/token", data=form).json()["access_token"]
    assert isinstance(token, str)
    return token
