"""Sign-in in a real browser: the page of a client, the company's own login pages, and the way back."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from broker_house import Asking, BrokerHouse, broker_house
from browser import CHROMIUM, Page, opened

pytestmark = pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("CI"), reason="no Chromium here (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerHouse]:
    with broker_house(tmp_path_factory.mktemp("broker")) as made, made.company.serving():
        yield made


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with opened(tmp_path / "profile") as tab:
        tab.sized(1000, 900)
        yield tab


@pytest.fixture(scope="module")
def client() -> Iterator[str]:
    """A client that waits on loopback, as a desktop's does; its redirect address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"You can close this window.")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/back"
        server.shutdown()


def sent_back(page: Page, asking: Asking) -> str:
    page.until("document.body.innerText.includes('You can close this window')")
    ended = str(page.value("location.href"))
    assert ended.startswith(asking.redirect_uri)
    return ended


def registered(house: BrokerHouse, name: str) -> str:
    asked = {"client_name": name, "redirect_uris": ["http://127.0.0.1/back"]}
    return str(httpx2.post(f"{house.at}/oauth/register", json=asked, trust_env=False).json()["client_id"])


def test_a_person_says_yes_logs_in_and_the_browser_brings_the_code_to_the_client(
    house: BrokerHouse, page: Page, client: str
) -> None:
    asking = Asking(redirect_uri=client)
    page.goto(house.authorize(asking))
    shown = page.value("document.body.innerText")
    for word in ("The Desktop", "notes.read", client.split("/")[2], house.login.removeprefix("http://")):
        assert word in shown
    page.press("document.querySelector('button.yes')")
    page.until("!!document.querySelector('input[name=login]')")
    page.value("document.querySelector('input[name=login]').value = 'alice-at-login'")
    page.value("document.querySelector('input[name=password]').value = 'any'")
    page.press("document.querySelector('button[type=submit]')")
    page.until("document.body.innerText.includes('Authorize') && !document.querySelector('input[name=login]')")
    page.press("document.querySelector('button[type=submit]')")
    assert f"state={asking.state}" in sent_back(page, asking)


def test_no_is_one_press_away_and_reached_by_the_keyboard(house: BrokerHouse, page: Page, client: str) -> None:
    asking = Asking(redirect_uri=client)
    page.goto(house.authorize(asking))
    focused = []
    for _ in range(4):
        page.key("Tab", 9)
        focused.append(page.value("document.activeElement.className"))
        if focused[-1] == "no":
            break
    assert focused == ["yes", "no"]
    page.key("Enter", 13, "\r")
    assert "error=access_denied" in sent_back(page, asking)


@pytest.mark.parametrize("width", [340, 1000])
def test_a_hostile_name_neither_runs_nor_breaks_the_page(house: BrokerHouse, page: Page, width: int) -> None:
    name = "<img src=x onerror=document.title='run'>" + "W" * 55
    page.sized(width, 900)
    page.goto(house.authorize(Asking(client_id=registered(house, name))))
    assert page.value("document.querySelectorAll('img').length") == 0
    assert "run" not in page.value("document.title").split(" ")
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value("document.querySelector('button.no').getBoundingClientRect().bottom") > 0


def test_no_other_page_can_show_it_in_a_frame(house: BrokerHouse, page: Page, tmp_path: Path) -> None:
    outside = tmp_path / "frame.html"
    outside.write_text(f'<iframe src="{house.authorize(Asking()).replace("&", "&amp;")}"></iframe>')
    page.goto(outside.as_uri())
    page.until("document.querySelector('iframe').contentDocument === null")
    assert "Yes, log in" not in page.value("document.body.innerText")
