"""JSON from a bundle, read in one way only: bounded in depth, no name twice, no numbers that are none."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["strict"]

_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)


def strict(text: bytes | str, *, depth: int) -> Any:  # Any: JSON; each reader checks what it takes from it
    """The value. Raises ValueError, also for what is nested deeper than `depth`."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    inside = 0
    if text.count("[") + text.count("{") > depth:
        for token in _TOKEN.finditer(text):
            inside += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
            if inside > depth:
                raise ValueError(f"nested deeper than {depth}")
    if text.startswith("\ufeff"):
        raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
    try:
        return _READER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _refused(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number is too large")
    return value


_READER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_refused, parse_float=_float)
