"""A whole check: earlier heads at each place of the range, forks, keys that are none, and what the manifest claims."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from onbehalf.doors.ledger_keys import read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.explain import tree
from onbehalf.explain.checkpoint import Checkpoint, NoteSigner, write
from onbehalf.verifier import check as checking
from onbehalf.verifier import walk
from onbehalf.verifier.archive import Archive
from onbehalf.verifier.backend_rows import BackendRecord
from onbehalf.verifier.besides import Besides
from onbehalf.verifier.check import check
from onbehalf.verifier.cosign import message, witness_key, witness_vkey
from onbehalf.verifier.leaves import Leaf, Pairing
from onbehalf.verifier.note import Checkpoint as Head
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import KeySpan, Past, Report, Verdict
from verifier.bundle_house import KEY, ORIGIN, bundled_from, packed, recorded
from verifier.test_edges_signers import SIGNERS, VKEYS
from verifier.test_edges_signers import change as change_of_keys

SIGNER = NoteSigner(ORIGIN, b"s" * 32)
VKEY = SIGNER.verifier.vkey
SIZE = 14


@dataclass(frozen=True, slots=True)
class Log:
    """A log of 14 leaves that SIGNER signs: its leaves' hashes, and the files of two bundles."""

    hashes: list[bytes]
    all: dict[str, bytes]
    part: dict[str, bytes]
    """Of leaves 1 to 11."""

    def root(self, size: int) -> bytes:
        return tree.root(self.hashes[:size])


def head(size: int, root: bytes) -> bytes:
    return write(Checkpoint(origin=ORIGIN, size=size, root=root), SIGNER).encode()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    place = tmp_path_factory.mktemp("log")
    whole = bundled_from(recorded(place), place / "all.zip", start=("index", 0), end=None).files
    reader = LedgerReader(place / "log.db", keys=read_ledger_keys(place / "keys", origin=ORIGIN))
    part = bundled_from(reader, place / "part.zip").files
    hashes = [tree.leaf_hash(line) for line in whole["leaves.jsonl"].splitlines()]
    assert base64.b64encode(tree.root(hashes)).decode() in whole["checkpoint"].decode()
    ours = {"checkpoint": head(SIZE, tree.root(hashes))}
    for files in (whole, part):
        keys = {"log": VKEY, "receipts": json.loads(files["keys.json"])["receipts"]}
        files |= {**ours, "keys.json": json.dumps(keys).encode()}
    return Log(hashes, whole, part)


def judged(place: Path, files: dict[str, bytes], **named: Any) -> Report:
    return check(packed(place / "x.zip", files, honest=True), key=VKEY, **named)


def codes(report: Report) -> list[tuple[str, str, int]]:
    return [(each.code, each.place, each.index) for each in report.findings]


def keyed(files: dict[str, bytes], **changed: Any) -> dict[str, bytes]:
    return {**files, "keys.json": json.dumps({**json.loads(files["keys.json"]), **changed}).encode()}


