"""What a bundle says about whether anything happened off the record, backend by backend, and never more than that.

Two strengths. A backend's own record, given beside the bundle, is held against each leaf here. Without one there may be
a `reconciled` leaf, in which the gateway says that it did so: then the gateway is believed. Either way each channel's
numbers must have no hole, the gateway must say all along that it lives, and every intent must have an end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onbehalf.verifier.backend_rows import BackendRecord, Row
from onbehalf.verifier.channels import Channels, channel_of
from onbehalf.verifier.leaves import Leaf, Run
from onbehalf.verifier.opened import Opened
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.silence import Silence
from onbehalf.verifier.strict import strict

__all__ = ["Completeness", "Statement"]

_DEPTH = 32
_CLOCKS_S = 5
_MARGIN_S = 40
"""How far apart a row's time and its intent's may be: a token's life, and clocks that differ."""
_LISTED = 100
_COUNTS = ("sendings", "rows", "answers", "signed", "not_done", "settled", "outside")
_NONE: dict[str, Any] = {}
_READ = {
    "heartbeat": ("every", "sent"), "stop": ("every", "sent"), "reconciled": ("span", "backends"),
    "intent": ("tool", "arguments_digest"),
    "outcome": ("outcome", "answer_digest", "result_digest", "backend_receipt"),
}  # fmt: skip
"""The facts that are read of each kind of leaf."""
_COMPARED = ("intent", "outcome")
"""Kinds of which they are read only to be held against a backend's record."""


@dataclass(slots=True, kw_only=True)
class Statement:
    """What can be said of one backend. `by` is `records`, `reconciliation` or "" for nothing to go by. It is complete
    where there are no `reasons` against it."""

    backend: str
    channel: str
    start: int
    end: int
    by: str = ""
    grade: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    more: int = 0

    @property
    def complete(self) -> bool:
        return bool(self.by) and not self.reasons

    def against(self, text: str) -> None:
        if len(self.reasons) < _LISTED:
            self.reasons.append(text)
        else:
            self.more += 1

    def as_json(self) -> dict[str, object]:
        return {
            "backend": self.backend, "channel": self.channel, "range": {"from": self.start, "to": self.end},
            "complete": self.complete, "by": self.by, "grade": self.grade if self.complete else "",
            "counts": self.counts, "reasons": self.reasons, "reasons_not_listed": self.more,
        }  # fmt: skip


@dataclass(slots=True, kw_only=True)
class _Given:
    """A backend's record while leaves go past it. `waiting` says of intents without outcome whether it has a row."""

    audience: str
    rows: dict[int, Row]
    twice: list[Row]
    foreign: list[Row]
    taken: set[int] = field(default_factory=set)
    waiting: dict[int, bool] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTS, 0))

    more: int = 0

    def count(self, name: str, by: int = 1) -> None:
        self.counts[name] += by

    def problem(self, text: str) -> None:
        """Something that does not agree: the first hundred are listed, however many there are."""
        if len(self.problems) < _LISTED:
            self.problems.append(text)
        else:
            self.more += 1


