"""A run is joined with what came before it only where it fits, and then counts as its leaves would one by one."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from onbehalf.explain import tree
from onbehalf.verifier import archive, channels, leaves, merkle
from onbehalf.verifier.archive import Archive
from onbehalf.verifier.channels import Channel, Channels
from onbehalf.verifier.leaves import Intent, Leaf, Pairing, Run, Shape, read_leaf, shape_of
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.silence import Silence

A, B, C = "a" * 16, "b" * 16, "c" * 16


def waiting(*indices: int, start: int = 5) -> Pairing:
    made = Pairing(start)
    made.open = {each: Intent(f"c{each}", each, b"h") for each in indices}
    return made


@pytest.mark.parametrize(
    ("answers", "fits"),
    [
        ([], True), ([(6, "c6")], True), ([(6, "c6"), (7, "c7")], True), ([(6, "c7")], False), ([(8, "c8")], False),
        ([(6, "c6"), (6, "c6")], False), ([(6, "c6"), (8, "c8")], False), ([(5, "c5")], False), ([(4, "x")], True),
        ([(4, "x"), (4, "x")], True), ([(4, "x"), (6, "c6")], True), ([(0, "x")], True),
    ],
)  # fmt: skip
def test_answers_of_a_run_fit_where_each_has_its_intent_waiting(answers: list[tuple[int, str]], fits: bool) -> None:
    assert waiting(6, 7).fits(Run(1, answers=answers)) is fits


def test_an_answer_to_the_first_leaf_of_the_range_has_its_intent_there() -> None:
    assert waiting(5).fits(Run(1, answers=[(5, "c5")]))
    assert not waiting(5).fits(Run(1, answers=[(5, "x")]))


def test_a_run_does_not_fit_where_too_many_calls_might_be_open_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert leaves._MAX_OPEN == 1_000_000
    monkeypatch.setattr(leaves, "_MAX_OPEN", 5)
    assert waiting(6, 7).fits(Run(3))
    assert not waiting(6, 7).fits(Run(4))


def test_a_run_that_fits_ends_calls_begins_others_and_lists_a_thousand_of_unknown_end() -> None:
    made = waiting(6, 7, 8)
    made.before, made.unknown = 2, [*range(998)]
    run = Run(
        9, open=[(20, "c", 9, b"x")], answers=[(6, "c6"), (3, "x"), (8, "c8"), (4, "y"), (2, "z")], unknown=[6, 3, 8]
    )
    made.run(run)
    assert made.open == {7: Intent("c7", 7, b"h"), 20: Intent("c", 9, b"x")}
    assert (made.before, made.unknown) == (5, [*range(998), 6, 3])
    made.run(Run(1, unknown=[9]))
    assert len(made.unknown) == 1000


def test_numbers_of_a_run_fit_where_they_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for start, known, run, fits in (
        (0, {}, {A: (1, 9)}, True), (0, {}, {A: (2, 9)}, False), (3, {}, {A: (2, 9)}, True),
        (0, {A: 4}, {A: (5, 9)}, True), (3, {A: 4}, {A: (6, 9)}, False), (3, {A: 4}, {A: (4, 9)}, False),
        (3, {A: 4}, {B: (9, 9), A: (5, 5)}, True), (3, {A: 4}, {B: (9, 9), A: (6, 6)}, False),
    ):  # fmt: skip
        made = Channels(start, {name: Channel(1, last) for name, last in known.items()})
        assert made.fits(Run(1, channels=run)) is fits
    monkeypatch.setattr(channels, "_MAX_CHANNELS", 2)
    made = Channels(3, {A: Channel(1, 4)})
    assert made.fits(Run(1, channels={A: (5, 5), B: (1, 1)}))
    assert not made.fits(Run(1, channels={B: (1, 1), C: (1, 1)}))
    made.all |= {B: Channel(1, 1), C: Channel(1, 1)}
    assert made.fits(Run(1))


def test_numbers_of_a_run_that_fits_are_kept() -> None:
    made = Channels(0, {A: Channel(1, 4, holes=1)}, uncounted=2)
    made.run(Run(9, channels={A: (5, 8), B: (1, 3)}, uncounted=3))
    assert (made.all, made.uncounted) == ({A: Channel(1, 8, holes=1), B: Channel(1, 3)}, 5)


def leaf(kind: str, at: int) -> Leaf:
    return Leaf(kind, "", at, -1, (), [])


def silences(held: Silence) -> tuple[int, int, list[tuple[int, int]], bool]:
    return held.first, held.last, held._gaps, held._ended


def test_the_silence_before_a_run_and_those_within_it_are_kept() -> None:
    begun = Silence()
    begun.run(4, 10, 50, [(20, 5)])
    assert silences(begun) == (10, 50, [(20, 5)], False)
    begun.run(9, 52, 52, [])
    assert silences(begun) == (10, 52, [(20, 5)], False)
    begun.run(10, 55, 90, [(30, 12), (5, 13)])
    assert silences(begun) == (10, 90, [(20, 5), (3, 10), (30, 12), (5, 13)], False)
    begun.take(20, leaf("stop", 90))
    begun.run(21, 500, 501, [])
    assert silences(begun) == (10, 501, [(20, 5), (3, 10), (30, 12), (5, 13)], False)
    nought = Silence()
    nought.run(0, 0, 0, [])
    nought.run(1, 3, 3, [])
    assert silences(nought) == (0, 3, [(3, 1)], False)


LINE = b'{"at":7,"call":"c","ch":"%b","facts":{"abc":"%b","via":"%b"},"id":"","kind":"intent","n":3,"of":2,"v":1}' % (
    A.encode(),
    b"0" * 64,
    b"f" * 64,
)


def test_a_shape_gives_what_stands_in_its_places_and_a_channel_only_with_a_number_of_an_intent() -> None:
    shape = shape_of(("abc", "via"))
    assert shape.groups(LINE) == (b"7", b"c", A.encode(), b"intent", b"3", b"2")
    plain = LINE.replace(b'"ch":"%b",' % A.encode(), b"").replace(b'"n":3,', b"").replace(b'"of":2,', b"")
    assert shape.groups(plain) == (b"7", b"c", None, b"intent", None, None)
    for spoiled in (
        LINE.replace(b'"n":3,', b""), LINE.replace(b'"ch":"%b",' % A.encode(), b""),
        LINE.replace(b'"intent"', b'"denial"'), LINE.replace(b"0" * 64, b"0" * 63 + b"g"),
        LINE.replace(b"f" * 64, b"f" * 63 + b","), LINE.replace(b'"via"', b'"vib"'), LINE + b"\n", LINE[:-1],
    ):  # fmt: skip
        assert shape.groups(spoiled) is None
    bare = shape_of(())
    assert isinstance(bare, Shape)
    assert bare.groups(b'{"at":7,"call":"c","facts":{},"id":"","kind":"x","v":1}') == (
        b"7",
        b"c",
        None,
        b"x",
        None,
        None,
    )
    assert bare.left == 0
    assert read_leaf(LINE).commitment("via") == b"f" * 64
    assert read_leaf(LINE).commitment("x") is None


@pytest.mark.parametrize("start", [0, 1, 3, 8, 11])
def test_the_pieces_of_a_block_are_its_complete_subtrees_and_joined_they_are_the_tree(start: int) -> None:
    hashes = [tree.leaf_hash(b"%d" % each) for each in range(start + 13)]
    for end in (start, start + 1, start + 6, start + 13):
        found = merkle.pieces(start, hashes[start:end])
        expected, begun = [], start
        for width in merkle.right_of(start, end):
            expected.append((width, tree.root(hashes[begun : begun + width])))
            begun += width
        assert (found, begun) == (expected, end)
        grown = merkle.Range(0, ())
        grown.join(merkle.pieces(0, hashes[:start]))
        assert grown.size == start
        grown.join(found)
        assert (grown.size, grown.root()) == (end, tree.root(hashes[:end]))


def blocks(place: Path, data: bytes, limit: int) -> list[bytes]:
    with zipfile.ZipFile(place / "x.zip", "w") as made:
        made.writestr("leaves.jsonl", data)
    opened = Archive(place / "x.zip", max_bytes=1 << 20)
    try:
        return [*opened.blocks("leaves.jsonl", limit=limit)]
    finally:
        opened.close()


def test_a_file_comes_in_blocks_of_whole_lines_once_there_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_CHUNK", 4)
    monkeypatch.setattr(archive, "_BLOCK", 8)
    assert blocks(tmp_path, b"", 9) == []
    assert blocks(tmp_path, b"aaa\nbbb\nccc\n", 9) == [b"aaa\nbbb\n", b"ccc\n"]
    assert blocks(tmp_path, b"a\nb\nc\nd\ne\nf\n", 9) == [b"a\nb\nc\nd\n", b"e\nf\n"]
    assert blocks(tmp_path, b"aaaaaa\nb\ncc\ndd\n", 9) == [b"aaaaaa\n", b"b\ncc\ndd\n"]
    assert blocks(tmp_path, b"aaaaaaaaaaaa\nb\n", 12) == [b"aaaaaaaaaaaa\nb\n"]
    with pytest.raises(Unusable, match="a line of more than 11 bytes"):
        blocks(tmp_path, b"aaaaaaaaaaaa\nb\n", 11)
    with pytest.raises(Unusable, match="does not end in a newline"):
        blocks(tmp_path, b"a\nb", 9)


def test_how_many_bytes_a_file_has_is_told_as_the_zip_file_claims(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        made.writestr("leaves.jsonl", b"12345")
    opened: Any = Archive(tmp_path / "x.zip", max_bytes=1 << 20)
    assert (opened.says("leaves.jsonl"), opened.says("opened.jsonl")) == (5, 0)
    opened.close()
