"""The approval pages over HTTP, and what hostile browsers, links and forms get."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import httpx2
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from approval_house import ALICE, BOB, CLIENT, INES, MARTA, Browser, Town, approval_town
from onbehalf.demo.data import world
from test_app import recorded


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with approval_town(tmp_path_factory.mktemp("approvals") / "it") as made:
        yield made


@pytest.fixture
def asked(around: Town) -> str:
    """The address of an approval of a call of Bob's, about which no test says anything."""
    return around.url(around.call(word="shared"))


@pytest.fixture
def fresh(around: Town, request: pytest.FixtureRequest) -> str:
    """The address of an approval of a call of Bob's that is this test's own; its word is the test's name."""
    return around.url(around.call(word=request.node.name))


def shown(page: httpx2.Response) -> str:
    return re.sub(r"<[^>]+>", " ", page.text.partition("<body>")[2])


def test_a_manager_approves_and_the_same_call_is_then_done_once(around: Town, fresh: str) -> None:
    word = "test_a_manager_approves_and_the_same_call_is_then_done_once"
    before, browser = around.written(), Browser()
    page = browser.login(fresh, ALICE)
    assert page.status_code == 200
    assert "Is this to be done?" in page.text
    assert word in page.text
    page = browser.say(page, "yes")
    assert "This is approved" in page.text
    result = around.call(word=word)
    assert result.get("isError") is not True, result
    assert around.written() == before + 1
    again = around.call(word=word)
    assert again["isError"] is True
    assert around.url(again) != fresh
    assert browser.get(fresh).status_code == 404  # used, and so there is nothing to see
    approvals = recorded(around.company, "approval")
    assert [(each["person"]["id"], each["vote"]) for each in approvals][-1] == ("alice", "approved")
    assert urlsplit(fresh).path.rpartition("/")[2] not in str(approvals)


def test_a_refusal_is_told_to_the_model_and_nothing_is_done(around: Town, fresh: str) -> None:
    before, browser = around.written(), Browser()
    page = browser.say(browser.login(fresh, ALICE), "no")
    assert "This was refused" in page.text
    result = around.call(word="test_a_refusal_is_told_to_the_model_and_nothing_is_done")
    assert result["_meta"]["onbehalf/denial"]["code"] == "approval_refused"
    assert around.written() == before


@pytest.mark.parametrize("subject", [BOB, INES])
def test_whose_call_it_is_and_their_peers_see_what_everybody_sees_of_nothing(
    around: Town, asked: str, subject: str
) -> None:
    browser = Browser()
    page = browser.login(asked, subject)
    absent = browser.get(f"{asked[:-3]}xxx")
    assert (page.status_code, page.text) == (absent.status_code, absent.text) == (404, page.text)
    assert "word" not in shown(page)


def test_who_is_not_logged_in_sees_the_same_of_every_address(around: Town, asked: str) -> None:
    pages = [Browser().get(each) for each in (asked, f"{asked[:-3]}xxx")]
    texts = [page.text.replace(urlsplit(str(page.url)).path.rpartition("/")[2], "ID") for page in pages]
    assert texts[0] == texts[1]
    assert {page.status_code for page in pages} == {200}


def test_the_address_proves_nothing_and_carries_no_secret(around: Town, asked: str) -> None:
    assert re.fullmatch(r"/approvals/[A-Za-z0-9_-]{43}", urlsplit(asked).path)
    assert not urlsplit(asked).query
    answer = httpx2.post(asked, data={"say": "yes"}, headers={"origin": around.company.gateway}, trust_env=False)
    assert "Log in" in answer.text
    token = around.token(ALICE)  # a token of the manager's, as her own client and so her model has it
    answer = httpx2.post(
        asked, data={"say": "yes"}, headers={"authorization": f"Bearer {token}", "origin": around.company.gateway},
        trust_env=False,
    )  # fmt: skip
    assert "Log in" in answer.text


# --- forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": {"origin": "https://evil.test"}},
        {"headers": {"origin": "null"}},
        {"headers": {"origin": None}},
        {"token": ""},
        {"token": "0" * 64},
        {"token": "é"},
        {"say": "maybe"},
    ],
)
def test_a_form_that_is_not_of_the_page_says_nothing(around: Town, asked: str, changes: dict[str, Any]) -> None:
    browser = Browser()
    page = browser.login(asked, ALICE)
    answer = browser.say(page, changes.pop("say", "yes"), **changes)
    assert answer.status_code == 400
    assert "Is this to be done?" in browser.get(asked).text


