"""What stands exactly at a bound passes, what stands one beyond it is refused: trees, checkpoints, cosignatures."""

from __future__ import annotations

import base64
import hashlib
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from onbehalf.explain.checkpoint import Checkpoint as Said
from onbehalf.explain.checkpoint import NoteSigner, write
from onbehalf.verifier import merkle
from onbehalf.verifier.cosign import ED25519, ML_DSA_44, WitnessKey, cosigned_at, message, witness_key, witness_vkey
from onbehalf.verifier.note import Checkpoint, checkpoint, log_key
from onbehalf.verifier.refused import Unusable

SIGNER = NoteSigner("log.example/1", b"n" * 32)
LOG = log_key(SIGNER.verifier.vkey)
NOTE = write(Said(origin="log.example/1", size=7, root=b"r" * 32), SIGNER)
HEAD = Checkpoint(size=0x0102, root=b"r" * 32, signatures=())
WITNESS = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
VKEY = witness_vkey("w.example/1", ED25519, WITNESS.public_key().public_bytes_raw())
KEY = witness_key(VKEY)


def line(name: str, signature: bytes) -> str:
    return f"— {name} {base64.b64encode(signature).decode()}\n"


# --- the tree ---


def test_a_tree_of_two_to_the_63rd_leaves_is_no_tree_though_its_proofs_would_hold() -> None:
    leaf = merkle.leaf_hash(b"x")
    for bits, holds in ((62, True), (63, False)):
        path = [bytes([number]) * 32 for number in range(bits)]
        root = leaf
        for step in path:
            root = hashlib.sha256(b"\1" + root + step).digest()
        assert merkle.included(leaf, index=0, size=1 << bits, path=path, root=root) is holds
        assert merkle.consistent(old=1, old_root=leaf, size=1 << bits, root=root, path=path) is holds


# --- checkpoints ---


def test_a_checkpoint_of_262144_bytes_is_read_and_one_of_a_byte_more_is_not() -> None:
    lines = [line(f"w{number}", bytes(12_000)) for number in range(16)]
    room = 262_144 - len((NOTE + "".join(lines)).encode()) - len(line("", bytes(5)).encode())
    while room > 1000:
        lines.append(line("w" * 900, bytes(5)))
        room -= len(lines[-1].encode())
    note = NOTE + "".join(lines) + line("w" * room, bytes(5))
    assert len(note.encode()) == 262_144
    assert checkpoint(note.encode(), LOG).size == 7
    longer = NOTE + "".join(lines) + line("w" * (room + 1), bytes(5))
    with pytest.raises(ValueError, match="too long"):
        checkpoint(longer.encode(), LOG)


def test_a_checkpoint_has_at_most_128_signatures_of_at_least_5_bytes() -> None:
    more = [line("w.example", bytes(5))] * 127
    assert len(checkpoint((NOTE + "".join(more)).encode(), LOG).signatures) == 127
    with pytest.raises(ValueError, match="blank line"):
        checkpoint((NOTE + "".join([*more, more[0]])).encode(), LOG)
    with pytest.raises(ValueError, match="malformed"):
        checkpoint((NOTE + line("w.example", bytes(4))).encode(), LOG)


def test_a_checkpoint_ends_in_one_newline_behind_its_signatures() -> None:
    for note in (NOTE[:-1], NOTE + "\n", NOTE.replace("\n\n", "\n"), NOTE.rpartition("\n\n")[2]):
        with pytest.raises(ValueError, match=r"blank line|malformed"):
            checkpoint(note.encode(), LOG)
    with pytest.raises(ValueError, match="blank line"):
        checkpoint(NOTE[:-1].encode(), LOG)
    with pytest.raises(ValueError, match="blank line"):
        checkpoint(NOTE.rpartition("\n\n")[2].encode(), LOG)


def test_a_checkpoint_of_18_digits_is_the_largest_that_is_read() -> None:
    for size, holds in ((10**18 - 1, True), (10**18, False)):
        note = write(Said(origin="log.example/1", size=size, root=b"r" * 32), SIGNER).encode()
        if holds:
            assert checkpoint(note, LOG).size == size
        else:
            with pytest.raises(ValueError, match="origin, size and root"):
                checkpoint(note, LOG)


def test_a_stranger_with_the_logs_name_or_with_its_key_id_is_listed_beside_the_log() -> None:
    note = NOTE + line(LOG.name, b"\0\0\0\0" + bytes(64)) + line("w.example", LOG.id + bytes(64))
    assert [name for name, _ in checkpoint(note.encode(), LOG).signatures] == [LOG.name, "w.example"]


