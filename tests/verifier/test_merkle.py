"""The verifier's tree against the one that writes the record, and against published vectors."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain.test_tree import LEAVES, ROOTS
from onbehalf.explain import tree
from onbehalf.verifier import merkle

EMPTY = sha256(b"").digest()
HASHES = [sha256(b"%d" % number).digest() for number in range(600)]


def roots(spans: list[tuple[int, int]], hashes: list[bytes]) -> list[bytes]:
    return [tree.root(hashes[start:end]) for start, end in spans]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_published_ones(size: int) -> None:
    grown = merkle.Range(0, ())
    grown.add(map(merkle.leaf_hash, LEAVES[:size]))
    assert grown.root().hex() == (ROOTS[size - 1] if size else EMPTY.hex())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_range_has_the_root_that_the_writer_signs(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 600))
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))
    hashes = HASHES[:size]
    left, right = tree.spans_around(start, end, size)
    assert [stop - begin for begin, stop in left] == merkle.left_of(start)
    assert [stop - begin for begin, stop in right] == merkle.right_of(end, size)
    made = merkle.Range(start, roots(left, hashes))
    assert made.root() == tree.root(hashes[:start])
    at = start
    while at < end:
        step = data.draw(st.integers(1, end - at))
        made.add(hashes[at : at + step])
        at += step
        assert made.root() == tree.root(hashes[:at])
    made.close(size, roots(right, hashes))
    assert made.root() == tree.root(hashes)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_one_changed_hash_anywhere_changes_the_root(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 300))
    start = data.draw(st.integers(0, size))
    end = data.draw(st.integers(start, size))
    left, right = tree.spans_around(start, end, size)
    parts = [roots(left, HASHES), HASHES[start:end], roots(right, HASHES)]
    which = data.draw(st.sampled_from([index for index in range(3) if parts[index]]))
    place = data.draw(st.integers(0, len(parts[which]) - 1))
    changed = bytearray(parts[which][place])
    changed[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    parts[which] = [*parts[which]]
    parts[which][place] = bytes(changed)
    made = merkle.Range(start, parts[0])
    made.add(parts[1])
    made.close(size, parts[2])
    assert made.root() != tree.root(HASHES[:size])


def test_too_few_or_too_many_hashes_around_are_refused() -> None:
    for left in ([], [HASHES[0]] * 3):
        with pytest.raises(ValueError, match="left"):
            merkle.Range(3, left)
    for right in ([], [HASHES[0]] * 2):
        with pytest.raises(ValueError, match="right"):
            merkle.Range(0, ()).close(8, right)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_proofs_of_the_writer_hold_and_both_readers_agree_on_spoiled_ones(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 200))
    hashes = HASHES[:size]
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    root = tree.root(hashes)
    path, proof = tree.inclusion(index, hashes), tree.consistency(old, hashes)
    assert merkle.included(hashes[index], index=index, size=size, path=path, root=root)
    assert merkle.consistent(old=old, old_root=tree.root(hashes[:old]), size=size, root=root, path=proof)
    spoiled = data.draw(st.sampled_from(["drop", "double", "flip", "swap", "more", "index", "size"]))
    for steps in (path, proof):
        if spoiled == "drop" and steps:
            steps.pop(data.draw(st.integers(0, len(steps) - 1)))
        elif spoiled == "double" and steps:
            steps.append(steps[-1])
        elif spoiled == "flip" and steps:
            steps[0] = steps[0][:-1] + bytes([steps[0][-1] ^ 1])
        elif spoiled == "swap":
            steps.reverse()
        elif spoiled == "more":
            steps.append(HASHES[-1])
    index += spoiled == "index"
    size += spoiled == "size"
    one = merkle.included(hashes[min(index, len(hashes) - 1)], index=index, size=size, path=path, root=root)
    other = tree.verify_inclusion(
        leaf=hashes[min(index, len(hashes) - 1)], index=index, size=size, path=path, root=root
    )
    assert one == other
    old_root = tree.root(hashes[:old])
    one = merkle.consistent(old=old, old_root=old_root, size=size, root=root, path=proof)
    assert one == tree.verify_consistency(old=old, old_root=old_root, size=size, root=root, path=proof)


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (0, 8, "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
               "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
               "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
        (2, 3, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
        (1, 5, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
               "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
               "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
    ],
)  # fmt: skip
def test_the_published_inclusion_proofs_hold(index: int, size: int, path: str) -> None:
    steps = [bytes.fromhex(path[start : start + 64]) for start in range(0, len(path), 64)]
    leaf, root = merkle.leaf_hash(LEAVES[index]), bytes.fromhex(ROOTS[size - 1])
    assert merkle.included(leaf, index=index, size=size, path=steps, root=root)
    for wrong in ({"index": -1}, {"index": size}, {"size": 0}, {"size": 1 << 80}, {"index": index ^ 1}):
        values = {"index": index, "size": size, **wrong}
        assert not merkle.included(leaf, path=steps, root=root, **values), wrong


@pytest.mark.parametrize(
    ("old", "size", "path"),
    [
        (1, 1, ""),
        (1, 8, "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
               "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
               "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"),
        (6, 8, "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
               "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
               "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
        (2, 5, "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
               "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"),
    ],
)  # fmt: skip
def test_the_published_consistency_proofs_hold(old: int, size: int, path: str) -> None:
    steps = [bytes.fromhex(path[start : start + 64]) for start in range(0, len(path), 64)]
    old_root, root = bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[size - 1])
    assert merkle.consistent(old=old, old_root=old_root, size=size, root=root, path=steps)
    assert not merkle.consistent(old=old, old_root=root, size=size, root=old_root, path=steps) or old == size
    assert not merkle.consistent(old=0, old_root=EMPTY, size=size, root=root, path=steps)
    assert not merkle.consistent(old=size + 1, old_root=old_root, size=size, root=root, path=steps)


def test_a_leaf_costs_one_hash_above_it_however_many_come(monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[int] = []

    def counting(data: bytes) -> Any:
        joined.append(len(data))
        return sha256(data)

    monkeypatch.setattr(merkle, "sha256", counting)
    made = merkle.Range(0, ())
    for size in (1, 4095, 4096, 7, 4097):
        made.add([bytes(32)] * size)
    made.root()
    assert made.size == 12_296
    assert len(joined) == made.size - 1  # a tree of n leaves has n - 1 nodes above them
    assert set(joined) == {65}
