"""One leaf of the record, read strictly, and how leaves of one call belong together.

Must not know the tree (merkle.py) or what facts say (opened.py).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.strict import strict

__all__ = ["MAX_LEAF", "Intent", "Leaf", "Pairing", "read_leaf"]

MAX_LEAF = 65_535
_MAX_OPEN = 1_000_000
_HEX = re.compile(r"[0-9a-f]{64}")
_FACT = re.compile(r"[a-z][a-z0-9_]{0,63}")
_WORD = re.compile(r"[ -~]{0,1000}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A leaf. `facts` maps names to commitments in hex; `of` is the index of an answer's intent, -1 for other kinds."""

    kind: str
    call: str
    at: int
    of: int
    facts: dict[str, str]


@dataclass(slots=True, kw_only=True)
class Intent:
    """An intent that waits for its outcome. `hash` is its leaf's; `opened` holds what receipts are held against."""

    call: str
    at: int
    hash: bytes
    opened: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Pairing:
    """Which intents have an outcome. `before` counts outcomes whose intent lies before the range."""

    start: int
    open: dict[int, Intent] = field(default_factory=dict)
    unknown: list[int] = field(default_factory=list)
    before: int = 0

    def take(self, index: int, leaf: Leaf, hash_: bytes) -> Intent | None:
        """Take note of the next leaf. The intent that it answers, where that is in the range. Raises ValueError."""
        if leaf.kind == "intent":
            if len(self.open) >= _MAX_OPEN:
                raise Unusable(f"more than {_MAX_OPEN} calls are without outcome")
            self.open[index] = Intent(call=leaf.call, at=leaf.at, hash=hash_)
        elif leaf.kind in ("outcome", "unknown"):
            if leaf.kind == "unknown" and len(self.unknown) < _MAX_OPEN:
                self.unknown.append(leaf.of)
            if 0 <= leaf.of < self.start:
                self.before += 1
                return None
            intent = self.open.pop(leaf.of, None)
            if intent is None:
                raise ValueError(
                    f"this {leaf.kind} is about {leaf.of}, which is no intent before it that waits for one"
                )
            if intent.call != leaf.call:
                raise ValueError(f"this {leaf.kind} names another call than its intent {leaf.of}")
            return intent
        return None


def read_leaf(line: bytes) -> Leaf:
    """A leaf from its bytes. Raises ValueError for what is no leaf of version 1, or another spelling of one."""
    said = strict(line, depth=4)
    if not isinstance(said, dict) or not said.keys() - {"of"} == {"at", "call", "facts", "id", "kind", "v"}:
        raise ValueError("it has not the members of a leaf")
    if json.dumps(said, sort_keys=True, separators=(",", ":")).encode() != line:
        raise ValueError("it is not in the one spelling of RFC 8785")
    at, of, facts = said["at"], said.get("of", -1), said["facts"]
    if said["v"] != 1 or not _whole(at) or not (of == -1 or _whole(of)) or ("of" in said and of == -1):
        raise ValueError("its version, time or intent is no such number")
    words = [said["kind"], said["call"], said["id"]]
    if not all(isinstance(each, str) and _WORD.fullmatch(each) for each in words) or not isinstance(facts, dict):
        raise ValueError("its kind, call, id or facts are malformed")
    for name, commitment in facts.items():
        if not _FACT.fullmatch(name) or not isinstance(commitment, str) or not _HEX.fullmatch(commitment):
            raise ValueError("a fact's name or commitment is malformed")
    return Leaf(kind=said["kind"], call=said["call"], at=at, of=of, facts=facts)


def _whole(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 53