def test_a_log_key_is_read_whole_and_one_of_another_type_or_length_is_none() -> None:
    assert (LOG.name, LOG.text) == ("log.example/1", SIGNER.verifier.vkey)
    assert (len(LOG.public), LOG.id.hex()) == (32, LOG.text.split("+")[1])
    assert log_key(f"  {LOG.text}\n") == LOG
    for key in (b"\2" + LOG.public, b"\1" + LOG.public[:-1], b"\1" + LOG.public + b"\0"):
        id_ = hashlib.sha256(LOG.name.encode() + b"\n" + key).digest()[:4].hex()
        with pytest.raises(Unusable, match="no Ed25519 vkey"):
            log_key(f"{LOG.name}+{id_}+{base64.b64encode(key).decode()}")


# --- cosignatures ---


def cosigned(signature: bytes, *, key: WitnessKey = KEY, at: int = 1_800_000_000) -> Checkpoint:
    return Checkpoint(
        size=HEAD.size, root=HEAD.root, signatures=((key.name, key.id + at.to_bytes(8, "big") + signature),)
    )


def signed(at: int = 1_800_000_000, *, size: int = HEAD.size) -> bytes:
    """By the text of C2SP tlog-cosignature, written out."""
    root = base64.b64encode(HEAD.root).decode()
    return WITNESS.sign(f"cosignature/v1\ntime {at}\nlog.example/1\n{size}\n{root}\n".encode())


def test_a_cosignature_with_ed25519_holds_for_its_head_and_time_alone() -> None:
    for at in (1_800_000_000, 2**63 + 5):
        assert cosigned_at(cosigned(signed(at), at=at), KEY, "log.example/1") == at
    for bad in (signed(1_800_000_001), signed(size=9), bytes(64), signed()[:-1] + b"\0"):
        with pytest.raises(ValueError, match="does not verify"):
            cosigned_at(cosigned(bad), KEY, "log.example/1")
    with pytest.raises(ValueError, match="does not verify"):
        cosigned_at(cosigned(signed()), KEY, "other.example/1")


def test_a_cosignature_of_another_length_or_that_stands_twice_is_malformed() -> None:
    for bad in (signed()[:-1], signed() + b"\0", b""):
        with pytest.raises(ValueError, match="malformed"):
            cosigned_at(cosigned(bad), KEY, "log.example/1")
    once = cosigned(signed())
    twice = Checkpoint(size=once.size, root=once.root, signatures=once.signatures * 2)
    with pytest.raises(ValueError, match="malformed"):
        cosigned_at(twice, KEY, "log.example/1")


def test_a_cosignature_of_another_name_or_key_id_is_nobodys() -> None:
    [(name, data)] = cosigned(signed()).signatures
    for other in (("w.example/2", data), (name, b"\0\0\0\0" + data[4:])):
        head = Checkpoint(size=HEAD.size, root=HEAD.root, signatures=(other,))
        assert cosigned_at(head, KEY, "log.example/1") is None
    assert cosigned_at(HEAD, KEY, "log.example/1") is None


def test_what_a_witness_signs_with_ml_dsa_is_the_message_of_the_specification() -> None:
    key = WitnessKey(name="w.example/1", id=b"1234", kind=ML_DSA_44, public=bytes(1312))
    expected = (
        b"subtree/v1\n\0" + b"\x0bw.example/1" + bytes.fromhex("000000006b49d200") + b"\x0dlog.example/1"
        + bytes.fromhex("0000000000000000") + bytes.fromhex("0000000000000102") + b"r" * 32
    )  # fmt: skip
    assert message(key, HEAD, "log.example/1", 1_800_000_000) == expected


def test_a_key_of_ml_dsa_on_an_installation_without_it_is_said_to_be_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    key = witness_key(witness_vkey("w.example/1", ML_DSA_44, bytes(1312)))
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.mldsa", None)
    with pytest.raises(Unusable, match="no ML-DSA-44"):
        cosigned_at(cosigned(bytes(2420), key=key), key, "log.example/1")


def test_a_witness_key_is_read_whole_and_has_one_length_for_its_type() -> None:
    public = WITNESS.public_key().public_bytes_raw()
    assert (KEY.name, KEY.kind, KEY.public) == ("w.example/1", 4, public)
    assert KEY.id == hashlib.sha256(b"w.example/1\n\4" + public).digest()[:4]
    assert witness_key(f" {VKEY}\n") == KEY
    for kind, length in ((4, 31), (4, 33), (6, 1311), (6, 1313), (1, 32), (5, 32), (4, 0)):
        with pytest.raises(Unusable, match="no vkey of type"):
            witness_key(witness_vkey("w.example/1", kind, bytes(length)))
    for text in ("", "w.example/1", VKEY + "==", VKEY + "=", VKEY[:-1]):
        with pytest.raises(Unusable, match="no vkey of type"):
            witness_key(text)
    with pytest.raises(Unusable, match="do not belong together"):
        witness_key(VKEY.replace("w.example/1", "w.example/2"))
