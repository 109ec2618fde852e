"""Cosignatures of C2SP tlog-cosignature, made here by hand: good ones are taken, and no byte of one may differ."""

from __future__ import annotations

import base64
import hashlib
import struct
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from onbehalf.verifier.cosign import WitnessKey, cosigned_at, message, witness_key, witness_vkey
from onbehalf.verifier.note import Checkpoint
from onbehalf.verifier.refused import Unusable

ED25519, ML_DSA_44 = 4, 6
ORIGIN, NAME, AT = "log.example/1", "witness.example", 1_790_000_000
ROOT = hashlib.sha256(b"root").digest()
ED = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ML = MLDSA44PrivateKey.from_seed_bytes(bytes(range(32)))


def public(kind: int) -> bytes:
    return ED.public_key().public_bytes_raw() if kind == ED25519 else ML.public_key().public_bytes_raw()


def id_of(kind: int) -> bytes:
    return hashlib.sha256(NAME.encode() + b"\n" + bytes([kind]) + public(kind)).digest()[:4]


def line(kind: int) -> str:
    return f"{NAME}+{id_of(kind).hex()}+{base64.b64encode(bytes([kind]) + public(kind)).decode()}"


def said(kind: int, size: int) -> bytes:
    """What is signed, spelled out by the specification's text."""
    if kind == ED25519:
        head = f"{ORIGIN}\n{size}\n{base64.b64encode(ROOT).decode()}\n"
        return b"cosignature/v1\n" + f"time {AT}\n".encode() + head.encode()
    parts = [b"subtree/v1\n\0", struct.pack("B", len(NAME)), NAME.encode(), struct.pack(">Q", AT)]
    parts += [struct.pack("B", len(ORIGIN)), ORIGIN.encode(), struct.pack(">QQ", 0, size), ROOT]
    return b"".join(parts)


def signed(kind: int, size: int = 7) -> bytes:
    signature = ED.sign(said(kind, size)) if kind == ED25519 else ML.sign(said(kind, size))
    return id_of(kind) + struct.pack(">Q", AT) + signature


def head(*signatures: tuple[str, bytes], size: int = 7) -> Checkpoint:
    return Checkpoint(size=size, root=ROOT, signatures=signatures)


@pytest.mark.parametrize("kind", [ED25519, ML_DSA_44])
def test_a_key_line_is_read_and_written_as_it_stands(kind: int) -> None:
    key = witness_key(line(kind) + "\n")
    assert key == WitnessKey(name=NAME, id=id_of(kind), kind=kind, public=public(kind))
    assert witness_vkey(NAME, kind, public(kind)) == line(kind)


@pytest.mark.parametrize("kind", [ED25519, ML_DSA_44])
def test_a_cosignature_by_the_witness_says_when(kind: int) -> None:
    other = ("other.example", b"\0" * 100)
    assert cosigned_at(head(other, (NAME, signed(kind))), witness_key(line(kind)), ORIGIN) == AT


@pytest.mark.parametrize("kind", [ED25519, ML_DSA_44])
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda it: replace(it, size=8), id="size"),
        pytest.param(lambda it: replace(it, root=bytes(32)), id="root"),
        pytest.param(lambda it: replace(it, signatures=_with(it, 4, 1)), id="time"),
        pytest.param(lambda it: replace(it, signatures=_with(it, 11, 1)), id="last byte of the time"),
        pytest.param(lambda it: replace(it, signatures=_with(it, 12, 1)), id="first byte of the signature"),
        pytest.param(lambda it: replace(it, signatures=_with(it, -1, 1)), id="last byte of the signature"),
    ],
)
def test_one_that_is_of_another_head_or_time_does_not_verify(
    kind: int, changed: Callable[[Checkpoint], Checkpoint]
) -> None:
    with pytest.raises(ValueError, match="does not verify"):
        cosigned_at(changed(head((NAME, signed(kind)))), witness_key(line(kind)), ORIGIN)


