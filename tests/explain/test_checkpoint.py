"""Signed heads: the published signed-note vector, round trips, and every bent note refused."""

from __future__ import annotations

import pytest

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain import checkpoint
from onbehalf.explain.checkpoint import Checkpoint, NoteSigner, NoteVerifier

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNATURE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ORIGIN = "gateway.example/log"
SIGNER = NoteSigner(ORIGIN, bytes(32))
HEAD = Checkpoint(origin=ORIGIN, size=5, root=bytes(range(32)))
NOTE = checkpoint.write(HEAD, SIGNER)


def test_published_note_verifies() -> None:
    assert NoteVerifier(PETER).text(f"{TEXT}\n{SIGNATURE}") == TEXT


def test_checkpoint_survives_the_round_trip_through_its_vkey() -> None:
    assert checkpoint.read(NOTE, NoteVerifier(SIGNER.verifier.vkey), origin=ORIGIN) == HEAD


def test_another_signer_may_stand_beside() -> None:
    assert checkpoint.read(NOTE + SIGNATURE, SIGNER.verifier, origin=ORIGIN) == HEAD


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        NOTE[:-1],
        NOTE.replace("\n5\n", "\n6\n"),
        NOTE.replace("\n5\n", "\n05\n"),
        NOTE.replace("\n5\n", "\n-5\n"),
        NOTE.replace("—", "-"),
        NOTE.replace("\n\n", "\n"),
        NOTE + "\n",
        NOTE + NOTE.split("\n\n")[1],
        NOTE.replace("\n", "\r\n"),
        "x" + NOTE,
        SIGNER.sign("a\n\nb\n"),
        NOTE.replace("— gateway", "—  gateway"),
        f"{TEXT}\n{SIGNATURE}",
        "x" * 100_000,
        SIGNER.sign(HEAD.text() + "extension\n"),
        SIGNER.sign(f"{ORIGIN}\n05\n{HEAD.text().split()[2]}\n"),
        SIGNER.sign(f"other\n5\n{HEAD.text().split()[2]}\n"),
        SIGNER.sign(f"{ORIGIN}\n5\nAAAA\n"),
    ],
)
def test_bent_note_is_refused(note: str) -> None:
    with pytest.raises(LedgerCorrupt):
        checkpoint.read(note, SIGNER.verifier, origin=ORIGIN)


@pytest.mark.parametrize("place", range(0, 86, 5))
def test_a_changed_signature_is_refused(place: int) -> None:
    head, _, line = NOTE.rpartition(" ")
    changed = line[:place] + ("A" if line[place] != "A" else "B") + line[place + 1 :]
    with pytest.raises(LedgerCorrupt):
        checkpoint.read(f"{head} {changed}", SIGNER.verifier, origin=ORIGIN)


@pytest.mark.parametrize("vkey", ["", "a+b+c", PETER[:-1], PETER.replace("c74f20a3", "c74f20a4"), PETER + "\n"])
def test_bent_vkey_is_refused(vkey: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        NoteVerifier(vkey)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "ä"])
def test_name_that_would_break_a_note_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        NoteSigner(name, bytes(32))
