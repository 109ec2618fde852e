"""One leaf of the record, read strictly, and how leaves of one call belong together.

Must not know the tree (merkle.py) or what facts say (opened.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from onbehalf.verifier.refused import Unusable

__all__ = ["MAX_LEAF", "Groups", "Intent", "Leaf", "Pairing", "Run", "Shape", "read_leaf", "shape_of"]

MAX_LEAF = 65_535
_MAX_OPEN = 1_000_000
_LISTED = 1000
_NUMBER = rb"(0|[1-9][0-9]{0,14})"
_WORD = rb"[ !#-\[\]-~]{0,1000}"
"""Printable ASCII without `"` and `\\`, which nothing in a leaf holds, so that no escape has to be understood."""
_BEGINS = rb'\{"at":%b,"call":"(%b)"(?:,"ch":"([0-9a-f]{16})")?,"facts":\{' % (_NUMBER, _WORD)
_ENDS = rb'\},"id":"%b","kind":"(%b)"(?:,"n":([1-9][0-9]{0,14}))?(?:,"of":%b)?,"v":1\}' % (_WORD, _WORD, _NUMBER)
_HEAD, _TAIL = re.compile(_BEGINS), re.compile(_ENDS)
_NAME = re.compile(rb"[a-z][a-z0-9_]{0,63}")
Groups = tuple[bytes, bytes, bytes | None, bytes, bytes | None, bytes | None]
_HEX = b"0123456789abcdef"
_LENGTHS = {64}


class Leaf(NamedTuple):
    """A leaf. `names` are those of its facts, in order, and `commitments` theirs, in hex; `of` is the index of an
    answer's intent, -1 for other kinds; `channel` and `number` are an intent's, "" and 0 in logs from before there were
    any."""

    kind: str
    call: str
    at: int
    of: int
    names: tuple[str, ...]
    commitments: list[bytes]
    channel: str = ""
    number: int = 0

    def commitment(self, name: str) -> bytes | None:
        """What the leaf commits to under this name, in hex; None where it has no such fact."""
        return self.commitments[self.names.index(name)] if name in self.names else None

    @property
    def facts(self) -> dict[str, str]:
        """By the fact's name its commitment."""
        return {name: each.decode() for name, each in zip(self.names, self.commitments, strict=True)}


class Run(NamedTuple):
    """Leaves that follow each other, each sound by itself, told by what must be held against leaves before them.

    `kinds` counts each kind; `gap` is the longest time between two of them and the later one's index, `silent` all such
    times of some length; `open` are intents without an answer among them (index, call, time, hash), `answers` those to
    intents before the run (intent, call), `unknown` the intents of unknown end, `channels` the first and last number of
    each. Without `kinds` it is leaves to be checked one by one."""

    leaves: int
    kinds: Mapping[str, int] = MappingProxyType({})
    first: int = 0
    last: int = 0
    gap: tuple[int, int] | None = None
    silent: Sequence[tuple[int, int]] = ()
    open: Sequence[tuple[int, str, int, bytes]] = ()
    answers: Sequence[tuple[int, str]] = ()
    unknown: Sequence[int] = ()
    channels: Mapping[str, tuple[int, int]] = MappingProxyType({})
    uncounted: int = 0


class Intent(NamedTuple):
    """An intent that waits for its outcome. `hash` is its leaf's; `opened` holds what receipts are held against."""

    call: str
    at: int
    hash: bytes
    opened: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True)
class Pairing:
    """Which intents have an outcome. `before` counts outcomes whose intent lies before the range; of those that nobody
    knows the end of, the first thousand are listed. What is kept grows with the calls under way, not with the log."""

    start: int
    open: dict[int, Intent] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)
    before: int = 0

    def take(self, index: int, leaf: Leaf, hash_: bytes) -> Intent | None:
        """Take note of the next leaf. The intent that it answers, where that is in the range. Raises ValueError."""
        kind, call, at, of, _, _, _, _ = leaf
        if kind == "intent":
            if len(self.open) >= _MAX_OPEN:
                raise Unusable(f"more than {_MAX_OPEN} calls are without outcome")
            self.open[index] = Intent(call, at, hash_)
        elif kind == "outcome" or kind == "unknown":
            return self._answered(kind, call, of)
        return None

    def fits(self, run: Run) -> bool:
        """Whether each answer of a run to an intent before it has one that waits for it, and not so many are open that
        they must be counted one by one."""
        mine = {of: call for of, call in run.answers if of >= self.start}
        waiting = (self.open.get(of) for of in mine)
        alike = all(each is not None and each.call == call for each, call in zip(waiting, mine.values(), strict=True))
        once = len(mine) == sum(of >= self.start for of, _ in run.answers)
        return alike and once and len(self.open) + run.leaves <= _MAX_OPEN

    def run(self, run: Run) -> None:
        """A run that fits."""
        for of, _ in run.answers:
            if self.open.pop(of, None) is None:
                self.before += 1
        self.unknown += run.unknown[: max(0, _LISTED - len(self.unknown))]
        self.open |= {index: Intent(call, at, hash_) for index, call, at, hash_ in run.open}

    def _answered(self, kind: str, call: str, of: int) -> Intent | None:
        if kind == "unknown" and len(self.unknown) < _LISTED:
            self.unknown.append(of)
        if 0 <= of < self.start:
            self.before += 1
            return None
        intent = self.open.pop(of, None)
        if intent is None:
            raise ValueError(f"this {kind} is about {of}, which is no intent before it that waits for one")
        if intent.call != call:
            raise ValueError(f"this {kind} names another call than its intent {of}")
        return intent


