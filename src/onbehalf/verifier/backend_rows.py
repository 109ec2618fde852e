"""A backend's own record of calls, as its people exported it: one JSON object a line. Must not know what it is for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.strict import strict

__all__ = ["BackendRecord", "Row", "read_rows"]

_MAX_BYTES = 1 << 30
_MAX_LINE = 1 << 16
_MAX_ROWS = 1_000_000
_TEXTS = ("channel", "token", "call", "tool", "arguments", "leaf", "answer")
_NUMBERS = ("n", "record", "at", "status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One call that the backend took. `record` is the leaf of its intent, as the call token said."""

    channel: str
    n: int
    token: str
    call: str
    tool: str
    arguments: str
    record: int
    leaf: str
    at: int
    answer: str
    status: int


@dataclass(slots=True, kw_only=True)
class BackendRecord:
    """All rows of one file. `audience` is what call tokens for that backend say."""

    audience: str
    digest: str
    rows: list[Row] = field(default_factory=list)


def read_rows(audience: str, path: Path) -> BackendRecord:
    """The file, whole. Raises Unusable for one that cannot be read, and for a line that is no row: it may hide one."""
    hash_, rows, size = hashlib.sha256(), list[Row](), 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE + 1), b""), start=1):
                size += len(line)
                if number > _MAX_ROWS or size > _MAX_BYTES or len(line) > _MAX_LINE:
                    raise Unusable(f"`{path}` has too many or too long lines for a backend's record")
                hash_.update(line)
                rows.append(_row(line, f"line {number} of `{path}`"))
    except OSError as error:
        raise Unusable(f"`{path}` cannot be read: {error.strerror}") from error
    return BackendRecord(audience=audience, digest=f"sha256:{hash_.hexdigest()}", rows=rows)


def _row(line: bytes, place: str) -> Row:
    try:
        said = strict(line, depth=2)
    except ValueError as error:
        raise Unusable(f"{place} is no row of a backend's record: {error}") from error
    if not isinstance(said, dict) or said.keys() != {*_TEXTS, *_NUMBERS}:
        raise Unusable(f"{place} has not exactly the members of a row")
    if not all(isinstance(said[name], str) and len(said[name]) <= 2048 for name in _TEXTS):
        raise Unusable(f"{place} has a member that is no text, or too long")
    if not all(type(said[name]) is int and 0 <= said[name] < 1 << 53 for name in _NUMBERS):
        raise Unusable(f"{place} has a member that is no whole number")
    return Row(**said)
