"""The gateway's record held against a backend's own: what was sent, what came of it, and what nobody sent.

Pure: values in, findings out. Must not read a ledger or a backend, or decide what follows for anybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from onbehalf.model import AuditEntry, Json, UnixTime

__all__ = [
    "Account", "Asked", "End", "Finding", "Grade", "Row", "Sending", "account", "end_of", "grade_of", "reconciled",
]  # fmt: skip

End = Literal["done", "failed", "unsent", "unknown", "open", "erased"]
Grade = Literal["R3", "R2", "R1", "R0"]
_LISTED = 500
_EXECUTABLE_S = 30 + 5
"""How long after its intent a call may still be taken: its token's life (act/grant.py), and what clocks may differ."""
_UNSENT = frozenset({"not_sent", "signer_unavailable"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """One intent of the record. `tool` and `arguments` are "" where erased, `answer` where it had no digest."""

    index: int
    leaf: str
    call: str
    channel: str
    number: int
    at: UnixTime
    tool: str = ""
    arguments: str = ""
    end: End = "open"
    answer: str = ""
    receipt: bool = False

    @property
    def token(self) -> str:
        """The id of its call token."""
        return f"{self.call}.{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One call as a backend kept it. What its kind of record does not say is "", 0, or -1 for `record`. `token` is ""
    for something that was done without one."""

    token: str
    at: UnixTime
    channel: str = ""
    n: int = 0
    call: str = ""
    tool: str = ""
    arguments: str = ""
    record: int = -1
    leaf: str = ""
    answer: str = ""

    @property
    def index(self) -> int:
        """The intent that it is of: as told, or else as its token ends; -1 where neither says."""
        last = self.token.rpartition(".")[2]
        return self.record if self.record >= 0 else int(last) if last.isdecimal() and len(last) < 16 else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something to look at. `bad` is false for what was unknown and the backend has now settled."""

    kind: str
    text: str
    bad: bool = True
    index: int = -1
    number: int = 0
    call: str = ""

    def as_json(self) -> dict[str, Json]:
        return {
            "class": self.kind, "text": self.text, "bad": self.bad, "index": self.index, "n": self.number,
            "call": self.call,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is compared for one backend. `rows` is None where it gave no record of its own, and else all that is of
    the span; `denied` are the calls of rows that the record refused; `receipts` whether it is to sign for answers."""

    audience: str
    channel: str
    sendings: Sequence[Sending]
    rows: Sequence[Row] | None
    denied: Set[str] = frozenset()
    receipts: bool = False
    now: UnixTime


@dataclass(slots=True, kw_only=True)
class Account:
    """What came of it for one backend."""

    audience: str
    channel: str
    compared: bool
    numbers: tuple[int, int] = (0, 0)
    counts: dict[str, int] = field(default_factory=dict)
    grades: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def bad(self) -> bool:
        return any(each.bad for each in self.findings)

    @property
    def complete(self) -> bool:
        """Whether the backend's own record shows each sending, and nothing else."""
        return self.compared and not self.bad

    @property
    def grade(self) -> Grade:
        """The weakest of what was done; where nothing was, what the comparison itself is worth."""
        found = [each for each in ("R0", "R1", "R2", "R3") if self.grades.get(each)]
        return found[0] if found else ("R2" if self.compared else "R0")  # type: ignore[return-value]  # of these four

    def as_json(self) -> dict[str, Json]:
        return {
            "channel": self.channel, "compared": self.compared, "complete": self.complete, "grade": self.grade,
            "numbers": [*self.numbers], "counts": {**self.counts}, "grades": {**self.grades},
        }  # fmt: skip


def end_of(kind: str, outcome: Json) -> End:
    """What a record says came of an intent. `outcome` is that fact of the record that answers it."""
    if kind == "unknown":
        return "unknown"
    if not isinstance(outcome, dict):
        return "erased"
    if outcome.get("status") == "done":
        return "done"
    if outcome.get("code") in _UNSENT:
        return "unsent"
    return "unknown" if outcome.get("unknown") else "failed"


def grade_of(end: End, *, receipt: bool, row: bool) -> Grade:
    """How well it is known what became of one sending: R3 the backend signed for it, R2 its own record has it, R1 the
    gateway saw an answer, R0 none of these."""
    if receipt:
        return "R3"
    if row:
        return "R2"
    return "R1" if end == "done" else "R0"


def account(asked: Asked) -> Account:
    """Compare one backend's sendings with its rows."""
    made = Account(audience=asked.audience, channel=asked.channel, compared=asked.rows is not None)
    if asked.sendings:
        made.numbers = asked.sendings[0].number, asked.sendings[-1].number
    made.findings += _holes(asked.sendings)
    by_index = {each.index: each for each in asked.sendings}
    seen: dict[int, Row] = {}
    for row in asked.rows or ():
        sending = by_index.get(row.index) if row.channel in ("", asked.channel) else None
        if sending is None or row.index in seen:
            made.findings.append(_stray(row, asked.denied, twice=sending is not None))
            continue
        seen[row.index] = row
    for sending in asked.sendings:
        found = _judged(sending, seen.get(sending.index), asked)
        made.findings += found
        _count(made, sending, seen.get(sending.index), found)
    made.findings.sort(key=lambda each: (not each.bad, each.index))
    for finding in made.findings:
        made.counts[finding.kind] = made.counts.get(finding.kind, 0) + 1
    return made


def _count(made: Account, sending: Sending, row: Row | None, found: Sequence[Finding]) -> None:
    kind = "matched" if row is not None and not found else "not_done" if sending.end in ("unsent", "failed") else ""
    if kind and not found:
        made.counts[kind] = made.counts.get(kind, 0) + 1
    made.counts["sendings"] = made.counts.get("sendings", 0) + 1
    if row is not None or sending.end == "done":
        grade = grade_of(sending.end, receipt=sending.receipt, row=row is not None)
        made.grades[grade] = made.grades.get(grade, 0) + 1


def _holes(sendings: Sequence[Sending]) -> Iterator[Finding]:
    for before, after in pairwise(sendings):
        if after.number != before.number + 1:
            text = f"number {after.number} comes after {before.number}"
            yield Finding(kind="hole", text=text, index=after.index, number=after.number, call=after.call)


def _stray(row: Row, denied: Set[str], *, twice: bool) -> Finding:
    """A row that no sending is left for."""
    place = {"index": row.index, "number": row.n, "call": row.call}
    if twice:
        return Finding(kind="mismatch", text="the backend's record has it twice", **place)  # type: ignore[arg-type]
    if row.call and row.call in denied:
        text = "the gateway refused this call, and the backend did it"
        return Finding(kind="denied_but_executed", text=text, **place)  # type: ignore[arg-type]
    told = f"token {row.token}" if row.token else "without a call token"
    text = f"the backend did this, and the gateway has no intent to ({told}, at {row.at})"
    return Finding(kind="executed_without_intent", text=text, **place)  # type: ignore[arg-type]


def _judged(sending: Sending, row: Row | None, asked: Asked) -> list[Finding]:
    """What is to be said of one sending and its row."""

    def said(kind: str, text: str, *, bad: bool = True) -> Finding:
        place = {"index": sending.index, "number": sending.number, "call": sending.call}
        return Finding(kind=kind, text=text, bad=bad, **place)  # type: ignore[arg-type]

    found: list[Finding] = []
    if row is not None:
        if other := _differing(sending, row):
            found.append(said("mismatch", f"{', '.join(other)}: the backend's record says otherwise"))
        elif sending.end == "unsent":
            found.append(said("mismatch", "the gateway says that it was never sent, and the backend did it"))
        elif sending.end in ("unknown", "open", "erased"):
            found.append(said("unknown", "settled: the backend did it", bad=False))
    elif sending.end == "done" and asked.rows is not None:
        found.append(said("not_executed", "the gateway has an answer, and the backend's record has no such call"))
    elif sending.end in ("unknown", "open", "erased"):
        found.append(_unsettled(sending, asked, said("unknown", "settled: the backend did not do it", bad=False)))
    if asked.receipts and sending.end == "done" and not sending.receipt:
        found.append(said("receipt_missing", "this backend signs for its answers, and this one has no receipt"))
    return found


def _unsettled(sending: Sending, asked: Asked, settled: Finding) -> Finding:
    """An intent of which neither the gateway's outcome nor a row says what came of it."""
    if asked.rows is None:
        text = "what came of it is not known, and no record of the backend's own was given"
    elif sending.end == "open" and sending.at + _EXECUTABLE_S >= asked.now:
        text = "it is under way: compare again in a minute"
    elif sending.end == "erased":
        text = "what came of it is erased, and the backend's record does not have it"
    else:  # its token is over: what the backend did not do by now, it will not do
        return settled
    return Finding(kind="unknown", text=text, index=sending.index, number=sending.number, call=sending.call)


def _differing(sending: Sending, row: Row) -> list[str]:
    """Names of what both sides say, and say differently."""
    pairs = {
        "number": (sending.number, row.n),
        "token": (sending.token, row.token), "call": (sending.call, row.call), "tool": (sending.tool, row.tool),
        "arguments": (sending.arguments, row.arguments), "leaf": (sending.leaf, row.leaf),
        "answer": (sending.answer if sending.end == "done" else "", row.answer),
    }  # fmt: skip
    return [name for name, (one, other) in pairs.items() if one and other and one != other]


def reconciled(
    accounts: Sequence[Account], sources: Mapping[str, Json], *, span: Mapping[str, Json], now: UnixTime
) -> AuditEntry:
    """The record of a comparison. `sources` says by audience what the backend's record was, with its digest."""
    backends: dict[str, Json] = {
        each.audience: {**each.as_json(), "source": sources.get(each.audience)} for each in accounts
    }
    listed = [{"backend": each.audience, **one.as_json()} for each in accounts for one in each.findings]
    facts: dict[str, Json] = {
        "span": dict(span),
        "backends": backends,
        "findings": [*listed[:_LISTED]],
        "more": max(0, len(listed) - _LISTED),
    }
    return AuditEntry(kind="reconciled", call="", at=now, facts=facts)
