"""The Merkle tree against the certificate-transparency reference vectors and a naive RFC 6962 definition."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.explain import tree

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
HASHES = [tree.leaf_hash(leaf) for leaf in LEAVES]


def naive_root(hashes: list[bytes]) -> bytes:
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return tree.node_hash(naive_root(hashes[:split]), naive_root(hashes[split:]))


def test_empty_tree_has_the_published_root() -> None:
    assert tree.root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_the_published_ones(size: int) -> None:
    assert tree.root(HASHES[:size]).hex() == ROOTS[size - 1]


@pytest.mark.parametrize(
    ("index", "size", "path"),
    [
        (0, 1, []),
        (0, 8, ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"]),
        (5, 8, ["bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"]),
        (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    ],
)  # fmt: skip
def test_inclusion_paths_are_the_published_ones(index: int, size: int, path: list[str]) -> None:
    assert [each.hex() for each in tree.inclusion(index, HASHES[:size])] == path


@pytest.mark.parametrize(
    ("old", "size", "path"),
    [
        (1, 1, []),
        (1, 8, ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"]),
        (6, 8, ["0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"]),
        (2, 5, ["5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"]),
    ],
)  # fmt: skip
def test_consistency_paths_are_the_published_ones(old: int, size: int, path: list[str]) -> None:
    assert [each.hex() for each in tree.consistency(old, HASHES[:size])] == path


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.data())
def test_frontier_and_proofs_agree_with_the_naive_definition(size: int, data: st.DataObject) -> None:
    hashes = [tree.leaf_hash(bytes([each])) for each in range(size)]
    root = naive_root(hashes)
    assert tree.Frontier(hashes).root() == root
    index = data.draw(st.integers(0, size - 1))
    path = tree.inclusion(index, hashes)
    assert tree.verify_inclusion(leaf=hashes[index], index=index, size=size, path=path, root=root)
    old = data.draw(st.integers(1, size))
    before, proof = naive_root(hashes[:old]), tree.consistency(old, hashes)
    assert tree.verify_consistency(old=old, old_root=before, size=size, root=root, path=proof)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.data())
def test_a_changed_proof_is_refused(size: int, data: st.DataObject) -> None:
    hashes = [tree.leaf_hash(bytes([each])) for each in range(size)]
    root, index, old = tree.root(hashes), data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size - 1))
    path, proof, before = tree.inclusion(index, hashes), tree.consistency(old, hashes), tree.root(hashes[:old])
    spot = data.draw(st.integers(0, len(path) - 1))
    bent = [bytes([each[0] ^ 1]) + each[1:] if place == spot else each for place, each in enumerate(path)]
    for wrong in (bent, path[:-1], [*path, root], [root, *path]):
        assert not tree.verify_inclusion(leaf=hashes[index], index=index, size=size, path=wrong, root=root)
    other = (index + 1) % size
    assert not tree.verify_inclusion(leaf=hashes[index], index=other, size=size, path=path, root=root)
    for wrong in (proof[:-1], [*proof, root], [bytes(32), *proof[1:]]):
        assert not tree.verify_consistency(old=old, old_root=before, size=size, root=root, path=wrong)
    assert not tree.verify_consistency(old=old, old_root=root, size=size, root=root, path=proof)


def test_proofs_outside_the_tree_are_refused() -> None:
    with pytest.raises(ValueError, match="no leaf 8"):
        tree.inclusion(8, HASHES)
    with pytest.raises(ValueError, match="no proof"):
        tree.consistency(0, HASHES)
    assert not tree.verify_inclusion(leaf=HASHES[0], index=1, size=1, path=[], root=HASHES[0])
    assert not tree.verify_consistency(old=0, old_root=tree.EMPTY_ROOT, size=8, root=bytes.fromhex(ROOTS[7]), path=[])
