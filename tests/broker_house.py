"""A gateway with its sign-in broker, a real OpenID provider behind it, and a browser without a screen or script.

The provider is npm's `oidc-provider` in a process of its own; the gateway is served by one as well. The browser keeps
cookies by host and follows redirects and refreshing pages by itself, like a person's would.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx2
from joserfc.jwk import RSAKey

import node_peers
from company import Company, company
from ports import free_port

CLIENT, SECRET = "onbehalf", "a secret of the company's login, for tests"
BACK = "http://127.0.0.1:33418/"
BROKER = """
broker:
  login:
    issuer: "@LOGIN@"
    client_id: onbehalf
    client_secret: env:LOGIN_SECRET
    tenant: acme
    claims: [groups]
  clients:
    - {id: desktop, name: The Desktop, redirect_uris: ["http://127.0.0.1/back"]}
"""


ASKING = """
@id("asked") @doc("Staff change the desk with their own yes.") @remedy("Approve it.") @approve("self")
permit (principal in Group::"acme/staff", action == Action::"writeDesk", resource is Tool);
"""


@dataclass(kw_only=True)
class Visit:
    """Where a browser is: the address of the page, or of where it was sent outside, and what stands there."""

    url: str
    status: int = 0
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def query(self) -> dict[str, str]:
        """The parameters of the address."""
        return dict(parse_qsl(urlsplit(self.url).query))

    def field(self, name: str) -> str:
        """The value of a form's hidden field."""
        found = re.search(rf'name="{name}" value="([^"]*)"', self.text)
        assert found, f"no `{name}` at {self.url}: {self.text[:2000]}"
        return unescape(found[1])


class Browser:
    """One browser. It stops at every page, and where it is sent to an address that starts with `stop`."""

    def __init__(self, stop: str = BACK) -> None:
        self._http = httpx2.Client(timeout=20, trust_env=False)
        self._stop = stop

    def get(self, url: str) -> Visit:
        return self._follow(url, "GET", None, {})

    def post(self, url: str, form: dict[str, str], *, origin: str = "") -> Visit:
        own = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        return self._follow(url, "POST", form, {"origin": origin or own})

    def json(self, method: str, url: str, body: Any) -> httpx2.Response:
        """What a script on a page asks of its own server."""
        return self._http.request(method, url, json=body)

    def _follow(self, url: str, method: str, form: Any, headers: dict[str, str]) -> Visit:
        for _ in range(12):
            if url.startswith(self._stop):
                return Visit(url=url)
            answer = self._http.request(method, url, data=form, headers=headers)
            method, form, headers = "GET", None, {}
            refresh = re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', answer.text)
            if answer.is_redirect:
                url = urljoin(url, answer.headers["location"])
            elif refresh:
                url = unescape(refresh[1])
            else:
                return Visit(url=url, status=answer.status_code, text=answer.text, headers=dict(answer.headers))
        raise AssertionError(f"the browser is led around: {url}")


@dataclass(kw_only=True)
class Asking:
    """One authorization request of a client, with the verifier that fits it."""

    client_id: str = "desktop"
    redirect_uri: str = "http://127.0.0.1:33418/back"
    state: str = field(default_factory=lambda: secrets.token_urlsafe(8))
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    changes: dict[str, str | None] = field(default_factory=dict)

    def query(self, resource: str) -> dict[str, str]:
        hashed = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        asked: dict[str, str | None] = {
            "response_type": "code", "client_id": self.client_id, "redirect_uri": self.redirect_uri,
            "state": self.state, "code_challenge": hashed, "code_challenge_method": "S256", "resource": resource,
            "scope": "notes.read", **self.changes,
        }  # fmt: skip
        return {name: value for name, value in asked.items() if value is not None}


Hand = Callable[[Browser, Visit, str], Visit]


