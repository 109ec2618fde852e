"""Whether the gateway says all along that it lives: heartbeats, and an end that is on record before it is gone.

Must not know what was sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from onbehalf.verifier.leaves import Leaf

__all__ = ["EVERY_S", "SHORT_S", "Silence"]

EVERY_S = 60
"""How often heartbeats come where no leaf that says so is opened: a gateway's default."""
_LISTED = 100
SHORT_S = 2
"""Times are whole seconds: less than that between two leaves is no silence."""


@dataclass(slots=True)
class Silence:
    """Gaps between neighbouring leaves that no `stop` precedes, the longest kept. `every` is what heartbeats say, 0
    where none was opened; `first` and `last` are the times of the first leaf and the last, which is -1 before any."""

    every: int = 0
    first: int = 0
    last: int = -1
    _ended: bool = True
    _gaps: list[tuple[int, int]] = field(default_factory=list)

    def take(self, index: int, leaf: Leaf) -> None:
        """The next leaf."""
        at = leaf.at
        if self.last < 0:
            self.first = at
        elif at - self.last > SHORT_S and not self._ended:
            self._gap(at - self.last, index)
        self.last, self._ended = at, leaf.kind == "stop"

    def run(self, index: int, first: int, last: int, gaps: Iterable[tuple[int, int]]) -> None:
        """Leaves of which none is a `stop`, the first at `index`: their first and last time, and the gaps within."""
        if self.last < 0:
            self.first = first
        elif first - self.last > SHORT_S and not self._ended:
            self._gap(first - self.last, index)
        for seconds, after in gaps:
            self._gap(seconds, after)
        self.last, self._ended = last, False

    def _gap(self, seconds: int, index: int) -> None:
        self._gaps.append((seconds, index))
        if len(self._gaps) > 4 * _LISTED:
            self._gaps = sorted(self._gaps, reverse=True)[:_LISTED]

    def said(self, every: object) -> None:
        """What an opened heartbeat says of its pace; the slowest counts."""
        if type(every) is int and 0 < every <= 3600:
            self.every = max(self.every, every)

    @property
    def limit(self) -> int:
        """How long may pass between two leaves of a gateway that lives: one heartbeat missed, and a few seconds."""
        return 2 * (self.every or EVERY_S) + 5

    def gaps(self) -> list[tuple[int, int]]:
        """Longer ones than that: seconds, and the leaf that ends it."""
        return sorted((each for each in self._gaps if each[0] > self.limit), key=lambda each: each[1])[:_LISTED]