def claimed(files: dict[str, bytes], change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    said = json.loads(files["manifest.json"])
    change(said)
    return {**files, "manifest.json": json.dumps(said).encode()}


def test_a_kept_head_at_any_place_of_the_range_is_proven_by_the_leaves_themselves(log: Log, tmp_path: Path) -> None:
    newest = "of 14 leaves, newest: all leaves of the range are under it"
    for files, sizes in ((log.all, (0, 1, 2, 7, 13, 14)), (log.part, (1, 2, 11, 12, 14))):
        for size in sizes:
            report = judged(tmp_path, files, kept=head(size, log.root(size)))
            assert report.findings == [], size
            assert not report.diverged
            assert report.heads == [newest, f"of {size} leaves, the checkpoint you kept: a beginning of the newest"]


def test_a_kept_head_with_another_root_is_a_fork_and_ends_with_3(log: Log, tmp_path: Path) -> None:
    for files, sizes in ((log.all, (0, 1, 7, 14)), (log.part, (1, 7, 12, 14))):
        for size in sizes:
            report = judged(tmp_path, files, kept=head(size, b"x" * 32))
            assert report.verdict is Verdict.diverged
            assert codes(report) == [("head_diverged", "the checkpoint you kept", -1)]
            assert len(report.heads) == 1
    report = judged(tmp_path, {**log.all, "start/checkpoint": head(7, b"x" * 32)})
    assert (report.verdict, codes(report)) == (Verdict.diverged, [("head_diverged", "start/checkpoint", -1)])


def test_a_head_outside_of_the_range_needs_a_proof(log: Log, tmp_path: Path) -> None:
    kept = head(13, log.root(13))
    assert codes(judged(tmp_path, log.part, kept=kept)) == [("head_unproven", "the checkpoint you kept", -1)]
    assert codes(judged(tmp_path, log.part, kept=head(15, b"x" * 32))) == [
        ("head_newer", "the checkpoint you kept", -1)
    ]
    steps = [each.hex() for each in tree.consistency(13, log.hashes)]
    proof = {**json.loads(log.part["proof.json"]), "start": steps}
    files = {**log.part, "proof.json": json.dumps(proof).encode()}
    report = judged(tmp_path, files, kept=kept)
    assert report.findings == []
    assert report.heads[1:] == ["of 13 leaves, the checkpoint you kept: a beginning of the newest"]
    assert not judged(tmp_path, files, kept=head(13, b"x" * 32)).diverged  # it proves nothing, for or against


def test_where_the_newest_head_does_not_hold_the_leaves_prove_nothing_of_earlier_ones(log: Log, tmp_path: Path) -> None:
    files = {**log.all, "checkpoint": head(SIZE, b"x" * 32)}
    report = judged(tmp_path, files, kept=head(7, log.root(7)))
    assert [code for code, _, _ in codes(report)] == ["root_mismatch", "head_unproven"]
    assert (report.heads, report.diverged) == ([], False)
    report = judged(tmp_path, {**log.all, "checkpoint": b"x"}, kept=head(7, log.root(7)))
    assert [code for code, _, _ in codes(report)] == ["head_invalid"]


def test_keys_that_are_none_are_found_and_others_than_thumbprints_may_name_receipt_keys(
    log: Log, tmp_path: Path
) -> None:
    wrong = {"keys": [{**KEY.public, "kid": "mine"}]}
    assert ("key_malformed", "keys.json", -1) in codes(judged(tmp_path, keyed(log.all, calls=wrong)))
    assert codes(judged(tmp_path, keyed(log.all, calls={"keys": [KEY.public]}))) == []
    more = {**json.loads(log.all["keys.json"])["receipts"], "other": wrong}
    assert codes(judged(tmp_path, keyed(log.all, receipts=more))) == []
    bad = {"desk": {"keys": [KEY.public]}, "other": {"keys": [{**KEY.public, "x": "AAAA"}]}}
    report = judged(tmp_path, keyed(log.all, receipts=bad))
    assert ("key_malformed", "keys.json", -1) in codes(report)
    for keys in ([], {}, {"log": 1}):
        with pytest.raises(Unusable, match="does not name the log's key"):
            judged(tmp_path, {**log.all, "keys.json": json.dumps(keys).encode()})
    with pytest.raises(Unusable, match="is not readable"):
        judged(tmp_path, {**log.all, "keys.json": b"{"})


def test_what_the_manifest_claims_is_held_against_the_leaves(log: Log, tmp_path: Path) -> None:
    for change, code in (
        (lambda said: said["summary"].update(first_at=1), "summary_wrong"),
        (lambda said: said["opened"].update(erased=1), "summary_wrong"),
        (lambda said: said.update(origin="other"), "manifest_wrong"),
    ):  # fmt: skip
        report = judged(tmp_path, claimed(log.all, change))
        assert (code, "manifest.json", -1) in codes(report)
    summary = judged(tmp_path, log.all).summary
    assert (summary["first_at"], summary["last_at"]) == (999, 2000)
    assert summary["kinds"] == {"start": 1, "intent": 6, "outcome": 6, "denial": 1}
    assert summary["longest_gap"] == {"seconds": 994, "before": 13}
    assert summary["open"] == summary["unknown"] == []


def test_of_two_gaps_of_one_length_the_first_is_the_longest() -> None:
    made = walk._Summary()
    for index, at in enumerate((0, 5, 10, 12)):
        made.take(index, Leaf("x", "", at, -1, (), []))
    told = made.told(Pairing(0))
    assert (told["first_at"], told["last_at"], told["longest_gap"]) == (0, 12, {"seconds": 5, "before": 1})
    none = walk._Summary().told(Pairing(0))
    assert (none["first_at"], none["last_at"], none["longest_gap"]) == (None, None, None)


def test_a_summary_lists_a_thousand_kinds_and_open_calls() -> None:
    made, pairs = walk._Summary(), Pairing(0)
    for index in range(1001):
        pairs.take(index, Leaf("intent", "c", 0, -1, (), []), b"")
        pairs.unknown.append(index)
    for index in range(1000):
        made.take(index, Leaf(f"k{index}", "", 0, -1, (), []))
    made.take(1000, Leaf("k0", "", 0, -1, (), []))
    with pytest.raises(ValueError, match="more kinds"):
        made.take(1001, Leaf("another", "", 0, -1, (), []))
    told = made.told(pairs)
    assert told["open"] == told["unknown"] == [*range(1000)]


def test_an_archive_is_closed_whatever_comes_of_the_check(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Archive] = []
    real = Archive.close
    monkeypatch.setattr(Archive, "close", lambda self: (closed.append(self), real(self)))
    judged(tmp_path, log.all)
    with pytest.raises(Unusable):
        judged(tmp_path, {**log.all, "keys.json": b"[]"})
    assert len(closed) == 2


def test_a_policy_is_found_by_the_digest_that_its_bytes_have_and_by_no_other(log: Log, tmp_path: Path) -> None:
    [name] = [each for each in log.all if each.startswith("policies/")]
    good = "sha256:" + name[9:-5]
    asked: list[bytes | None] = []

    class Besides:
        backends = ()

        def begin(self, bundle: Callable[[str], bytes | None]) -> None:
            self.bundle = bundle

    for data, holds in ((log.all[name], True), (log.all[name] + b" ", False)):
        besides: Any = Besides()
        archive = Archive(packed(tmp_path / "x.zip", {**log.all, name: data}, honest=True), max_bytes=1 << 30)
        checking._Check(archive, asked=checking.demanded(VKEY, (), None), kept=b"", besides=besides, jobs=1)
        asked = [besides.bundle(good), besides.bundle("sha256:" + "0" * 64)]
        archive.close()
        assert asked == [data if holds else None, None]


def test_each_file_is_read_up_to_its_bound(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, set[int]] = {}
    real = Archive.chunks

    def chunks(self: Archive, name: str, *, limit: int) -> Any:
        asked.setdefault(name.partition("/")[0], set()).add(limit)
        return real(self, name, limit=limit)

    monkeypatch.setattr(Archive, "chunks", chunks)
    assert judged(tmp_path, {**log.all, "start/checkpoint": head(7, log.root(7))}).findings == []
    small = {name: {1 << 20} for name in ("manifest.json", "keys.json", "checkpoint", "proof.json", "start")}
    whole = {"policies": {32 << 20}, "HOW-TO-VERIFY.txt": {16 << 30}}
    lines = {name: {asked[name].pop()} for name in ("leaves.jsonl", "opened.jsonl")}
    assert {**asked, **lines} == {**small, **whole, **lines}
    bounds: list[int] = []
    monkeypatch.setattr(Archive, "__init__", lambda self, path, *, max_bytes: bounds.append(max_bytes))
    monkeypatch.setattr(Archive, "close", lambda _: None)
    for named in ({}, {"max_bytes": 5}):
        with pytest.raises(AttributeError):
            judged(tmp_path, log.all, **named)
    assert bounds == [16 << 30, 5]


def test_one_process_checks_where_no_number_is_given(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(walk.Walk, "run", lambda self, sizes, *, jobs: asked.append(jobs))
    judged(tmp_path, log.all)
    judged(tmp_path, log.all, jobs=3)
    assert asked == [1, 3]


def test_whose_heads_are_whose_and_who_cosigned_the_newest_is_told(log: Log, tmp_path: Path) -> None:
    witness = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
    key = witness_key(witness_vkey("w.example", 4, witness.public_key().public_bytes_raw()))
    said = message(key, Head(size=SIZE, root=log.root(SIZE), signatures=()), ORIGIN, 70)
    line = base64.b64encode(key.id + (70).to_bytes(8, "big") + witness.sign(said)).decode()
    files = {**log.all, "checkpoint": log.all["checkpoint"] + f"— w.example {line}\n".encode()}
    asked = [witness_vkey(key.name, key.kind, key.public)]
    report = check(packed(tmp_path / "x.zip", files, honest=True), key=VKEY, witnesses=asked)
    assert (report.witnesses, report.others) == ({"w.example": 70}, ())
    assert report.keys == [KeySpan(VKEY, 0, None)]
    report = check(packed(tmp_path / "x.zip", log.all, honest=True), witnesses=asked)
    assert (report.witnesses, report.pinned) == ({"w.example": None}, False)


def test_what_is_called_erased_by_a_leaf_that_erases_nothing_is_found_there(log: Log, tmp_path: Path) -> None:
    lines = [each for each in log.all["opened.jsonl"].splitlines() if json.loads(each)["index"] != 1]
    gone = b'{"index":1,"erased":true,"by":5}'
    place = next(at for at, each in enumerate(lines) if json.loads(each)["index"] > 1)
    opened = b"".join(each + b"\n" for each in [*lines[:place], gone, *lines[place:]])
    files = claimed({**log.all, "opened.jsonl": opened}, lambda said: said["opened"].update(erased=1))
    assert codes(judged(tmp_path, files)) == [("erasure_wrong", "opened.jsonl", 1)]


def test_no_statement_is_complete_in_a_bundle_that_does_not_hold(log: Log, tmp_path: Path) -> None:
    besides = Besides(backends=[BackendRecord(audience="https://desk", digest="")])
    sound = judged(tmp_path, log.all, besides=besides)
    assert (sound.findings, len(sound.statements)) == ([], 1)
    spoiled = claimed(log.all, lambda said: said["summary"].update(first_at=1))
    for files, named in ((spoiled, {}), (log.all, {"kept": head(7, b"x" * 32)})):
        (said,) = judged(tmp_path, files, besides=besides, **named).statements
        assert said.reasons == [*sound.statements[0].reasons, "the bundle itself does not hold"]


def test_heads_of_the_past_are_held_against_the_leaves_only_where_those_have_the_newest_root(
    log: Log, tmp_path: Path
) -> None:
    """A past head of another root is a fork where the leaves hold, and only not proven where they do not."""
    past = json.dumps({"note": head(7, b"x" * 32).decode(), "proof": []}).encode() + b"\n"
    files = {**log.all, "heads.jsonl": past}
    place = "heads.jsonl, the head of 7 leaves"
    report = judged(tmp_path, files)
    assert (codes(report), report.diverged) == ([("head_diverged", place, -1)], True)
    report = judged(tmp_path, {**files, "checkpoint": head(SIZE, b"x" * 32)})
    assert (codes(report)[1:], report.diverged) == ([("head_unproven", place, -1)], False)
    good = json.dumps({"note": head(7, log.root(7)).decode(), "proof": []}).encode() + b"\n"
    report = judged(tmp_path, {**log.all, "heads.jsonl": good})
    assert (codes(report), report.past) == ([], [Past(7, None)])


def test_what_is_wrong_with_the_keys_of_call_tokens_or_one_of_them_is_found(log: Log, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x\n")
    report = judged(tmp_path, log.all, besides=Besides(tokens=tmp_path / "kept"))
    assert codes(report) == [("token_invalid", "call tokens", -1)]
    assert report.call_tokens is not None
    assert report.call_tokens["invalid"] == 1


def test_a_head_that_a_former_key_signed_after_its_time_is_found(log: Log, tmp_path: Path) -> None:
    newest = write(Checkpoint(origin=ORIGIN, size=SIZE, root=log.root(SIZE)), SIGNERS[1]).encode()
    changes = json.dumps(change_of_keys(4, 0, 1)).encode() + b"\n"
    files = keyed({**log.all, "checkpoint": newest, "handovers.jsonl": changes}, log=VKEYS[1])
    unproven = ("handover_unproven", "handovers.jsonl", 4)  # the change is of another history
    for signer, size, expected in ((0, 7, [("head_former", "the checkpoint you kept", -1)]), (1, 7, []), (0, 4, [])):
        kept = write(Checkpoint(origin=ORIGIN, size=size, root=log.root(size)), SIGNERS[signer]).encode()
        report = check(packed(tmp_path / "x.zip", files, honest=True), key=VKEYS[1], kept=kept)
        assert codes(report) == [unproven, *expected]


def test_names_of_the_manifest_are_told_to_100_letters_and_keys_are_read_to_a_depth_of_8(
    log: Log, tmp_path: Path
) -> None:
    long = {"x" * 101: {"sha256": "0" * 64, "bytes": 1}}
    manifest = json.loads(packed_manifest(tmp_path, log))
    manifest["files"] |= long
    files = {**log.all, "manifest.json": json.dumps(manifest).encode()}
    assert codes(check(packed(tmp_path / "x.zip", files), key=VKEY)) == [("file_missing", "x" * 100, -1)]
    deep: Any = 1
    for _ in range(7):
        deep = [deep]
    assert codes(judged(tmp_path, keyed(log.all, more=deep))) == []
    with pytest.raises(Unusable, match="nested deeper than 8"):
        judged(tmp_path, keyed(log.all, more=[deep]))


def packed_manifest(place: Path, log: Log) -> bytes:
    """The manifest with the hashes of all other files."""
    archive = Archive(packed(place / "m.zip", log.all, honest=True), max_bytes=1 << 30)
    try:
        return archive.whole("manifest.json", limit=1 << 20)
    finally:
        archive.close()


def test_policies_that_decisions_name_are_listed_by_at_most_100_letters(log: Log, tmp_path: Path) -> None:
    here = [f"sha256:{each[9:-5]}" for each in log.all if each.startswith("policies/")]
    besides: Any = Besides()
    asked = checking.demanded(VKEY, (), None)
    archive = Archive(packed(tmp_path / "x.zip", log.all, honest=True), max_bytes=1 << 30)
    made = checking._Check(archive, asked=asked, kept=b"", besides=besides, jobs=1)
    made._policies({*here, "x" * 101})
    archive.close()
    assert made._report.policies == {here[0]: True, "x" * 100: False}
    assert made._report.findings == []


def test_a_proof_that_is_none_is_found(log: Log, tmp_path: Path) -> None:
    report = judged(tmp_path, {**log.all, "proof.json": b"[]"})
    assert codes(report)[0] == ("proof_malformed", "proof.json", -1)
    assert ("root_mismatch", "leaves.jsonl", -1) in codes(report)
