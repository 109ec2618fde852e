"""Which heads that were kept, with their cosignatures, go into a bundle: what was known of its leaves, when, by whom.

Those that an opened `witnessed` fact names, the last one of each day, and the first one over the whole range. Heads
within the range need no proof, as all leaves are there. Must not judge a cosignature: who reads the bundle does.

Trust: as `heads.db`. A head that was taken away there is in no bundle; the verifier says for which calls it is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from onbehalf.explain.checkpoint import Checkpoint, Head
from onbehalf.explain.cosigners import by_quorum
from onbehalf.explain.quorum import Policy

__all__ = ["MOST", "CosignedHeads", "last_cosigned", "past_heads"]

MOST = 1000
"""Heads in one bundle at most; each has some 3.4 kB a witness."""
_DAY_S = 86_400


class CosignedHeads(Protocol):
    """Heads that somebody cosigned, as they were kept."""

    def cosigned(self, first: int, last: int) -> list[tuple[int, int]]:
        """Size and time of cosigning, in seconds since 1970, of those of `first` to `last` leaves, by size."""
        ...

    def noted(self, size: int) -> str:
        """The note of one, with all its signature lines."""
        ...

    def begins_with(self, head: Checkpoint) -> bool:
        """Whether the log has that root over so many leaves."""
        ...

    def recent(self, more: int, most: int) -> Sequence[tuple[Head, Mapping[str, str]]]:
        """The newest of more leaves than that, and at most so many, with lines by who signed."""
        ...


def last_cosigned(heads: CosignedHeads, policy: Policy, *, least: int, most: int) -> tuple[Head, list[str]] | None:
    """The newest head of `least` to `most` leaves that the quorum cosigned, and its lines; None where none is kept."""
    for head, by in by_quorum(policy, heads.recent(least - 1, most)):
        if heads.begins_with(head.checkpoint):
            return head, [line for _, line in by.values()]
    return None


def past_heads(heads: CosignedHeads, named: Collection[int], *, span: tuple[int, int], size: int) -> Iterator[str]:
    """The notes, by size. `span` is the range, `size` that of the bundle's newest head; `named` are sizes."""
    start, end = span
    there = heads.cosigned(1, size)
    chosen = {each for each, _ in there if each in named}
    daily = {at // _DAY_S: each for each, at in there if start <= each <= end}
    covering = [each for each, _ in there if each >= end][:1]
    for each in (*covering, *sorted(daily.values(), reverse=True)):
        if len(chosen) < MOST:
            chosen.add(each)
    for each in sorted(chosen)[:MOST]:
        yield heads.noted(each)
