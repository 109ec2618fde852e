"""Whether the calls that were opened are those that the seed chooses, chosen here anew.

Written apart from what chose them for the bundle. The seed is the word that the auditor gave; without one it is of the
file `checkpoint`, with its cosignatures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from heapq import heappush, heapreplace

from onbehalf.verifier.leaves import Leaf

__all__ = ["Sample", "asked_sample"]

_MOST = 10_000
_DOMAIN = b"onbehalf/sample/v1\0"
_LEADING = ("intent", "denial", "asked")


@dataclass(slots=True)
class Sample:
    """Of the records that begin a call, those of lowest rank so far, and whether they were opened as they should be."""

    seed: bytes
    count: int
    population: int = 0
    _ranks: list[tuple[int, int]] = field(default_factory=list)
    """A heap with the highest rank first: ranks are negative."""
    _opened: dict[int, bool] = field(default_factory=dict)

    def take(self, index: int, leaf: Leaf, *, whole: bool) -> None:
        """The next leaf. `whole` says that all its facts were opened, or that they are erased."""
        if leaf.kind in _LEADING:
            self.population += 1
            rank = -int.from_bytes(sha256(self.seed + index.to_bytes(8, "big")).digest(), "big")
            if len(self._ranks) < self.count:
                heappush(self._ranks, (rank, index))
            elif rank > self._ranks[0][0]:
                self._opened.pop(heapreplace(self._ranks, (rank, index))[1])
            else:
                return
            self._opened[index] = whole
        elif leaf.of in self._opened:  # what is not among the lowest by now never will be
            self._opened[leaf.of] &= whole

    @property
    def size(self) -> int:
        return len(self._ranks)

    def withheld(self) -> list[int]:
        """The records that were chosen, and of which, or of whose answer, something was not opened."""
        return sorted(index for index, whole in self._opened.items() if not whole)


def asked_sample(asked: dict[str, str], note: bytes) -> Sample | None:
    """The sample that a bundle says it has. `note` is its file `checkpoint`. Raises ValueError."""
    if "sample" not in asked:
        return None
    count = asked["sample"]
    if not (count.isascii() and count.isdigit() and len(count) < 6 and 1 <= int(count) <= _MOST):
        raise ValueError(f"a sample has 1 to {_MOST} calls")
    word = asked.get("seed", "").encode("utf-8", "surrogatepass")
    return Sample(sha256(_DOMAIN + (b"word\0" + word if word else b"head\0" + note)).digest(), int(count))
