"""What permits demand of what they let through, by their annotations, and whether a login meets it.

Must not know policies or the record.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["KINDS", "Demands", "demanded", "read_demands", "unmet"]

KINDS = ("columns", "mask", "max_rows", "purpose", "approve", "scope", "acr", "max_age")
_OF_ROWS = {"columns", "mask", "max_rows"}
_NUMBERS = {"max_rows", "max_age"}
_TOLERANCE_S = 30


@dataclass(frozen=True, slots=True)
class Demands:
    """What one policy demands, by annotation as its text says it, parsed: names sorted, masks as pairs, numbers."""

    policy: str
    all: tuple[tuple[str, tuple[Any, ...]], ...]

    def of(self, kind: str) -> tuple[Any, ...] | None:
        """The values of one annotation, None where it is not there."""
        return dict(self.all).get(kind)


def read_demands(policy: str, annotations: dict[str, Any]) -> Demands | None:
    """What a policy's annotations demand; None for nothing. Raises ValueError."""
    found: list[tuple[str, tuple[Any, ...]]] = []
    for kind in KINDS:
        text = annotations.get(kind)
        if kind not in annotations:
            continue
        if not isinstance(text, str):
            raise ValueError(f"@{kind} of `{policy}` has no value")
        names = [each.strip() for each in text.split(",")]
        if kind in _NUMBERS:
            found.append((kind, (int(text),)))
        elif kind == "mask":
            pairs = [(column.strip(), mask.strip()) for column, _, mask in (each.rpartition(":") for each in names)]
            found.append((kind, tuple(sorted(pairs))))
        else:
            found.append((kind, tuple(sorted(names))))
    return Demands(policy, tuple(found)) if found else None


def demanded(demands: Demands) -> dict[str, Any]:
    """The demands as the record says them."""
    told: dict[str, Any] = {"policy": demands.policy}
    for kind, values in demands.all:
        told[kind] = dict(values) if kind == "mask" else values[0] if kind in _NUMBERS else [*values]
    return told


def unmet(owed: Iterable[Demands], *, mapped: bool, scopes: list[str], login: dict[str, Any], now: int) -> str:
    """The code of the first demand that is not met, "" where all are; of several policies all hold at once.

    1 fields or rows of an answer that is not mapped; 2 a purpose that the token was given for; 3 scopes, the kind of
    login and its age.
    """
    all_ = [*owed]
    if not mapped and any(each.of(kind) is not None for each in all_ for kind in _OF_ROWS):  # 1
        return "obligation_unmet"
    purposes = _common(all_, "purpose")
    if purposes is not None and not any(f"purpose:{each}" in scopes for each in purposes):  # 2
        return "purpose_not_shown"
    wanted = {scope for each in all_ for scope in each.of("scope") or ()}
    kinds, ages = _common(all_, "acr"), [found[0] for each in all_ if (found := each.of("max_age"))]
    at = login.get("auth_time")
    recent = type(at) is int and at <= now + _TOLERANCE_S and (not ages or now <= at + min(ages) + _TOLERANCE_S)
    if not wanted <= {*scopes} or (kinds is not None and login.get("acr") not in kinds) or (ages and not recent):  # 3
        return "step_up_needed"
    return ""


def _common(owed: list[Demands], kind: str) -> set[str] | None:
    """What all that name it name; None where none does."""
    named = [{*found} for each in owed if (found := each.of(kind)) is not None]
    return set.intersection(*named) if named else None
