"""What was erased, as leaves of the kind `erased` say it, against what the bundle calls erased.

Such a leaf stands after everything that it is about. Its fact `erasure`, where it is opened, tells how many records
were erased and between which; not whose they were. Must not know the tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Erasures"]

_MOST = 100_000
_LISTED = 1000


@dataclass(frozen=True, slots=True)
class _Scope:
    """What an `erased` leaf tells of: so many records, from first to last."""

    count: int
    first: int
    last: int
    before: int
    keys: int


@dataclass(slots=True)
class Erasures:
    """Taken leaf by leaf, in order; `problems` says at the end what does not hold."""

    _leaves: dict[int, int] = field(default_factory=dict)
    _scopes: dict[int, _Scope | None] = field(default_factory=dict)
    _erased: dict[int, list[int]] = field(default_factory=dict)

    def leaf(self, index: int, at: int) -> None:
        """A leaf of the kind `erased`."""
        if len(self._leaves) >= _MOST:
            raise ValueError(f"more than {_MOST} leaves say that something was erased")
        self._leaves[index] = at

    def told(self, index: int, fact: Any) -> None:  # Any: JSON
        """What such a leaf says was erased."""
        self._scopes[index] = _scope(fact)

    def erased(self, index: int, by: int) -> None:
        """A leaf that the bundle calls erased, by the leaf `by`; -1 where it names none."""
        found = self._erased.get(by)
        if found is None:
            if len(self._erased) >= _MOST:
                raise ValueError(f"it is called erased by one of more than {_MOST} leaves")
            found = self._erased[by] = [0, index, index]
        found[0], found[2] = found[0] + 1, index

    def problems(self, start: int, end: int) -> Iterator[tuple[int, str]]:
        """What does not hold of leaves from `start` to before `end`, as a leaf's index and a sentence."""
        for index in sorted(index for index, scope in self._scopes.items() if scope is None):
            yield index, "its fact `erasure` tells of no erasure"
        for by, (count, first, last) in sorted(self._erased.items()):
            if start <= by < end and by not in self._leaves:
                yield first, f"it is called erased by leaf {by}, which says nothing of the kind"
            scope = self._scopes.get(by)
            if scope is not None and not scope.first <= first <= last <= scope.last:
                yield first, f"leaf {by} says what was erased between {scope.first} and {scope.last}, not this"
            elif scope is not None and count > scope.count:
                yield first, f"{count} leaves are called erased by leaf {by}, which tells of {scope.count}"

    def as_json(self) -> list[dict[str, object]]:
        """Each leaf that says what was erased, with how many leaves the bundle calls erased by it. `leaf` is None for
        what no leaf is named for, `at` is None for a leaf outside of the range."""
        named = sorted({*self._leaves, *self._erased})
        return [
            {
                "leaf": by if by >= 0 else None, "at": self._leaves.get(by), "here": self._erased.get(by, [0])[0],
                "scope": _told(self._scopes.get(by)),
            }
            for by in named[:_LISTED]
        ]  # fmt: skip


def _scope(fact: Any) -> _Scope | None:  # Any: JSON
    if not isinstance(fact, dict):
        return None
    numbers = [fact.get("count"), fact.get("first"), fact.get("last"), fact.get("before", 0)]
    keys = fact.get("keys", [])
    if not all(type(each) is int for each in numbers) or not isinstance(keys, list):
        return None
    return _Scope(numbers[0], numbers[1], numbers[2], numbers[3], len(keys))


def _told(scope: _Scope | None) -> dict[str, int] | None:
    if scope is None:
        return None
    return {
        "count": scope.count, "first": scope.first, "last": scope.last, "before": scope.before, "keys": scope.keys,
    }  # fmt: skip
