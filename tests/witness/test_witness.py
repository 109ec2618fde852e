"""A witness cosigns one history of a log and no second one, and what it cosigned holds in a bundle."""

from __future__ import annotations

import base64
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.ledger_witness import ask_witness
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import tree
from onbehalf.explain.checkpoint import Checkpoint, NoteSigner, write
from onbehalf.model import AuditEntry, UnixTime
from onbehalf.verifier.check import check
from onbehalf.verifier.cosign import cosigned_at, witness_key, witness_vkey
from onbehalf.verifier.note import checkpoint, log_key
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import Verdict
from onbehalf.witness.judge import Seen, judge
from onbehalf.witness.serve import Witness, server
from verifier.bundle_house import ORIGIN, bundled_from, packed, recorded

SIGNER = NoteSigner(ORIGIN, b"w" * 32)
HASHES = [tree.leaf_hash(b"%d" % number) for number in range(64)]
OTHER = [*HASHES[:5], *[tree.leaf_hash(b"x%d" % number) for number in range(59)]]


def note(size: int, hashes: list[bytes] = HASHES) -> str:
    return write(Checkpoint(origin=ORIGIN, size=size, root=tree.root(hashes[:size])), SIGNER)


def request(old: int, size: int, hashes: list[bytes] = HASHES) -> bytes:
    steps = tree.consistency(old, hashes[:size]) if 0 < old < size else []
    lines = "".join(f"{base64.b64encode(each).decode()}\n" for each in steps)
    return f"old {old}\n{lines}\n{note(size, hashes)}".encode()


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    made = Witness(tmp_path / "w", name="w.example/1", logs=[SIGNER.verifier.vkey], clock=lambda: 1_800_000_000.9)
    yield made
    made.close()


@contextmanager
def serving(witness: Witness) -> Iterator[str]:
    made = server(witness, "127.0.0.1", 0)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{made.server_address[1]}"
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def test_a_witness_that_knows_both_keys_goes_on_when_the_log_changes_its_key(tmp_path: Path) -> None:
    after = NoteSigner(ORIGIN, b"n" * 32)
    head = Checkpoint(origin=ORIGIN, size=8, root=tree.root(HASHES[:8]))
    with_new = request(3, 8).replace(note(8).encode(), write(head, after).encode())
    old, new = SIGNER.verifier.vkey, after.verifier.vkey
    for logs, status in (([old], 403), ([old, new], 200), ([new], 200)):
        made = Witness(tmp_path / f"w{len(logs)}{status}", name="w.example/1", logs=logs if old in logs else [old])
        assert made.add_checkpoint(request(0, 3)).status == 200
        made.close()
        made = Witness(tmp_path / f"w{len(logs)}{status}", name="w.example/1", logs=logs)
        assert made.add_checkpoint(with_new).status == status
        assert made.add_checkpoint(request(8, 64)).status == (
            200 if old in logs and status == 200 else 403 if new == logs[0] else 409
        )
        made.close()


def test_a_growing_log_is_cosigned_and_each_cosignature_verifies(witness: Witness) -> None:
    key, log = witness_key(witness.vkey), log_key(SIGNER.verifier.vkey)
    old = 0
    for size in (3, 3, 8, 64):
        answer = witness.add_checkpoint(request(old, size))
        assert answer.status == 200, answer.body
        head = checkpoint((note(size) + answer.body).encode(), log)
        assert cosigned_at(head, key, ORIGIN) == 1_800_000_000
        other = checkpoint((note(size - 1) + answer.body).encode(), log)
        with pytest.raises(ValueError, match="does not verify"):
            cosigned_at(other, key, ORIGIN)
        old = size


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (request(0, 8), 409), (request(4, 8), 409), (request(6, 5), 400), (request(5, 8, OTHER), 200),
        (request(5, 5), 200), (request(5, 8).replace(b"\n", b"\nAAAA\n", 1), 400), (b"", 400), (b"old 5\n\n", 404),
        (b"old 05\n\n" + note(8).encode(), 400), (b"old 5\n\n" + note(8).encode(), 422), (b"\xff" * 60_000, 400),
        (b"old 5\n" + b"A" * 43 + b"=\n\n" + note(8).encode(), 422), (b"old 0\n\nother.example\n1\n\n", 404),
        (b"old 5\n\n" + note(5, [HASHES[0]] * 5).encode(), 422),
        (request(5, 8).replace("— ".encode(), "— x".encode()), 403),
    ],
    ids=range(15),
)  # fmt: skip
def test_each_request_gets_the_answer_of_the_specification(witness: Witness, body: bytes, status: int) -> None:
    assert witness.add_checkpoint(request(0, 5)).status == 200
    answer = witness.add_checkpoint(body)
    assert answer.status == status, answer.body
    if status == 409:
        assert (answer.body, answer.kind) == ("5\n", "text/x.tlog.size")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 63), st.integers(0, 63), st.booleans()), max_size=12))
