"""What a bundle says of itself: its range, what was asked for, its files, and the proof around its leaves.

All of it is a claim until check.py has held it against leaves and signatures.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.strict import strict

__all__ = ["FORMAT", "HEX", "Manifest", "Proof", "read_manifest", "read_proof"]

FORMAT = "onbehalf-evidence-v1"
HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`files` maps a name to its SHA-256 and length. `whole` says that every fact of the range was to be opened."""

    origin: str
    size: int
    start: int
    end: int
    asked: dict[str, str]
    whole: bool
    erased: int
    summary: Any  # Any: JSON that is held against what was counted
    files: dict[str, tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Hashes: of what lies left and right of the range, and from the start checkpoint to the end (RFC 6962)."""

    left: list[bytes]
    right: list[bytes]
    start: list[bytes]


def read_manifest(data: bytes) -> Manifest:
    """Raises Unusable for what is no manifest."""
    try:
        said = strict(data, depth=8)
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise ValueError(f"its format is not `{FORMAT}`")
        start, end, size = said["range"]["from"], said["range"]["to"], said["size"]
        opened, asked = said["opened"], said["asked"]
        if not all(type(each) is int for each in (start, end, size)) or not 0 <= start <= end <= size < 1 << 53:
            raise ValueError("its range is none")
        if not all(isinstance(each, str) for each in (said["origin"], *asked, *asked.values())):
            raise ValueError("what was asked for is malformed")
        if type(opened["whole"]) is not bool or type(opened["erased"]) is not int:
            raise ValueError("what was opened is malformed")
        files = {name: (each["sha256"], each["bytes"]) for name, each in said["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unusable(f"manifest.json is not one of this format: {_named(error)}") from error
    return Manifest(
        origin=said["origin"], size=size, start=start, end=end, asked=asked, whole=opened["whole"],
        erased=opened["erased"], summary=said.get("summary"), files=files,
    )  # fmt: skip


def read_proof(data: bytes) -> Proof:
    """Raises ValueError for what is no proof."""
    said = strict(data, depth=2)
    if not isinstance(said, dict) or said.keys() != {"left", "right", "start"}:
        raise ValueError("it has not the three parts of a proof")
    parts = {}
    for name, hashes in said.items():
        if not isinstance(hashes, list) or len(hashes) > 128:
            raise ValueError(f"`{name}` is no list of at most 128 hashes")
        if not all(isinstance(each, str) and HEX.fullmatch(each) for each in hashes):
            raise ValueError(f"`{name}` holds what is no hash")
        parts[name] = [bytes.fromhex(each) for each in hashes]
    return Proof(left=parts["left"], right=parts["right"], start=parts["start"])


def _named(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
