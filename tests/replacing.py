"""A value with some fields changed, be it a struct, as what is made on each call, or a dataclass, as the rest."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def replace(value: T, /, **changes: Any) -> T:
    """The same value but for `changes`. Raises TypeError for what is neither, or has no such field."""
    kind: Any = msgspec.structs if isinstance(value, msgspec.Struct) else dataclasses
    made: T = kind.replace(value, **changes)
    return made
