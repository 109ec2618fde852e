"""Tiles: paths in their one spelling, the sizes that the specification gives as examples, and bundles read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onbehalf.explain import tiles, tree
from onbehalf.explain.tiles import Tile


def test_paths_are_those_of_the_specification() -> None:
    assert Tile(level=0, number=1_234_067).path == "tile/0/x001/x234/067"
    assert Tile(level=1, number=7, width=3).path == "tile/1/007.p/3"
    assert Tile(level=0, number=999, entries=True).path == "tile/entries/999"
    assert Tile(level=0, number=1000, width=255, entries=True).path == "tile/entries/x001/000.p/255"


@given(level=st.integers(0, 7), number=st.integers(0, 10**15), width=st.integers(1, 256), entries=st.booleans())
def test_each_path_is_read_back_as_its_tile(level: int, number: int, width: int, entries: bool) -> None:
    tile = Tile(level=0 if entries else level, number=number, width=width, entries=entries)
    assert tiles.parse(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "tile", "tile/0", "tile/0/", "tile/0/1", "tile/0/01", "tile/00/001", "tile/0/x000/001", "tile/0/x01/001",
        "tile/0/001/002", "tile/0/x001", "tile/0/001.p/0", "tile/0/001.p/256", "tile/0/001.p/01", "tile/0/001.p/1000",
        "tile/8/000", "tile/64/000", "tile/-1/000", "tile/0/001/", "/tile/0/001", "tile/0/../0/001", "tile/0/00\uff11",
        "tile/entries/001.p/", "tile/0/001\n", "tile/0/X001/001", "tile/entries/" + "x001/" * 6 + "001",
        "tile/" + "0" * 5000 + "/001",
    ],
)  # fmt: skip
def test_any_other_spelling_is_no_tile(path: str) -> None:
    assert tiles.parse(path) is None


def test_a_log_of_70000_has_the_tiles_of_the_specifications_example() -> None:
    found = [tiles.tiles_of(70_000, level=level) for level in range(4)]
    assert [len(each) for each in found] == [274, 2, 1, 0]
    assert [each[-1].width for each in found[:3]] == [112, 17, 1]
    assert [each.width for each in found[1]] == [256, 17]
    assert [tiles.tiles_of(256, level=level) for level in (0, 1)] == [
        [Tile(level=0, number=0)], [Tile(level=1, number=0, width=1)]
    ]  # fmt: skip


@given(since=st.integers(0, 200_000), more=st.integers(0, 200_000), level=st.integers(0, 3))
def test_what_is_new_is_what_there_is_without_what_there_was(since: int, more: int, level: int) -> None:
    now, before = tiles.tiles_of(since + more, level=level), set(tiles.tiles_of(since, level=level))
    assert tiles.tiles_of(since + more, level=level, since=since) == [each for each in now if each not in before]


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_gives_back_its_leaves(leaves: list[bytes]) -> None:
    data, found = tiles.bundle(leaves), []
    while data:
        length = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + length])
        data = data[2 + length :]
    assert found == leaves


def test_a_leaf_that_has_no_length_in_16_bits_is_refused() -> None:
    assert len(tiles.bundle([b"x" * 65_535])) == 65_537
    with pytest.raises(ValueError, match="at most 65535"):
        tiles.bundle([b"x" * 65_536])


def test_a_hash_of_a_level_is_the_root_over_the_full_tile_below() -> None:
    hashes = [tree.leaf_hash(bytes([each])) for each in range(256)]
    assert tiles.subtree(hashes) == tree.root(hashes)
    with pytest.raises(ValueError, match="256"):
        tiles.subtree(hashes[:255])
