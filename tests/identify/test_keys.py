"""Which published keys are fit, and the published vectors of the standards through the same code."""

from __future__ import annotations

import json
import random
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey, import_key

from identify.minting import ISSUER, NOW, RESOURCE, RULE, all_keys, b64, jwks, key_for, public, unb64
from onbehalf.errors import AlgorithmRefused, SignatureMismatch, TokenMalformed, WrongType
from onbehalf.identify import KeysRefused, Peeked, peek, public_keys, verify
from onbehalf.model import Presented

_VECTORS = Path(__file__).parent / "vectors"
VECTORS = json.loads((_VECTORS / "jws.json").read_text())
REFUSED = json.loads((_VECTORS / "jws_refused.json").read_text())
"""Published signatures that are good, of algorithms that nobody may use here."""


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


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_published_vector_of_another_algorithm_is_good_and_refused(name: str) -> None:
    token, algorithm, jwk = (REFUSED[name][each] for each in ("token", "algorithm", "jwk"))
    if algorithm != "none":
        assert jws.deserialize_compact(token, import_key(jwk), algorithms=[algorithm])
    assert fit({**jwk, "kid": "vector"}) <= {"vector"}, "an RSA key is fit for what it is used for here"
    signing_input, _, mark = token.encode().rpartition(b".")
    for key in (*all_keys().values(), *public_keys(jwks({**jwk, "kid": "vector"}), issuer=ISSUER).values()):
        parts = Peeked(
            claimed_issuer=ISSUER, key_id=key.key_id, algorithm=algorithm, type="at+jwt", token=token.encode(),
            signing_input=signing_input, signature=unb64(mark), claimed={},
        )  # fmt: skip
        for allowed in (RULE, msgspec.structs.replace(RULE, algorithms=("RS256", "PS256", "ES256", "EdDSA"))):
            with pytest.raises(AlgorithmRefused):
                verify(parts, rule=allowed, key=key, audience=RESOURCE, now=NOW)


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


@cache
def weak_prime(bits: int, small: int, seed: int) -> int:
    """A prime as the library of CVE-2017-15361 made them: a power of 65537 modulo the product of small primes."""
    dice, product = random.Random(seed), prod(number for number in range(2, small + 1) if _prime(number))
    while True:
        candidate = dice.getrandbits(bits - product.bit_length()) * product + pow(65537, dice.getrandbits(64), product)
        if candidate.bit_length() == bits and _prime(candidate):
            return candidate


def _prime(number: int) -> bool:
    if number < 1000:
        return number > 1 and all(number % divisor for divisor in range(2, number))
    return all(pow(base, number - 1, number) == 1 for base in (2, 3, 5))


def test_a_key_that_can_be_factored_for_how_it_was_made_is_left_out() -> None:
    """ROCA (CVE-2017-15361). A modulus beside it, as long and not made so, is fit."""
    modulus = weak_prime(1028, 701, 1) * weak_prime(1028, 701, 2)

    def of(number: int) -> dict[str, Any]:
        return {"kty": "RSA", "kid": "it", "e": "AQAB", "n": b64(number.to_bytes(257, "big").lstrip(b"\0"))}

    assert fit(of(modulus)) == set()
    assert fit(of(modulus + 2)) == {"it"}


@pytest.mark.parametrize("curve", ["P-384", "P-521", "secp256k1"])
def test_a_key_on_another_curve_is_left_out(curve: Any) -> None:
    assert fit(ECKey.generate_key(curve, {"kid": "other"}).as_dict(private=False), public("ES256")) == {"ES256"}


def test_an_edwards_key_of_another_kind_is_left_out() -> None:
    for curve in ("Ed448", "X25519"):
        other = OKPKey.generate_key(curve, {"kid": "other"}).as_dict(private=False)
        assert fit(other, public("ES256")) == {"ES256"}


@pytest.mark.parametrize("y", [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, 2**255 - 1], ids=hex)
def test_an_edwards_key_with_which_anybody_can_sign_is_left_out(y: int) -> None:
    for sign in (0, 1):
        bare = {"kty": "OKP", "crv": "Ed25519", "kid": "nobodys", "x": b64((y | sign << 255).to_bytes(32, "little"))}
        assert fit(bare, public("ES256")) == {"ES256"}


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