def test_whatever_is_asked_all_that_is_cosigned_is_one_history(asked: list[tuple[int, int, bool]]) -> None:
    seen: dict[str, Seen] = {}
    logs = {ORIGIN: [log_key(SIGNER.verifier.vkey)]}
    cosigned: list[tuple[int, bytes]] = []
    for old, size, forked in asked:
        hashes = OTHER if forked else HASHES
        answer = judge(request(old, size, hashes), logs=logs, seen=lambda origin: seen.get(origin, Seen()))
        if answer.head is not None:
            seen[answer.origin] = Seen(size=answer.head.size, root=answer.head.root)
            cosigned.append((answer.head.size, answer.head.root))
    assert [size for size, _ in cosigned] == sorted(size for size, _ in cosigned)
    assert any(all(root == tree.root(each[:size]) for size, root in cosigned) for each in (HASHES, OTHER))


def test_what_was_seen_survives_a_restart_and_a_lost_key_is_no_new_witness(witness: Witness, tmp_path: Path) -> None:
    assert witness.add_checkpoint(request(0, 8)).status == 200
    with pytest.raises(Unusable, match="another witness"):
        Witness(tmp_path / "w", name="w.example/1", logs=[SIGNER.verifier.vkey])
    witness.close()
    again = Witness(tmp_path / "w", name="w.example/1", logs=[SIGNER.verifier.vkey])
    assert again.vkey == witness.vkey
    assert again.add_checkpoint(request(0, 8, OTHER)).status == 409
    again.close()
    for spoiled in ("{", "[]", '{"x":{"size":1}}', '{"x":{"size":1,"root":"zz"}}'):
        (tmp_path / "w" / "seen.json").write_text(spoiled)
        with pytest.raises(Unusable, match="cannot be used"):
            Witness(tmp_path / "w", name="w.example/1", logs=[SIGNER.verifier.vkey])
    (tmp_path / "w" / "witness.key").unlink()
    with pytest.raises(Unusable, match="its key is gone"):
        Witness(tmp_path / "w", name="w.example/1", logs=[SIGNER.verifier.vkey])


def test_nothing_is_cosigned_that_could_not_be_kept(witness: Witness, tmp_path: Path) -> None:
    (tmp_path / "w" / ".seen.json.new").mkdir()  # nothing can be written aside
    with serving(witness) as url:
        status = _status(f"{url}/add-checkpoint", request(0, 5))
    assert status == 500
    (tmp_path / "w" / ".seen.json.new").rmdir()
    assert witness.add_checkpoint(request(0, 5, OTHER)).status == 200


