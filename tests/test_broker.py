"""Sign-in through the broker: a real OpenID provider, a served gateway, and clients and browsers that misbehave."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from broker_house import Asking, BrokerHouse, Browser, broker_house
from company import said


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerHouse]:
    with broker_house(tmp_path_factory.mktemp("broker")) as made, made.company.serving():
        yield made


def called(house: BrokerHouse, token: str) -> tuple[int, Any]:
    answer = house.company.post("tools/call", token=token, name="notes_list", arguments={})
    return answer.status_code, answer.json().get("result", answer.json().get("error"))


def get(house: BrokerHouse, path: str) -> httpx2.Response:
    return house.company.get(path, public=True)


# --- the way it goes ---------------------------------------------------------------------------


def test_a_person_says_yes_and_logs_in_at_the_company_and_the_client_acts_for_that_person_only(
    house: BrokerHouse,
) -> None:
    got = house.tokens()
    assert (got["token_type"], got["scope"], got["expires_in"]) == ("Bearer", "notes.read", 300)
    status, result = called(house, got["access_token"])
    assert status == 200
    assert [row["text"] for row in result["structuredContent"]["rows"]] == ["mine"]
    _, denied = called(house, house.tokens(account="bob-at-login")["access_token"])
    assert denied["_meta"]["onbehalf/denial"]["code"] == "not_permitted"


def test_what_is_published_is_what_chatgpt_and_claude_look_for(house: BrokerHouse) -> None:
    published = get(house, "/.well-known/oauth-authorization-server").json()
    for path in ("/.well-known/oauth-authorization-server/mcp", "/.well-known/openid-configuration"):
        assert get(house, path).json() == published
    assert published["issuer"] == house.at
    assert published["code_challenge_methods_supported"] == ["S256"]
    assert "none" in published["token_endpoint_auth_methods_supported"]
    assert published["client_id_metadata_document_supported"] is True
    assert published["authorization_response_iss_parameter_supported"] is True
    resource = get(house, "/.well-known/oauth-protected-resource/mcp").json()
    assert resource["authorization_servers"] == [house.at]
    keys = httpx2.get(published["jwks_uri"], trust_env=False).json()["keys"]
    assert len(keys) == 2
    assert all("d" not in key for key in keys)
    assert {key["kid"] for key in keys}.isdisjoint(
        {key["kid"] for key in get(house, "/.well-known/jwks.json").json()["keys"]}
    )


def test_the_page_names_client_scopes_and_where_it_leads_before_the_login_is_asked_anything(
    house: BrokerHouse,
) -> None:
    page = Browser().get(house.authorize(Asking()))
    assert page.status == 200
    assert page.url.startswith(house.at)
    for shown in ("The Desktop", "notes.read", "127.0.0.1:33418", house.login.removeprefix("http://")):
        assert shown in page.text
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-frame-options"] == "DENY"
    assert "HttpOnly; SameSite=Lax" in page.headers["set-cookie"]


def test_a_person_who_says_no_is_sent_back_with_that_and_the_login_is_not_asked(house: BrokerHouse) -> None:
    asking, browser = Asking(), Browser()
    back = house.said(browser, browser.get(house.authorize(asking)), "no")
    assert back.url.startswith(asking.redirect_uri)
    assert (back.query["error"], back.query["state"], back.query["iss"]) == ("access_denied", asking.state, house.at)


def test_a_login_of_somebody_the_company_does_not_know_here_gives_no_code(house: BrokerHouse) -> None:
    browser = Browser()
    page = house.said(browser, browser.get(house.authorize(Asking())))
    end = house.logged_in(browser, page, "mallory")
    assert end.status == 400
    assert "cannot go on" in end.text
    assert "error=access_denied" in end.text.replace("&amp;", "&")


def test_people_of_the_broker_approve_calls_with_the_companys_login(house: BrokerHouse) -> None:
    asking = Asking(changes={"scope": "desk.write"})
    token = house.redeemed(asking, house.code(asking)).json()["access_token"]
    waiting = house.company.call("desk_write", token=token, word="x")
    url = waiting["_meta"]["onbehalf/approval"]["url"]
    browser = Browser()
    page = browser.get(url)
    link = re.search(r'href="(/approvals/login[^"]+)"', page.text)
    assert link, page.text
    page = house.logged_in(browser, browser.get(house.at + unescape(link[1])))
    assert "Is this to be done?" in page.text
    page = browser.post(url, {"say": "yes", "token": page.field("token")})
    assert "This is approved" in page.text
    assert not house.company.call("desk_write", token=token, word="x").get("isError")


# --- the client's own address ------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:33418/other", "http://127.0.0.1:33418/back?x=1", "http://127.0.0.1.evil.example/back",
        "http://127.0.0.1:1@evil.example/back", "https://127.0.0.1/back", "http://localhost:33418/back",
        "http://127.0.0.1:33418/back#f", "http://127.0.0.1:33418/back/", "http://127.0.0.1:33418/x/../back", "",
        "http://127.0.0.1:33418\\@evil.example/back", "javascript:alert(1)", "HTTP://127.0.0.1:33418/back",
        "http://127.0.0.1:99999/back", "http://[::1]:33418/back", "http://127.0.0.1:33418/back%2f",
    ],
)  # fmt: skip
def test_redirect_tricks_an_address_that_is_not_exactly_the_clients_is_never_answered(
    house: BrokerHouse, address: str
) -> None:
    page = Browser(stop="http://nowhere").get(house.authorize(Asking(redirect_uri=address)))
    assert page.url.startswith(house.at)
    assert page.status == 400
    assert "href" not in page.text
    assert "location" not in page.headers


def test_only_the_port_of_a_loopback_address_may_differ(house: BrokerHouse) -> None:
    for port in (1, 5000, 65535):
        assert Browser().get(house.authorize(Asking(redirect_uri=f"http://127.0.0.1:{port}/back"))).status == 200


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"resource": "https://other.example/mcp"}, "invalid_target"),
        ({"scope": "admin.everything"}, "invalid_scope"),
        ({"prompt": "none"}, "interaction_required"),
        ({"request": "eyJhbGciOiJub25lIn0.e30."}, "request_not_supported"),
        ({"max_age": "soon"}, "invalid_request"),
    ],
)
def test_a_bad_request_is_shown_and_the_client_told_only_by_a_person_who_follows_the_link(
    house: BrokerHouse, changes: dict[str, str | None], error: str
) -> None:
    asking = Asking(changes=changes)
    page = Browser().get(house.authorize(asking))
    assert page.status == 400, "an open redirector for whoever has a client"
    text = page.text.replace("&amp;", "&")
    assert f"error={error}&" in text
    assert f"state={asking.state}" in text
    assert urlencode({"iss": house.at}) in text


def test_a_parameter_that_stands_twice_is_refused(house: BrokerHouse) -> None:
    page = Browser().get(f"{house.authorize(Asking())}&redirect_uri=https%3A%2F%2Fevil.example%2F")
    assert page.status == 400
    assert "evil.example" not in page.text


# --- the browser -------------------------------------------------------------------------------


def test_consent_phishing_a_yes_that_another_browser_or_site_sends_is_none(house: BrokerHouse) -> None:
    attacker, victim = Browser(), Browser()
    page = attacker.get(house.authorize(Asking()))
    victim.get(house.authorize(Asking()))  # has a cookie of ours, but for a request of its own
    form = {"request": page.field("request"), "token": page.field("token"), "say": "yes"}
    assert victim.post(f"{house.at}/oauth/consent", form).status == 400
    assert attacker.post(f"{house.at}/oauth/consent", form, origin="https://evil.example").status == 400
    assert attacker.post(f"{house.at}/oauth/consent", {**form, "token": "0" * 64}).status == 400
    assert attacker.post(f"{house.at}/oauth/consent", form).url.startswith(house.login)


def test_a_yes_is_taken_once(house: BrokerHouse) -> None:
    browser = Browser()
    page = browser.get(house.authorize(Asking()))
    assert house.said(browser, page).url.startswith(house.login)
    assert house.said(browser, page).status == 400


def test_code_injection_a_login_that_comes_back_to_another_browser_ends_there(house: BrokerHouse) -> None:
    attacker, victim = Browser(stop=f"{house.at}/oauth/callback"), Browser()
    page = house.said(attacker, attacker.get(house.authorize(Asking())))
    sent_back = house.logged_in(attacker, page).url
    assert sent_back.startswith(f"{house.at}/oauth/callback")
    victim.get(house.authorize(Asking()))
    assert victim.get(sent_back).status == 400


def test_a_login_comes_back_once_and_a_made_up_state_never(house: BrokerHouse) -> None:
    browser = Browser(stop=f"{house.at}/oauth/callback")
    sent_back = house.logged_in(browser, house.said(browser, browser.get(house.authorize(Asking())))).url
    browser._stop = "http://127.0.0.1:33418/"
    assert "code=" in browser.get(sent_back).url
    assert browser.get(sent_back).status == 400
    assert browser.get(f"{house.at}/oauth/callback?state={'x' * 43}&code=abc").status == 400


def test_mix_up_an_answer_that_names_another_issuer_is_refused_before_its_code_is_used(house: BrokerHouse) -> None:
    browser = Browser(stop=f"{house.at}/oauth/callback")
    sent_back = house.logged_in(browser, house.said(browser, browser.get(house.authorize(Asking())))).url
    mixed = sent_back.replace(urlencode({"iss": house.login}), urlencode({"iss": "https://evil.example"}))
    assert mixed != sent_back
    browser._stop = "http://127.0.0.1:33418/"
    answer = browser.get(mixed)
    assert answer.status == 400
    assert "another issuer" in answer.text


# --- codes and tokens --------------------------------------------------------------------------


def test_a_code_is_for_its_client_its_address_its_verifier_and_this_resource(house: BrokerHouse) -> None:
    for changes, error in (
        ({"code_verifier": "x" * 43}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:1/back"}, "invalid_grant"),
        ({"resource": "https://other.example"}, "invalid_target"),
        ({"client_id": "unknown"}, "invalid_client"),
        ({"code_verifier": ""}, "invalid_grant"),
    ):
        asking = Asking()
        answer = house.redeemed(asking, house.code(asking), **changes)
        assert answer.status_code in (400, 401)
        assert answer.json()["error"] == error
        assert answer.headers["cache-control"] == "no-store"


def test_a_code_shown_twice_ends_everything_that_came_of_it(house: BrokerHouse) -> None:
    asking = Asking()
    code = house.code(asking)
    got = house.redeemed(asking, code).json()
    assert called(house, got["access_token"])[0] == 200
    assert house.redeemed(asking, code).json()["error"] == "invalid_grant"
    assert called(house, got["access_token"])[0] == 401
    assert house.refreshed(got["refresh_token"]).json()["error"] == "invalid_grant"


def test_refresh_replay_ends_the_login_for_thief_and_owner(house: BrokerHouse) -> None:
    got = house.tokens()
    second = house.refreshed(got["refresh_token"]).json()
    assert second["refresh_token"] != got["refresh_token"]
    assert called(house, second["access_token"])[0] == 200
    assert house.refreshed(got["refresh_token"]).json()["error"] == "invalid_grant"
    assert house.refreshed(second["refresh_token"]).json()["error"] == "invalid_grant"
    assert called(house, second["access_token"])[0] == 401


def test_a_refresh_token_is_for_its_client_and_never_gives_more(house: BrokerHouse) -> None:
    got = house.tokens()
    wider = house.refreshed(got["refresh_token"], scope="notes.read desk.write")
    assert wider.json()["error"] == "invalid_scope"
    registered = httpx2.post(
        f"{house.at}/oauth/register", json={"redirect_uris": ["http://127.0.0.1/x"]}, trust_env=False
    ).json()
    assert house.refreshed(got["refresh_token"], registered["client_id"]).json()["error"] == "invalid_grant"
    assert house.refreshed(got["refresh_token"]).json()["error"] == "invalid_grant", "who showed it had stolen it"


def test_a_revoked_token_ends_its_login_and_another_clients_token_is_left_alone(house: BrokerHouse) -> None:
    for kind in ("refresh_token", "access_token"):
        got = house.tokens()
        url, form = f"{house.at}/oauth/revoke", {"token": got[kind], "client_id": "desktop"}
        stranger = httpx2.post(
            f"{house.at}/oauth/register", json={"redirect_uris": ["http://127.0.0.1/x"]}, trust_env=False
        ).json()["client_id"]
        other = httpx2.post(url, data={**form, "client_id": stranger}, trust_env=False)
        assert (other.status_code, called(house, got["access_token"])[0]) == (200, 200)
        assert httpx2.post(url, data=form, trust_env=False).status_code == 200
        assert called(house, got["access_token"])[0] == 401
        assert house.refreshed(got["refresh_token"]).json()["error"] == "invalid_grant"
    assert httpx2.post(url, data={**form, "token": "made up"}, trust_env=False).status_code == 200


def test_a_login_from_before_a_person_was_stopped_is_worth_nothing_for_good(house: BrokerHouse) -> None:
    carol, got = house.tokens(account="carol-at-login"), house.tokens()
    config = ("--config", house.company.config)
    stopped = said("revoke", "person", "carol", "--tenant", "acme", "--reason", "a test", *config)
    assert stopped.code == 0, stopped.err
    refused = house.refreshed(carol["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    _, denied = called(house, carol["access_token"])
    assert denied["_meta"]["onbehalf/denial"]["code"] == "blocked"
    assert said("revoke", "lift", "1", *config).code == 0
    time.sleep(0.1)
    again = house.refreshed(carol["refresh_token"])
    assert again.json()["error"] == "invalid_grant", "a refresh must not make a login young again"
    assert house.refreshed(got["refresh_token"]).status_code == 200


# --- clients that register ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://evil.example/back"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://a.example/#x"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://u@a.example/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://a.example/"], "client_name": "x" * 101}, "invalid_client_metadata"),
        ({"redirect_uris": ["https://a.example/"], "grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"redirect_uris": ["https://a.example/"], "token_endpoint_auth_method": "private_key_jwt"},
         "invalid_client_metadata"),
        ([], "invalid_client_metadata"),
    ],
)  # fmt: skip
def test_a_client_that_must_not_be_is_not_registered(house: BrokerHouse, document: Any, error: str) -> None:
    answer = httpx2.post(f"{house.at}/oauth/register", json=document, trust_env=False)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_a_registered_client_is_public_and_its_name_is_shown_as_a_claim_of_its_own(house: BrokerHouse) -> None:
    name = "Claude<script>\u202e"
    asked = {"redirect_uris": ["https://a.example/back"], "client_name": name,
             "token_endpoint_auth_method": "client_secret_post"}  # fmt: skip
    answer = httpx2.post(f"{house.at}/oauth/register", json=asked, trust_env=False)
    assert answer.status_code == 201
    assert answer.json()["token_endpoint_auth_method"] == "none"
    assert "client_secret" not in answer.json()
    asking = Asking(client_id=answer.json()["client_id"], redirect_uri="https://a.example/back")
    page = Browser().get(house.authorize(asking))
    assert "<script>" not in page.text
    assert "Claude&lt;script&gt;\\u202e" in page.text
    assert "nobody checked it" in page.text
    assert "a.example" in page.text


def test_no_token_of_another_kind_is_an_access_token_here(house: BrokerHouse) -> None:
    got = house.tokens()
    header, payload, signature = got["access_token"].split(".")
    for token in (got["refresh_token"], f"{header}.{payload}.", f"{header}.{payload}.{signature[:-4]}AAAA"):
        assert called(house, token)[0] == 401
    assert called(house, house.company.token())[0] == 401, "an issuer that the settings do not have"
