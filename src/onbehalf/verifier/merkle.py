"""The tree of RFC 6962, to check: ranges of leaves against a root, and the two proofs of the RFC.

Written apart from the tree that writes the record. A range is checked whole: what lies left and right of it is given as
the roots of its complete subtrees, so that every leaf costs two hashes, whatever the log's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

__all__ = ["Range", "consistent", "included", "leaf_hash", "left_of", "pieces", "right_of"]

_EMPTY = sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-256 of 0x00 and the leaf."""
    return sha256(b"\0" + leaf).digest()


def _join(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def left_of(index: int) -> list[int]:
    """The sizes of the complete subtrees that cover the leaves before `index`, left to right."""
    return [1 << bit for bit in range(index.bit_length() - 1, -1, -1) if index >> bit & 1]


def right_of(index: int, size: int) -> list[int]:
    """The sizes of the complete subtrees that cover the leaves from `index` to `size`, left to right."""
    found = []
    while index < size:
        fits = 1 << ((size - index).bit_length() - 1)
        found.append(min(index & -index, fits) if index else fits)
        index += found[-1]
    return found


def pieces(start: int, hashes: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """The complete subtrees over leaves from `start` on that have these hashes, left to right, by width and root."""
    found, begun = [], 0
    for width in right_of(start, start + len(hashes)):
        level = hashes[begun : begun + width]
        begun += width
        while len(level) > 1:
            each = iter(level)
            level = [sha256(b"\1" + left + right).digest() for left, right in zip(each, each, strict=True)]
        found.append((width, level[0]))
    return found


class Range:
    """The tree so far: all leaves before `size`, as the roots of its complete subtrees, the largest first."""

    __slots__ = ("_subtrees", "size")

    def __init__(self, start: int, left: Sequence[bytes]) -> None:
        """`left` are the hashes of `left_of(start)`. Raises ValueError where there are more or fewer."""
        sizes = left_of(start)
        if len(sizes) != len(left):
            raise ValueError(f"expected {len(sizes)} hashes left of leaf {start}, found {len(left)}")
        self.size = start
        self._subtrees = list(zip(sizes, left, strict=True))

    def add(self, hashes: Iterable[bytes]) -> None:
        """The next leaf hashes. Whole levels are joined at once: quick where many leaves come together."""
        level, size, rests = list(hashes), 1, []
        self.size += len(level)
        while level:
            if self._subtrees and self._subtrees[-1][0] == size:  # it waits for the first of these as its right half
                level.insert(0, self._subtrees.pop()[1])
            if len(level) & 1:
                rests.append((size, level.pop()))
            each = iter(level)
            level = [sha256(b"\1" + left + right).digest() for left, right in zip(each, each, strict=True)]
            size *= 2
        self._subtrees += reversed(rests)

    def close(self, size: int, right: Sequence[bytes]) -> None:
        """What lies right of the range, as the hashes of `right_of`. Raises ValueError for more or fewer."""
        sizes = right_of(self.size, size)
        if len(sizes) != len(right):
            raise ValueError(f"expected {len(sizes)} hashes right of leaf {self.size}, found {len(right)}")
        self.join(zip(sizes, right, strict=True))

    def join(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        """The complete subtrees that come next, left to right, as `pieces` gives them: each by its width and root."""
        for width, hash_ in pieces:
            self.size += width
            while self._subtrees and self._subtrees[-1][0] == width:
                hash_ = _join(self._subtrees.pop()[1], hash_)
                width *= 2
            self._subtrees.append((width, hash_))

    def root(self) -> bytes:
        """The root over all leaves before `size`."""
        if not self._subtrees:
            return _EMPTY
        found = self._subtrees[-1][1]
        for _, left in self._subtrees[-2::-1]:
            found = _join(left, found)
        return found


def included(leaf: bytes, *, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` puts the leaf hash at `index` of the tree of `size` with this root (RFC 6962 section 2.1.1)."""
    steps = list(path)

    def above(index: int, size: int) -> bytes:
        if size == 1:
            return leaf
        half = 1 << ((size - 1).bit_length() - 1)
        if index < half:
            return _join(above(index, half), steps.pop(0))
        inner = above(index - half, size - half)
        return _join(steps.pop(0), inner)

    if not 0 <= index < size or size >> 63 or any(len(each) != 32 for each in (leaf, root, *steps)):
        return False
    try:
        return above(index, size) == root and not steps
    except IndexError:  # too short
        return False


def consistent(*, old: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` shows that the tree of `old` leaves is a prefix of the tree of `size` (RFC 6962 section 2.1.2)."""
    steps = list(path)

    def both(old: int, size: int, *, whole: bool) -> tuple[bytes, bytes]:
        """The roots over the first `old` and over all `size` leaves of one subtree, as the proof has them."""
        if old == size:
            same = old_root if whole else steps.pop(0)
            return same, same
        half = 1 << ((size - 1).bit_length() - 1)
        if old <= half:
            before, after = both(old, half, whole=whole)
            return before, _join(after, steps.pop(0))
        before, after = both(old - half, size - half, whole=False)
        left = steps.pop(0)
        return _join(left, before), _join(left, after)

    if not 0 < old <= size or size >> 63 or any(len(each) != 32 for each in (old_root, root, *steps)):
        return False
    try:
        return both(old, size, whole=True) == (old_root, root) and not steps
    except IndexError:  # too short
        return False
