"""The demo issuer: what it gives, and everything it must refuse."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jws, jwt
from joserfc.jwk import KeySet
from starlette.testclient import TestClient

from onbehalf.demo.data import world
from onbehalf.demo.issuer import build
from onbehalf.demo.oauth_state import redirect_allowed, redirect_matches

URL = "http://127.0.0.1:8110"
RESOURCE = "http://127.0.0.1:8100/mcp"
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
REDIRECT = "http://127.0.0.1:5555/callback"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Browser:
    """A client and its person's browser in one."""

    def __init__(self) -> None:
        self.clock = Clock()
        app = build(URL, world().people, [RESOURCE], clock=self.clock)
        self.http = TestClient(app, base_url=URL, follow_redirects=False)
        answer = self.http.post("/register", json={"redirect_uris": [REDIRECT], "client_name": "<b>Tester</b>"})
        assert answer.status_code == 201, answer.text
        self.client_id = answer.json()["client_id"]

    def asked(self, **changes: str | None) -> dict[str, str]:
        asked = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": REDIRECT,
            "state": "s/ &=1",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "resource": RESOURCE,
            "scope": "reviews.read",
            **changes,
        }
        return {key: value for key, value in asked.items() if value is not None}

    def page(self, **changes: str | None) -> Any:
        return self.http.get("/authorize", params=self.asked(**changes))

    def login(self, subject: str = "u-1001", **changes: str | None) -> Any:
        page = self.page(**changes)
        name = re.search(r'name="login" value="([^"]+)"', page.text)
        assert name, page.text
        return self.http.post("/authorize", data={"login": name[1], "subject": subject}, headers={"origin": URL})

    def code(self, subject: str = "u-1001") -> str:
        return query(self.login(subject))["code"]

    def token(self, **changes: str | None) -> Any:
        asked = {
            "grant_type": "authorization_code",
            "client_id": self.client_id,
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER,
            "resource": RESOURCE,
            **changes,
        }
        return self.http.post("/token", data={key: value for key, value in asked.items() if value is not None})

    def refresh(self, token: str, **changes: str) -> Any:
        asked = {"grant_type": "refresh_token", "refresh_token": token, "client_id": self.client_id, **changes}
        return self.http.post("/token", data=asked)


def query(answer: Any) -> dict[str, str]:
    assert answer.status_code == 303, answer.text
    return {key: values[0] for key, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


@pytest.fixture
def browser() -> Browser:
    return Browser()


def test_metadata_is_at_both_places_and_asks_for_pkce(browser: Browser) -> None:
    one = browser.http.get("/.well-known/oauth-authorization-server").json()
    assert one == browser.http.get("/.well-known/openid-configuration").json()
    assert one["issuer"] == URL
    assert one["code_challenge_methods_supported"] == ["S256"]
    assert one["authorization_response_iss_parameter_supported"] is True


def test_a_login_gives_an_access_token_as_rfc_9068_wants_it(browser: Browser) -> None:
    back = query(browser.login())
    assert back["state"] == "s/ &=1"
    assert back["iss"] == URL
    answer = browser.token(code=back["code"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    keys = KeySet.import_key_set(browser.http.get("/jwks.json").json())
    assert "d" not in browser.http.get("/jwks.json").json()["keys"][0]
    token = jwt.decode(answer.json()["access_token"], keys, algorithms=["ES256"])
    assert token.header["typ"] == "at+jwt"
    assert token.claims["iss"] == URL
    assert token.claims["sub"] == "u-1001"
    assert token.claims["aud"] == RESOURCE
    assert token.claims["exp"] - token.claims["iat"] == 600
    assert token.claims["tenant"] == "acme"
    assert token.claims["client_id"] == browser.client_id
    assert token.claims["scope"] == answer.json()["scope"] == "reviews.read"
    assert token.claims["jti"]


def test_the_login_page_is_loud_and_has_no_script(browser: Browser) -> None:
    page = browser.page()
    assert page.status_code == 200
    assert "DEMO ISSUER: no passwords, never use for real" in page.text
    assert page.text.index("<legend>acme") < page.text.index("<legend>globex")
    assert page.text.count("Alice Ngo") == 2
    assert "<b>Tester</b>" not in page.text
    assert "<script" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "form-action 'self' http://127.0.0.1:5555" in policy
    style = re.search(r"<style>(.*?)</style>", page.text, re.S)
    assert style
    hashed = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{hashed}'" in policy


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": "demo-unknown"},
        {"client_id": None},
        {"redirect_uri": "http://127.0.0.1:5555/other"},
        {"redirect_uri": "https://evil.example/callback"},
        {"redirect_uri": "http://127.0.0.1:5555@evil.example/callback"},
        {"redirect_uri": None},
    ],
    ids=lambda changes: "-".join(f"{key}" for key in changes),
)
def test_an_unknown_client_or_address_gets_a_page_and_never_a_redirect(
    browser: Browser, changes: dict[str, str | None]
) -> None:
    answer = browser.page(**changes)
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"resource": None}, "invalid_target"),
        ({"resource": "http://127.0.0.1:8100/other"}, "invalid_target"),
        ({"scope": "reviews.read admin"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
    ids=["no-challenge", "plain", "no-method", "no-resource", "other-resource", "unknown-scope", "implicit"],
)
def test_a_request_that_is_not_whole_is_refused(browser: Browser, changes: dict[str, str | None], error: str) -> None:
    told = query(browser.page(**changes))
    assert told["error"] == error
    assert told["iss"] == URL
    assert told["state"] == "s/ &=1"


def test_a_parameter_given_twice_is_refused(browser: Browser) -> None:
    pairs = [*browser.asked().items(), ("resource", RESOURCE)]
    assert browser.http.get("/authorize", params=pairs).status_code == 400


def test_the_port_of_a_loopback_address_may_differ(browser: Browser) -> None:
    assert browser.page(redirect_uri="http://127.0.0.1:61234/callback").status_code == 200


def test_the_form_counts_only_in_the_browser_that_asked(browser: Browser) -> None:
    page = browser.page()
    name = re.search(r'name="login" value="([^"]+)"', page.text)
    assert name
    form = {"login": name[1], "subject": "u-1001"}
    assert browser.http.post("/authorize", data=form, headers={"origin": "http://evil.example"}).status_code == 400
    browser.http.cookies.clear()
    assert browser.http.post("/authorize", data=form).status_code == 400


def test_a_form_counts_once(browser: Browser) -> None:
    page = browser.page()
    name = re.search(r'name="login" value="([^"]+)"', page.text)
    assert name
    form = {"login": name[1], "subject": "u-1001"}
    assert browser.http.post("/authorize", data={**form, "subject": "u-9"}).status_code == 400
    assert browser.http.post("/authorize", data=form).status_code == 303
    assert browser.http.post("/authorize", data=form).status_code == 400


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": "w" * 64}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:5556/callback"}, "invalid_grant"),
        ({"client_id": "demo-other"}, "invalid_grant"),
        ({"resource": None}, "invalid_target"),
        ({"resource": "http://127.0.0.1:8100/other"}, "invalid_target"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"code": "guess"}, "invalid_grant"),
    ],
    ids=["verifier", "no-verifier", "redirect", "client", "no-resource", "resource", "grant", "code"],
)
def test_a_wrong_token_request_is_refused(browser: Browser, changes: dict[str, str | None], error: str) -> None:
    answer = browser.token(**{"code": browser.code(), **changes})
    assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_a_code_used_twice_ends_the_whole_login(browser: Browser) -> None:
    code = browser.code()
    first = browser.token(code=code).json()
    assert browser.token(code=code).json()["error"] == "invalid_grant"
    assert browser.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_code_spent_on_a_wrong_verifier_is_gone(browser: Browser) -> None:
    code = browser.code()
    assert browser.token(code=code, code_verifier="w" * 64).status_code == 400
    assert browser.token(code=code).status_code == 400


