"""A token that was had for an upstream is compared with what it was had for, and not believed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identify.minting import NOW, RESOURCE, claims, mint, prove
from onbehalf.act.bearer import BearerUnfit, check_bearer, wanted_of
from onbehalf.model import UnixTime

API = "https://api.example"


def written(payload: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.c2ln"


def jwt_of(**said: Any) -> str:
    return written(json.dumps(said).encode())


def checked(token: str, *wanted: str) -> UnixTime | None:
    return check_bearer(token, gateway=RESOURCE, wanted=wanted, now=UnixTime(NOW))


@pytest.mark.parametrize("aud", [RESOURCE, [RESOURCE], [API, RESOURCE], f"{RESOURCE}/", [API, [], f"{RESOURCE}/"]])
def test_token_passthrough_a_token_for_the_gateway_itself_is_not_handed_on(aud: Any) -> None:
    for wanted in ((), (API,), (RESOURCE,)):
        with pytest.raises(BearerUnfit, match="this gateway"):
            checked(jwt_of(aud=aud), *wanted)


@pytest.mark.parametrize("aud", ["https://other.example", ["https://other.example"], [], "", None, 5, {API: API}])
def test_mix_up_a_token_that_names_another_audience_than_was_asked_for_is_not_handed_on(aud: Any) -> None:
    with pytest.raises(BearerUnfit, match="another API"):
        checked(jwt_of(aud=aud), API)
    assert checked(jwt_of(aud=aud)) is None  # nothing is known of whom it should name


@pytest.mark.parametrize("aud", [API, f"{API}/", ["https://other.example", API]])
def test_a_token_for_what_was_asked_for_is_handed_on(aud: Any) -> None:
    assert checked(jwt_of(aud=aud, exp=NOW + 60), API) == NOW + 60
    assert checked(jwt_of(aud=aud), "urn:by-another-name", API) is None


def test_a_token_without_an_audience_is_handed_on() -> None:
    assert checked(jwt_of(exp=NOW + 60), API) == NOW + 60


@pytest.mark.parametrize("exp", [NOW - 30, NOW - 30.5, 0, -1])
def test_a_token_that_is_over_is_not_handed_on(exp: float) -> None:
    with pytest.raises(BearerUnfit, match="over"):
        checked(jwt_of(aud=API, exp=exp), API)


def test_clocks_may_disagree_by_30_s_on_its_end() -> None:
    assert checked(jwt_of(exp=NOW - 29)) == NOW - 29


@pytest.mark.parametrize("exp", ["later", None, True, [1]])
def test_an_end_that_is_no_time_says_nothing(exp: Any) -> None:
    assert checked(jwt_of(aud=API, exp=exp), API) is None


@pytest.mark.parametrize(
    "token",
    [
        "opaque", "a.b", "a.b.c.d.e", "..", "e30.!.c2ln", written(b"[]"), written(b'{"aud": 1'),
        written(b'{"exp": 1, "exp": 1}'), written(b'{"a":' * 17 + b"1" + b"}" * 17),
    ],
)  # fmt: skip
def test_a_token_that_cannot_be_read_passes_as_it_is(token: str) -> None:
    assert checked(token, API) is None


def test_whatever_names_the_gateway_so_that_it_would_be_taken_there_is_not_handed_on() -> None:
    for aud in (RESOURCE, [API, RESOURCE]):
        token = mint(claims(aud=aud))
        assert prove(token).subject == "alice"
        with pytest.raises(BearerUnfit, match="this gateway"):
            checked(token)


@given(payload=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_break_the_look_and_no_word_of_them_stands_in_what_is_said(payload: bytes) -> None:
    said = ""
    try:
        checked(written(payload), API)
    except BearerUnfit as error:
        said = str(error).removeprefix("the token that was given for it is ")
    assert said in ("", "over", "for another API", "for this gateway, too")


def test_what_is_configured_of_an_audience_goes_before_what_was_asked_for() -> None:
    assert wanted_of("urn:theirs", API, "") == {"urn:theirs"}
    assert wanted_of("", API, "") == {API}
    assert wanted_of("", "") == frozenset()
