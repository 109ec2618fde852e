"""A backend's receipt belongs to one sending of one call, or it is refused with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from onbehalf.backend.receipt import make_receipt, receipt_key
from onbehalf.explain.checkpoint import Checkpoint, NoteSigner, write
from onbehalf.model import UnixTime, canonical, digest
from onbehalf.verifier.leaves import Intent, Leaf
from onbehalf.verifier.note import checkpoint, log_key
from onbehalf.verifier.receipts import Receipts, key_set
from onbehalf.verifier.refused import Unusable
from verifier.bundle_house import ARGUMENTS, KEY, _Call

CALL = "call_" + "1" * 32
LEAF = Leaf(kind="outcome", call=CALL, at=1010, of=4, names=(), commitments=[])
KEYS = key_set({"keys": [KEY.public]})


def waiting() -> Intent:
    opened = {"tool": "desk_write", "arguments": digest(canonical(ARGUMENTS))}
    return Intent(call=CALL, at=1000, hash=b"", opened=opened)


def receipt(*, at: int = 1005, backend: str = "desk", key: Any = KEY, **changed: str) -> str:
    call: Any = replace(_Call(CALL, f"{CALL}.4"), **changed)
    return make_receipt(call, key=key, backend=backend, gateway="g", answer=b"", status=200, now=UnixTime(at))


def test_the_receipt_of_this_sending_is_taken() -> None:
    assert Receipts(KEYS).problem(receipt(), LEAF, waiting()) == ""
    assert Receipts(KEYS).problem(receipt(tool="other"), LEAF, None) == ""  # its intent is not in the range


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"call": "call_x"}, "another call"), ({"token_id": f"{CALL}.5"}, "another call"),
        ({"tool": "x"}, "other tool"),
        ({"arguments": "sha256:0"}, "other arguments"), ({"at": 994}, "between"), ({"at": 1016}, "between"),
        ({"key": receipt_key(b"x" * 32)}, "not in keys.json"),
    ],
)  # fmt: skip
def test_a_receipt_of_something_else_is_refused(changed: dict[str, Any], why: str) -> None:
    assert why in Receipts(KEYS).problem(receipt(**changed), LEAF, waiting())


def test_clocks_may_disagree_by_five_seconds() -> None:
    for at in (995, 1015):
        assert Receipts(KEYS).problem(receipt(at=at), LEAF, waiting()) == ""


def test_one_key_signs_for_one_backend() -> None:
    held = Receipts(KEYS)
    assert held.problem(receipt(), LEAF, waiting()) == ""
    assert "two backends" in held.problem(receipt(backend="other"), LEAF, waiting())


def test_each_changed_character_of_a_receipt_is_refused() -> None:
    good = receipt()
    for place in range(len(good)):
        other = "A" if good[place] != "A" else "B"
        assert Receipts(KEYS).problem(good[:place] + other + good[place + 1 :], LEAF, waiting()) != "", place
    for bad in ("", ".", "..", "a.b", "a.b.c", good + ".x", "x" * 5000, good.rpartition(".")[0] + "."):
        assert Receipts(KEYS).problem(bad, LEAF, waiting()) != ""


def test_a_key_under_anothers_id_is_refused() -> None:
    other = receipt_key(b"o" * 32)
    for keys in ([{**KEY.public, "kid": other.id}], [{**KEY.public, "x": "AAAA"}], [{**KEY.public, "kid": 1}]):
        with pytest.raises(ValueError, match="key"):
            key_set({"keys": keys})
    assert [*key_set({"keys": [{**KEY.public, "kid": "mine"}]}, thumbprints=False)] == ["mine"]
    for none in (None, [], {"keys": {}}, {"keys": [{}] * 2000}):
        with pytest.raises(ValueError, match="JWK Set"):
            key_set(none)


# --- the log's own signatures ---

SIGNER = NoteSigner("log.example/1", b"n" * 32)
LOG = log_key(SIGNER.verifier.vkey)
NOTE = write(Checkpoint(origin="log.example/1", size=7, root=b"r" * 32), SIGNER)


def test_a_checkpoint_is_read_and_each_changed_byte_of_it_refused() -> None:
    assert checkpoint(NOTE.encode(), LOG).size == 7
    good = NOTE.encode()
    for place in range(len(good)):
        for bit in (1, 0x20, 0x80):
            changed = bytearray(good)
            changed[place] ^= bit
            with pytest.raises(ValueError, match=r"it |signature|byte|codec"):
                checkpoint(bytes(changed), LOG)


@pytest.mark.parametrize(
    "text",
    [
        "other.example/1\n7\n%s\n",
        "log.example/1\n07\n%s\n", "log.example/1\n-7\n%s\n", "log.example/1\n7\n%s\nmore\n",
        "log.example/1\n7\n%sA\n", "log.example/1\n7\n\n", "log.example/1\n9999999999999999999\n%s\n", "x\n",
    ],
)  # fmt: skip
def test_what_the_key_signed_that_is_no_checkpoint_of_this_log_is_refused(text: str) -> None:
    root = NOTE.split("\n")[2]
    note = SIGNER.sign(text % root if "%s" in text else text)
    with pytest.raises(ValueError, match="origin, size and root"):
        checkpoint(note.encode(), LOG)


def test_base64_has_one_spelling() -> None:
    root, line = NOTE.split("\n")[2], NOTE.rstrip("\n").rpartition(" ")[2]
    for spelled in (root, line):
        assert spelled.endswith("=")
        letter = chr(ord(spelled[-2]) + 1)  # the same bytes, other bits behind them
        text = NOTE if spelled is line else ""
        note = text.replace(line, line[:-2] + letter + "=") if text else SIGNER.sign(
            f"log.example/1\n7\n{root[:-2]}{letter}=\n"
        )  # fmt: skip
        with pytest.raises(ValueError, match=r"malformed|origin, size and root"):
            checkpoint(note.encode(), LOG)


def test_two_signatures_of_one_key_are_one_too_many_and_strangers_are_listed() -> None:
    line = NOTE.rpartition("\n\n")[2]
    with pytest.raises(ValueError, match="2 signatures"):
        checkpoint((NOTE + line).encode(), LOG)
    stranger = NoteSigner("w.example", b"w" * 32).sign(NOTE.rpartition("\n\n")[0] + "\n").rpartition("\n\n")[2]
    assert [name for name, _ in checkpoint((NOTE + stranger).encode(), LOG).signatures] == ["w.example"]
    with pytest.raises(ValueError, match="0 signatures"):
        checkpoint(NOTE.replace(line, stranger).encode(), LOG)


def test_a_key_with_a_wrong_letter_is_no_key() -> None:
    vkey = SIGNER.verifier.vkey
    for place in range(len(vkey)):
        other = "a" if vkey[place] != "a" else "b"
        with pytest.raises(Unusable):
            log_key(vkey[:place] + other + vkey[place + 1 :])
