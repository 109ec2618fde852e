"""The corridor walked again: decisions on record, made again under the policies they name and under others.

Must not hold a rule (validate/replayed.py), read a ledger, load a bundle, or lay anything out for people.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from onbehalf.explain import entries
from onbehalf.explain.leaf import Record
from onbehalf.model import Entity, Json, Judgement, Question, canonical
from onbehalf.validate.replayed import NotReplayable, Recalled, Ruling, recalled, ruling

__all__ = ["Again", "Bundles", "Judges", "Replay", "Was"]

_KEPT_SLICES = 512
_LARGE = 32 * 1024
_UNDONE = ("approval_required", "approval_refused")
"""Denials of what the policies permitted, for want of an approval."""


class Judges(Protocol):
    """A bundle that answers questions; an engine is one."""

    def judge(self, question: Question) -> Judgement: ...


Bundles = Callable[[str, str], Judges | None]
"""The bundle of a digest, ready for an action; None where it is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Was:
    """How a decision stands on record, or how it comes out: `effect` is `allow`, `ask` or `deny`."""

    effect: str
    code: str
    obligations: tuple[bytes, ...] = field(repr=False)
    goes_on: bool = False

    def __str__(self) -> str:
        more = ", and would go on to its resource" if self.goes_on else ""
        return f"{self.effect} ({self.code})" if self.code else self.effect + more


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """One decision of the record. `why_not` says why it cannot be made again, "" where it was.

    `differs` says how what its own policies say now differs from the record, "" where it does not, None where they are
    not kept. `now` is what other policies make of it, where they were asked.
    """

    record: Record = field(repr=False)
    was: Was | None = None
    now: Was | None = None
    why_not: str = ""
    differs: str | None = None
    mapped: bool = False


class Replay:
    """Makes decisions of a record again, one by one. Remembers a few hundred slices, and nothing of a record."""

    def __init__(self, bundles: Bundles, *, other: Callable[[str], Judges | None] | None = None) -> None:
        """`other` gives other policies for an action, None where they know of none such; without it none are asked."""
        self._bundles = bundles
        self._other = other
        self._slices: OrderedDict[bytes, tuple[Entity, ...]] = OrderedDict()

    def again(self, record: Record) -> Again | None:
        """One record's decision; None for a record of none."""
        if record.kind not in ("intent", "denial", "asked"):
            return None
        if record.erased:
            return Again(record=record, why_not="erased")
        decision = _map(record.facts.get("decision"))
        if "policy" not in decision:  # refused, or sent away, before or after policies had a say
            return Again(record=record, why_not="not_decided")
        try:
            asked = recalled(record.facts.get("question"), slices=self._slice)
            own = self._bundles(str(decision["policy"]), asked.questions[0].action)
            same = ruling(asked, own.judge) if own is not None else None
            now = self._otherwise(asked)
        except NotReplayable as error:
            return Again(record=record, why_not=error.reason)
        return Again(
            record=record, was=_was(same) if same is not None else _recorded(record.facts), now=now,
            differs=None if same is None else _difference(record.facts, same), mapped=asked.of.rows is not None,
        )  # fmt: skip

    def _otherwise(self, asked: Recalled) -> Was | None:
        if self._other is None:
            return None
        other = self._other(asked.questions[0].action)
        if other is None:
            raise NotReplayable("no_such_action")
        return _was(ruling(asked, other.judge))

    def _slice(self, value: Json, make: Callable[[], tuple[Entity, ...]]) -> tuple[Entity, ...]:
        key = orjson.dumps(value)
        found = self._slices.pop(key, None) or make()
        if len(key) <= _LARGE:
            self._slices[key] = found
        if len(self._slices) > _KEPT_SLICES:
            self._slices.popitem(last=False)
        return found


def _was(made: Ruling) -> Was:
    owed = tuple(sorted(canonical(entries.owed(each)) for each in made.owed))
    return Was(effect=made.effect, code=made.code, obligations=owed, goes_on=made.goes_on)


def _recorded(facts: Mapping[str, Json]) -> Was:
    """The decision as its record says it, in the words of a ruling: what was approved was asked about first."""
    decision = _map(facts.get("decision"))
    effect, code = str(decision.get("effect")), str(decision.get("code", ""))
    if code in _UNDONE or (effect == "allow" and "approval" in facts):
        effect, code = "ask", ""
    return Was(effect=effect, code=code, obligations=_obligations(decision))


def _difference(facts: Mapping[str, Json], made: Ruling) -> str:
    """How a decision made again differs from its record, as a clause; "" where it does not.

    What was tried or looked up before an approval is on record as allowed, and rows can demand an approval that the
    question did not: between allowing and asking only what the question alone demands is compared.
    """
    decision, was, now = _map(facts.get("decision")), _recorded(facts), _was(made)
    if (was.effect == "deny") != (now.effect == "deny") or (was.effect == "deny" and was.code != now.code):
        return f"on record is {was}, and now comes out {now}"
    if now.effect == "ask" and was.effect == "allow" and "purpose" not in facts:
        return "it was done without the approval that is demanded"
    policies = decision.get("policies", [])
    if policies != [*made.policies]:
        named = ", ".join(map(str, policies)) if isinstance(policies, list) else "none"
        return f"on record it is by {named or 'no policy'}, and now by {', '.join(made.policies) or 'no policy'}"
    if was.obligations != now.obligations:
        return "other obligations are on record than come out now"
    if bool(decision.get("errors")) != bool(made.errors):
        return "what erred then does not now, or the other way round"
    return ""


def _obligations(decision: Mapping[str, Json]) -> tuple[bytes, ...]:
    owed = decision.get("obligations")
    return tuple(sorted(canonical(each) for each in owed)) if isinstance(owed, list) else ()


def _map(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}