def _status(url: str, body: bytes) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST"), timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_bundle_is_cosigned_and_the_auditor_demands_it(tmp_path: Path) -> None:
    async def more(ledger: SqliteLedger) -> None:
        await ledger.append(AuditEntry(kind="start", call="", at=UnixTime(3000), facts={}))

    reader = recorded(tmp_path / "log")
    made = Witness(tmp_path / "w", name="w.example/1", logs=[reader.verifier.vkey])
    with serving(made) as url:
        first = bundled_from(reader, tmp_path / "1.zip", witnesses=(url,), start=("index", 0), end=None)
        good = check(first.path, key=first.vkey, witnesses=[made.vkey])
        assert (good.verdict, good.findings) == (Verdict.verified, [])
        assert "cosigned the newest head" in good.as_text()
        grown = recorded(tmp_path / "log", then=more)
        second = bundled_from(grown, tmp_path / "2.zip", witnesses=(url,), start=("index", 0), end=None)
        assert check(second.path, key=second.vkey, witnesses=[made.vkey]).verdict == Verdict.verified
        # an operator with log.key who tells another history: the witness does not sign it
        shutil.copytree(tmp_path / "log" / "keys", tmp_path / "fork" / "keys")
        fork = recorded(tmp_path / "fork", calls=60)
        with pytest.raises(LedgerCorrupt, match="no continuation"):
            bundled_from(fork, tmp_path / "3.zip", witnesses=(url,))
        shutil.copytree(tmp_path / "log" / "keys", tmp_path / "short" / "keys")
        short = recorded(tmp_path / "short", calls=1)
        with pytest.raises(LedgerCorrupt, match="has seen"):
            bundled_from(short, tmp_path / "3.zip", witnesses=(url,), end=None)
        assert not (tmp_path / "3.zip").exists()
    made.close()
    stranger = witness_vkey("w.example/1", 6, bytes(1312))
    assert check(first.path, key=first.vkey, witnesses=[stranger]).verdict == Verdict.unpinned
    line = first.files["checkpoint"].decode().splitlines(keepends=True)[-1]
    moved = {**second.files, "checkpoint": second.files["checkpoint"].decode().replace(
        second.files["checkpoint"].decode().splitlines(keepends=True)[-1], line).encode()}  # fmt: skip
    report = check(packed(tmp_path / "x.zip", moved, honest=True), key=first.vkey, witnesses=[made.vkey])
    assert [each.code for each in report.findings] == ["cosignature_invalid"]


def test_the_first_head_comes_without_a_proof_and_an_empty_log_has_one_root(witness: Witness) -> None:
    step = f"{base64.b64encode(HASHES[0]).decode()}\n"
    assert witness.add_checkpoint(f"old 0\n{step}\n{note(8)}".encode()).status == 422
    strange = write(Checkpoint(origin=ORIGIN, size=0, root=HASHES[0]), SIGNER)
    assert witness.add_checkpoint(f"old 0\n\n{strange}".encode()).status == 422
    assert witness.add_checkpoint(request(0, 0)).status == 200
    assert witness.add_checkpoint(request(0, 8)).status == 200


def test_a_witness_key_with_a_wrong_letter_is_no_key(witness: Witness) -> None:
    vkey = witness.vkey
    for place in (0, 5, len("w.example/1+"), 30, 700, len(vkey) - 3):
        other = "a" if vkey[place] != "a" else "b"
        with pytest.raises(Unusable):
            witness_key(vkey[:place] + other + vkey[place + 1 :])
    for none in ("", "x", SIGNER.verifier.vkey, "w+00000000+Bg==", "w+00000000+"):
        with pytest.raises(Unusable):
            witness_key(none)


def test_a_witness_that_is_no_witness_is_said(tmp_path: Path, witness: Witness) -> None:
    def none(_: int) -> list[bytes]:
        return []

    with pytest.raises(ConfigInvalid, match="https"):
        ask_witness("http://elsewhere.example", note(5), 5, none)
    with pytest.raises(LedgerUnavailable, match="cannot be asked"):
        ask_witness("http://127.0.0.1:1", note(5), 5, none)
    with serving(witness) as url:
        strange = write(
            Checkpoint(origin="other.example", size=0, root=tree.EMPTY_ROOT), NoteSigner("other.example", b"o" * 32)
        )
        with pytest.raises(LedgerUnavailable, match="did not cosign"):
            ask_witness(url, strange, 0, none)
        for path, body, status in (
            ("/", b"x", 404),
            ("/add-checkpoint", b"x" * 70_000, 413),
            ("/add-checkpoint", b"", 413),
        ):
            assert _status(url + path, body) == status


# The example that C2SP tlog-cosignature prints: the message of an Ed25519 cosignature.
def test_the_message_of_the_specification() -> None:
    from onbehalf.verifier.cosign import WitnessKey, message
    from onbehalf.verifier.note import Checkpoint as Head

    root = base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    head = Head(size=20852163, root=root, signatures=())
    key = WitnessKey(name="witness.example.com/w1", id=b"", kind=4, public=b"")
    assert message(key, head, "example.com/behind-the-sofa", 1679315147) == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )
