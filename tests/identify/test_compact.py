"""What is no strict compact JWS is refused before any key is looked for, even under a true signature."""

from __future__ import annotations

import base64
import hmac
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jws import JWSRegistry

from identify.minting import HEADER, b64, claims, key_for, mint, prove, signed, unb64
from onbehalf.errors import AlgorithmRefused, IdentifyError, TokenMalformed, TokenMissing, TokenTooLarge
from onbehalf.identify import MAX_TOKEN_BYTES, peek
from onbehalf.model import Presented


def raw(*, header: bytes | None = None, payload: bytes | None = None) -> str:
    header = json.dumps(HEADER).encode() if header is None else header
    payload = json.dumps(claims()).encode() if payload is None else payload
    return signed(header, payload, key_for("ES256"), "ES256")


def assert_malformed(token: str) -> TokenMalformed:
    with pytest.raises(TokenMalformed) as refused:
        prove(token)
    assert len(token) < 9 or token not in str(refused.value)
    return refused.value


def test_a_good_token_is_taken_apart_and_nothing_of_it_is_shown() -> None:
    token = mint()
    peeked = peek(Presented(token=token))
    assert (peeked.algorithm, peeked.key_id, peeked.type) == ("ES256", "ES256", "at+jwt")
    assert not any(part in repr(peeked) for part in token.split("."))


def test_no_token_is_refused() -> None:
    with pytest.raises(TokenMissing):
        prove("")


def test_a_token_of_16_kib_passes_and_one_byte_more_is_refused() -> None:
    def of(filler: int) -> str:
        return mint(claims(filler="x" * filler))

    size = next(n for n in range(11_800, 12_300) if len(of(n)) >= MAX_TOKEN_BYTES - 1)
    assert len(of(size)) <= MAX_TOKEN_BYTES
    prove(of(size))
    with pytest.raises(TokenTooLarge):
        prove(of(size + 8))
    with pytest.raises(TokenTooLarge):
        prove("a" * (MAX_TOKEN_BYTES + 1))


def test_a_header_of_more_than_2_kib_is_refused() -> None:
    with pytest.raises(TokenTooLarge):
        prove(mint(x="y" * 2100))


@pytest.mark.parametrize("member", ["crit", "b64", "jwk", "jku", "x5u", "x5c"])
@pytest.mark.parametrize("value", [["exp"], "https://evil.example/keys", True, None, {}])
def test_a_header_that_brings_its_own_key_or_meaning_is_refused(member: str, value: Any) -> None:
    header = json.dumps({**HEADER, member: value}).encode()
    assert f"`{member}`" in str(assert_malformed(raw(header=header)))


def test_an_embedded_key_that_fits_the_signature_is_refused() -> None:
    own = key_for("ES256", "attacker")
    assert_malformed(mint(key=own, jwk=own.as_dict(private=False)))


@pytest.mark.parametrize("bad", [b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"[]", b"null", b"1", b"", b"{", b"{}x"])
def test_a_part_that_is_not_one_json_object_in_utf_8_is_refused(bad: bytes) -> None:
    assert_malformed(raw(header=bad))
    assert_malformed(raw(payload=bad))


def test_a_byte_order_mark_before_good_claims_is_refused() -> None:
    assert_malformed(raw(payload=b"\xef\xbb\xbf" + json.dumps(claims()).encode()))
    assert_malformed(raw(payload=json.dumps(claims()).encode("utf-16")))


@pytest.mark.parametrize("text", ['"x": NaN', '"x": Infinity', '"x": 1e999', '"x": "\\ud800"', '"x": 01', "'x': 1"])
def test_loose_json_is_refused(text: str) -> None:
    assert_malformed(raw(payload=json.dumps(claims())[:-1].encode() + f", {text}}}".encode()))


def test_bytes_that_are_no_utf_8_are_refused() -> None:
    assert_malformed(raw(payload=json.dumps(claims())[:-1].encode() + b', "x": "\xc3("}'))