def test_a_code_is_over_after_a_minute(browser: Browser) -> None:
    code = browser.code()
    browser.clock.now += 61
    assert browser.token(code=code).json()["error"] == "invalid_grant"


def test_a_refresh_token_is_replaced_and_using_the_old_one_ends_the_login(browser: Browser) -> None:
    first = browser.token(code=browser.code()).json()
    second = browser.refresh(first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert jws.extract_compact(second["access_token"].encode()).headers()["typ"] == "at+jwt"
    assert browser.refresh(first["refresh_token"]).json()["error"] == "invalid_grant"
    assert browser.refresh(second["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_refresh_token_serves_its_own_client_and_resource_only(browser: Browser) -> None:
    token = browser.token(code=browser.code()).json()["refresh_token"]
    assert browser.refresh(token, client_id="demo-other").json()["error"] == "invalid_grant"
    assert browser.refresh(token, resource="http://127.0.0.1:1/").json()["error"] == "invalid_target"
    assert browser.refresh(token).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"redirect_uris": []},
        {"redirect_uris": "http://127.0.0.1/"},
        {"redirect_uris": ["http://evil.example/callback"]},
        {"redirect_uris": ["javascript:alert(1)"]},
        {"redirect_uris": [REDIRECT + "#x"]},
        {"redirect_uris": [REDIRECT] * 11},
        {"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "client_secret_basic"},
    ],
)
def test_a_client_that_is_not_a_public_one_with_a_safe_address_is_not_registered(
    browser: Browser, body: dict[str, Any]
) -> None:
    assert browser.http.post("/register", json=body).status_code == 400


def test_bodies_and_hosts_are_bounded(browser: Browser) -> None:
    assert browser.http.post("/register", content=b"x" * 20_000).status_code == 413
    assert browser.http.get("/jwks.json", headers={"host": "evil.example"}).status_code == 400


def test_registrations_do_not_grow_without_end(browser: Browser) -> None:
    for _ in range(501):
        browser.http.post("/register", json={"redirect_uris": [REDIRECT]})
    assert browser.page().status_code == 400, "the oldest client was dropped"


def test_redirect_addresses_are_compared_exactly_but_for_a_loopback_port() -> None:
    assert redirect_matches("http://localhost:1/cb", "http://localhost:2/cb")
    assert not redirect_matches("http://localhost:1/cb", "http://127.0.0.1:1/cb")
    assert not redirect_matches("https://a.example/cb", "https://a.example:8443/cb")
    assert not redirect_matches("http://127.0.0.1:1/cb", "http://127.0.0.1:2/cb?x=1")
    assert redirect_allowed("cursor://anysphere.cursor-retrieval/oauth/callback")
    assert not redirect_allowed("http://127.0.0.1;x/cb")
    assert not redirect_allowed("x;script-src://a/")
