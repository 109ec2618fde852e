"""Signatures that are none (RFC 8725 sections 2.1, 3.1 and 3.4): forged, edged, stretched, or of another scheme."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc.jwk import RSAKey

from identify.minting import ISSUER, all_keys, b64, jwks, key_for, mint, prove, unb64
from onbehalf.errors import IdentifyError
from onbehalf.identify import public_keys

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
EDGES = (0, 1, 2, ORDER - 1, ORDER, ORDER + 1, 2**256 - 1)


def with_signature(token: str, change: Callable[[bytes], bytes]) -> str:
    head, _, mark = token.rpartition(".")
    return f"{head}.{b64(change(unb64(mark.encode())))}"


@pytest.mark.parametrize("r", EDGES)
@pytest.mark.parametrize("s", EDGES)
def test_psychic_signatures_no_edge_of_r_and_s_signs_anything(r: int, s: int) -> None:
    with pytest.raises(IdentifyError):
        prove(with_signature(mint(), lambda _: r.to_bytes(32, "big") + s.to_bytes(32, "big")))


def test_an_ecdsa_signature_in_der_or_padded_or_cut_is_refused() -> None:
    def der(mark: bytes) -> bytes:
        return encode_dss_signature(int.from_bytes(mark[:32], "big"), int.from_bytes(mark[32:], "big"))

    changes: list[Callable[[bytes], bytes]] = [
        der, lambda mark: mark[:32] + b"\0" + mark[32:], lambda mark: b"\0" + mark[:32] + b"\0" + mark[32:],
        lambda mark: mark[:-1], lambda mark: mark + b"\0", lambda mark: mark[32:] + mark[:32], lambda mark: mark[:32],
        lambda mark: b"\0" * 64 + mark,
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(IdentifyError):
            prove(with_signature(mint(), change))


def test_an_rsa_signature_that_is_longer_shorter_or_not_reduced_is_refused() -> None:
    numbers = key_for("RS256").raw_value.public_key().public_numbers()  # type: ignore[union-attr]  # it is an RSA key

    def shifted(mark: bytes) -> bytes:
        value = int.from_bytes(mark, "big") + numbers.n
        return value.to_bytes((value.bit_length() + 7) // 8, "big")

    changes: list[Callable[[bytes], bytes]] = [
        lambda mark: b"\0" + mark, lambda mark: mark + b"\0", lambda mark: mark[1:], lambda mark: mark[:-1], shifted,
        lambda _: (1).to_bytes(256, "big"), lambda _: (0).to_bytes(256, "big"),
        lambda _: (numbers.n - 1).to_bytes(256, "big"), lambda _: numbers.n.to_bytes(256, "big"),
    ]  # fmt: skip
    for algorithm in ("RS256", "PS256"):
        for change in changes:
            with pytest.raises(IdentifyError):
                prove(with_signature(mint(algorithm=algorithm), change))


@pytest.mark.parametrize("salt", [0, 20, 31, 33, 64, 222])
def test_a_pss_signature_with_a_salt_of_another_length_is_another_scheme(salt: int) -> None:
    def of(mgf: Any, digest: Any, length: int) -> str:
        said = mint(algorithm="PS256").rpartition(".")[0]
        private: Any = key_for("PS256").raw_value
        mark = private.sign(said.encode(), padding.PSS(mgf=padding.MGF1(mgf), salt_length=length), digest)
        return f"{said}.{b64(mark)}"

    prove(of(hashes.SHA256(), hashes.SHA256(), 32))
    for mgf, digest, length in (
        (hashes.SHA256(), hashes.SHA256(), salt), (hashes.SHA1(), hashes.SHA256(), 32),
        (hashes.SHA256(), hashes.SHA384(), 32), (hashes.SHA512(), hashes.SHA512(), 32),
    ):  # fmt: skip
        with pytest.raises(IdentifyError):
            prove(of(mgf, digest, length))


def test_signatures_of_one_rsa_scheme_are_none_of_the_other() -> None:
    for name, other in (("RS256", "PS256"), ("PS256", "RS256")):
        token = mint(algorithm=name, alg=other, kid=other, key=key_for(name))
        keys = {other: all_keys()[other]}
        with pytest.raises(IdentifyError):
            prove(token, keys=keys)


def pkcs1(prefix: bytes, size: int) -> bytes:
    """What a signature is the cube root of, where the padding is only looked at from the front."""
    return prefix + b"\0" * (size - len(prefix))


def test_a_forged_cube_root_under_exponent_three_is_refused() -> None:
    """Bleichenbacher's forgery: with `e` 3, whoever reads the padding loosely takes a cube root for a signature."""
    private = rsa.generate_private_key(public_exponent=3, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
    key = RSAKey.import_key(pem)
    keys = public_keys(jwks({**key.as_dict(private=False), "kid": "three", "use": "sig"}), issuer=ISSUER)
    assert set(keys) == {"three"}, "an exponent of three is weak only where the check is"
    prove(mint(algorithm="RS256", kid="three", key=key), keys=keys)
    said = mint(algorithm="RS256", kid="three", key=key).rpartition(".")[0]
    about = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(said.encode()).digest()
    for front in (b"\x00\x01\xff\x00", b"\x00\x01" + b"\xff" * 8 + b"\x00", b"\x00\x01\x00"):
        wanted = int.from_bytes(pkcs1(front + about, 256), "big")
        root = _cube_root(wanted) + 1
        assert (root**3).to_bytes(256, "big").startswith(front + about)
        with pytest.raises(IdentifyError):
            prove(f"{said}.{b64(root.to_bytes(256, 'big'))}", keys=keys)


def _cube_root(value: int) -> int:
    low, high = 0, 1 << (value.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= value else (low, middle - 1)
    return low


def test_an_ed25519_signature_with_a_second_spelling_of_s_is_refused() -> None:
    order = 2**252 + 27742317777372353535851937790883648493

    def raised(mark: bytes) -> bytes:
        return mark[:32] + (int.from_bytes(mark[32:], "little") + order).to_bytes(32, "little")

    for change in (raised, lambda mark: mark[:32] + b"\0" * 32, lambda mark: mark + b"\0", lambda _: b"\0" * 64):
        with pytest.raises(IdentifyError):
            prove(with_signature(mint(algorithm="EdDSA"), change))


# --- paddings that are not the one padding -----------------------------------------------------

OID = bytes.fromhex("300d06096086480165030402010500")
"""AlgorithmIdentifier of SHA-256, with its NULL."""


def _info(digest: bytes, *, algorithm: bytes = OID, tail: bytes = b"") -> bytes:
    inner = algorithm + b"\x04" + bytes([len(digest)]) + digest + tail
    return b"\x30" + bytes([len(inner)]) + inner


def _block(
    info: bytes, *, start: bytes = b"\0\1", fill: bytes = b"\xff", end: bytes = b"\0", after: bytes = b""
) -> bytes:
    room = 256 - len(start) - len(end) - len(info) - len(after)
    return start + fill * room + end + info + after


def _paddings(digest: bytes) -> dict[str, bytes]:
    """By what is wrong with it: what an owner of the key could sign, and no verifier may take."""
    good = _info(digest)
    no_null = bytes.fromhex("300b0609608648016503040201")
    sha1 = bytes.fromhex("300906052b0e03021a0500")
    sha512 = bytes.fromhex("300d06096086480165030402030500")
    long_form = b"\x30\x81" + good[1:]
    indefinite = b"\x30\x80" + good[2:] + b"\0\0"
    return {
        "block type 0": _block(good, start=b"\0\0", fill=b"\0"), "block type 2": _block(good, start=b"\0\2"),
        "first byte not zero": _block(good, start=b"\1\1"), "zeros for padding": _block(good, fill=b"\0"),
        "one byte of padding flipped": _block(good)[:9] + b"\xfe" + _block(good)[10:],
        "no separator": _block(good, end=b""), "separator not zero": _block(good, end=b"\1"),
        "two separators": _block(good, end=b"\0\0"), "bytes after the digest": _block(good, after=b"\0"),
        "short padding, and a tail": b"\0\1" + b"\xff" * 8 + b"\0" + good + b"\0" * (256 - 11 - len(good)),
        "no NULL": _block(_info(digest, algorithm=no_null)),
        "a NULL of one byte": _block(_info(digest, algorithm=OID[:-1] + b"\1\0")),
        "SHA-1's name": _block(_info(digest, algorithm=sha1)),
        "SHA-512's name": _block(_info(digest, algorithm=sha512)),
        "SHA-1": _block(_info(hashlib.sha1(digest, usedforsecurity=False).digest(), algorithm=sha1)),
        "a digest that is cut": _block(_info(digest[:31])), "a digest that is longer": _block(_info(digest + b"\0")),
        "a second member": _block(_info(digest, tail=b"\5\0")), "length in long form": _block(long_form),
        "length left open": _block(indefinite), "the digest alone": _block(digest),
        "the wrong tag": _block(b"\x31" + good[1:]), "a digest of something else": _block(_info(digest[::-1])),
        "nothing but padding": b"\0\1" + b"\xff" * 254,
        "an octet string of another tag": _block(good.replace(b"\x04 ", b"\x03 ")),
    }  # fmt: skip


PADDINGS = sorted(_paddings(b"\0" * 32))


def _raised(block: bytes, algorithm: str = "RS256") -> bytes:
    """The signature under which exactly this block comes out, by the private key."""
    numbers: Any = key_for(algorithm).raw_value
    private = numbers.private_numbers()
    value = int.from_bytes(block, "big") % private.public_numbers.n
    return int(pow(value, private.d, private.public_numbers.n)).to_bytes(256, "big")


@pytest.mark.parametrize("how", PADDINGS)
def test_a_padding_that_is_not_the_one_padding_is_refused_though_the_key_signed_it(how: str) -> None:
    said = mint(algorithm="RS256").rpartition(".")[0]
    digest = hashlib.sha256(said.encode()).digest()
    prove(f"{said}.{b64(_raised(_block(_info(digest))))}")
    with pytest.raises(IdentifyError):
        prove(f"{said}.{b64(_raised(_paddings(digest)[how]))}")


def _mask(seed: bytes, length: int) -> bytes:
    whole = b"".join(hashlib.sha256(seed + counter.to_bytes(4, "big")).digest() for counter in range(8))
    return whole[:length]


def _pss(
    digest: bytes,
    *,
    salt: bytes = b"s" * 32,
    zeros: int = 8,
    one: bytes = b"\1",
    trailer: bytes = b"\xbc",
    top: int = 0,
) -> bytes:
    hashed = hashlib.sha256(b"\0" * zeros + digest + salt).digest()
    data = b"\0" * (256 - 32 - 1 - len(one) - len(salt)) + one + salt
    masked = bytearray(a ^ b for a, b in zip(data, _mask(hashed, len(data)), strict=True))
    masked[0] = (masked[0] & 0x7F) | top
    return bytes(masked) + hashed + trailer


@pytest.mark.parametrize(
    "flaw",
    [
        {"salt": b""}, {"salt": b"s" * 20}, {"salt": b"s" * 31}, {"salt": b"s" * 33}, {"salt": b"s" * 64}, {"zeros": 7},
        {"one": b"\2"}, {"one": b"\0"}, {"one": b"\1\1"}, {"trailer": b"\xcc"}, {"trailer": b"\xbd"},
    ],
)  # fmt: skip
def test_a_pss_block_with_another_salt_trailer_or_mask_is_refused_though_the_key_signed_it(
    flaw: dict[str, Any],
) -> None:
    said = mint(algorithm="PS256").rpartition(".")[0]
    digest = hashlib.sha256(said.encode()).digest()
    prove(f"{said}.{b64(_raised(_pss(digest), 'PS256'))}")
    with pytest.raises(IdentifyError):
        prove(f"{said}.{b64(_raised(_pss(digest, **flaw), 'PS256'))}")


# --- ECDSA: other pairs for the same statement -------------------------------------------------


def test_whatever_is_done_to_r_and_s_but_their_one_mirror_signs_nothing() -> None:
    """ECDSA has two signatures for one nonce, `s` and its mirror: the same person and words, so nothing is gained."""
    token = mint()
    mark = unb64(token.rpartition(".")[2].encode())
    r, s = int.from_bytes(mark[:32], "big"), int.from_bytes(mark[32:], "big")

    def of(one: int, two: int) -> str:
        return with_signature(token, lambda _: one.to_bytes(32, "big") + two.to_bytes(32, "big"))

    assert prove(of(r, ORDER - s)).subject == "alice"
    for one, two in (
        (ORDER - r, s),
        (s, r),
        (r, r),
        (s, s),
        (r, 0),
        (0, s),
        (ORDER, s),
        (r, ORDER),
        (r ^ 1, s),
        (r, s ^ 1),
    ):
        with pytest.raises(IdentifyError):
            prove(of(one % 2**256, two % 2**256))
    for big in (r + ORDER, s + ORDER):
        if big < 2**256:
            with pytest.raises(IdentifyError):
                prove(of(big, s) if big == r + ORDER else of(r, big))
