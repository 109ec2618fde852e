"""A bundle with everything in it holds; each part of it that is spoiled is found, and said where."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.explain.checkpoint import Checkpoint, NoteSigner, write
from onbehalf.model import AuditEntry, UnixTime
from onbehalf.verifier.check import check
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.report import Report, Verdict
from verifier.bundle_house import ORIGIN, Bundle, bundled, bundled_from, intent, packed, recorded


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundled(tmp_path_factory.mktemp("bundle"))


def places(report: Report) -> set[str]:
    return {finding.place for finding in report.findings}


def judged(path: Path, bundle: Bundle) -> tuple[Report | None, str]:
    """The report, or why there is none."""
    try:
        return check(path, key=bundle.vkey), ""
    except Unusable as error:
        return None, str(error)


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings}


def test_a_good_bundle_holds_in_every_part(bundle: Bundle) -> None:
    report = check(bundle.path, key=bundle.vkey)
    assert report.findings == []
    assert report.verdict == Verdict.unknown  # intent 11 has its outcome after the range
    assert report.summary["open"] == [11]
    assert (report.size, report.start, report.end, report.receipts) == (14, 1, 12, 5)
    assert [*report.policies.values()] == [True]
    assert report.heads == ["of 14 leaves, newest: all leaves of the range are under it"]


REGIONS = [
    "manifest.json",
    "checkpoint",
    "proof.json",
    "keys.json",
    "leaves.jsonl",
    "opened.jsonl",
    "HOW-TO-VERIFY.txt",
]


@pytest.mark.parametrize("name", REGIONS)
def test_a_flipped_bit_anywhere_in_a_file_is_found_in_that_file(bundle: Bundle, tmp_path: Path, name: str) -> None:
    """Whoever flips it does not mend the manifest: the file's hash finds it, or the file cannot be read."""
    data = bundle.files[name]
    for place in range(0, len(data), max(1, len(data) // 60)):
        spoiled = bytearray(data)
        spoiled[place] ^= 1
        path = packed(tmp_path / "spoiled.zip", {**bundle.files, name: bytes(spoiled)})
        report, refused = judged(path, bundle)
        if report is None:
            assert name in refused or "key" in refused
            continue
        assert report.verdict in (Verdict.invalid, Verdict.diverged), (name, place)
        assert name in places(report) or name == "manifest.json", (name, place, report.findings)


@pytest.mark.parametrize("name", ["checkpoint", "proof.json", "leaves.jsonl", "opened.jsonl"])
def test_a_flipped_bit_is_found_though_the_manifest_was_made_to_fit(bundle: Bundle, tmp_path: Path, name: str) -> None:
    data = bundle.files[name]
    for place in range(0, len(data), max(1, len(data) // 80)):
        spoiled = bytearray(data)
        spoiled[place] ^= 1
        path = packed(tmp_path / "spoiled.zip", {**bundle.files, name: bytes(spoiled)}, honest=True)
        report, refused = judged(path, bundle)
        if report is None:
            assert name in refused
            continue
        assert report.verdict == Verdict.invalid, (name, place)
        assert name in places(report) or codes(report) & {"root_mismatch", "proof_invalid"}, (place, report.findings)


def spoiled_line(data: bytes, number: int, change: Callable[[dict[str, object]], object]) -> bytes:
    lines = data.splitlines()
    said = json.loads(lines[number])
    change(said)
    lines[number] = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    return b"\n".join(lines) + b"\n"


def opened_place(bundle: Bundle, index: int, fact: str) -> int:
    lines = [json.loads(line) for line in bundle.files["opened.jsonl"].splitlines()]
    return next(at for at, line in enumerate(lines) if (line["index"], line["fact"]) == (index, fact))


@pytest.mark.parametrize("member", ["json", "salt", "fact"])
def test_a_changed_value_salt_or_name_is_found_at_its_leaf(bundle: Bundle, tmp_path: Path, member: str) -> None:
    other = {"json": '{"name":"other","remote":"desk_write"}', "salt": "0" * 64, "fact": "toll"}[member]
    place = opened_place(bundle, 3, "tool")
    data = spoiled_line(bundle.files["opened.jsonl"], place, lambda said: said.update({member: other}))
    report = check(packed(tmp_path / "x.zip", {**bundle.files, "opened.jsonl": data}, honest=True), key=bundle.vkey)
    assert ("opened_invalid", 3) in {(each.code, each.index) for each in report.findings}


def test_a_fact_that_was_held_back_is_found_where_all_was_to_be_opened(bundle: Bundle, tmp_path: Path) -> None:
    lines = bundle.files["opened.jsonl"].splitlines(keepends=True)
    del lines[opened_place(bundle, 5, "decision")]
    files = {**bundle.files, "opened.jsonl": b"".join(lines)}
    report = check(packed(tmp_path / "x.zip", files, honest=True), key=bundle.vkey)
    assert [(each.code, each.index) for each in report.findings] == [("fact_withheld", 5)]


def test_a_fact_of_a_leaf_outside_of_the_range_is_found(bundle: Bundle, tmp_path: Path) -> None:
    line = {"index": 13, "fact": "tool", "json": "{}", "salt": "0" * 64}
    data = bundle.files["opened.jsonl"] + json.dumps(line).encode() + b"\n"
    files = {**bundle.files, "opened.jsonl": data}
    report = check(packed(tmp_path / "x.zip", files, honest=True), key=bundle.vkey)
    assert [(each.code, each.index) for each in report.findings] == [("opened_stray", 13)]


@pytest.mark.parametrize("what", ["left out", "doubled", "swapped", "put in"])
def test_leaves_that_were_left_out_or_moved_are_found(bundle: Bundle, tmp_path: Path, what: str) -> None:
    lines = bundle.files["leaves.jsonl"].splitlines(keepends=True)
    if what == "left out":
        del lines[4]
    elif what == "doubled":
        lines.insert(4, lines[4])
    elif what == "swapped":
        lines[3], lines[5] = lines[5], lines[3]
    else:
        lines[6] = lines[6].replace(b'"kind":"', b'"kind":"x')
    files = {**bundle.files, "leaves.jsonl": b"".join(lines)}
    report = check(packed(tmp_path / "x.zip", files, honest=True), key=bundle.vkey)
    assert report.verdict == Verdict.invalid
    assert codes(report) & {"leaves_count", "root_mismatch"}


@pytest.mark.parametrize("name", ["checkpoint", "proof.json", "keys.json", "leaves.jsonl", "manifest.json"])
def test_a_file_that_is_missing_is_no_bundle(bundle: Bundle, tmp_path: Path, name: str) -> None:
    files = {key: value for key, value in bundle.files.items() if key != name}
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        for key, value in files.items():
            made.writestr(key, value)
    with pytest.raises(Unusable, match=f"`{name}` is missing"):
        check(tmp_path / "x.zip", key=bundle.vkey)


def test_a_file_that_the_manifest_does_not_list_and_one_that_it_does(bundle: Bundle, tmp_path: Path) -> None:
    digest = "0" * 64
    report = check(packed(tmp_path / "x.zip", {**bundle.files, f"policies/{digest}.json": b"{}"}), key=bundle.vkey)
    assert codes(report) == {"file_unlisted", "policy_changed"}
    files = {name: data for name, data in bundle.files.items() if name != "HOW-TO-VERIFY.txt"}
    assert codes(check(packed(tmp_path / "y.zip", files), key=bundle.vkey)) == {"file_missing"}


def test_a_policy_with_another_text_is_found(bundle: Bundle, tmp_path: Path) -> None:
    [name] = [each for each in bundle.files if each.startswith("policies/")]
    files = {**bundle.files, name: bundle.files[name].replace(b"permit", b"forbid")}
    report = check(packed(tmp_path / "x.zip", files, honest=True), key=bundle.vkey)
    assert ("policy_changed", name) in {(each.code, each.place) for each in report.findings}
    assert [*report.policies.values()] == [False]


@pytest.mark.parametrize(
    "change",
    [
        {"size": 13}, {"size": 15}, {"range": {"from": 0, "to": 12}}, {"range": {"from": 1, "to": 11}},
        {"range": {"from": 2, "to": 13}}, {"origin": "other.example/log"}, {"summary": {}},
        {"opened": {"whole": True, "erased": 3}},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_that_claims_other_things_is_found(
    bundle: Bundle, tmp_path: Path, change: dict[str, object]
) -> None:
    manifest = json.dumps({**json.loads(bundle.files["manifest.json"]), **change}).encode()
    report = check(packed(tmp_path / "x.zip", {**bundle.files, "manifest.json": manifest}), key=bundle.vkey)
    assert report.verdict == Verdict.invalid


def test_no_range_that_is_none_is_taken(bundle: Bundle, tmp_path: Path) -> None:
    for span in ({"from": 5, "to": 4}, {"from": -1, "to": 4}, {"from": 0, "to": 99}, {"from": 0.0, "to": 1}, []):
        manifest = json.dumps({**json.loads(bundle.files["manifest.json"]), "range": span}).encode()
        with pytest.raises(Unusable, match="manifest"):
            check(packed(tmp_path / "x.zip", {**bundle.files, "manifest.json": manifest}), key=bundle.vkey)


def test_a_history_that_another_key_signed_does_not_hold(bundle: Bundle, tmp_path: Path) -> None:
    """A forger has no log.key: the bundle holds under the key that it brings, and not under the one that is known."""
    forged = bundled_from(recorded(tmp_path / "forged"), tmp_path / "forged.zip")
    assert check(forged.path).verdict == Verdict.unpinned
    report = check(forged.path, key=bundle.vkey)
    assert codes(report) == {"key_other", "head_invalid"}


def test_a_second_history_under_one_key_is_a_fork(bundle: Bundle, tmp_path: Path) -> None:
    signer = NoteSigner(ORIGIN, b"s" * 32)
    log = tmp_path / "it"

    async def more(ledger: SqliteLedger) -> None:
        await ledger.append(AuditEntry(kind="start", call="", at=UnixTime(3000), facts={}))

    good = bundled_from(recorded(log, then=more), tmp_path / "good.zip", start=("index", 0), end=None)
    head = good.files["checkpoint"]
    kept = tmp_path / "kept"
    kept.write_bytes(head)
    assert "diverged" not in check(good.path, key=good.vkey, kept=head).verdict.name
    other = write(Checkpoint(origin=ORIGIN, size=9, root=b"x" * 32), signer)
    assert codes(check(good.path, key=good.vkey, kept=other.encode())) == {"head_invalid"}  # of another key
    files = {**good.files, "start/checkpoint": other.encode()}
    assert "head_invalid" in codes(check(packed(tmp_path / "x.zip", files, honest=True), key=good.vkey))


def test_a_backend_that_signed_something_else_is_found(bundle: Bundle, tmp_path: Path) -> None:
    keys = json.loads(bundle.files["keys.json"])
    keys["receipts"]["desk"]["keys"][0]["x"] = keys["receipts"]["desk"]["keys"][0]["x"][::-1]
    files = {**bundle.files, "keys.json": json.dumps(keys).encode()}
    report = check(packed(tmp_path / "x.zip", files, honest=True), key=bundle.vkey)
    assert any("receipt" in each.text for each in report.findings) or "key_malformed" in codes(report)
    assert report.receipts == 0
    files = {**bundle.files, "keys.json": json.dumps({"log": bundle.vkey}).encode()}
    report = check(packed(tmp_path / "y.zip", files, honest=True), key=bundle.vkey)
    assert {(each.code, each.index) for each in report.findings} == {("opened_invalid", at) for at in (2, 4, 6, 8, 10)}


def test_an_outcome_without_its_intent_is_found(tmp_path: Path) -> None:
    """A signed log may still be wrong: a gateway that records outcomes of nothing is found."""

    async def broken(ledger: SqliteLedger) -> None:
        said = await ledger.append(intent(90))
        for call in ("call_" + f"{90:032x}", "call_" + f"{91:032x}"):
            facts: dict[str, object] = {"intent": {"index": said.index, "leaf": said.leaf}}
            await ledger.append(AuditEntry(kind="outcome", call=call, at=UnixTime(1), facts=facts))  # type: ignore[arg-type]  # plain JSON
        facts = {"intent": {"index": 10_000, "leaf": said.leaf}}
        await ledger.append(AuditEntry(kind="unknown", call="call_x", at=UnixTime(1), facts=facts))  # type: ignore[arg-type]  # plain JSON

    reader = recorded(tmp_path / "it", then=broken)
    made = bundled_from(reader, tmp_path / "b.zip", start=("index", 0), end=None)
    report = check(made.path, key=made.vkey)
    assert [(each.code, each.index) for each in report.findings] == [("outcome_unpaired", 16), ("outcome_unpaired", 17)]