@dataclass(kw_only=True)
class BrokerHouse:
    """The company, its login at `login`, and what clients and browsers do at the gateway. `hand` logs a person in
    there, and brings their browser to where it then is."""

    company: Company
    login: str
    hand: Hand

    @property
    def at(self) -> str:
        return self.company.gateway

    @property
    def resource(self) -> str:
        return f"{self.at}/mcp"

    def authorize(self, asking: Asking) -> str:
        return f"{self.at}/oauth/authorize?{urlencode(asking.query(self.resource))}"

    def said(self, browser: Browser, page: Visit, word: str = "yes", **changes: str) -> Visit:
        """Press a button of the consent page."""
        form = {"request": page.field("request"), "token": page.field("token"), "say": word, **changes}
        return browser.post(f"{self.at}/oauth/consent", form)

    def logged_in(self, browser: Browser, page: Visit, account: str = "alice-at-login") -> Visit:
        """Log in at the company's login, and say there what it asks."""
        return self.hand(browser, page, account)

    def code(self, asking: Asking, *, account: str = "alice-at-login", browser: Browser | None = None) -> str:
        """The whole way of a person who says yes, to the code."""
        browser = browser or Browser()
        back = self.logged_in(browser, self.said(browser, browser.get(self.authorize(asking))), account)
        assert back.url.startswith(asking.redirect_uri), (back.status, back.text[:3000])
        assert (back.query["state"], back.query["iss"]) == (asking.state, self.at)
        return back.query["code"]

    def token(self, **form: str) -> httpx2.Response:
        return httpx2.post(f"{self.at}/oauth/token", data=form, timeout=20, trust_env=False)

    def redeemed(self, asking: Asking, code: str, **changes: str) -> httpx2.Response:
        form = {
            "grant_type": "authorization_code", "client_id": asking.client_id, "code": code,
            "redirect_uri": asking.redirect_uri, "code_verifier": asking.verifier, "resource": self.resource,
        }  # fmt: skip
        return self.token(**{**form, **changes})

    def refreshed(self, refresh: str, client: str = "desktop", **changes: str) -> httpx2.Response:
        return self.token(**{"grant_type": "refresh_token", "client_id": client, "refresh_token": refresh, **changes})

    def tokens(self, *, account: str = "alice-at-login") -> dict[str, Any]:
        """What a client has in the end."""
        asking = Asking()
        answer = self.redeemed(asking, self.code(asking, account=account))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@cache
def company_key() -> RSAKey:
    """What the company's login signs with, so that tests can say what it would."""
    return RSAKey.generate_key(2048, {"kid": "company-1", "use": "sig", "alg": "RS256"})


@contextmanager
def provider(gateway: str, *paths: str, refresh: bool = False, life: int = 3600) -> Iterator[str]:
    """The OpenID provider; its issuer."""
    port = free_port()
    key = company_key().as_dict(private=True)
    redirects = [f"{gateway}{path}" for path in paths or ("/oauth/callback", "/approvals/back")]
    argument = json.dumps(
        {"port": port, "client": CLIENT, "secret": SECRET, "redirects": redirects, "key": key, "refresh": refresh,
         "life": life}
    )  # fmt: skip
    script = str(node_peers.packages() / "oidc_provider.mjs")
    process = subprocess.Popen(
        (node_peers.node(), script, argument), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.communicate()


def at_provider(browser: Browser, page: Visit, account: str) -> Visit:
    """Fill in the pages of `oidc-provider`."""
    for _ in range(4):
        action = re.search(r'action="([^"]+)"', page.text)
        if page.status != 200 or action is None or 'name="prompt"' not in page.text:
            return page
        prompt = page.field("prompt")
        form = {"prompt": prompt, **({"login": account, "password": "any"} if prompt == "login" else {})}
        page = browser.post(urljoin(page.url, unescape(action[1])), form)
    return page


@contextmanager
def broker_house(
    directory: Path, providing: Callable[[str], AbstractContextManager[str]] = provider, hand: Hand = at_provider,
    **marks: str,
) -> Iterator[BrokerHouse]:  # fmt: skip
    """Everything around a gateway with a broker; not served yet. `providing` starts the company's login for a gateway
    and `hand` uses it; `marks` are replaced in its configuration."""
    with company(directory) as made, providing(made.gateway) as login:
        text = made.config.read_text(encoding="utf-8") + BROKER.replace("@LOGIN@", login)
        start, end = text.index("issuers:"), text.index("upstreams:")
        text = text[:start] + text[end:]
        for old, new in marks.items():
            assert old in text, old
            text = text.replace(old, new)
        made.config.write_text(text, encoding="utf-8")
        bob = made.config.with_name("people.yaml").read_text(encoding="utf-8").splitlines()[-1]
        made.edit(bob, f"{bob}\n{bob.replace('bob', 'carol').replace('Bob', 'Carol')}", name="people.yaml")
        people = made.config.with_name("people.yaml")
        people.write_text(people.read_text(encoding="utf-8").replace(made.issuer.url, made.gateway), encoding="utf-8")
        (directory / "login.secret").write_text(SECRET)
        (directory / "policies" / "asking.cedar").write_text(ASKING)
        made.edit("env:LOGIN_SECRET", "file:login.secret")
        yield BrokerHouse(company=made, login=login, hand=hand)
