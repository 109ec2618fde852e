"""The Merkle tree of the record: RFC 6962 section 2.1, with SHA-256.

Hashes in, hashes out. Must not know what a leaf says (leaf.py) or how a root is signed (checkpoint.py).
Of the empty tree only the root is defined here: it has no inclusion proof, and no consistency proof is needed from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

__all__ = [
    "EMPTY_ROOT", "Frontier", "consistency", "consistency_spans", "inclusion", "leaf_hash", "node_hash", "root",
    "spans_around", "verify_consistency", "verify_inclusion",
]  # fmt: skip

EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """The hash of one leaf: SHA-256 of 0x00 and its bytes."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256 of 0x01 and its two children."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A growing tree, kept as the roots of its complete subtrees, largest first."""

    __slots__ = ("_peaks", "size")

    def __init__(self, hashes: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._peaks: list[bytes] = []
        for each in hashes:
            self.append(each)

    def copy(self) -> Frontier:
        """The same tree, to grow by itself."""
        other = Frontier()
        other.size, other._peaks = self.size, [*self._peaks]
        return other

    def peaks(self) -> dict[tuple[int, int], bytes]:
        """The roots of the complete subtrees, by the leaves [start, end) that each is over."""
        return dict(zip(_aligned(0, self.size), self._peaks, strict=True))

    def append(self, hash_: bytes) -> None:
        """Add one leaf hash at the right edge."""
        size = self.size
        while size & 1:  # each trailing 1 bit of the size is a complete subtree that this leaf closes
            hash_ = sha256(b"\x01" + self._peaks.pop() + hash_).digest()
            size >>= 1
        self._peaks.append(hash_)
        self.size += 1

    def root(self) -> bytes:
        """The root over all leaves so far."""
        if not self._peaks:
            return EMPTY_ROOT
        result = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            result = node_hash(peak, result)
        return result


def root(hashes: Iterable[bytes]) -> bytes:
    """The root over these leaf hashes."""
    return Frontier(hashes).root()


def inclusion(index: int, hashes: Sequence[bytes]) -> list[bytes]:
    """The audit path of leaf `index` in the tree over `hashes`, nearest sibling first (RFC 6962 section 2.1.1)."""
    if not 0 <= index < len(hashes):
        raise ValueError(f"no leaf {index} in a tree of {len(hashes)}")
    path: list[bytes] = []
    start, end = 0, len(hashes)
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(root(hashes[middle:end]))
            end = middle
        else:
            path.append(root(hashes[start:middle]))
            start = middle
    path.reverse()
    return path


def consistency(old: int, hashes: Sequence[bytes]) -> list[bytes]:
    """Proof that the tree over the first `old` of `hashes` is a prefix of the whole (RFC 6962 section 2.1.2)."""
    if not 0 < old <= len(hashes):
        raise ValueError(f"no proof from size {old} to size {len(hashes)}")
    return [root(hashes[start:end]) for start, end in consistency_spans(old, len(hashes))]


def consistency_spans(old: int, size: int) -> list[tuple[int, int]]:
    """The leaves that each hash of a consistency proof is the root over, as [start, end)."""
    spans: list[tuple[int, int]] = []
    start, end, whole = 0, size, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start, whole = middle, False
    if not whole:
        spans.append((start, end))
    spans.reverse()
    return spans


def spans_around(start: int, end: int, size: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The complete subtrees that cover what is left, and what is right, of the leaves [start, end), left to right.

    With the roots over them and the leaves between, anybody has the root over all `size`, and the root over any size
    within the range.
    """
    if not 0 <= start <= end <= size:
        raise ValueError(f"no range {start} to {end} in a tree of {size}")
    return _aligned(0, start), _aligned(end, size)


def verify_inclusion(*, leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` shows the leaf hash as leaf `index` of the tree of `size` with this root (RFC 9162 2.1.3.2)."""
    if not 0 <= index < size or not _hashes(leaf, root, *path):
        return False
    node, last, result = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(*, old: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` shows that the tree `old` is a prefix of the tree `size` (RFC 9162 section 2.1.4.2)."""
    if not 0 < old <= size or not _hashes(old_root, root, *path):
        return False
    if old == size:
        return not path and old_root == root
    steps = list(path) if old & (old - 1) else [old_root, *path]  # a power of two: its root is the first step
    if not steps:
        return False
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    before = after = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            before, after = node_hash(step, before), node_hash(step, after)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            after = node_hash(after, step)
        node, last = node >> 1, last >> 1
    return last == 0 and before == old_root and after == root


def _split(size: int) -> int:
    """The largest power of two smaller than `size`, for `size` of at least 2."""
    return 1 << ((size - 1).bit_length() - 1)


def _aligned(start: int, end: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    while start < end:
        width = 1 << ((end - start).bit_length() - 1)
        while start % width:
            width >>= 1
        spans.append((start, start + width))
        start += width
    return spans


def _hashes(*values: bytes) -> bool:
    return all(len(value) == 32 for value in values)
