"""Pieces of SQL put together: one side of a condition, folded where it is always or never so.

Must not know policies. Names are quoted here; values never come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

__all__ = ["Every", "Joined", "Rail", "every", "glob", "like", "quoted", "some", "text_of"]

Rail: TypeAlias = "str | bool | Joined | Every"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A condition on one joined row. As `small` it lists the ids that fit, so that an index on the row's own column can
    be used; as `large`, where most would, it looks each one up. Conditions on one alias are one lookup."""

    alias: str
    small: str
    large: str
    many: bool
    conditions: tuple[str, ...]
    close: str

    def __str__(self) -> str:
        condition = " AND ".join(self.conditions)
        return f"{self.large} AND {condition})" if self.many else f"{self.small} AND {condition}{self.close}"


@dataclass(frozen=True, slots=True)
class Every:
    """Conditions that must all hold, not yet put together."""

    parts: tuple[str | Joined, ...]

    def __str__(self) -> str:
        return f"({' AND '.join(map(str, self.parts))})"


def every(*parts: Rail) -> Rail:
    if any(part is False for part in parts):
        return False
    found: dict[str, str | Joined] = {}
    for part in parts:
        for each in part.parts if isinstance(part, Every) else () if isinstance(part, bool) else (part,):
            key = each.alias if isinstance(each, Joined) else each
            other = found.get(key)
            found[key] = _both(other, each) if isinstance(other, Joined) and isinstance(each, Joined) else each
    return True if not found else next(iter(found.values())) if len(found) == 1 else Every(tuple(found.values()))


def _both(one: Joined, other: Joined) -> Joined:
    conditions = tuple(dict.fromkeys((*one.conditions, *other.conditions)))
    return replace(one, conditions=conditions, many=one.many and other.many)


def some(*parts: Rail) -> Rail:
    if any(part is True for part in parts):
        return True
    texts = list(dict.fromkeys(str(part) for part in parts if part is not False))
    return False if not texts else texts[0] if len(texts) == 1 else f"({' OR '.join(texts)})"


def text_of(rail: Rail) -> str:
    return ("1 = 1" if rail else "1 = 0") if isinstance(rail, bool) else str(rail)


def quoted(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def glob(pattern: Sequence[str | None]) -> str:
    return "".join("*" if each is None else "".join(f"[{c}]" if c in "*?[" else c for c in each) for each in pattern)


def like(pattern: Sequence[str | None]) -> str:
    return "".join("%" if each is None else "".join(f"!{c}" if c in "%_!" else c for c in each) for each in pattern)
