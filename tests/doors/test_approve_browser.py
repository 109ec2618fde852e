"""The approval pages in a real browser: a manager logs in, reads what is asked, and approves by mouse or keyboard."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from approval_house import ALICE, Town, approval_town
from browser import CHROMIUM, Page, opened

# CI has to have one: there a missing browser is a failure, not a skip
pytestmark = pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("CI"), reason="no Chromium here (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with approval_town(tmp_path_factory.mktemp("approvals") / "it") as made:
        yield made


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with opened(tmp_path / "profile") as tab:
        yield tab


def logged_in(page: Page, url: str, subject: str = ALICE) -> None:
    page.goto(url)
    assert "Log in to see what you are asked" in page.value("document.title")
    page.press("document.querySelector('a.button')")
    page.until(f"!!document.querySelector('input[value=\"{subject}\"]')")
    page.press(f"document.querySelector('input[value=\"{subject}\"]')")
    page.press("document.querySelector('button[type=submit]')")
    page.until("!!document.querySelector('button.yes')")


def test_a_manager_logs_in_reads_and_approves(around: Town, page: Page) -> None:
    page.sized(1000, 900)
    url = around.url(around.call(word="please\nsend 5 laptops"))
    logged_in(page, url)
    assert page.value("location.href") == url
    assert "send 5 laptops" in page.value("document.querySelector('main').innerText")
    page.press("document.querySelector('button.yes')")
    page.until("document.title.startsWith('This is approved')")
    assert around.call(word="please\nsend 5 laptops").get("isError") is not True


def test_it_can_be_refused_with_the_keyboard_alone(around: Town, page: Page) -> None:
    page.sized(1000, 900)
    logged_in(page, around.url(around.call(word="by keyboard")))
    focused = []
    for _ in range(12):
        page.key("Tab", 9)
        focused.append(page.value("document.activeElement.className"))
        if focused[-1] == "no":
            break
    assert focused[-1] == "no", focused
    page.key("Enter", 13, "\r")
    page.until("document.title.startsWith('This was refused')")


def test_what_is_wide_scrolls_within_and_nothing_is_cut(around: Town, page: Page) -> None:
    word = "w" * 3000
    logged_in(page, around.url(around.call(word=word)))
    for width in (360, 1000):
        page.sized(width, 800)
        assert page.value("document.documentElement.scrollWidth") <= width
    assert word in page.value("document.querySelector('main').innerText")


def test_no_other_page_can_frame_it(around: Town, page: Page) -> None:
    url = around.url(around.call(word="framed"))
    page.goto("data:text/html,<title>evil</title><p>x")
    page.value(f"document.body.appendChild(Object.assign(document.createElement('iframe'), {{src: '{url}'}})), 1")
    page.until("window.frames.length === 1")
    assert not page.value(
        "(() => { try { return !!window.frames[0].document.forms.length } catch { return false } })()"
    )
