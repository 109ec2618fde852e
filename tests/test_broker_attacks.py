"""RFC 9700 against the served broker, attack by attack, where no other test has its name."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from broker_house import BACK, Asking, BrokerHouse, Browser, broker_house, company_key
from identify.minting import unb64

AT_ONCE = 12


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerHouse]:
    with broker_house(tmp_path_factory.mktemp("broker")) as made, made.company.serving():
        yield made


def status(house: BrokerHouse, token: str) -> int:
    return house.company.post("tools/call", token=token, name="notes_list", arguments={}).status_code


def raw(house: BrokerHouse, method: str, path: str, **options: Any) -> httpx2.Response:
    with httpx2.Client(trust_env=False, timeout=20, follow_redirects=False) as http:
        return http.request(method, f"{house.at}{path}", **options)


# --- 4.5, 4.14: what is good once, shown by many at once ---------------------------------------


def test_code_replay_of_many_that_show_one_code_at_once_at_most_one_gets_a_token_and_it_ends(
    house: BrokerHouse,
) -> None:
    asking = Asking()
    code = house.code(asking)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: house.redeemed(asking, code), range(AT_ONCE)))
    given = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(given) <= 1
    assert all(answer.json()["error"] == "invalid_grant" for answer in answers if answer.status_code != 200)
    for each in given:
        assert status(house, each["access_token"]) == 401
        assert house.refreshed(each["refresh_token"]).status_code == 400


def test_refresh_replay_of_many_that_show_one_token_at_once_at_most_one_is_served_and_the_login_is_over(
    house: BrokerHouse,
) -> None:
    got = house.tokens()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: house.refreshed(got["refresh_token"]), range(AT_ONCE)))
    given = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(given) <= 1
    for each in (got, *given):
        assert status(house, each["access_token"]) == 401
        assert house.refreshed(each["refresh_token"]).json()["error"] == "invalid_grant"


# --- 2.4, 2.1.2, 4.17: other ways to a token ---------------------------------------------------


@pytest.mark.parametrize(
    "grant", ["password", "client_credentials", "implicit", "urn:ietf:params:oauth:grant-type:device_code", "none", "",
              "urn:ietf:params:oauth:grant-type:token-exchange", "urn:ietf:params:oauth:grant-type:jwt-bearer",
              "urn:ietf:params:oauth:grant-type:saml2-bearer", "AUTHORIZATION_CODE", "authorization_code x"],
)  # fmt: skip
def test_another_way_to_a_token_than_a_login_is_not_there(house: BrokerHouse, grant: str) -> None:
    form = {"grant_type": grant, "client_id": "desktop", "username": "alice-at-login", "password": "any"}
    answer = house.token(**form, assertion="x", subject_token="x", scope="notes.read")
    assert answer.status_code == 400
    assert answer.json()["error"] == "unsupported_grant_type"


@pytest.mark.parametrize("mode", ["fragment", "form_post", "web_message", "query.jwt", "jwt", "cookie", ""])
def test_in_browser_communication_a_code_leaves_by_the_query_of_a_redirect_alone(house: BrokerHouse, mode: str) -> None:
    page = Browser().get(house.authorize(Asking(changes={"response_mode": mode})))
    assert page.status == 400
    assert "postMessage" not in page.text


@pytest.mark.parametrize(
    "kind", ["token", "id_token", "code token", "code id_token token", "none", "CODE", "code code"]
)
def test_implicit_grant_no_token_is_ever_put_into_a_redirect(house: BrokerHouse, kind: str) -> None:
    page = Browser().get(house.authorize(Asking(changes={"response_type": kind})))
    assert page.status == 400
    assert "unsupported_response_type" in page.text


# --- 4.6, 2.3: a token of the login in place of one of ours ------------------------------------


def of_the_login(
    house: BrokerHouse, *, key: Any = None, kid: str = "company-1", alg: str = "RS256", **changes: Any
) -> str:
    now = int(time.time())
    typ = changes.pop("typ", "at+jwt")
    claims = {
        "iss": house.login, "sub": "alice-at-login", "aud": house.resource, "client_id": "onbehalf", "iat": now,
        "exp": now + 60, "scope": "notes.read", "nonce": "n", **changes,
    }  # fmt: skip
    return jwt.encode({"alg": alg, "kid": kid, "typ": typ}, claims, key or company_key(), algorithms=[alg])


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "oauth-id-jag+jwt"])
def test_token_injection_what_the_companys_login_signs_calls_nothing_here(house: BrokerHouse, typ: str) -> None:
    """The login proves who logged in, to the broker. It is no issuer of access tokens, even with our audience."""
    for audience in (house.resource, "onbehalf", [house.resource, "onbehalf"], house.at):
        assert status(house, of_the_login(house, typ=typ, aud=audience)) == 401


def test_issuer_confusion_the_logins_key_under_our_name_and_our_key_id_is_not_ours(house: BrokerHouse) -> None:
    good = house.tokens()["access_token"]
    assert status(house, good) == 200
    header, claims = (json.loads(unb64(part.encode())) for part in good.split(".")[:2])
    for kid in (header["kid"], "company-1"):
        forged = jwt.encode({**header, "alg": "RS256", "kid": kid}, claims, company_key(), algorithms=["RS256"])
        assert status(house, forged) == 401
        own = ECKey.generate_key("P-256")
        assert (
            status(house, jwt.encode({**header, "alg": "ES256", "kid": kid}, claims, own, algorithms=["ES256"])) == 401
        )


def test_audience_confusion_the_brokers_other_papers_are_no_access_tokens(house: BrokerHouse) -> None:
    asking = Asking()
    code = house.code(asking)
    got = house.redeemed(asking, code).json()
    for paper in (code, got["refresh_token"], asking.verifier, asking.state):
        assert status(house, paper) == 401
        assert house.refreshed(paper if paper != got["refresh_token"] else "x").json()["error"] == "invalid_grant"
    assert house.refreshed(got["access_token"]).json()["error"] == "invalid_grant"


# --- 4.15: a client that would be a person -----------------------------------------------------


def test_a_client_cannot_choose_an_id_and_be_taken_for_a_person(house: BrokerHouse) -> None:
    document = {"redirect_uris": ["http://127.0.0.1/x"], "client_id": "alice-at-login", "sub": "alice-at-login",
                "client_secret": "x", "software_id": "desktop", "registration_access_token": "x"}  # fmt: skip
    made = [raw(house, "POST", "/oauth/register", json=document).json() for _ in range(2)]
    ids = [each["client_id"] for each in made]
    assert len({*ids, "alice-at-login", "desktop"}) == 4
    assert all(each.startswith("client-") and "client_secret" not in each for each in map(str, ids))


# --- 2.6, 4.2, 4.3, 4.12: what a browser carries to others -------------------------------------


def test_referer_and_history_no_page_of_the_login_tells_its_address_to_another_site(house: BrokerHouse) -> None:
    browser = Browser(stop=f"{house.at}/oauth/callback")
    asked = browser.get(house.authorize(Asking()))
    sent_back = house.logged_in(browser, house.said(browser, asked)).url
    browser._stop = BACK
    pages = [
        asked,
        browser.get(sent_back.replace("code=", "code=x")),
        Browser().get(house.authorize(Asking(client_id="?"))),
    ]
    for page in pages:
        assert page.headers["referrer-policy"] == "same-origin"
        assert page.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in page.headers["content-security-policy"], "nothing of another site is fetched"
        assert "<script" not in page.text


def test_no_form_is_sent_on_by_a_307(house: BrokerHouse) -> None:
    """What a person typed into a form must not be posted on to a client."""
    browser = Browser()
    page = browser.get(house.authorize(Asking()))
    form = {"request": page.field("request"), "token": page.field("token"), "say": "yes"}
    answer = browser._http.post(f"{house.at}/oauth/consent", data=form, headers={"origin": house.at})
    assert answer.status_code in (200, 303)
    browser._stop = f"{house.at}/oauth/callback"
    sent_back = house.logged_in(browser, house.said(browser, browser.get(house.authorize(Asking())))).url
    assert browser._http.get(sent_back).status_code == 303


@pytest.mark.parametrize(
    "path", ["/oauth/authorize", "/oauth/consent", "/oauth/callback", "/oauth/token", "/oauth/register"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_cors_no_script_of_another_site_may_read_an_answer_of_the_login(
    house: BrokerHouse, path: str, method: str
) -> None:
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = raw(house, method, path, headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


# --- 4.13: a proxy in front, and headers that only it may send ---------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-host": "evil.example"}, {"x-forwarded-proto": "https"}, {"forwarded": "host=evil.example"},
        {"x-original-url": "/oauth/consent"}, {"x-rewrite-url": "/oauth/consent"}, {"x-forwarded-prefix": "/evil"},
        {"x-forwarded-client-cert": 'Subject="CN=alice-at-login"'}, {"x-client-cert": "x", "x-user": "alice-at-login"},
    ],
)  # fmt: skip
def test_a_header_that_only_a_proxy_may_send_moves_no_issuer_and_lets_nobody_in(
    house: BrokerHouse, headers: dict[str, str]
) -> None:
    published = raw(house, "GET", "/.well-known/oauth-authorization-server", headers=headers).json()
    assert "evil" not in json.dumps(published)
    assert published["issuer"] == house.at
    answer = raw(house, "POST", "/oauth/token", data={"grant_type": "refresh_token"}, headers=headers)
    assert answer.status_code in (400, 401)
    challenge = raw(house, "POST", "/mcp", json={}, headers=headers)
    assert challenge.status_code == 401
    assert "evil" not in challenge.headers["www-authenticate"]


# --- 4.7, 4.11: into a request that another began, or out to anywhere --------------------------


def test_csrf_an_answer_without_the_state_of_this_browser_is_dropped(house: BrokerHouse) -> None:
    for query in ("", "code=x", "state=", f"state={'x' * 43}", "error=access_denied", "code=x&state=a&state=b"):
        page = Browser().get(f"{house.at}/oauth/callback?{query}")
        assert page.status == 400
        assert "href" not in page.text


@pytest.mark.parametrize(
    "where", ["post_logout_redirect_uri", "redirect", "next", "continue", "target_link_uri", "iss"]
)
def test_open_redirection_no_other_parameter_leads_out(house: BrokerHouse, where: str) -> None:
    for path in ("authorize", "callback", "consent"):
        page = Browser(stop="https://evil.example").get(
            f"{house.at}/oauth/{path}?{urlencode({where: 'https://evil.example/'})}"
        )
        assert page.url.startswith(house.at)
        assert "evil.example" not in page.text