def test_json_nested_too_deep_is_refused() -> None:
    assert_malformed(raw(payload=b'{"a":' * 17 + b"1" + b"}" * 17))
    assert_malformed(raw(payload=b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"))
    prove(mint(claims(brackets="[[[[[{{{{{" * 9)))


@pytest.mark.parametrize(
    "twice", ['"sub": "alice", "sub": "root"', '"x": {"y": 1, "y": 2}', '"x": [{"a": 1, "\\u0061": 2}]']
)
def test_a_duplicate_member_is_refused_at_any_depth(twice: str) -> None:
    body = json.dumps(claims(sub=None) if '"sub"' in twice else claims())[:-1] + f", {twice}}}"
    assert_malformed(raw(payload=body.encode()))


def test_the_library_alone_believes_a_duplicate_member_that_the_strict_reading_refuses() -> None:
    key = key_for("ES256")
    token = raw(payload=json.dumps(claims())[:-1].encode() + b', "sub": "root"}')
    assert jwt.decode(token, key, algorithms=["ES256"]).claims["sub"] == "root"
    assert_malformed(token)
    header = json.dumps(HEADER)[:-1].encode() + b', "kid": "ES256"}'
    assert jwt.decode(raw(header=header), key, algorithms=["ES256"]).claims["sub"] == "alice"
    assert_malformed(raw(header=header))


@pytest.mark.parametrize("part", [1, 2])
def test_a_second_spelling_of_the_same_bytes_is_refused(part: int) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    parts = next(of for n in range(3) if len((of := mint(claims(x="y" * n)).split("."))[1]) % 4)
    same = parts[part][:-1] + alphabet[alphabet.index(parts[part][-1]) + 1]
    assert base64.urlsafe_b64decode(same + "==") == base64.urlsafe_b64decode(parts[part] + "==")
    parts[part] = same
    assert_malformed(".".join(parts))


@pytest.mark.parametrize("bad", ["=", "==", " ", "\n", "\t", "+", "/", "\u00e4", "\udc80", "\x00", "%3D", "."])
def test_loose_base64_is_refused(bad: str) -> None:
    token = mint()
    head, body, mark = token.split(".")
    for altered in (f"{token}{bad}", f"{bad}{token}", f"{head}{bad}.{body}.{mark}", f"{head}.{bad}{body}.{mark}"):
        with pytest.raises(IdentifyError):
            prove(altered)


@given(st.text(st.sampled_from("AQgwBEIM_-+/=*z9 \n.\x7f\xff"), max_size=9))
@settings(max_examples=2000, deadline=None)
def test_a_signature_is_read_in_the_one_spelling_that_its_bytes_have(part: str) -> None:
    head, body, _ = mint().split(".")
    try:
        signature = peek(Presented(token=f"{head}.{body}.{part}")).signature
    except TokenMalformed:
        spelled = re.fullmatch("[A-Za-z0-9_-]+", part) and len(part) % 4 != 1 and b64(unb64(part.encode())) == part
        assert not spelled
    else:
        assert signature
        assert b64(signature) == part


@pytest.mark.parametrize("token", ["a", "a.b", "..", "a..c", ".b.c", "e30.e30.e30", "e30.e30.", "a.b.c.d", "a.b.c.d.e"])
def test_what_is_not_three_parts_with_a_header_is_refused(token: str) -> None:
    assert_malformed(token)


@pytest.mark.parametrize("kid", [None, "", 1, ["a"], "x" * 256, "a\nb"])
def test_a_token_without_a_usable_kid_is_refused_even_if_one_key_would_fit(kid: object) -> None:
    header = {name: value for name, value in {**HEADER, "kid": kid}.items() if value is not None}
    assert_malformed(raw(header=json.dumps(header).encode()))


@pytest.mark.parametrize("issuer", [None, "", 1, ["https://login.acme.example/realms/staff"], "x" * 2049])
def test_a_token_without_an_issuer_is_refused(issuer: object) -> None:
    assert_malformed(mint(claims(iss=issuer)))


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
def test_an_unsigned_token_is_refused(name: str) -> None:
    unsigned = f"{b64(json.dumps({**HEADER, 'alg': name}).encode())}.{b64(json.dumps(claims()).encode())}"
    assert_malformed(f"{unsigned}.")
    with pytest.raises(AlgorithmRefused):
        prove(f"{unsigned}.AAAA")


@pytest.mark.parametrize("name", ["HS256", "HS384", "HS512"])
def test_the_public_key_as_a_shared_secret_is_refused(name: str) -> None:
    for secret in (key_for("ES256").as_pem(private=False), json.dumps(key_for("ES256").as_dict(False)).encode()):
        signing_input = f"{b64(json.dumps({**HEADER, 'alg': name}).encode())}.{b64(json.dumps(claims()).encode())}"
        mark = hmac.digest(secret, signing_input.encode(), f"sha{name[2:]}")
        with pytest.raises(AlgorithmRefused):
            prove(f"{signing_input}.{b64(mark)}")
    assert name in JWSRegistry.algorithms  # it is the allow-list that refuses it, not what the library lacks
