"""People's own accounts at an upstream: connected once in a browser, used for their owner alone, renewed, and ended.

The upstream's authorization server is npm's oidc-provider; people log in to the gateway's pages at the broker's login,
which is another one.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from account_house import AccountTown
from broker_house import CLIENT, SECRET, Browser, broker_house, provider
from company import said

DOCUMENT = {
    "openapi": "3.1.0", "info": {"title": "code", "version": "1"},
    "paths": {"/issues": {"get": {
        "operationId": "issues", "summary": "Issues.", "parameters": [],
        "responses": {"200": {"description": "ok", "content": {"application/json": {"schema": {"type": "object"}}}}},
    }}},
}  # fmt: skip


class Api:
    """The upstream. It keeps the tokens that it was shown, and refuses those it is told to."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.refuses: set[str] = set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                token = self.headers.get("Authorization", "")
                api.shown.append(token)
                body = b'{"issues": []}'
                self.send_response(401 if token in api.refuses else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@dataclass(kw_only=True)
class Town(AccountTown):
    """With the upstream, an API."""

    api: Api


@pytest.fixture
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    api = Api()
    directory = tmp_path_factory.mktemp("accounts")
    with ExitStack() as stack:
        house = stack.enter_context(broker_house(directory))
        accounts = stack.enter_context(provider(house.at, "/connect/back", refresh=True, life=300))
        document = json.dumps(DOCUMENT).encode()
        (directory / "code.json").write_bytes(document)
        made = house.company
        made.edit(
            "broker:\n",
            f"""  code:
    kind: openapi
    url: "{api.url}"
    document: code.json
    digest: "sha256:{hashlib.sha256(document).hexdigest()}"
    account:
      title: Code
      authorization_endpoint: "{accounts}/auth"
      token_endpoint: "{accounts}/token"
      issuer: "{accounts}"
      client_id: {CLIENT}
      client_secret: file:login.secret
      scope: openid
    tools:
      issues: {{action: readDesk}}
broker:
""",
        )
        assert (directory / "login.secret").read_text() == SECRET
        stack.enter_context(made.serving())
        yield Town(house=house, accounts=accounts, tool="issues", api=api)
    api.server.shutdown()


def test_a_call_waits_until_its_person_connected_their_account_and_is_then_made_with_it(town: Town) -> None:
    token = town.token()
    waiting = town.call(token)
    assert waiting["isError"] is True
    assert waiting["_meta"]["onbehalf/denial"]["code"] == "connection_needed"
    assert town.api.shown == []
    url = waiting["_meta"]["onbehalf/connect"]["url"]
    assert url.startswith(f"{town.house.at}/connect/")
    assert "alice" not in url
    page = town.connected(url)
    assert "Connected: Code" in page.text, page.text
    result = town.call(token)
    assert not result.get("isError"), result
    [shown] = town.api.shown
    assert shown.startswith("Bearer ")
    secret = shown.removeprefix("Bearer ")
    assert secret not in json.dumps(result)
    config = town.house.company.config
    assert secret not in said("explain", result["_meta"]["onbehalf/call"], "--config", config).out
    for file in (town.house.company.directory / "data").glob("*.db*"):
        assert secret.encode() not in file.read_bytes(), file
    assert secret not in town.house.company.served_log()
    waits = said("explain", waiting["_meta"]["onbehalf/call"], "--config", config)
    assert waits.code == 0, waits.err
    assert "connection_needed" in waits.out
    assert not town.call(town.token()).get("isError"), "a new login is the same person"


def test_the_link_is_its_persons_own_whoever_opens_it(town: Town) -> None:
    url = town.asked(town.token())
    thief = Browser()
    page = town.opened(thief, url, "bob-at-login")
    assert page.status == 404
    assert "nothing here for you" in page.text
    assert thief.post(url, {"token": "0" * 64, "say": "yes"}).status == 404
    stranger = Browser().get(url)
    assert "Log in" in stranger.text
    assert "Code" not in stranger.text


def test_an_answer_that_comes_to_another_browser_or_twice_connects_nothing(town: Town) -> None:
    url = town.asked(town.token())
    browser = Browser(stop=f"{town.house.at}/connect/back")
    sent_back = town.connected(url, browser=browser, account="mallory-there").url
    assert sent_back.startswith(f"{town.house.at}/connect/back")
    victim = Browser()
    town.opened(victim, url)
    assert victim.get(sent_back).status == 403, "an attacker's account must not become the victim's"
    browser._stop = "http://nowhere"
    assert browser.get(sent_back).status == 403
    assert town.call(town.token())["_meta"]["onbehalf/denial"]["code"] == "connection_needed"


def test_a_form_of_another_page_or_site_leads_nowhere(town: Town) -> None:
    url = town.asked(town.token())
    browser = Browser()
    form = {"token": town.opened(browser, url).field("token"), "say": "yes"}
    assert browser.post(url, form, origin="https://evil.example").status == 400
    assert browser.post(url, {**form, "token": "0" * 64}).status == 400
    browser._stop = town.accounts
    assert browser.post(url, form).url.startswith(town.accounts)


def test_a_token_that_the_upstream_refuses_is_renewed_and_a_dead_login_asks_anew(town: Town) -> None:
    token = town.token()
    town.connected(town.asked(token))
    town.call(token)
    first = town.api.shown[-1]
    town.api.refuses.add(first)
    assert town.call(token)["isError"] is True
    assert not town.call(token).get("isError"), "renewed"
    second = town.api.shown[-1]
    assert second != first
    assert town.kept() == [("acme", "alice", "code")]


def test_a_login_is_found_by_its_own_person_and_nobody_else(town: Town) -> None:
    alice, carol = town.token(), town.token("carol-at-login")
    assert town.call(carol)["_meta"]["onbehalf/denial"]["code"] == "not_permitted"
    town.connected(town.asked(alice))
    assert town.kept("UPDATE account SET person = 'bob'") == [("acme", "bob", "code")]
    assert town.call(alice)["_meta"]["onbehalf/denial"]["code"] == "connection_needed"
    assert town.api.shown == []
