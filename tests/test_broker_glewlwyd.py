"""Sign-in through the broker at a second real OpenID provider, Debian's glewlwyd, to a call of a real client."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

from broker_house import CLIENT, Asking, BrokerHouse, Browser, broker_house
from glewlwyd_house import PROGRAM, SECRET, at_glewlwyd, changed_key, glewlwyd
from onbehalf.demo.person_client import _Keep

pytestmark = pytest.mark.skipif(
    not PROGRAM.exists() and not os.environ.get("CI"),
    reason="GLEWLWYD IS NOT HERE, so nothing here was tested (make glewlwyd)",
)
REDIRECT = "http://127.0.0.1:33418/back"


@contextmanager
def house_of(directory: Path, **provider: Any) -> Iterator[BrokerHouse]:
    marks = {"claims: [groups]": "claims: [groups]\n    subject_claim: preferred_username"}
    with broker_house(directory, partial(glewlwyd, **provider), at_glewlwyd, **marks) as made:
        (directory / "login.secret").write_text(SECRET)
        yield made


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerHouse]:
    with house_of(tmp_path_factory.mktemp("glewlwyd")) as made, made.company.serving():
        yield made


class Hand:
    """What the person does: the consent page of the gateway, then the company's login."""

    def __init__(self, house: BrokerHouse) -> None:
        self._house = house
        self._back: dict[str, str] = {}

    async def open(self, url: str) -> None:
        browser = Browser()
        page = await asyncio.to_thread(browser.get, url)
        page = await asyncio.to_thread(self._house.said, browser, page)
        self._back = (await asyncio.to_thread(self._house.logged_in, browser, page)).query

    async def answer(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code=self._back["code"], state=self._back["state"], iss=self._back["iss"])


async def notes(house: BrokerHouse) -> list[str]:
    """What the SDK's client reads, after discovery, registration, PKCE and login."""
    hand = Hand(house)
    metadata = OAuthClientMetadata(
        client_name="tests", redirect_uris=[AnyUrl(REDIRECT)], token_endpoint_auth_method="none"
    )
    provider = OAuthClientProvider(
        server_url=house.resource, client_metadata=metadata, storage=_Keep(), redirect_handler=hand.open,
        callback_handler=hand.answer,
    )  # fmt: skip
    async with (
        httpx2.AsyncClient(auth=provider, timeout=30) as http,
        Client(streamable_http_client(house.resource, http_client=http)) as client,
    ):
        result = await client.call_tool("notes_list", {})
        assert result.structured_content is not None, result.content
        return [row["text"] for row in result.structured_content["rows"]]


def test_a_real_client_logs_a_person_in_at_glewlwyd_and_reads_what_is_theirs(house: BrokerHouse) -> None:
    assert asyncio.run(notes(house)) == ["mine"]


def test_a_provider_that_signs_with_es256_is_proven_as_well(tmp_path: Path) -> None:
    with house_of(tmp_path / "es256", algorithm="ES256") as made, made.company.serving():
        assert asyncio.run(notes(made)) == ["mine"]


def test_somebody_who_can_log_in_there_but_is_not_known_here_gets_no_code(house: BrokerHouse) -> None:
    browser = Browser()
    end = house.logged_in(browser, house.said(browser, browser.get(house.authorize(Asking()))), "mallory")
    assert end.status == 400
    assert "error=access_denied" in end.text.replace("&amp;", "&")


def test_what_it_says_of_a_login_that_is_too_old_or_of_no_time_is_not_taken(house: BrokerHouse) -> None:
    """glewlwyd says `auth_time: 0` whatever was asked. A client that asks for a fresh login must get none here."""
    browser = Browser()
    asking = Asking(changes={"max_age": "300"})
    end = house.logged_in(browser, house.said(browser, browser.get(house.authorize(asking))))
    assert end.status == 400
    assert "older than was asked for" in end.text


