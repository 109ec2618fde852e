# ruff: noqa: E501  # what is told reads best in one line
"""Every reason why a Security Event Token is not believed, one by one, and what one that is tells."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from identify import minting
from identify.events import ALICE, AUDIENCE, REVOKED, STREAM, claims, key_of, mint, proven, stream
from identify.minting import ALGORITHMS, ISSUER, NOW, b64, key_for, prove
from onbehalf.errors import (
    AlgorithmRefused,
    ClaimRefused,
    IdentifyError,
    SignatureMismatch,
    TokenExpired,
    TokenMalformed,
    TokenNotYetValid,
    TokenTooLarge,
    UnknownIssuer,
    UnknownKey,
    WrongAudience,
    WrongType,
)
from onbehalf.identify import peek, read_subject
from onbehalf.model import Presented
from onbehalf.model_signals import Identifier, Signal, Subject

WHO = Identifier(format="iss_sub", issuer=ISSUER, id="alice-at-login")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_set_is_a_signal(algorithm: str) -> None:
    signal = proven(mint(claims(jti="one"), algorithm=algorithm), key=key_of(algorithm=algorithm))
    assert (signal.issuer, signal.id, signal.issued_at, signal.key) == (ISSUER, "one", NOW - 2, algorithm)
    [event] = signal.events
    assert (event.type, event.at, event.subject) == (REVOKED, NOW - 5, Subject(who=(WHO,)))


def test_an_unsigned_set_is_refused() -> None:
    head, body, _ = mint().split(".")
    with pytest.raises(TokenMalformed):
        peek(Presented(token=f"{head}.{body}."))


@pytest.mark.parametrize("name", ["none", "None", "NONE"])
def test_a_set_with_alg_none_is_refused(name: str) -> None:
    with pytest.raises(AlgorithmRefused):
        peek(Presented(token=mint(alg=name)))


def test_a_set_under_hs256_with_the_public_key_as_secret_is_refused() -> None:
    pem = key_for("RS256").public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[union-attr]
    head, body, _ = mint(algorithm="RS256", alg="HS256").split(".")
    mac = hmac.new(pem, f"{head}.{body}".encode(), hashlib.sha256).digest()
    with pytest.raises(AlgorithmRefused):
        proven(f"{head}.{body}.{b64(mac)}", key=key_of(algorithm="RS256"))


def test_a_set_under_an_algorithm_that_is_not_the_streams_is_refused() -> None:
    with pytest.raises(AlgorithmRefused):
        proven(mint(), of=stream(algorithms=("RS256",)))


@pytest.mark.parametrize("type_", ["at+jwt", "JWT", "secevent", "logout+jwt", None])
def test_another_token_than_a_set_is_refused_as_one(type_: str | None) -> None:
    with pytest.raises(WrongType):
        proven(mint(typ=type_))


def test_an_access_token_of_the_same_issuer_is_no_set() -> None:
    with pytest.raises(WrongType):
        proven(minting.mint(minting.claims(aud=AUDIENCE)))


@pytest.mark.parametrize("types", [("at+jwt",), ("JWT", "at+jwt")])
def test_a_set_of_the_same_issuer_is_no_access_token(types: tuple[str, ...]) -> None:
    body = minting.claims(jti="x", events={REVOKED: {}})  # all that an access token has, and a SET's own
    rule = minting.IssuerSettings(issuer=ISSUER, tenant="acme", token_types=types)
    with pytest.raises(WrongType):
        prove(mint(body), rule=rule)


@pytest.mark.parametrize("name", ["application/secevent+jwt", "SecEvent+JWT"])
def test_the_type_may_be_spelled_as_media_types_are(name: str) -> None:
    assert proven(mint(typ=name)).issuer == ISSUER


def test_another_issuer_whose_key_has_the_same_id_is_refused() -> None:
    other = "https://evil.example"
    token = mint(claims(iss=other), key=key_for("ES256", "evil"))
    with pytest.raises(UnknownIssuer):
        proven(token, key=key_of(other, name="evil"))
    with pytest.raises(UnknownIssuer):
        proven(mint(), key=key_of(other))
    with pytest.raises(SignatureMismatch):
        proven(mint(key=key_for("ES256", "evil")))
    with pytest.raises(UnknownKey):
        proven(mint(kid="other"))


@pytest.mark.parametrize(("changes", "refusal"), [
    ({"aud": "https://other.example"}, WrongAudience), ({"aud": []}, WrongAudience), ({"aud": None}, ClaimRefused),
    ({"aud": [AUDIENCE, 1]}, ClaimRefused), ({"aud": AUDIENCE + "/"}, WrongAudience),
    ({"iat": NOW + 31}, TokenNotYetValid), ({"iat": 2**60}, ClaimRefused), ({"iat": None}, ClaimRefused),
    ({"iat": float(NOW)}, ClaimRefused), ({"iat": True}, ClaimRefused), ({"iat": NOW - 1_209_601}, TokenExpired),
    ({"jti": None}, ClaimRefused), ({"jti": ""}, ClaimRefused), ({"jti": 1}, ClaimRefused), ({"jti": "x" * 256}, ClaimRefused),
    ({"jti": "a\u202eb"}, ClaimRefused), ({"sub": "alice"}, ClaimRefused), ({"exp": NOW + 9}, ClaimRefused),
    ({"events": None}, ClaimRefused), ({"events": {}}, ClaimRefused), ({"events": [REVOKED]}, ClaimRefused),
    ({"events": {REVOKED: None}}, ClaimRefused), ({"events": {"session-revoked": {}}}, ClaimRefused),
    ({"events": {f"{REVOKED}{n}": {} for n in range(9)}}, ClaimRefused), ({"sub_id": None}, ClaimRefused),
    ({"sub_id": "alice"}, ClaimRefused), ({"sub_id": {}}, ClaimRefused), ({"events": {REVOKED: {"subject": ALICE}}}, ClaimRefused),
])  # fmt: skip
def test_a_claim_that_is_not_as_it_must_be_is_refused(changes: dict[str, Any], refusal: type[IdentifyError]) -> None:
    with pytest.raises(refusal):
        proven(mint(claims(**changes)))


@pytest.mark.parametrize("age", [-30, 0, 1_209_600])
def test_a_set_of_any_age_within_the_window_is_taken(age: int) -> None:
    assert proven(mint(claims(iat=NOW - age))).issued_at == NOW - age


@pytest.mark.parametrize(("told", "at"), [
    (NOW - 60, NOW - 60), (NOW - 60.5, NOW - 60), (None, NOW - 2), ("soon", NOW - 2), (True, NOW - 2), (NOW + 900, NOW - 2),
    (NOW * 1000, NOW - 2), (0, NOW - 2), (-1, NOW - 2), ({}, NOW - 2),
])  # fmt: skip
def test_an_event_is_at_its_timestamp_if_that_can_be_and_else_when_it_was_told(told: Any, at: int) -> None:
    [event] = proven(mint(claims(REVOKED, {"event_timestamp": told}))).events
    assert event.at == at


def test_older_drafts_tell_the_subject_in_the_event() -> None:
    [event] = proven(mint(claims(REVOKED, {"subject": ALICE}, sub_id=None))).events
    assert event.subject == Subject(who=(WHO,))


@pytest.mark.parametrize(("told", "read"), [
    ({"format": "opaque", "id": "7"}, Subject(who=(Identifier(format="opaque", id="7"),))),
    ({"format": "email", "email": "a@acme.example"}, Subject(who=(Identifier(format="email", id="a@acme.example"),))),
    ({"format": "phone_number", "phone_number": "+1"}, Subject(unread=("phone_number",))),
    ({"format": "made-up", "x": {"y": 1}}, Subject(unread=("made-up",))),
    ({"format": "aliases", "identifiers": [ALICE, {"format": "did", "url": "did:x"}]}, Subject(who=(WHO,), unread=("did",))),
    ({"format": "complex", "user": ALICE, "session": {"format": "opaque", "id": "s"}}, Subject(who=(WHO,), members=frozenset({"session"}))),
    ({"format": "complex", "tenant": {"format": "opaque", "id": "t"}}, Subject(tenant="t")),
    ({"format": "complex", "group": {"format": "scim", "uri": "x"}}, Subject(members=frozenset({"group"}))),
])  # fmt: skip
def test_a_subject_is_read_in_its_format(told: Any, read: Subject) -> None:
    assert read_subject(told) == read


@pytest.mark.parametrize("told", [
    None, [], "x", {}, {"format": 1}, {"format": "iss_sub", "iss": ISSUER}, {**ALICE, "email": "b@acme.example"},
    {"format": "email", "email": "nobody"}, {"format": "email", "email": "a@b@c"}, {"format": "email", "email": "@"},
    {"format": "opaque", "id": ""}, {"format": "opaque", "id": "x" * 256}, {"format": "opaque", "id": ["x"]},
    {"format": "opaque", "id": "a\u200bb"}, {"format": "aliases", "identifiers": []},
    {"format": "aliases", "identifiers": [ALICE] * 17}, {"format": "aliases", "identifiers": [{"format": "aliases", "identifiers": [ALICE]}]},
    {"format": "complex"}, {"format": "complex", "user": "alice"}, {"format": "complex", "tenant": {"format": "email", "email": "a@b"}},
    {"format": "complex", **{f"m{n}": {} for n in range(17)}},
])  # fmt: skip
def test_a_subject_that_could_be_read_in_two_ways_is_refused(told: Any) -> None:
    with pytest.raises(ClaimRefused):
        read_subject(told)


def test_a_giant_set_is_refused_before_it_is_taken_apart() -> None:
    with pytest.raises(TokenTooLarge):
        peek(Presented(token=mint(claims(reason="x" * 20_000))))


def test_a_deeply_nested_set_is_refused() -> None:
    deep: Any = {}
    for _ in range(40):
        deep = {"a": deep}
    with pytest.raises(TokenMalformed):
        peek(Presented(token=mint(claims(REVOKED, deep))))


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
@settings(max_examples=300, deadline=None)
def test_no_changed_byte_of_a_set_is_believed(place: int, byte: int) -> None:
    good = mint(claims(jti="fixed"))
    changed = bytearray(good.encode())
    changed[place % len(changed)] = byte
    if changed != good.encode():
        with pytest.raises(IdentifyError):
            proven(changed.decode("latin-1"))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8) | st.sampled_from(["iss_sub", "email", "complex", "aliases"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["format", "iss", "sub", "email", "id", "user", "tenant", "identifiers", "session"]), inner, max_size=5
    ),
    max_leaves=12,
)  # fmt: skip


@given(_JSON)
@settings(max_examples=500, deadline=None)
def test_any_subject_is_read_or_refused_and_nothing_else(told: Any) -> None:
    try:
        found = read_subject(told)
    except ClaimRefused:
        return
    assert found == read_subject(json.loads(json.dumps(told)))
    assert found.who or found.unread or found.tenant or found.members


@given(
    st.dictionaries(st.sampled_from(["iss", "aud", "iat", "jti", "sub_id", "events", "sub", "exp"]), _JSON, max_size=8)
)
@settings(max_examples=300, deadline=None)
def test_any_signed_claims_are_a_signal_or_refused(changes: dict[str, Any]) -> None:
    try:
        signal = proven(mint({**claims(), **changes}))
    except IdentifyError:
        return
    assert isinstance(signal, Signal)
    assert signal.issuer == STREAM.issuer
