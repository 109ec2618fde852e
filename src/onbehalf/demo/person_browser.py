"""One person's browser at an approval's page: logs in at the demo issuer and presses a button. No script runs.

Must not know what is asked.
"""

from __future__ import annotations

import re
from html import unescape
from urllib.parse import urljoin

import httpx2

from onbehalf.demo.data import DemoPerson

__all__ = ["say"]


async def say(url: str, person: DemoPerson, word: str) -> str:
    """Open an approval's address, log in, and say `yes` or `no`; the heading of the page that comes then.

    Where there is no button to press, the heading of the page without one. Raises RuntimeError where there is no login.
    """
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as browser:
        page = await _opened(browser, url)
        link = re.search(r'href="(/approvals/login[^"]+)"', page.text)
        if link is None:
            raise RuntimeError(f"no login is offered at {url} (status {page.status_code})")
        issuer = await _opened(browser, urljoin(url, unescape(link[1])))
        name = re.search(r'name="login" value="([^"]+)"', issuer.text)
        if name is None:
            raise RuntimeError(f"the issuer showed no login page (status {issuer.status_code})")
        form = {"login": name[1], "subject": person.subject}
        back = await browser.post(urljoin(str(issuer.url), "authorize"), data=form)
        page = await _opened(browser, back.headers.get("location", ""))
        token = re.search(r'name="token" value="([^"]+)"', page.text)
        if token is not None:
            origin = url.partition("/approvals/")[0]
            sent = {"say": word, "token": token[1]}
            done = await browser.post(url, data=sent, headers={"origin": origin})
            page = await _opened(browser, urljoin(url, done.headers["location"])) if done.is_redirect else done
        heading = re.search(r"<h1>([^<]*)</h1>", page.text)
        return unescape(heading[1]) if heading else f"status {page.status_code}"


async def _opened(browser: httpx2.AsyncClient, url: str) -> httpx2.Response:
    answer = await browser.get(url)
    for _ in range(5):
        if not answer.is_redirect:
            break
        answer = await browser.get(urljoin(str(answer.url), answer.headers["location"]))
    return answer
