"""Leaves examined together are judged as each is alone: the same is accepted, and the report is the same."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.explain import leaf as written
from onbehalf.explain import tree
from onbehalf.model import AuditEntry, Json, UnixTime
from onbehalf.verifier import merkle, runs, walk
from onbehalf.verifier.archive import Archive
from onbehalf.verifier.check import check
from onbehalf.verifier.leaves import Run, read_leaf, shape_of
from onbehalf.verifier.report import Report
from onbehalf.verifier.runs import examined
from verifier.bundle_house import Bundle, bundled, packed

CHANNEL = "0123456789abcdef"


def line(kind: str, call: int, at: int, *, of: int | None = None, number: int = 0) -> bytes:
    facts: dict[str, Json] = {"tool": "t", "via": "v"} if of is None else {"intent": {"index": of}, "outcome": "o"}
    entry = AuditEntry(kind=kind, call=f"call_{call:032x}", at=UnixTime(at), facts=facts)
    return written.make(
        written.spell(entry), id_="0" * 32, salt=b"s" * 32, place=(CHANNEL, number) if number else ("", 0)
    ).leaf


def log(calls: int) -> list[bytes]:
    """Intents with numbers, four at a time, then their outcomes, one of five of unknown end, and others between."""
    lines: list[bytes] = []
    for group in range(0, calls, 4):
        first = len(lines)
        lines += [line("intent", group + each, 3 * (group + each), number=group + each + 1) for each in range(4)]
        kinds = ["outcome", "unknown" if group % 5 == 0 else "outcome", "outcome", "outcome"]
        lines += [line(kinds[each], group + each, 3 * group + 13, of=first + each) for each in range(4)]
        lines += [line("denial", group, 3 * group + 14)] if group % 3 == 0 else []
        lines += [line("stop", 0, 3 * group + 15)] if group % 7 == 0 else []
    return lines


def bundle_of(place: Path, lines: list[bytes], bundle: Bundle) -> Path:
    """A bundle of these leaves, whose head is another log's: what its leaves say is all that matters here."""
    manifest = json.loads(bundle.files["manifest.json"])
    manifest["range"], manifest["size"] = {"from": 0, "to": len(lines)}, len(lines)
    manifest["opened"] = {"whole": False, "erased": 0}
    files = {name: data for name, data in bundle.files.items() if name in ("checkpoint", "keys.json")}
    files |= {"leaves.jsonl": b"".join(each + b"\n" for each in lines), "manifest.json": json.dumps(manifest).encode()}
    return packed(place, {**files, "proof.json": b'{"left":[],"right":[],"start":[]}'}, honest=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundled(tmp_path_factory.mktemp("bundle"))


def alone(start: int, data: bytes) -> runs.Examined:
    return runs.subtrees(start, data)


def both(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Report, Report, int]:
    """The report, the one of leaves taken one by one, and how many leaves of the first were taken in runs."""
    taken: list[int] = []
    real = walk.Walk._fits

    def fits(self: walk.Walk, index: int, run: Run) -> bool:
        said = real(self, index, run)
        taken.append(run.leaves if said else 0)
        return said

    with monkeypatch.context() as patch:
        patch.setattr(walk.Walk, "_fits", fits)
        one = check(path)
    with monkeypatch.context() as patch:
        patch.setattr("onbehalf.verifier.crew.examined", alone)
        other = check(path)
    return one, other, sum(taken)


def test_a_sound_log_goes_in_runs_and_the_report_is_that_of_leaves_taken_one_by_one(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onbehalf.verifier.archive._BLOCK", 2000)
    monkeypatch.setattr("onbehalf.verifier.archive._CHUNK", 700)
    lines = log(80)
    one, other, taken = both(bundle_of(tmp_path / "x.zip", lines, bundle), monkeypatch)
    assert one == other
    assert taken == sum(b'"kind":"stop"' not in each for each in lines) > 160
    assert one.summary["unknown"]


SPOILED = [b"", b"{}", log(4)[0].replace(b"0123456789abcdef", b"0123456789abcdeF"), b"\xff" * 20]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 200), st.integers(0, 200)), max_size=4), st.booleans())
def test_whatever_is_wrong_in_a_log_is_said_in_the_same_words_and_order(
    bundle: Bundle, tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int, int]], small: bool
) -> None:
    lines = log(40)
    for what, place, other in changes:
        at, to = place % len(lines), other % len(lines)
        if what == 0:
            del lines[at]
        elif what == 1:
            lines.insert(at, lines[to])
        elif what == 2:
            lines[at], lines[to] = lines[to], lines[at]
        elif what == 3:
            lines[at] = SPOILED[other % len(SPOILED)]
        elif what == 4:
            lines[at] = lines[at].replace(b"call_0", b"call_1", 1)
        else:
            lines[at] = lines[at][: other % max(1, len(lines[at]))]
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr("onbehalf.verifier.archive._BLOCK", 1500)
            patch.setattr("onbehalf.verifier.archive._CHUNK", 400)
        path = bundle_of(tmp_path_factory.mktemp("spoiled") / "x.zip", lines, bundle)
        one, other_report, _ = both(path, patch)
    assert one == other_report


NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), max_size=4, unique=True).map(sorted)


@settings(deadline=None)
@given(NAMES, st.data())
def test_a_shape_matches_only_what_the_strict_reader_reads_and_reads_it_alike(
    names: list[str], data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["intent", "denial"]))
    entry = AuditEntry(kind=kind, call="call_1", at=UnixTime(7), facts=dict.fromkeys(names, 1))
    place = (CHANNEL, 5) if kind == "intent" and data.draw(st.booleans()) else ("", 0)
    good = written.make(written.spell(entry), id_="0" * 32, salt=b"s" * 32, place=place).leaf
    shape = shape_of(read_leaf(good).names)
    assert shape.groups(good) is not None
    spoiled = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(spoiled) - 1))
        how = data.draw(st.sampled_from(["set", "copy", "drop"]))
        if how == "set":
            spoiled[where] = data.draw(st.sampled_from(b'"{}:,\\\n0afgFA \xff') | st.integers(0, 255))
        elif how == "copy":
            spoiled[where:where] = spoiled[where : where + data.draw(st.integers(1, 90))]
        else:
            del spoiled[where : where + data.draw(st.integers(1, 90))]
            spoiled = spoiled or bytearray(b"x")
    groups = shape.groups(bytes(spoiled))
    if groups is None:
        return
    leaf = read_leaf(bytes(spoiled))
    at, call, channel, kind_, number, of = groups
    assert (leaf.at, leaf.call, leaf.kind) == (int(at), call.decode(), kind_.decode())
    assert (leaf.channel, leaf.number) == ((channel or b"").decode(), int(number or b"0"))
    assert leaf.of == (-1 if of is None else int(of))


@pytest.mark.parametrize("place", [*range(0, 64, 9), 63])
def test_one_digit_that_is_none_in_a_commitment_is_no_shape(place: int) -> None:
    good = line("denial", 1, 1)
    begin = good.index(b'"via":"') + 7
    for digit in b'GFA"}, \n\xff':
        spoiled = good[: begin + place] + bytes([digit]) + good[begin + place + 1 :]
        assert shape_of(("tool", "via")).groups(spoiled) is None


@settings(deadline=None)
@given(st.integers(0, 70), st.lists(st.integers(0, 40), max_size=6))
def test_subtrees_of_any_blocks_have_the_root_of_the_tree(before: int, sizes: list[int]) -> None:
    hashes = [hashlib.sha256(b"%d" % each).digest() for each in range(before + sum(sizes))]
    grown = merkle.Range(0, ())
    grown.add(hashes[:before])
    for size in sizes:
        grown.join(merkle.pieces(grown.size, hashes[grown.size : grown.size + size]))
    assert grown.root() == tree.root(hashes)
    assert grown.size == len(hashes)


def test_names_that_never_come_again_make_no_shapes() -> None:
    shape_of.cache_clear()
    lines = [
        written.make(
            written.spell(AuditEntry(kind="x", call="", at=UnixTime(0), facts={f"a{each}": 1})), id_="", salt=b"s" * 32
        ).leaf
        for each in range(100)
    ]
    found = examined(0, b"\n".join(lines) + b"\n")
    assert [run.leaves for run in found.runs] == [100]
    assert shape_of.cache_info().misses == 0


def blocks(place: Path, data: bytes, limit: int) -> Iterator[bytes]:
    with zipfile.ZipFile(place, "w") as made:
        made.writestr("leaves.jsonl", data)
    archive = Archive(place, max_bytes=1 << 20)
    yield from archive.blocks("leaves.jsonl", limit=limit)
    archive.close()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30).map(lambda each: each.replace(b"\n", b"")), max_size=40), st.integers(1, 50))
def test_blocks_are_all_lines_whole_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], size: int
) -> None:
    data = b"".join(each + b"\n" for each in lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onbehalf.verifier.archive._CHUNK", size)
        patch.setattr("onbehalf.verifier.archive._BLOCK", 2 * size)
        found = [*blocks(tmp_path_factory.mktemp("b") / "x.zip", data, 40)]
    assert b"".join(found) == data
    assert all(each.endswith(b"\n") for each in found)


@pytest.mark.parametrize("opened", [frozenset({"outcome"}), frozenset({"tool", "backend_receipt"})])
@pytest.mark.parametrize("spoiled", [False, True])
def test_a_run_in_which_something_is_opened_is_taken_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: frozenset[str], *, spoiled: bool
) -> None:
    bundle = bundled(tmp_path, everything=False, open=opened)
    if spoiled:
        files = {**bundle.files, "opened.jsonl": bundle.files["opened.jsonl"].replace(b'"salt":"', b'"salt":"0', 1)}
        packed(bundle.path, files, honest=True)
    expected = check(bundle.path, key=bundle.vkey)
    monkeypatch.setattr(Archive, "says", lambda *_: 0)
    one, other, _ = both(bundle.path, monkeypatch)
    assert one.findings == other.findings == expected.findings
    assert one.opened == other.opened == expected.opened > 0
    assert bool(one.findings) == spoiled
