"""The demo issuer's page in a real browser: a person picks themselves and is sent back to the client."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest

from browser import CHROMIUM, Page, opened
from house_process import running_issuer
from onbehalf.demo.data import world
from ports import free_port

# CI has to have one: there a missing browser is a failure, not a skip
pytestmark = pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("CI"), reason="no Chromium here (Debian: apt-get install chromium)"
)

RESOURCE = "http://127.0.0.1:8100/mcp"


@dataclass
class Callback:
    """Where the client waits for its person to come back."""

    url: str
    came: list[dict[str, str]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)


@contextmanager
def waiting_client() -> Iterator[Callback]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/callback":
                callback.came.append({key: values[0] for key, values in parse_qs(parts.query).items()})
                callback.arrived.set()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>back</title>back at the client")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        callback = Callback(url=f"http://127.0.0.1:{server.server_address[1]}/callback")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield callback
        finally:
            server.shutdown()
            thread.join()


def asked(issuer: str, redirect_uri: str) -> str:
    body = {"redirect_uris": [redirect_uri], "client_name": "A <b>client</b>"}
    client = httpx2.post(f"{issuer}/register", json=body, trust_env=False).json()["client_id"]
    query = {
        "response_type": "code",
        "client_id": client,
        "redirect_uri": redirect_uri,
        "state": "as it was",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
        "resource": RESOURCE,
    }
    return f"{issuer}/authorize?{urlencode(query)}"


@contextmanager
def page_open(tmp_path: Path, *, width: int = 1280, height: int = 900) -> Iterator[tuple[Page, str, Callback]]:
    port = free_port()
    with (
        running_issuer(tmp_path, port=port, resource=RESOURCE) as issuer,
        waiting_client() as callback,
        opened(tmp_path / "profile") as page,
    ):
        page.sized(width, height)
        page.goto(asked(issuer, callback.url))
        yield page, issuer, callback


def radio(tenant: str, person_id: str) -> str:
    return f"document.querySelector('input[value=\"{world().person(tenant, person_id).subject}\"]')"


@pytest.mark.parametrize("width", [1280, 390])
def test_a_person_picks_themselves_and_arrives_back_at_the_client(tmp_path: Path, width: int) -> None:
    with page_open(tmp_path, width=width, height=844) as (page, issuer, callback):
        page.press(f"{radio('globex', 'alice')}.closest('label')")
        assert page.value(f"{radio('globex', 'alice')}.checked")
        page.press("document.querySelector('button')")
        assert callback.arrived.wait(15)
        page.until("document.title === 'back'")
    [came] = callback.came
    assert came["state"] == "as it was"
    assert came["iss"] == issuer
    assert len(came["code"]) > 30


def test_the_page_works_by_keyboard_alone(tmp_path: Path) -> None:
    with page_open(tmp_path) as (page, _, callback):
        page.key("Tab", 9)
        page.until("document.activeElement.name === 'subject'")
        page.key("ArrowDown", 40)
        picked = page.until("document.querySelector('input:checked')?.value")
        page.key("Enter", 13, "\r")
        assert callback.arrived.wait(15)
    assert picked == world().people[1].subject
    assert callback.came[0]["code"]


def test_without_a_choice_nobody_is_logged_in(tmp_path: Path) -> None:
    with page_open(tmp_path) as (page, issuer, callback):
        page.press("document.querySelector('button')")
        page.until("document.activeElement.name === 'subject'")
        assert page.value("location.href").startswith(f"{issuer}/authorize")
    assert callback.came == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_says_loudly_that_it_is_a_demo_wherever_one_has_scrolled(tmp_path: Path, width: int) -> None:
    with page_open(tmp_path, width=width, height=844) as (page, _, _callback):
        for depth in ("0", "document.documentElement.scrollHeight"):
            page.value(f"window.scrollTo(0, {depth})")
            top = page.value("document.elementFromPoint(innerWidth / 2, 12).closest('.banner')?.innerText")
            assert "DEMO ISSUER" in top
            assert "never use for real" in top
        # Style comes through the policy header, and nothing is wider than the screen.
        assert page.value("getComputedStyle(document.querySelector('.banner')).backgroundColor") == "rgb(164, 22, 26)"
        assert page.value("document.documentElement.scrollWidth") == width
        assert page.value("document.querySelector('h1').getBoundingClientRect().top") < 844


def test_a_clients_name_is_text_and_not_markup(tmp_path: Path) -> None:
    with page_open(tmp_path) as (page, _, _callback):
        assert page.value("document.querySelector('main p strong').innerText") == "A <b>client</b>"
