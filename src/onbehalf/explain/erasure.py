"""What was erased of the record, and what may not be: entries that say so, and whether all that is gone is covered.

An erasure names keys that were destroyed, or a time before which payloads were deleted; never whose they were. Must not
erase anything (doors/ledger_erase.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from onbehalf.model import AuditEntry, Json, UnixTime

__all__ = ["KEPT", "Covered", "Erasure", "erased_entry", "hold_entry", "login_name", "scope_of"]

KEPT = frozenset({"erased", "legal_hold"})
"""Kinds whose payloads no retention deletes: they say what was erased, and why it may not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """One erasure, on record as the leaf `leaf`. It destroyed `keys`, or deleted payloads of records from before the
    time `before`, 0 for none; `count` records between `first` and `last`, both included, -1 for none."""

    id: str
    leaf: int
    at: UnixTime
    keys: frozenset[str] = frozenset()
    before: int = 0
    count: int = 0
    first: int = -1
    last: int = -1

    def covers(self, index: int, key: str) -> bool:
        """Whether it is why the record at `index` cannot be opened. `key` is the id of its key, "" where it is gone."""
        if key:
            return key in self.keys
        return self.before > 0 and self.first <= index <= self.last


def erased_entry(of: Erasure, *, basis: str, by: str) -> AuditEntry:
    """That something was erased: what, on which legal basis and by whom."""
    told: dict[str, Json] = {"id": of.id, "count": of.count, "first": of.first, "last": of.last}
    if of.before:
        told["before"] = of.before
    else:
        told["keys"] = [*sorted(of.keys)]
    return AuditEntry(kind="erased", call="", at=of.at, facts={"erasure": told, "basis": basis, "by": by})


def hold_entry(about: str, *, id_: str, action: str, reason: str, by: str, at: UnixTime) -> AuditEntry:
    """That a legal hold was `added` or `lifted`: nothing about this person may be erased while it stands."""
    facts: dict[str, Json] = {"hold": {"id": id_, "action": action}, "whom": about, "reason": reason, "by": by}
    return AuditEntry(kind="legal_hold", call="", at=at, facts=facts, about=about)


def login_name(issuer: str, subject: str) -> str:
    """What somebody is called in `AuditEntry.about` whom the directory does not know: their login. No person's id has
    a blank."""
    return f"login {issuer} {subject}"


def scope_of(facts: Mapping[str, Json], *, leaf: int, at: UnixTime) -> Erasure | None:
    """The erasure that the facts of an `erased` leaf tell of; None where they tell of none."""
    told = facts.get("erasure")
    if not isinstance(told, dict):
        return None
    keys, numbers = told.get("keys"), (told.get("count"), told.get("first"), told.get("last"), told.get("before", 0))
    whole = [each for each in numbers if isinstance(each, int)]
    if len(whole) != len(numbers):
        return None
    return Erasure(
        id=str(told.get("id")), leaf=leaf, at=at, keys=frozenset(map(str, keys if isinstance(keys, list) else ())),
        before=whole[3], count=whole[0], first=whole[1], last=whole[2],
    )  # fmt: skip


@dataclass(slots=True)
class Covered:
    """Whether all that cannot be opened was erased on record. Taken record by record, in the log's order."""

    erasures: list[Erasure] = field(default_factory=list)
    _keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    _gone: list[tuple[int, int]] = field(default_factory=list)

    def missing(self, index: int, key: str) -> None:
        """A record that cannot be opened: `key` is the id of its key, "" where the payload is gone."""
        if key:
            first, count = self._keys.get(key, (index, 0))
            self._keys[key] = first, count + 1
        elif self._gone and self._gone[-1][1] == index - 1:
            self._gone[-1] = self._gone[-1][0], index
        else:
            self._gone.append((index, index))

    def uncovered(self) -> Iterator[tuple[int, str]]:
        """What was erased and is not on record as such: the first index of each, and a sentence."""
        named = {key for each in self.erasures for key in each.keys}
        for key, (first, count) in self._keys.items():
            if key not in named:
                yield (
                    first,
                    f"{count} payloads from {first} on cannot be opened: no `erased` leaf names their key {key}",
                )
        spans = [(each.first, each.last) for each in self.erasures if each.before]
        for first, last in self._gone:
            if left := _outside(first, last, spans):
                yield left[0], f"payloads {left[0]} to {left[1]} are gone, and no `erased` leaf says so"
                return
        gone, told = sum(last - first + 1 for first, last in self._gone), sum(each.count for each in self.erasures)
        if gone > told:
            yield self._gone[0][0], f"{gone} payloads are gone, and `erased` leaves say so of {told}"


def _outside(first: int, last: int, spans: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """What of first to last no span holds: from the first index that none holds to the end."""
    for start, end in sorted(spans):
        if start > first:
            break
        first = max(first, end + 1)
    return (first, last) if first <= last else None