def test_a_form_token_is_of_one_session_and_one_approval(around: Town, asked: str) -> None:
    other = around.url(around.call(word="another"))
    alice, marta = Browser(), Browser()
    page, elsewhere = alice.login(asked, ALICE), marta.login(asked, MARTA)
    [theirs] = re.findall(r'name="token" value="([^"]+)"', elsewhere.text)
    [another] = re.findall(r'name="token" value="([^"]+)"', alice.get(other).text)
    for token in (theirs, another):
        assert alice.say(page, "yes", token=token).status_code == 400


def test_a_form_that_is_sent_again_changes_nothing(around: Town, fresh: str) -> None:
    browser = Browser()
    page = browser.login(fresh, ALICE)
    browser.say(page, "yes")
    votes = len(recorded(around.company, "approval"))
    assert "This is approved" in browser.say(page, "yes").text
    assert len(recorded(around.company, "approval")) == votes


def test_a_large_or_doubled_form_is_refused(around: Town, asked: str) -> None:
    browser = Browser()
    browser.login(asked, ALICE)
    headers = {"origin": around.company.gateway, "content-type": "application/x-www-form-urlencoded"}
    assert browser.http.post(asked, content=b"say=yes&" + b"a" * 5000, headers=headers).status_code == 413
    assert browser.http.post(asked, content=b"say=no&say=yes", headers=headers).status_code == 400


# --- what is shown -------------------------------------------------------------------------


def test_what_a_model_sends_is_shown_as_text_with_nothing_hidden(around: Town) -> None:
    word = "<script>alert(1)</script>\u202egnp.exe\u200b'\"&"
    page = Browser().login(around.url(around.call(word=word)), ALICE)
    assert "<script>" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202egnp.exe\\u200b&#x27;&quot;&amp;" in page.text
    assert "Bob &lt;b&gt;Tran&lt;/b&gt;" in page.text


def test_every_page_keeps_out_frames_scripts_and_other_sites(around: Town, asked: str) -> None:
    browser = Browser()
    pages = [browser.get(asked), browser.login(asked, ALICE), browser.get(f"{asked}x"), browser.get(f"{asked[:-3]}xxx")]
    for page in pages:
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "form-action 'self'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        assert page.headers["cache-control"] == "no-store"
        assert "<script" not in page.text
        assert "access-control-allow-origin" not in page.headers


@pytest.mark.parametrize("rest", ["", "login", "login?at=9&to=" + "a" * 43, "login?at=0&to=//evil.test", "back", "x/y"])
def test_other_addresses_lead_nowhere(around: Town, rest: str) -> None:
    answer = httpx2.get(f"{around.company.gateway}/approvals/{rest}", trust_env=False)
    assert answer.status_code in (403, 404)
    assert "location" not in answer.headers


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods_do_nothing(around: Town, asked: str, method: str) -> None:
    assert httpx2.request(method, asked, trust_env=False).status_code == 404


def test_another_host_is_refused(around: Town, asked: str) -> None:
    answer = httpx2.get(asked, headers={"host": "evil.test"}, trust_env=False)
    assert answer.status_code in (400, 403, 421)
    assert answer.json()["error"] == "host_refused"


# --- logins --------------------------------------------------------------------------------


def begun(around: Town, asked: str) -> tuple[Browser, str]:
    """A browser that is at the issuer, and where it was sent."""
    browser = Browser()
    id = urlsplit(asked).path.rpartition("/")[2]
    answer = browser.http.get(f"{around.company.gateway}/approvals/login", params={"at": "0", "to": id})
    return browser, answer.headers["location"]


def code_for(around: Town, address: str, subject: str = ALICE) -> dict[str, str]:
    """What the issuer gives for this authorization request to somebody who logs in."""
    other = Browser()
    page = other.get(address)
    name = re.search(r'name="login" value="([^"]+)"', page.text)
    assert name
    sent = other.http.post(urljoin(address, "authorize"), data={"login": name[1], "subject": subject})
    return {key: values[0] for key, values in parse_qs(urlsplit(sent.headers["location"]).query).items()}


def back(around: Town, browser: Browser, query: dict[str, str]) -> httpx2.Response:
    return browser.http.get(f"{around.company.gateway}/approvals/back?{urlencode(query)}")


def test_the_authorization_request_says_all_it_must(around: Town, asked: str) -> None:
    _, address = begun(around, asked)
    query = {key: values[0] for key, values in parse_qs(urlsplit(address).query).items()}
    assert address.startswith(f"{around.issuer}/authorize?")
    assert query["client_id"] == CLIENT
    assert query["code_challenge_method"] == "S256"
    assert query["resource"] == f"{around.company.gateway}/mcp"
    assert query["redirect_uri"] == f"{around.company.gateway}/approvals/back"
    assert len(query["state"]) == len(query["code_challenge"]) == 43


