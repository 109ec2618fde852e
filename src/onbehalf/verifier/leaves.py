"""One leaf of the record, read strictly, and how leaves of one call belong together.

Must not know the tree (merkle.py) or what facts say (opened.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from onbehalf.verifier.refused import Unusable

__all__ = ["MAX_LEAF", "Intent", "Leaf", "Pairing", "read_leaf"]

MAX_LEAF = 65_535
_MAX_OPEN = 1_000_000
_NUMBER = rb"(?:0|[1-9][0-9]{0,14})"
_WORD = rb"[ !#-\[\]-~]{0,1000}"
"""Printable ASCII without `"` and `\\`, which nothing in a leaf holds, so that no escape has to be understood."""
_FACT = rb'"[a-z][a-z0-9_]{0,63}":"[0-9a-f]{64}"'
_LEAF = re.compile(
    rb'\{"at":(?P<at>%b),"call":"(?P<call>%b)","facts":\{(?P<facts>(?:%b(?:,%b)*+)?)\},"id":"%b","kind":"(?P<kind>%b)"'
    rb'(?:,"of":(?P<of>%b))?,"v":1\}' % (_NUMBER, _WORD, _FACT, _FACT, _WORD, _WORD, _NUMBER)
)
_FACTS = re.compile(r'"([a-z0-9_]+)":"([0-9a-f]{64})"')


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
    """A leaf from its bytes. Raises ValueError for what is no leaf of version 1 in its one spelling (RFC 8785)."""
    found = _LEAF.fullmatch(line)
    if found is None:
        raise ValueError("it is no leaf of version 1 in the spelling of RFC 8785")
    pairs = _FACTS.findall(found["facts"].decode())
    facts = dict(pairs)
    if [name for name, _ in pairs] != sorted(facts):
        raise ValueError("its facts are not in order, or one stands twice")
    return Leaf(
        kind=found["kind"].decode(), call=found["call"].decode(), at=int(found["at"]), of=int(found["of"] or -1),
        facts=facts,
    )  # fmt: skip
