"""What a bundle calls erased is held against the leaves that say so, whoever made the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from doors.erase_house import asked, entry, erase, reader, written
from onbehalf.verifier.check import check
from onbehalf.verifier.report import Report, Verdict
from verifier.bundle_house import Bundle, bundled_from, packed

ALICE, BOB = "acme/alice", "acme/bob"


@pytest.fixture
def erased(tmp_path: Path) -> Bundle:
    """Ten leaves, of Bob and Alice in turn, of which Alice's are erased, as leaf 10 says; all opened."""
    written(tmp_path, [entry(ALICE if number % 2 else BOB, number, at=1000 + number) for number in range(10)])
    asked(tmp_path, "erase", ALICE)
    erase(tmp_path)
    return bundled_from(reader(tmp_path), tmp_path / "b.zip", start=("index", 0), end=None)


def spoiled(bundle: Bundle, place: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Report:
    """The report on the bundle after a change of what it opens, whose manifest was made to fit."""
    lines = [json.loads(each) for each in bundle.files["opened.jsonl"].splitlines()]
    changed = b"".join(json.dumps(each).encode() + b"\n" for each in change(lines))
    manifest = json.loads(bundle.files["manifest.json"])
    manifest["opened"]["erased"] = changed.count(b'"erased": true')
    files = {**bundle.files, "opened.jsonl": changed, "manifest.json": json.dumps(manifest).encode()}
    return check(packed(place, files, honest=True), key=bundle.vkey)


def codes(report: Report) -> set[tuple[str, int]]:
    return {(each.code, each.index) for each in report.findings}


def by(leaf: int) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda lines: [{**each, **({"by": leaf} if "erased" in each else {})} for each in lines]


def also(index: int) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    """Call another leaf erased instead of opening it."""
    return lambda lines: sorted(
        [*(each for each in lines if each["index"] != index), {"index": index, "erased": True, "by": 10}],
        key=lambda each: int(each["index"]),
    )


def test_an_erased_person_is_told_with_the_leaf_that_says_so(erased: Bundle) -> None:
    report = check(erased.path, key=erased.vkey)
    assert report.verdict is Verdict.erased, report.as_text()
    assert report.as_json()["erasures"] == [
        {"leaf": 10, "at": 9000, "here": 5, "scope": {"count": 5, "first": 1, "last": 9, "before": 0, "keys": 1}}
    ]


def test_a_leaf_of_somebody_else_cannot_be_called_erased(erased: Bundle, tmp_path: Path) -> None:
    assert codes(spoiled(erased, tmp_path / "x.zip", also(4))) == {("erasure_wrong", 1)}  # one more than it tells of
    assert codes(spoiled(erased, tmp_path / "y.zip", also(0))) == {("erasure_wrong", 0)}  # before the first


def test_a_leaf_that_says_nothing_of_the_kind_is_no_reason(erased: Bundle, tmp_path: Path) -> None:
    def one(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**each, "by": 8} if each["index"] == 7 else each for each in lines]

    report = spoiled(erased, tmp_path / "x.zip", one)
    assert ("erasure_wrong", 7) in codes(report)


def test_a_leaf_outside_of_the_range_is_told_as_such(erased: Bundle, tmp_path: Path) -> None:
    report = spoiled(erased, tmp_path / "x.zip", by(99))
    assert report.verdict is Verdict.erased
    assert "5 leaves here, by leaf 99, which lies outside of the range" in report.as_text()


def test_what_no_leaf_is_named_for_is_told_as_such(erased: Bundle, tmp_path: Path) -> None:
    def unnamed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{name: value for name, value in each.items() if name != "by"} for each in lines]

    report = spoiled(erased, tmp_path / "x.zip", unnamed)
    assert report.verdict is Verdict.erased
    assert "5 leaves here, by no leaf that the bundle names" in report.as_text()


@pytest.mark.parametrize("leaf", [0, 1, -1, True, "10", None, 1.5])
def test_a_reason_that_is_no_later_leaf_is_malformed(erased: Bundle, tmp_path: Path, leaf: Any) -> None:
    assert "opened_malformed" in {code for code, _ in codes(spoiled(erased, tmp_path / "x.zip", by(leaf)))}


def test_an_erased_leaf_whose_fact_tells_of_none_is_found(tmp_path: Path) -> None:
    from onbehalf.model import AuditEntry, UnixTime

    strange = [None, {}, {"count": True, "first": 1, "last": 2}, {"count": 1, "first": 0, "last": 0, "keys": "x"}]
    written(
        tmp_path,
        [AuditEntry(kind="erased", call="", at=UnixTime(1), facts={"erasure": each}) for each in strange],  # type: ignore[dict-item]  # plain JSON
    )
    bundle = bundled_from(reader(tmp_path), tmp_path / "b.zip", start=("index", 0), end=None)
    assert codes(check(bundle.path, key=bundle.vkey)) == {("erasure_wrong", index) for index in range(4)}