def test_a_login_ends_in_the_browser_it_began_in_and_nowhere_else(around: Town, asked: str) -> None:
    mine, address = begun(around, asked)
    answer = code_for(around, address)
    victim, _ = begun(around, asked)  # whose browser has begun a login of its own
    for other in (Browser(), victim):
        refused = back(around, other, answer)
        assert refused.status_code == 403
        assert "set-cookie" not in refused.headers
    assert back(around, mine, answer).status_code == 403  # it was tried elsewhere, and is over


def test_a_login_is_good_once(around: Town, asked: str) -> None:
    browser, address = begun(around, asked)
    answer = code_for(around, address)
    assert back(around, browser, answer).status_code == 303
    assert back(around, browser, answer).status_code == 403


@pytest.mark.parametrize(
    "change", [{"iss": "https://evil.test"}, {"iss": ""}, {"code": "stolen"}, {"code": ""}, {"error": "access_denied"}]
)
def test_an_answer_that_is_not_the_issuers_logs_nobody_in(around: Town, asked: str, change: dict[str, str]) -> None:
    browser, address = begun(around, asked)
    refused = back(around, browser, {**code_for(around, address), **change})
    assert refused.status_code == 403
    assert "session" not in refused.headers.get("set-cookie", "")


def test_a_code_of_another_login_does_not_fit(around: Town, asked: str) -> None:
    browser, address = begun(around, asked)
    _, other = begun(around, asked)
    mixed = {**code_for(around, address), "code": code_for(around, other)["code"]}
    assert back(around, browser, mixed).status_code == 403


def test_cookies_cannot_be_read_by_scripts_or_sent_by_other_sites(around: Town, asked: str) -> None:
    browser, address = begun(around, asked)
    answer = back(around, browser, code_for(around, address))
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("onbehalf-session=")
    for word in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=900"):
        assert word in cookie
    assert answer.headers["location"] == urlsplit(asked).path


def test_a_person_of_another_tenant_gets_no_further_than_everybody(around: Town, asked: str) -> None:
    stranger = next(each.subject for each in world().people if each.tenant == "globex")
    page = Browser().login(asked, stranger)
    assert page.status_code in (403, 404)
    assert "word" not in shown(page)


# --- two persons ---------------------------------------------------------------------------


def test_two_people_must_say_yes(tmp_path: Path) -> None:
    with approval_town(tmp_path / "it", by="two-person") as around:
        url = around.url(around.call())
        bob, alice = Browser(), Browser()
        page = bob.say(bob.login(url, BOB), "yes")
        assert "Somebody else must as well" in page.text
        assert around.call()["isError"] is True
        assert "This is approved" in alice.say(alice.login(url, ALICE), "yes").text
        assert around.call().get("isError") is not True
        assert around.written() == 1


# --- clients that can show a page ----------------------------------------------------------


def called(around: Town, word: str, *, opens: Any) -> tuple[Any, list[Any]]:
    """One call by a real MCP client, whose person's browser does `opens` with an address it is asked to show."""
    asked: list[Any] = []

    async def elicited(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params)
        assert isinstance(params, types.ElicitRequestURLParams)
        return types.ElicitResult(action=await asyncio.to_thread(opens, params.url))

    async def run() -> Any:
        headers = {"authorization": f"Bearer {around.token(BOB)}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as http,
            Client(
                streamable_http_client(f"{around.company.gateway}/mcp", http_client=http), elicitation_callback=elicited
            ) as client,
        ):
            return await client.call_tool("desk_write", {"word": word})

    return asyncio.run(run()), asked


def test_a_client_that_can_opens_the_page_and_the_call_goes_on_once_it_is_approved(around: Town) -> None:
    def approve(url: str) -> str:
        browser = Browser()
        browser.say(browser.login(url, ALICE), "yes")
        return "accept"

    before = around.written()
    result, asked = called(around, "opened", opens=approve)
    assert not result.is_error, result
    assert around.written() == before + 1
    [params] = asked
    assert params.mode == "url"
    assert "somebody above you" in params.message


@pytest.mark.parametrize("action", ["accept", "decline", "cancel"])
def test_a_client_that_opened_the_page_is_not_asked_for_ever(around: Town, action: str) -> None:
    before = around.written()
    result, asked = called(around, "shared", opens=lambda url: action)
    assert result.is_error
    assert "must be approved there" in result.content[0].text
    assert len(asked) == 1
    assert around.written() == before
