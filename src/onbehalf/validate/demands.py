"""What a permit demands, read from its annotations, and several permits' demands as one.

Where several permits determine a decision, all are obeyed at once: they are merged toward stricter. Must not hold
whether a demand is met, or what meeting it does to rows: obligations.py does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Final, TypeVar, get_args

from onbehalf.model import Approver, Every, Mask, Obligations

__all__ = ["KINDS", "NONE", "merge", "read"]

NONE: Final = Obligations()
"""Demands nothing: merged with another, it leaves the other."""
_MASKS: tuple[Mask, ...] = get_args(Mask)  # from weak to strong
_APPROVERS: tuple[Approver, ...] = get_args(Approver)
_MAX_NAMES = 100
_COLUMN = re.compile(r"[^\s,:\x00-\x1f\x7f]{1,100}")
_PURPOSE = re.compile(r"[a-z][a-z0-9_-]{0,49}")
_WORD = re.compile(r"[!#-+\--\[\]-~]{1,100}")  # RFC 6749's characters of a scope, but for the comma
_COUNT = re.compile(r"[1-9][0-9]{0,5}")
_Narrowed = TypeVar("_Narrowed", frozenset[str], int)


def read(kind: str, text: str) -> Obligations:
    """One annotation of a permit, by its name in `KINDS`. Raises ValueError saying what its value should be."""
    return KINDS[kind](text)


def merge(demands: Iterable[Obligations]) -> Obligations:
    """All demands at once: whatever meets the result meets each of them.

    A meet: the order, the grouping and repetition of demands make no difference.
    """
    return reduce(_both, demands, NONE)


def _both(one: Obligations, other: Obligations) -> Obligations:
    masks: dict[str, Mask] = {}
    for column, mask in (*one.masks, *other.masks):
        masks[column] = max(masks.get(column, mask), mask, key=_MASKS.index)
    return Obligations(
        columns=_narrower(one.columns, other.columns, frozenset.intersection),
        masks=frozenset(masks.items()),
        max_rows=_narrower(one.max_rows, other.max_rows, min),
        purposes=_narrower(one.purposes, other.purposes, frozenset.intersection),
        approve=one.approve | other.approve,
        scopes=one.scopes | other.scopes,
        acr=_narrower(one.acr, other.acr, frozenset.intersection),
        max_age=_narrower(one.max_age, other.max_age, min),
    )


def _narrower(
    one: _Narrowed | Every, other: _Narrowed | Every, meet: Callable[[_Narrowed, _Narrowed], _Narrowed]
) -> _Narrowed | Every:
    if one == "every":
        return other
    return one if other == "every" else meet(one, other)


def _columns(text: str) -> Obligations:
    return Obligations(columns=_names(text, _COLUMN, "field names such as `status,score`"))


def _masks(text: str) -> Obligations:
    expected = f"fields with how they go on, such as `email:last4`, by {', '.join(f'`{mask}`' for mask in _MASKS)}"
    pairs = [part.rpartition(":") for part in text.split(",")]
    _names(",".join(column for column, _, _ in pairs), _COLUMN, expected)
    strong = {mask.strip(): mask_ for _, _, mask in pairs for mask_ in _MASKS if mask_ == mask.strip()}
    if any(mask.strip() not in strong for _, _, mask in pairs):
        raise ValueError(expected)
    return Obligations(masks=frozenset((column.strip(), strong[mask.strip()]) for column, _, mask in pairs))


def _max_rows(text: str) -> Obligations:
    if not _COUNT.fullmatch(text.strip()):
        raise ValueError("a whole number from 1 to 999999")
    return Obligations(max_rows=int(text))


def _purposes(text: str) -> Obligations:
    return Obligations(purposes=_names(text, _PURPOSE, "purposes in lower case, such as `appraisal,audit`"))


def _approve(text: str) -> Obligations:
    found = next((each for each in _APPROVERS if each == text.strip()), None)
    if found is None:
        raise ValueError(f"one of {', '.join(f'`{each}`' for each in _APPROVERS)}")
    return Obligations(approve=frozenset({found}))


def _scopes(text: str) -> Obligations:
    return Obligations(scopes=_names(text, _WORD, "scopes such as `payroll.read`"))


def _acr(text: str) -> Obligations:
    return Obligations(acr=_names(text, _WORD, "authentication context classes such as `phr,phrh`"))


def _max_age(text: str) -> Obligations:
    if not _COUNT.fullmatch(text.strip()):
        raise ValueError("seconds since the login, from 1 to 999999")
    return Obligations(max_age=int(text))


def _names(text: str, pattern: re.Pattern[str], expected: str) -> frozenset[str]:
    names = [part.strip() for part in text.split(",")]
    if len(names) > _MAX_NAMES or len(set(names)) != len(names) or not all(map(pattern.fullmatch, names)):
        raise ValueError(f"{expected}, each once and at most {_MAX_NAMES}")
    return frozenset(names)


KINDS: Final[Mapping[str, Callable[[str], Obligations]]] = {
    "columns": _columns, "mask": _masks, "max_rows": _max_rows, "purpose": _purposes, "approve": _approve,
    "scope": _scopes, "acr": _acr, "max_age": _max_age,
}  # fmt: skip
"""Every annotation that is an obligation, with what reads it."""
