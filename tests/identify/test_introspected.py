"""What an issuer says about a token, by plain values: which answers prove a caller, and why others do not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identify.minting import ISSUER, NOW, RESOURCE, RULE, all_keys, claims, key_for, mint
from onbehalf.config import TenantClaim
from onbehalf.errors import (
    AlgorithmRefused,
    AnswerRefused,
    ClaimRefused,
    IdentifyError,
    ProofMissing,
    SignatureMismatch,
    TenantRefused,
    TokenExpired,
    TokenInactive,
    TokenMalformed,
    TokenNotYetValid,
    TokenTooLarge,
    UnknownIssuer,
    WrongAudience,
)
from onbehalf.identify import is_opaque, opaque_text, peek, read_answer, verify_answer, verify_introspected
from onbehalf.model import Caller, Json, Presented, UnixTime, digest

TOKEN = "2YotnFZFEjr1zCsicMWpAA"
CLIENT = "gateway"


def told(answer: dict[str, Any], *, rule: Any = RULE, now: int = NOW) -> Caller:
    return verify_introspected(answer, token=TOKEN, rule=rule, key="", audience=RESOURCE, now=UnixTime(now))


def active(**changes: Any) -> dict[str, Any]:
    return claims(**{"active": True, "token_type": "Bearer", **changes})


def test_an_active_token_of_this_gateway_proves_its_caller_and_says_how() -> None:
    caller = told(active())
    assert (caller.subject, caller.tenant, caller.client, caller.scopes) == (
        "alice", "acme", "claude", frozenset({"reviews.read"}),
    )  # fmt: skip
    evidence = caller.evidence
    assert (evidence.algorithm, evidence.key, evidence.issuer) == ("introspection", "", ISSUER)
    assert evidence.token == digest(TOKEN.encode())
    assert TOKEN not in repr(caller)


@pytest.mark.parametrize("word", ["true", 1, "yes", None, [], {}, [True]])
def test_only_true_is_active(word: Json) -> None:
    answer = active()
    answer["active"] = word
    with pytest.raises(AnswerRefused):
        told(answer)


def test_without_a_word_on_it_nothing_is_active() -> None:
    with pytest.raises(AnswerRefused):
        told(active(active=None))
    with pytest.raises(TokenInactive):
        told({"active": False})
    with pytest.raises(TokenInactive):
        told(active(active=False))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"iss": "https://login.globex.example"}, UnknownIssuer),
        ({"iss": ISSUER + "/"}, UnknownIssuer),
        ({"iss": [ISSUER]}, UnknownIssuer),
        ({"aud": "https://other.example/mcp"}, WrongAudience),
        ({"aud": RESOURCE + "/"}, WrongAudience),
        ({"aud": []}, WrongAudience),
        ({"aud": None}, ClaimRefused),
        ({"aud": {"0": RESOURCE}}, ClaimRefused),
        ({"exp": None}, ClaimRefused),
        ({"exp": str(NOW + 300)}, ClaimRefused),
        ({"exp": NOW + 300.5}, ClaimRefused),
        ({"exp": NOW - 30, "iat": NOW - 100}, TokenExpired),
        ({"iat": None}, ClaimRefused),
        ({"iat": NOW + 31, "exp": NOW + 300}, TokenNotYetValid),
        ({"nbf": NOW + 31}, TokenNotYetValid),
        ({"sub": None}, ClaimRefused),
        ({"sub": ""}, ClaimRefused),
        ({"sub": "alice\u200b"}, ClaimRefused),
        ({"client_id": None}, ClaimRefused),
        ({"scope": ["reviews.read"]}, ClaimRefused),
        ({"cnf": {"jkt": "x"}}, ProofMissing),
        ({"token_type": "DPoP", "cnf": {"jkt": "x"}}, ProofMissing),
        ({"token_type": "DPoP"}, ClaimRefused),
        ({"token_type": "Refresh"}, ClaimRefused),
        ({"token_type": ["Bearer"]}, ClaimRefused),
        ({"act": "robot"}, ClaimRefused),
        ({"act": {"sub": "robot", "iss": "https://login.globex.example"}}, ClaimRefused),
    ],
)
def test_the_claims_of_an_answer_are_under_the_rules_of_a_signed_token(
    changes: dict[str, Any], error: type[IdentifyError]
) -> None:
    with pytest.raises(error):
        told(active(**changes))


def test_the_issuer_and_the_kind_need_not_be_told_and_actors_are_kept() -> None:
    assert told(active(iss=None, token_type=None)).evidence.issuer == ISSUER
    assert told(active(token_type="bearer", act={"sub": "robot"})).actors == ("robot",)


def test_an_answer_speaks_for_the_issuers_own_tenants_only() -> None:
    rule = msgspec.structs.replace(RULE, tenant=TenantClaim(claim="org", allowed=("acme",)))
    assert told(active(org="acme"), rule=rule).tenant == "acme"
    for org in ("globex", None, ["acme"]):
        with pytest.raises(TenantRefused):
            told(active(org=org), rule=rule)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*active(), "cnf", "act", "nbf"]), st.none() | st.booleans() | st.text()))
def test_no_answer_breaks_anything_and_none_without_our_audience_proves_anybody(changes: dict[str, Any]) -> None:
    answer = {**active(), **changes}
    try:
        caller = told(answer)
    except IdentifyError:
        return
    assert answer["active"] is True
    assert answer["aud"] == RESOURCE
    assert caller.tenant == "acme"


# --- what may be asked about ---------------------------------------------------------------


@pytest.mark.parametrize("text", [TOKEN, "a", "v1.local.abc", "a.b.c", "tok_123==", "a.b.c.d.e", "eyJhbGciOiJub25lIn0"])
def test_what_names_no_issuer_is_opaque(text: str) -> None:
    assert is_opaque(Presented(token=text))
    assert opaque_text(Presented(token=text)) == text


def test_whatever_begins_like_a_jwt_is_not_shown_to_anybody_however_broken_it_is() -> None:
    good = mint()
    head, payload, signature = good.split(".")
    for text in (
        good, f"{head}.{payload}", f"{head}.", f"{head}.{payload}.{signature}.x.y", f"{head}.{payload[:-3]}!.x",
        f"eyJ!.{payload}.{signature}", f"ewogImFsZyI6Im5vbmUifQ.{payload}.", "",
    ):  # fmt: skip
        assert not is_opaque(Presented(token=text)), text


@pytest.mark.parametrize("text", ["a b", "a\n", "a\x00", "=", "a=b", "schön", "a&token=b", "a%20", '"a"', "a,b"])
def test_what_is_no_b64token_is_not_asked_about(text: str) -> None:
    with pytest.raises(TokenMalformed):
        opaque_text(Presented(token=text))


def test_a_token_of_any_length_is_not_asked_about() -> None:
    assert opaque_text(Presented(token="a" * 4096))
    with pytest.raises(TokenTooLarge):
        opaque_text(Presented(token="a" * 4097))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"true", b'{"active": true, "active": false}', b"[" * 5000, b'{"a":' * 17 + b"1" + b"}" * 17, b"\xff"],
)
def test_an_answer_that_can_be_read_in_two_ways_is_none(body: bytes) -> None:
    with pytest.raises(AnswerRefused):
        read_answer(body)


# --- answers that are signed (RFC 9701) ----------------------------------------------------


def signed(body: dict[str, Any] | None = None, **header: Any) -> str:
    good = {"iss": ISSUER, "aud": CLIENT, "iat": NOW, "token_introspection": active()} | (body or {})
    header = {"typ": "token-introspection+jwt", **header}
    return mint({name: value for name, value in good.items() if value is not None}, **header)


def answered(text: str) -> Any:
    peeked = peek(Presented(token=text))
    return verify_answer(peeked, rule=RULE, key=all_keys()[peeked.key_id], client=CLIENT, now=NOW)


def test_a_signed_answer_for_this_gateway_is_read() -> None:
    for text in (signed(), signed({"aud": [CLIENT]}), signed(typ="application/Token-Introspection+JWT")):
        assert told(answered(text)).subject == "alice"


@pytest.mark.parametrize("typ", [None, "JWT", "at+jwt", "secevent+jwt", "token-introspection"])
def test_nothing_else_that_the_issuer_signs_is_an_answer(typ: str | None) -> None:
    with pytest.raises(AnswerRefused):
        answered(signed(typ=typ))


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"}, {"aud": RESOURCE}, {"aud": [CLIENT, "another"]}, {"aud": None}, {"iat": NOW - 61},
        {"iat": NOW + 31}, {"token_introspection": None}, {"token_introspection": "x"}, {"token_introspection": [1]},
    ],
)  # fmt: skip
def test_a_signed_answer_for_another_client_or_of_another_time_is_none(changes: dict[str, Any]) -> None:
    with pytest.raises(AnswerRefused):
        answered(signed(changes))


def test_a_signed_answer_without_its_time_is_none() -> None:
    with pytest.raises(ClaimRefused):
        answered(signed({"iat": None}))


def test_an_answer_that_somebody_else_signed_is_none() -> None:
    with pytest.raises(SignatureMismatch):
        answered(signed(key=key_for("ES256", "attacker")))
    with pytest.raises(UnknownIssuer):
        answered(signed({"iss": "https://login.globex.example"}))
    with pytest.raises(AlgorithmRefused):
        answered(signed(alg="none"))


def test_a_signed_answer_is_no_access_token() -> None:
    from onbehalf.errors import WrongType
    from onbehalf.identify import verify

    peeked = peek(Presented(token=signed(claims(aud=RESOURCE))))
    with pytest.raises(WrongType):
        verify(peeked, rule=RULE, key=all_keys()[peeked.key_id], audience=RESOURCE, now=NOW)