def _with(it: Checkpoint, place: int, flip: int) -> tuple[tuple[str, bytes], ...]:
    ((name, data),) = it.signatures
    changed = bytearray(data)
    changed[place] ^= flip
    return ((name, bytes(changed)),)


@pytest.mark.parametrize("kind", [ED25519, ML_DSA_44])
def test_one_for_another_log_does_not_verify(kind: int) -> None:
    with pytest.raises(ValueError, match="does not verify"):
        cosigned_at(head((NAME, signed(kind))), witness_key(line(kind)), "log.example/2")


@pytest.mark.parametrize("kind", [ED25519, ML_DSA_44])
def test_one_of_another_length_and_two_by_one_witness_are_malformed(kind: int) -> None:
    good, key = signed(kind), witness_key(line(kind))
    for bad in ([(NAME, good[:-1])], [(NAME, good + b"\0")], [(NAME, good), (NAME, good)]):
        with pytest.raises(ValueError, match="malformed"):
            cosigned_at(head(*bad), key, ORIGIN)


@pytest.mark.parametrize("kind", [ED25519, ML_DSA_44])
def test_what_is_signed_by_another_name_or_key_is_not_its_own(kind: int) -> None:
    good, key = signed(kind), witness_key(line(kind))
    assert cosigned_at(head(), key, ORIGIN) is None
    assert cosigned_at(head(("other.example", good)), key, ORIGIN) is None
    assert cosigned_at(head((NAME, b"\xff" + good[1:])), key, ORIGIN) is None
    both = head((NAME, signed(ED25519)), (NAME, signed(ML_DSA_44)))  # one witness with two keys, each judged by itself
    assert cosigned_at(both, key, ORIGIN) == AT


def _line(kind: int, key: bytes, name: str = NAME) -> str:
    data = bytes([kind]) + key
    return f"{name}+{hashlib.sha256(name.encode() + chr(10).encode() + data).digest()[:4].hex()}+" + (
        base64.b64encode(data).decode()
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "witness.example",
        _line(1, public(ED25519)),  # a log's type
        _line(ED25519, public(ED25519)[:-1]),
        _line(ED25519, public(ED25519) + b"\0"),
        _line(ED25519, public(ML_DSA_44)),
        _line(ML_DSA_44, public(ED25519)),
        _line(ML_DSA_44, public(ML_DSA_44)[:-1]),
        f"{NAME}+{id_of(ED25519).hex()}+",
        line(ED25519)[:-1] + "!",
        line(ED25519).replace("+", "*", 1),
        line(ED25519)[:-2] + "=" * 2,
        line(ED25519) + " more",
        f"{NAME}+{id_of(ED25519).hex()}+A",
    ],
)
def test_what_is_no_key_of_a_witness_is_unusable(text: str) -> None:
    with pytest.raises(Unusable, match="no vkey of type 4"):
        witness_key(text)


@pytest.mark.parametrize("kind", [ED25519, ML_DSA_44])
def test_a_key_whose_name_or_letters_were_changed_is_unusable(kind: int) -> None:
    wrong_id = bytes([id_of(kind)[0] ^ 1]) + id_of(kind)[1:]
    for text in (line(kind).replace("witness", "Witness"), line(kind).replace(id_of(kind).hex(), wrong_id.hex())):
        with pytest.raises(Unusable, match="do not belong together"):
            witness_key(text)


def test_where_ml_dsa_cannot_be_checked_it_is_said_and_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = signed(ML_DSA_44)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.mldsa", None)
    with pytest.raises(Unusable, match="no ML-DSA-44"):
        cosigned_at(head((NAME, signature)), witness_key(line(ML_DSA_44)), ORIGIN)


@pytest.mark.parametrize("kind", [ED25519, ML_DSA_44])
def test_what_is_signed_is_spelled_as_the_specification_has_it(kind: int) -> None:
    assert message(witness_key(line(kind)), head(), ORIGIN, AT) == said(kind, 7)
