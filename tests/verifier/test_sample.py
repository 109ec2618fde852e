"""A sample: the calls that the seed chooses are opened, no others count, and both sides choose alike."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onbehalf.explain.sample import LEADING, drawn, seed
from onbehalf.verifier.check import check
from onbehalf.verifier.leaves import Leaf
from onbehalf.verifier.sample import Sample, asked_sample
from verifier.bundle_house import Bundle, bundled_from, packed, recorded

KINDS = st.sampled_from([*LEADING, "outcome", "start", "unknown"])
WORDS = {"open": "all", "sample": "3", "seed": "a word"}


def leaf(kind: str, of: int = -1) -> Leaf:
    return Leaf(kind, "", 0, of, (), [])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of 40 calls three are opened."""
    place = tmp_path_factory.mktemp("sample")
    sampled = {"start": ("index", 0), "end": None, "sample": 3, "seed": "a word", "words": WORDS}
    return bundled_from(recorded(place, calls=40), place / "bundle.zip", **sampled)


def opened(bundle: Bundle) -> set[int]:
    return {json.loads(line)["index"] for line in bundle.files["opened.jsonl"].splitlines()}


@given(st.lists(KINDS, max_size=60), st.integers(1, 12), st.binary(max_size=8), st.sampled_from(["", "w", "é"]))
def test_both_sides_choose_the_calls_of_lowest_rank(kinds: list[str], count: int, note: bytes, word: str) -> None:
    leading = [index for index, kind in enumerate(kinds) if kind in LEADING]
    key = seed(note, word)
    lowest = sorted(leading, key=lambda index: sha256(key + index.to_bytes(8, "big")).digest())[:count]
    theirs = asked_sample({"sample": str(count), "seed": word}, note)
    assert theirs is not None
    for index, kind in enumerate(kinds):
        theirs.take(index, leaf(kind), whole=False)
    assert theirs.withheld() == sorted(lowest)
    assert theirs.population == len(leading)
    assert sorted(index for index, _ in drawn(key, ((index, "") for index in leading), count)) == sorted(lowest)


def test_the_calls_that_the_seed_chooses_are_opened_with_their_outcomes(bundle: Bundle) -> None:
    report = check(bundle.path, key=bundle.vkey)
    assert report.findings == []
    assert report.sampled == (3, 41)
    found = opened(bundle)
    # leaf 0 is the start, leaf 81 a denial; the intents between have their outcomes behind them
    intents = {index for index in found if index % 2}
    assert len(intents) == 3
    assert found == intents | {index + 1 for index in intents if index != 81}
    assert "3 of 41 calls" in report.as_text()


@pytest.mark.parametrize("name", ["sample", "seed"])
def test_another_sample_than_the_seed_chooses_is_found(bundle: Bundle, tmp_path: Path, name: str) -> None:
    manifest = json.loads(bundle.files["manifest.json"])
    manifest["asked"][name] = {"sample": "4", "seed": "another"}[name]
    files = {**bundle.files, "manifest.json": json.dumps(manifest).encode()}
    report = check(packed(tmp_path / "other.zip", files, honest=True), key=bundle.vkey)
    assert {finding.code for finding in report.findings} == {"sample_withheld"}


@pytest.mark.parametrize("half", [0, 1])
def test_a_chosen_call_of_which_something_is_closed_is_found(bundle: Bundle, tmp_path: Path, half: int) -> None:
    first = min(opened(bundle)) + half  # an intent, and its outcome
    lines = bundle.files["opened.jsonl"].splitlines(keepends=True)
    left = [line for line in lines if json.loads(line)["index"] != first]
    files = {**bundle.files, "opened.jsonl": b"".join(left)}
    report = check(packed(tmp_path / "closed.zip", files, honest=True), key=bundle.vkey)
    assert [(each.code, each.index) for each in report.findings] == [("sample_withheld", first - half)]


@pytest.mark.parametrize("count", ["0", "", "-1", "10001", "3.0", "٣", "1" * 50, " 3"])
def test_what_is_no_number_of_calls_is_found(bundle: Bundle, tmp_path: Path, count: str) -> None:
    manifest = json.loads(bundle.files["manifest.json"])
    manifest["asked"]["sample"] = count
    files = {**bundle.files, "manifest.json": json.dumps(manifest).encode()}
    report = check(packed(tmp_path / "odd.zip", files, honest=True), key=bundle.vkey)
    assert {finding.code for finding in report.findings} == {"sample_malformed"}


def test_a_cosignature_more_chooses_other_calls_and_no_record_more_does_once_there_is_a_word() -> None:
    assert seed(b"head", "") != seed(b"head and witness", "")
    assert seed(b"head", "word") == seed(b"head and more", "word") != seed(b"head", "another")
    assert seed(b"word", "") != seed(b"", "word")


def test_an_answer_of_a_call_that_is_not_chosen_may_stay_closed() -> None:
    theirs = Sample(seed=b"s" * 32, count=1)
    for index in range(50):
        theirs.take(index, leaf("intent"), whole=True)
    [chosen] = [*theirs._opened]
    for index in range(50):
        theirs.take(50 + index, leaf("outcome", of=index), whole=index == chosen)
    assert theirs.withheld() == []
