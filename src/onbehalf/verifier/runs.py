"""Many leaves at once: what is checked of each alone, and what is left to be held against leaves before them.

A block is lines of `leaves.jsonl`. Its leaves fall into runs. A run is leaves of which nothing is found while they are
looked at alone, as nearly all of a sound log are; it is told by what must still be joined with what came before. A leaf
that is in no run is checked by itself by walk.py, with the words for what is wrong: here nothing is ever refused, and
nothing is accepted that `read_leaf` would not accept. Results are plain values, so that another process can send them.
"""

from __future__ import annotations

from typing import NamedTuple

from onbehalf.verifier import merkle
from onbehalf.verifier.leaves import MAX_LEAF, Groups, Run, Shape, read_leaf, shape_of
from onbehalf.verifier.silence import SHORT_S

__all__ = ["Examined", "examined", "subtrees"]

_BY_ITSELF = (b"heartbeat", b"stop", b"reconciled", b"erased", b"start", b"key_change")
"""Kinds of leaves that change how later ones are read, or are always opened."""
_SHAPES, _MAX_NAMES, _AGAIN = 8, 32, 4


class Examined(NamedTuple):
    """A block: the complete subtrees over its leaves, as width and root, and its runs. `too_long` says that a line has
    more bytes than a leaf can have."""

    pieces: list[tuple[int, bytes]]
    runs: list[Run]
    too_long: bool


def subtrees(start: int, data: bytes) -> Examined:
    """A block of whose leaves each is to be taken by itself."""
    lines = data.split(b"\n")
    lines.pop()
    hashes = [merkle.leaf_hash(line) for line in lines]
    return Examined(merkle.pieces(start, hashes), [Run(len(lines))], max(map(len, lines), default=0) > MAX_LEAF)


def examined(start: int, data: bytes) -> Examined:
    """The leaves of a block of whole lines, of which the first is leaf `start`."""
    lines = data.split(b"\n")
    lines.pop()
    if len(data) > MAX_LEAF and max(map(len, lines), default=0) > MAX_LEAF:
        return Examined([], [], True)
    hashes = [merkle.leaf_hash(line) for line in lines]
    made, index, shapes = list[Run](), start, _Shapes()
    while index < start + len(lines):
        run = _run(index, lines, hashes, index - start, shapes)
        if run.leaves:
            made.append(run)
            index += run.leaves
        elif made and not made[-1].kinds:
            made[-1] = Run(made[-1].leaves + 1)
            index += 1
        else:
            made.append(Run(1))
            index += 1
    return Examined(merkle.pieces(start, hashes), made, False)


def _run(index: int, lines: list[bytes], hashes: list[bytes], begin: int, shapes: _Shapes) -> Run:
    """The longest run that begins here; its `count` is 0 where there is none."""
    kinds: dict[bytes, int] = {}
    waiting: dict[int, tuple[bytes, int, bytes]] = {}
    answers: list[tuple[int, str]] = []
    unknown: list[int] = []
    silent: list[tuple[int, int]] = []
    channels: dict[bytes, tuple[int, int]] = {}
    first, last, before, uncounted = index, 0, 0, 0
    longest: int | None = None
    gap_at = -1
    for place in range(begin, len(lines)):
        groups = shapes.groups(lines[place])
        if groups is None:
            break
        at_text, call, channel, kind, number, of_text = groups
        if kind in _BY_ITSELF:
            break
        at = int(at_text)
        if kind == b"intent":
            if channel is None or number is None:
                uncounted += 1
            else:
                numbered, known = int(number), channels.get(channel)
                if known is not None and numbered != known[1] + 1:
                    break
                channels[channel] = (numbered if known is None else known[0], numbered)
            waiting[index] = (call, at, hashes[place])
        elif kind == b"outcome" or kind == b"unknown":
            of = -1 if of_text is None else int(of_text)
            if of >= first:
                intent = waiting.get(of)
                if intent is None or intent[0] != call:
                    break
                del waiting[of]
            elif of < 0:
                break
            else:
                answers.append((of, call.decode()))
            if kind == b"unknown":
                unknown.append(of)
        if index > first:
            gap = at - last
            if longest is None or gap > longest:
                longest, gap_at = gap, index
            if gap > SHORT_S:
                silent.append((gap, index))
        else:
            before = at
        kinds[kind] = kinds.get(kind, 0) + 1
        last = at
        index += 1
    return Run(
        index - first, {kind.decode(): count for kind, count in kinds.items()}, before, last,
        None if longest is None else (longest, gap_at), silent,
        [(of, call.decode(), at, hash_) for of, (call, at, hash_) in waiting.items()], answers, unknown,
        {channel.decode(): numbers for channel, numbers in channels.items()}, uncounted,
    )  # fmt: skip


class _Shapes:
    """Reads leaves of one block. Those with the facts' names of some before them are matched as a whole; of all others,
    and of which names there are, `read_leaf` says what a leaf is."""

    def __init__(self) -> None:
        self._known: list[Shape] = []
        self._seen: dict[tuple[str, ...], int] = {}

    def groups(self, line: bytes) -> Groups | None:
        """`at`, `call`, `ch`, `kind`, `n` and `of` of a leaf, as they stand; None for what `read_leaf` refuses."""
        for shape in self._known:
            if (found := shape.groups(line)) is not None:
                return found
        try:
            leaf = read_leaf(line)
        except ValueError:
            return None
        self._learn(leaf.names)
        channel, number = (leaf.channel.encode(), b"%d" % leaf.number) if leaf.channel else (None, None)
        of = b"%d" % leaf.of if leaf.of >= 0 else None
        return b"%d" % leaf.at, leaf.call.encode(), channel, leaf.kind.encode(), number, of

    def _learn(self, names: tuple[str, ...]) -> None:
        """A shape costs as much as hundreds of leaves: so few, and only for names that come again."""
        if len(self._known) >= _SHAPES or len(names) > _MAX_NAMES:
            return
        self._seen[names] = self._seen.get(names, 0) + 1
        if self._seen[names] == _AGAIN:
            self._known.append(shape_of(names))
