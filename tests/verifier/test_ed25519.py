"""Ed25519 as the verifier checks it: what the gateway's library takes, and nothing that anybody could have signed."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from onbehalf.verifier import ed25519

P = 2**255 - 19
ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
SMALL = (0, 1, P - 1, ORDER_8, P - ORDER_8)
IDENTITY = (1).to_bytes(32, "little")
NOBODYS = IDENTITY + bytes(32)
"""Verifies under a key of small order for one message in eight or more, by RFC 8032's own equation."""


def points() -> list[bytes]:
    """All encodings of points of small order, those that RFC 8032 refuses among them."""
    spelled = [*SMALL] + [y + P for y in SMALL if y + P < 2**255]
    return [(y | sign << 255).to_bytes(32, "little") for y in spelled for sign in (0, 1)]


def taken(key: bytes, signature: bytes, said: bytes) -> bool:
    try:
        ed25519.verify(key, signature, said)
    except InvalidSignature:
        return False
    return True


def taken_by_libsodium(key: bytes, signature: bytes, said: bytes) -> bool:
    try:
        VerifyKey(key).verify(said, signature)
    except CryptoError:
        return False
    return True


@given(st.binary(max_size=200), st.binary(min_size=32, max_size=32))
def test_a_signature_verifies_by_its_key_over_what_was_signed_and_no_more(said: bytes, seed: bytes) -> None:
    own, other = Ed25519PrivateKey.from_private_bytes(seed), Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1")
    public, signature = own.public_key().public_bytes_raw(), own.sign(said)
    assert taken(public, signature, said)
    assert not taken(public, signature, said + b"\0")
    assert not taken(public, other.sign(said + b"\1"), said)


@pytest.mark.parametrize("key", points(), ids=bytes.hex)
def test_under_a_key_with_which_anybody_can_sign_nothing_verifies(key: bytes) -> None:
    forged = [said for said in map(b"%d".__mod__, range(200)) if openssl_takes(key, said)]
    assert not any(taken(key, NOBODYS, said) for said in forged)
    assert not any(taken_by_libsodium(key, NOBODYS, said) for said in forged)


def test_openssl_alone_would_take_what_nobody_signed() -> None:
    assert openssl_takes(IDENTITY, b"pay everybody")
    assert sum(openssl_takes(key, b"%d" % said) for key in points() for said in range(20)) > 60


def test_a_signature_whose_first_half_is_of_small_order_does_not_verify() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    assert not taken(key, NOBODYS, b"a")
    assert not taken_by_libsodium(key, NOBODYS, b"a")


def openssl_takes(key: bytes, said: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(NOBODYS, said)
    except InvalidSignature:
        return False
    return True


BASE = bytes.fromhex("5866666666666666666666666666666666666666666666666666666666666666")
"""The base point of RFC 8032, and with the scalar 1 a signature under the neutral point over anything at all."""


@pytest.mark.parametrize("key", points(), ids=bytes.hex)
def test_a_key_of_small_order_is_refused_also_where_the_signature_is_not(key: bytes) -> None:
    signature = BASE + (1).to_bytes(32, "little")
    assert not any(taken(key, signature, b"%d" % each) for each in range(64))


def test_points_of_small_order_and_second_spellings_are_those_and_no_more() -> None:
    assert not any(ed25519._of_large_order(each) for each in points())
    for y in (*SMALL, P, P + 1, P + 18):
        assert not ed25519._of_large_order(y.to_bytes(32, "little"))
    others = {y + step for y in SMALL for step in (-1, 1) if 0 <= y + step < P} - {*SMALL}
    for y in (*others, 7, 2**254 + 1, P - 2):
        for sign in (0, 1):
            assert ed25519._of_large_order((y | sign << 255).to_bytes(32, "little"))
    assert ed25519._of_large_order(BASE)