class Completeness:
    """Takes every leaf of a range in order, and then says what can be said."""

    def __init__(self, origin: str, start: int, size: int, records: Sequence[BackendRecord]) -> None:
        """Raises Unusable for two records of one backend."""
        self._origin, self._start, self._size = origin, start, size
        self.channels, self.silence = Channels(start), Silence()
        self._given: dict[str, _Given] = {}
        self._names: dict[str, str] = {}
        self._said: dict[str, Statement] = {}
        self._open: dict[int, str] = {}
        for each in records:
            channel = channel_of(origin, each.audience)
            if channel in self._given:
                raise Unusable(f"two records were given of {each.audience}")
            rows: dict[int, Row] = {}
            mine = [row for row in each.rows if row.channel == channel]
            twice = [row for row in mine if rows.setdefault(row.record, row) is not row]
            foreign = [row for row in each.rows if row.channel != channel]
            self._given[channel] = _Given(audience=each.audience, rows=rows, twice=twice, foreign=foreign)
            self._names[channel] = each.audience

    def take(self, index: int, leaf: Leaf, hash_: bytes, here: Opened | None, *, sound: bool) -> str:
        """The next leaf, and what was opened of it, which is `sound` where all of that holds. What is wrong with its
        number, "" where nothing is."""
        kind, facts = leaf.kind, _NONE
        if sound and here is not None:
            facts = _facts(here, _READ.get(kind, ()), read=bool(self._given) or kind not in _COMPARED)
        self.silence.take(index, leaf)
        if kind == "intent":
            self._intent(index, leaf, hash_, facts)
            return self.channels.take(leaf)
        if leaf.of in self._open:
            self._outcome(leaf, facts)
        elif kind in ("heartbeat", "stop"):
            self.silence.said(facts.get("every"))
            self._name(facts.get("sent"))
        elif kind == "reconciled":
            self._reconciled(index, facts)
        return ""

    @property
    def compares(self) -> bool:
        """Whether a backend's own record is held against the leaves."""
        return bool(self._given)

    def run(self, index: int, run: Run) -> None:
        """Leaves from `index` on: none is opened, their numbers fit, and no backend's record was given."""
        self.channels.run(run)
        self.silence.run(index, run.first, run.last, run.silent)

    def statements(self, end: int) -> list[Statement]:
        """One for each channel of the range and each record that was given. `end` is where the range ends."""
        made = []
        for channel in sorted({*self.channels.all, *self._given}):
            given = self._given.get(channel)
            said = self._compared(channel, given, end) if given is not None else self._believed(channel, end)
            known = self.channels.all.get(channel)
            if known is not None and known.holes:
                said.against(f"numbers of this channel are missing, {known.holes} times")
            for seconds, index in self.silence.gaps():
                said.against(
                    f"silence of {seconds} s before leaf {index}, and no heartbeat for {self.silence.limit} s or more"
                )
            if self.channels.uncounted:
                said.against(f"{self.channels.uncounted} intents have no number: they are from an older gateway")
            made.append(said)
        return made

    def _name(self, sent: object) -> None:
        """Whose channels are whose, as an opened heartbeat says; a name counts only where its hash is the channel."""
        for audience, told in sent.items() if isinstance(sent, dict) else ():
            channel = told.get("channel") if isinstance(told, dict) else None
            if isinstance(channel, str) and channel_of(self._origin, audience) == channel:
                self._names.setdefault(channel, audience[:500])

    def _intent(self, index: int, leaf: Leaf, hash_: bytes, facts: Mapping[str, Any]) -> None:
        given = self._given.get(leaf.channel)
        if given is None:
            return
        self._open[index] = leaf.channel
        given.count("sendings")
        row = given.rows.get(index)
        given.waiting[index] = row is not None
        if row is None:
            return
        given.taken.add(index)
        given.count("rows")
        tool = facts.get("tool")
        pairs = {
            "number": (leaf.number, row.n), "call": (leaf.call, row.call), "token": (f"{leaf.call}.{index}", row.token),
            "leaf": (f"sha256:{hash_.hex()}", row.leaf),
            "tool": (tool.get("remote") if isinstance(tool, dict) else None, row.tool),
            "arguments": (facts.get("arguments_digest"), row.arguments),
        }  # fmt: skip
        other = [name for name, (one, two) in pairs.items() if one is not None and one != two]
        if other:
            given.problem(f"leaf {index}: the backend's record has another {', '.join(other)}")

    def _outcome(self, leaf: Leaf, facts: Mapping[str, Any]) -> None:
        given = self._given[self._open.pop(leaf.of)]
        row, outcome = given.rows.get(leaf.of), facts.get("outcome")
        given.waiting.pop(leaf.of, None)
        told: dict[str, Any] = outcome if isinstance(outcome, dict) else {}
        if leaf.kind == "unknown" or told.get("unknown"):
            given.count("settled")
        elif row is None and not told:
            given.problem(f"leaf {leaf.of}: not in the backend's record, and what came of it is not opened")
        elif row is None and told.get("status") == "done":
            given.problem(f"leaf {leaf.of}: the gateway has an answer, and the backend's record has no such call")
        elif row is None:
            given.count("not_done")
        elif told.get("code") == "not_sent":
            given.problem(f"leaf {leaf.of}: the gateway says that it was never sent, and the backend did it")
        elif told.get("status") == "done":
            self._answered(given, row, leaf, facts)

    def _answered(self, given: _Given, row: Row, leaf: Leaf, facts: Mapping[str, Any]) -> None:
        given.count("signed", "backend_receipt" in facts)
        answer = facts.get("answer_digest") or facts.get("result_digest")
        if not row.answer or not isinstance(answer, str):
            return
        given.count("answers")
        if answer != row.answer:
            given.problem(f"leaf {leaf.of}: the backend's record has another answer")

    def _compared(self, channel: str, given: _Given, end: int) -> Statement:
        """What a backend's own record says, now that all leaves went past it."""
        said = Statement(backend=given.audience, channel=channel, start=self._start, end=end, by="records")
        for text in given.problems:
            said.against(text)
        said.more += given.more
        for index, kept in given.waiting.items():
            if kept:
                given.count("settled")
            else:
                said.against(f"leaf {index}: open at the end of the range, and not in the backend's record")
        for each in given.twice:
            said.against(f"the backend's record has leaf {each.record} twice")
        for index in sorted(given.rows.keys() - given.taken):
            if text := self._stray(given.rows[index], end):
                said.against(text)
            else:
                given.count("outside")
        for row in given.foreign:
            if self.silence.first - _CLOCKS_S <= row.at <= self.silence.last + _CLOCKS_S:
                said.against(f"the backend did call {row.call} at {row.at}, on a channel that is none of this log's")
            else:
                given.count("outside")
        signed = given.counts["signed"]
        said.grade = "R3" if signed and signed == given.counts["rows"] else "R2"
        said.counts = given.counts
        return said

    def _stray(self, row: Row, end: int) -> str:
        """What a row that belongs to no intent here means; "" where it may be of another range: it names a leaf there
        and will be found if that is no intent, or it is newer than these leaves."""
        did = f"the backend did call {row.call} at {row.at}"
        if self._start <= row.record < end:
            return f"{did}, and leaf {row.record} is no intent to"
        if row.record >= self._size and row.at <= self.silence.last - _MARGIN_S:
            return f"{did}, before the last of these leaves, and names leaf {row.record}, which the log does not have"
        return ""

    def _reconciled(self, index: int, facts: Mapping[str, Any]) -> None:
        """A comparison that the gateway says it made. What is closed, or of no known form, says nothing."""
        span, backends = facts.get("span"), facts.get("backends")
        if not isinstance(span, dict) or not isinstance(backends, dict):
            return
        start, end = span.get("from"), span.get("to")
        if type(start) is not int or type(end) is not int or not 0 <= start <= end <= index:
            return
        for audience, told in backends.items():
            channel = told.get("channel") if isinstance(told, dict) else None
            if not isinstance(channel, str) or channel_of(self._origin, audience) != channel:
                continue
            self._names.setdefault(channel, audience[:500])
            if told.get("compared") is True:
                self._said[channel] = self._claimed(index, audience, told, (start, end))

    def _claimed(self, index: int, audience: str, told: Mapping[str, Any], span: tuple[int, int]) -> Statement:
        """The newest comparison of a channel counts."""
        said = Statement(
            backend=audience[:500], channel=str(told["channel"]), start=max(self._start, span[0]), end=span[1],
            by="reconciliation", grade=str(told.get("grade"))[:10],
        )  # fmt: skip
        said.counts = {"leaf": index}
        known = self.channels.all.get(said.channel)
        numbers = told.get("numbers")
        first, last = numbers if isinstance(numbers, list) and len(numbers) == 2 else (0, 0)
        if told.get("complete") is not True or said.grade not in ("R2", "R3"):
            said.against(f"the comparison at leaf {index} found differences")
        elif type(first) is not int or type(last) is not int or (known is not None and last > known.last):
            said.against(f"the comparison at leaf {index} tells of numbers that no leaf has")
        elif known is not None and span[0] <= self._start and first > known.first and first:
            said.against(
                f"the comparison at leaf {index} begins after number {known.first}, which is within its leaves"
            )
        return said

    def _believed(self, channel: str, end: int) -> Statement:
        """What the gateway says itself of a channel whose backend's record is not here."""
        name = self._names.get(channel, "")
        said = self._said.get(channel)
        if said is None:
            said = Statement(backend=name, channel=channel, start=self._start, end=end)
            said.against("no record of the backend's own was given, and no comparison with one is on record")
            return said
        said.end = min(said.end, end)
        if said.start >= said.end:
            said.against("the comparison on record is of other leaves")
        return said


def _facts(here: Opened, names: Sequence[str], *, read: bool) -> dict[str, Any]:
    """Of these facts those that were opened; where they are not to be `read`, only that they are not nested too deep.

    Raises ValueError.
    """
    texts = {name: here.facts[name][0] for name in names if name in here.facts}
    if not read:
        texts = {name: text for name, text in texts.items() if text.count("[") + text.count("{") > _DEPTH}
    return {name: strict(text, depth=_DEPTH) for name, text in texts.items()}
