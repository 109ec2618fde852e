"""What is asked of an issuer for a person's token, and which answers are taken."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from onbehalf.act.bearer import BearerUnfit
from onbehalf.act.exchange import ExchangeRefused, LoginNeeded, asked, denied, taken
from onbehalf.config_upstreams import ExchangeSettings
from onbehalf.model import UnixTime

NOW = UnixTime(1_800_000_000)
GATEWAY = "https://gateway.example/mcp"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
RULE = ExchangeSettings(
    issuer="https://login.example", client_id="g", client_secret="env:S", audience="orders", resource="urn:orders",
    scope="read write",
)  # fmt: skip
ENTRA = ExchangeSettings(
    issuer="https://login.example", client_id="g", client_secret="env:S", grant="entra", scope="api://orders/.default"
)
GOOD = {"access_token": "a.b.c", "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 300}


def jwt_for(*audience: str, **more: Any) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    aud: Any = audience[0] if len(audience) == 1 else [*audience]
    return f"{part({'alg': 'RS256'})}.{part({'aud': aud, **more})}.c2ln"


def answer(**changes: Any) -> dict[str, Any]:
    """A good answer; a change to None leaves a member out."""
    return {name: value for name, value in {**GOOD, **changes}.items() if value is not None}


def test_an_exchange_asks_for_what_rfc_8693_names_and_holds_no_token() -> None:
    assert asked(RULE) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": ACCESS_TOKEN, "requested_token_type": ACCESS_TOKEN,
        "audience": "orders", "resource": "urn:orders", "scope": "read write",
    }  # fmt: skip


def test_entra_is_asked_in_its_own_form() -> None:
    assert asked(ENTRA) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "requested_token_use": "on_behalf_of",
        "scope": "api://orders/.default",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"token_type": "N_A"}, "bearer"),
        ({"token_type": "DPoP"}, "bearer"),
        ({"token_type": None}, "bearer"),
        ({"token_type": ["Bearer"]}, "bearer"),
        ({"issued_token_type": None}, "access token"),
        ({"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, "access token"),
        ({"issued_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "access token"),
        ({"access_token": None}, "bearer"),
        ({"access_token": ""}, "header"),
        ({"access_token": "a b"}, "header"),
        ({"access_token": "a\r\nX-User: root"}, "header"),
        ({"access_token": "é"}, "header"),
        ({"access_token": "a" * 16_385}, "header"),
        ({"scope": "read write admin"}, "wider"),
        ({"scope": "READ"}, "wider"),
        ({"scope": ["read"]}, "wider"),
        ({"expires_in": -1}, "seconds"),
        ({"expires_in": True}, "seconds"),
        ({"expires_in": 1.5}, "seconds"),
        ({"expires_in": "soon"}, "seconds"),
    ],
)
def test_an_answer_that_is_not_a_bearers_access_token_for_the_api_alone_is_refused(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ExchangeRefused, match=why):
        taken(answer(**changes), RULE, gateway=GATEWAY, now=NOW)


@pytest.mark.parametrize(
    "changes", [{}, {"scope": "read"}, {"scope": ""}, {"token_type": "bearer"}, {"access_token": jwt_for("urn:orders")}]
)
def test_a_good_answer_is_taken(changes: dict[str, Any]) -> None:
    assert taken(answer(**changes), RULE, gateway=GATEWAY, now=NOW).seconds == 300


@pytest.mark.parametrize(
    ("audience", "why"),
    [((GATEWAY,), "this gateway"), (("urn:orders", f"{GATEWAY}/"), "this gateway"), (("urn:others",), "another API")],
)
def test_a_readable_token_that_is_not_for_the_api_alone_is_refused(audience: tuple[str, ...], why: str) -> None:
    with pytest.raises(BearerUnfit, match=why):
        taken(answer(access_token=jwt_for(*audience)), RULE, gateway=GATEWAY, now=NOW)


def test_the_issuers_name_for_an_api_alone_says_nothing_of_the_audience_but_what_is_configured_does() -> None:
    named = structs.replace(RULE, resource="")
    found = answer(access_token=jwt_for("urn:others"))
    assert taken(found, named, gateway=GATEWAY, now=NOW).seconds == 300
    for rule in (named, RULE, ENTRA):
        assert taken(found, structs.replace(rule, token_audience="urn:others"), gateway=GATEWAY, now=NOW)
        with pytest.raises(BearerUnfit, match="another API"):
            taken(found, structs.replace(rule, token_audience="urn:orders"), gateway=GATEWAY, now=NOW)


def test_a_token_is_used_no_longer_than_it_says_itself() -> None:
    assert taken(answer(access_token=jwt_for("orders", exp=NOW + 90)), RULE, gateway=GATEWAY, now=NOW).seconds == 90
    assert taken(answer(access_token=jwt_for("orders", exp=NOW + 900)), RULE, gateway=GATEWAY, now=NOW).seconds == 300
    assert taken(answer(access_token=jwt_for("orders", exp=NOW - 9)), RULE, gateway=GATEWAY, now=NOW).seconds == 0


def test_a_slash_at_the_end_makes_no_other_gateway() -> None:
    with pytest.raises(BearerUnfit, match="this gateway"):
        taken(answer(access_token=jwt_for(GATEWAY)), RULE, gateway=f"{GATEWAY}/", now=NOW)


def test_a_life_that_is_not_told_is_a_minute_and_entras_may_be_text() -> None:
    assert taken(answer(expires_in=None), RULE, gateway=GATEWAY, now=NOW).seconds == 60
    told = answer(issued_token_type=None, expires_in="3599", scope="api://orders/Orders.Read")
    assert taken(told, ENTRA, gateway=GATEWAY, now=NOW).seconds == 3599


def test_entras_answer_for_this_gateway_is_refused_too() -> None:
    with pytest.raises(BearerUnfit, match="this gateway"):
        taken(answer(issued_token_type=None, access_token=jwt_for(GATEWAY)), ENTRA, gateway=GATEWAY, now=NOW)


@pytest.mark.parametrize(
    "said",
    [
        {"error": "interaction_required", "error_description": "AADSTS50079", "claims": '{"access_token":{}}'},
        {"error": "invalid_grant", "suberror": "consent_required"},
        {"error": "invalid_grant", "suberror": "basic_action"},
        {"error": "login_required"},
        {"error": "insufficient_user_authentication"},
    ],
)
def test_where_the_person_has_to_do_something_it_is_said_so(said: dict[str, Any]) -> None:
    assert isinstance(denied(said), LoginNeeded)


@pytest.mark.parametrize("said", [{"error": "invalid_grant"}, {"error": "invalid_target"}, {"error": 5}, {}])
def test_any_other_error_is_no_reason_to_log_in(said: dict[str, Any]) -> None:
    assert not isinstance(denied(said), LoginNeeded)


SECRET = "eyJhbGciOi.the.token"


@given(error=st.text() | st.just(SECRET), below=st.text() | st.just(SECRET))
def test_no_word_of_the_issuer_stands_in_a_message(error: str, below: str) -> None:
    said = {"error": f"x{error}", "suberror": below, "error_description": error, "claims": SECRET}
    assert str(denied(said)) in {
        "the issuer gave no token for the API: an unknown error",
        "the issuer wants the person to log in anew, more strongly, or to consent",
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner), max_leaves=4
)


@given(
    changes=st.dictionaries(st.sampled_from([*GOOD, "scope", "refresh_token"]), JSON),
    entra=st.booleans(),
    audience=st.lists(st.sampled_from([GATEWAY, "urn:orders", GATEWAY + "/"]), min_size=1),
)
@example(changes={}, entra=False, audience=[GATEWAY])
def test_whatever_is_answered_is_refused_or_good(changes: dict[str, Any], entra: bool, audience: list[str]) -> None:
    told = {**GOOD, "access_token": jwt_for(*audience), **changes}
    try:
        found = taken(told, ENTRA if entra else RULE, gateway=GATEWAY, now=NOW)
    except (ExchangeRefused, BearerUnfit):
        return
    assert found.token.isprintable()
    assert found.token.isascii()
    assert found.token == told["access_token"]
    if "access_token" not in changes:
        assert not {GATEWAY, GATEWAY + "/"} & set(audience)
    assert found.token not in repr(found)