class Shape(NamedTuple):
    """What leaves with facts of the same names have in common: a quicker way to the same as `read_leaf` gives.

    `left` is how many bytes of their facts are left without those that are hex digits. Names and signs are in the
    pattern as they are, and where a commitment stands are 64 bytes: so if no more is left, all of those are hex digits.
    """

    pattern: re.Pattern[bytes]
    left: int

    def groups(self, line: bytes) -> Groups | None:
        """`at`, `call`, `ch`, `kind`, `n` and `of` as they stand; None for another shape and for no leaf."""
        found = self.pattern.fullmatch(line)
        if found is None:
            return None
        at, call, channel, facts, kind, number, of = found.groups()
        if len(facts.translate(None, _HEX)) != self.left:
            return None
        if channel is not number and (channel is None or number is None or kind != b"intent"):
            return None
        return at, call, channel, kind, number, of


def read_leaf(line: bytes) -> Leaf:
    """A leaf from its bytes. Raises ValueError for what is no leaf of version 1 in its one spelling (RFC 8785)."""
    head = _HEAD.match(line)
    end = line.find(b"}", head.end()) if head is not None else -1
    tail = _TAIL.fullmatch(line, end) if end >= 0 else None
    if head is None or tail is None:
        raise ValueError("it is no leaf of version 1 in the spelling of RFC 8785")
    at, call, channel = head.groups()
    kind, number, of = tail.groups()
    names, commitments = _facts(line[head.end() : end])
    answers = -1 if of is None else int(of)
    if channel is None and number is None:
        return Leaf(kind.decode(), call.decode(), int(at), answers, names, commitments)
    if channel is None or number is None or kind != b"intent":
        raise ValueError("a number and its channel belong together, to an intent")
    return Leaf(kind.decode(), call.decode(), int(at), answers, names, commitments, channel.decode(), int(number))


@lru_cache(128)
def shape_of(names: tuple[str, ...]) -> Shape:
    """The shape of all leaves with facts of these names, which are those of a leaf that `read_leaf` gave."""
    commitments = (b'"%b":"[^"]{64}"' % name.encode() for name in names)
    bare = "".join(f'"{name}":"",' for name in names)[:-1]
    left = len(bare.encode().translate(None, _HEX))
    return Shape(re.compile(_BEGINS + b"(" + b",".join(commitments) + b")" + _ENDS), left)


def _facts(text: bytes) -> tuple[tuple[str, ...], list[bytes]]:
    """Names and commitments. What stands between two quotes is a name, a commitment, or a sign between them."""
    if not text:
        return (), []
    pieces = text.split(b'"')
    commitments = pieces[3::4]
    names, before, between = _named(*pieces[1::4])
    if pieces[0::4] != before or pieces[2::4] != between:
        raise ValueError("its facts are not in the spelling of RFC 8785")
    if {*map(len, commitments)} != _LENGTHS or b"".join(commitments).translate(None, _HEX):
        raise ValueError("its facts are not commitments of 64 hex digits")
    return names, commitments


@lru_cache(128)
def _named(*names: bytes) -> tuple[tuple[str, ...], list[bytes], list[bytes]]:
    """Facts' names, and the pieces that stand before each name and after it. Most leaves have the names of another."""
    if not all(map(_NAME.fullmatch, names)) or [*names] != sorted({*names}):
        raise ValueError("its facts are misnamed, not in order, or one stands twice")
    before = [b"", *[b","] * (len(names) - 1), b""]
    return tuple(name.decode() for name in names), before, [b":"] * len(names)
