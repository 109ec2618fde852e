"""Which published keys are fit, and the published vectors of the standards through the same code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from identify.minting import ISSUER, NOW, RESOURCE, RULE, jwks, key_for, public, unb64
from onbehalf.errors import SignatureMismatch, TokenMalformed, WrongType
from onbehalf.identify import KeysRefused, Peeked, peek, public_keys, verify
from onbehalf.model import Presented

VECTORS = json.loads((Path(__file__).parent / "vectors" / "jws.json").read_text())


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_a_published_vector_s_signature_fits_and_one_changed_bit_of_it_does_not(name: str) -> None:
    token, algorithm = VECTORS[name]["token"].encode(), VECTORS[name]["algorithm"]
    key = public_keys(jwks({**VECTORS[name]["jwk"], "kid": "vector"}), issuer=ISSUER)["vector"]
    signing_input, _, mark = token.rpartition(b".")
    signature = unb64(mark)

    def check(signing_input: bytes, signature: bytes) -> None:
        parts = Peeked(
            claimed_issuer=ISSUER, key_id="vector", algorithm=algorithm, type="", token=token,
            signing_input=signing_input, signature=signature, claimed={},
        )  # fmt: skip
        verify(parts, rule=RULE, key=key, audience=RESOURCE, now=NOW)

    with pytest.raises(WrongType):  # the check after the signature's: these are no access tokens
        check(signing_input, signature)
    for place in range(0, len(signature), 7):
        with pytest.raises(SignatureMismatch):
            check(signing_input, signature[:place] + bytes([signature[place] ^ 1]) + signature[place + 1 :])
    with pytest.raises(SignatureMismatch):
        check(signing_input + b"A", signature)


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_a_published_vector_is_no_token_for_us(name: str) -> None:
    with pytest.raises(TokenMalformed):
        peek(Presented(token=VECTORS[name]["token"]))


def fit(*keys: dict[str, Any]) -> set[str]:
    return set(public_keys(jwks(*keys), issuer=ISSUER))


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"])
def test_a_key_is_fit_for_its_own_algorithm(algorithm: str) -> None:
    key = public_keys(jwks(public(algorithm, alg=algorithm)), issuer=ISSUER)[algorithm]
    assert algorithm in key.algorithms
    assert key.issuer == ISSUER


def test_an_rsa_key_that_names_an_algorithm_is_for_no_other() -> None:
    assert public_keys(jwks(public("RS256", alg="PS256")), issuer=ISSUER)["RS256"].algorithms == {"PS256"}
    assert public_keys(jwks(public("RS256")), issuer=ISSUER)["RS256"].algorithms == {"RS256", "PS256"}


@pytest.mark.parametrize(
    "flaw",
    [
        {"use": "enc"}, {"use": None}, {"key_ops": ["sign"]}, {"key_ops": "verify"}, {"key_ops": []}, {"kid": None},
        {"kid": ""}, {"kid": 7}, {"kid": "x" * 256}, {"alg": "RS384"}, {"alg": "ES256"}, {"alg": None}, {"kty": "rsa"},
        {"kty": "EC"}, {"kty": "oct"}, {"kty": None}, {"n": ""}, {"n": 5}, {"n": "!"}, {"e": "AQ"}, {"e": "AA"},
        {"e": "Ag"}, {"d": "AQAB"}, {"n": "A" * 2049},
    ],
)  # fmt: skip
def test_an_unfit_key_is_left_out(flaw: dict[str, Any]) -> None:
    assert fit(public("RS256") | flaw, public("ES256")) == {"ES256"}


@pytest.mark.filterwarnings("ignore:Key size should be")
def test_a_short_or_huge_rsa_key_is_left_out() -> None:
    short = RSAKey.generate_key(1024, {"kid": "short"}).as_dict(private=False)
    assert fit(short, public("ES256")) == {"ES256"}
    number = (b"\xff" * 1025)[:1025]
    huge = {"kty": "RSA", "kid": "huge", "e": "AQAB", "n": OctKey.import_key(number).as_dict()["k"]}
    assert fit(huge, public("ES256")) == {"ES256"}


@pytest.mark.parametrize("curve", ["P-384", "P-521", "secp256k1"])
def test_a_key_on_another_curve_is_left_out(curve: Any) -> None:
    assert fit(ECKey.generate_key(curve, {"kid": "other"}).as_dict(private=False), public("ES256")) == {"ES256"}


def test_an_edwards_key_of_another_kind_is_left_out() -> None:
    for curve in ("Ed448", "X25519"):
        other = OKPKey.generate_key(curve, {"kid": "other"}).as_dict(private=False)
        assert fit(other, public("ES256")) == {"ES256"}


def test_a_point_off_the_curve_is_left_out() -> None:
    good = public("ES256")
    assert fit(good | {"x": good["y"], "kid": "off"}, good) == {"ES256"}


def test_a_symmetrical_key_is_left_out() -> None:
    assert fit(OctKey.generate_key(256, {"kid": "secret"}).as_dict(), public("ES256")) == {"ES256"}


def test_a_private_key_is_left_out() -> None:
    for algorithm in ("RS256", "ES256", "EdDSA"):
        leaked = key_for(algorithm).as_dict(private=True) | {"kid": "leaked"}
        assert fit(leaked, public("PS256")) == {"PS256"}


def test_a_key_id_that_stands_twice_is_no_key_at_all() -> None:
    twin, third = public("RS256", kid="ES256"), public("EdDSA", kid="ES256")
    assert fit(public("ES256"), twin, public("PS256")) == {"PS256"}
    assert fit(public("ES256"), twin, third, public("PS256")) == {"PS256"}


def test_an_encryption_key_may_share_a_signature_key_s_id() -> None:
    assert fit(public("RS256", "enc", kid="ES256", use="enc"), public("ES256")) == {"ES256"}


def test_a_set_without_a_fit_key_is_empty() -> None:
    assert fit() == set()
    assert fit(OctKey.generate_key(256, {"kid": "secret"}).as_dict()) == set()


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": [], "keys": []}', b"\xef\xbb\xbf" + b'{"keys": []}']
)
def test_a_document_that_is_no_strict_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(KeysRefused):
        public_keys(document, issuer=ISSUER)


def test_a_set_of_more_than_64_keys_is_refused() -> None:
    assert len(public_keys(jwks(*(public("ES256", kid=str(n)) for n in range(64))), issuer=ISSUER)) == 64
    with pytest.raises(KeysRefused):
        public_keys(jwks(*(public("ES256", kid=str(n)) for n in range(65))), issuer=ISSUER)


def test_members_that_are_no_objects_are_left_out() -> None:
    document = json.dumps({"keys": [1, None, "x", [], public("ES256")]}).encode()
    assert set(public_keys(document, issuer=ISSUER)) == {"ES256"}