def test_mix_up_an_answer_that_names_another_issuer_is_refused_though_glewlwyd_did_not_promise_any(
    house: BrokerHouse,
) -> None:
    browser = Browser(stop=f"{house.at}/oauth/callback")
    sent_back = house.logged_in(browser, house.said(browser, browser.get(house.authorize(Asking())))).url
    mixed = sent_back.replace(urlencode({"iss": house.login}), urlencode({"iss": "https://evil.example"}))
    assert mixed != sent_back
    browser._stop = REDIRECT
    answer = browser.get(mixed)
    assert answer.status == 400
    assert "another issuer" in answer.text


def test_code_injection_a_code_of_another_login_is_not_redeemed_here(house: BrokerHouse) -> None:
    """An attacker's code in a victim's own answer: it was given for another verifier and nonce."""
    attacker, victim = (Browser(stop=f"{house.at}/oauth/callback") for _ in range(2))
    backs = []
    for browser, account in ((attacker, "bob-at-login"), (victim, "alice-at-login")):
        page = house.said(browser, browser.get(house.authorize(Asking())))
        backs.append(house.logged_in(browser, page, account).url)
    codes = [parse_qs(urlsplit(url).query)["code"][0] for url in backs]
    victim._stop = REDIRECT
    answer = victim.get(backs[1].replace(codes[1], codes[0]))
    assert answer.status == 400
    assert "could not be redeemed" in answer.text


def test_a_code_of_glewlwyd_is_good_once_there_and_a_login_comes_back_once_here(house: BrokerHouse) -> None:
    browser = Browser(stop=f"{house.at}/oauth/callback")
    sent_back = house.logged_in(browser, house.said(browser, browser.get(house.authorize(Asking())))).url
    browser._stop = REDIRECT
    assert "code=" in browser.get(sent_back).url
    assert browser.get(sent_back).status == 400


def test_people_who_log_in_at_glewlwyd_approve_calls_there_as_well(house: BrokerHouse) -> None:
    asking = Asking(changes={"scope": "desk.write"})
    token = house.redeemed(asking, house.code(asking)).json()["access_token"]
    waiting = house.company.call("desk_write", token=token, word="x")
    url = waiting["_meta"]["onbehalf/approval"]["url"]
    browser = Browser()
    link = re.search(r'href="(/approvals/login[^"]+)"', browser.get(url).text)
    assert link
    page = house.logged_in(browser, browser.get(house.at + unescape(link[1])))
    assert "This is approved" in browser.post(url, {"say": "yes", "token": page.field("token")}).text
    assert not house.company.call("desk_write", token=token, word="x").get("isError")


def test_token_injection_what_glewlwyd_gives_its_client_calls_nothing_here(house: BrokerHouse) -> None:
    """Its access token is a JWT of type `at+jwt`, its ID token is for the gateway: neither is of an issuer of ours."""
    tokens = redeemed_at_glewlwyd(house)
    for name in ("access_token", "id_token", "refresh_token"):
        assert house.company.post("tools/list", token=tokens[name]).status_code == 401


def redeemed_at_glewlwyd(house: BrokerHouse) -> dict[str, Any]:
    """What somebody gets who holds the gateway's own client secret and a code of glewlwyd for it."""
    verifier, back = "v" * 43, f"{house.at}/oauth/callback"
    challenge = "7w_YNF9DSfIdPf_pRjSq646_kPr-2-o9NAl16JGghdM"
    asked = {"response_type": "code", "client_id": CLIENT, "redirect_uri": back, "scope": "openid", "state": "s",
             "nonce": "n", "code_challenge": challenge, "code_challenge_method": "S256"}  # fmt: skip
    browser = Browser(stop=back)
    sent_back = at_glewlwyd(browser, browser.get(f"{house.login}/auth?{urlencode(asked)}"), "alice-at-login")
    form = {"grant_type": "authorization_code", "code": sent_back.query["code"], "redirect_uri": back,
            "code_verifier": verifier}  # fmt: skip
    answer = httpx2.post(f"{house.login}/token", data=form, auth=(CLIENT, SECRET), trust_env=False)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_glewlwyd_takes_a_new_key_and_the_next_login_is_proven_with_it(tmp_path: Path) -> None:
    with house_of(tmp_path / "keys") as made, made.company.serving():
        assert made.tokens()["access_token"]
        changed_key(made.login, "glewlwyd-2")
        assert made.tokens()["access_token"]
