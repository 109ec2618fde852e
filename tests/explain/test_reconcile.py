"""The comparison of the record with a backend's, against thirty lines that say the same more slowly."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.explain.reconcile import Account, Asked, End, Row, Sending, account, end_of, grade_of, reconciled
from onbehalf.model import UnixTime

NOW = UnixTime(10_000)
ENDS: list[End] = ["done", "failed", "unsent", "unknown", "open", "erased"]
CHANNEL = "c" * 16


def sending(index: int, number: int, end: End, *, receipt: bool = False, at: int = 0) -> Sending:
    return Sending(
        index=index, leaf=f"leaf {index}", call=f"call_{index}", channel=CHANNEL, number=number, at=UnixTime(at),
        tool="t", arguments="a", end=end, answer="x" if end == "done" else "", receipt=receipt,
    )  # fmt: skip


def row_of(of: Sending) -> Row:
    return Row(
        token=of.token, at=of.at, channel=of.channel, n=of.number, call=of.call, tool=of.tool, arguments=of.arguments,
        record=of.index, leaf=of.leaf, answer=of.answer,
    )  # fmt: skip


@st.composite
def compared(draw: st.DrawFn) -> Asked:
    """Some sendings, of which the backend kept some rows as they are, others changed or twice, and some of nobody."""
    numbers = draw(st.lists(st.integers(1, 12), unique=True, max_size=8).map(sorted))
    sendings = [
        sending(3 * at, number, draw(st.sampled_from(ENDS)), receipt=draw(st.booleans()),
                at=draw(st.sampled_from([0, NOW - 35, NOW])))
        for at, number in enumerate(numbers)
    ]  # fmt: skip
    rows = []
    for each in sendings:
        rows += [row_of(each)] * draw(st.sampled_from([0, 1, 1, 1, 2]))
        if rows and draw(st.integers(0, 4)) == 0:
            name = draw(st.sampled_from(["n", "tool", "arguments", "leaf", "answer", "call", "channel", "token"]))
            rows[-1] = replace(rows[-1], **{name: 99 if name == "n" else "other"})
    for stray in draw(st.lists(st.sampled_from(["denied", "nobody", "no token"]), max_size=2)):
        call = "" if stray == "no token" else stray
        rows.append(Row(token="" if not call else f"{call}.1", at=NOW, call=call))
    given_rows = None if draw(st.integers(0, 5)) == 0 else draw(st.permutations(rows))
    return Asked(
        audience="https://desk.example", channel=CHANNEL, sendings=sendings, rows=given_rows,
        denied={"denied"}, receipts=draw(st.booleans()), now=NOW,
    )  # fmt: skip


def naive(asked: Asked) -> Counter[tuple[str, bool]]:
    """What is to be found, by looking at everything for each thing."""
    said: list[tuple[str, bool]] = []
    rows, sendings = list(asked.rows or []), list(asked.sendings)
    for one, other in pairwise(sendings):
        said += [("hole", True)] if other.number - one.number != 1 else []
    for at, row in enumerate(rows):
        if row.channel == "other" or not any(each.index == row.index for each in sendings):
            said.append(("denied_but_executed" if row.call in asked.denied else "executed_without_intent", True))
        elif any(before.index == row.index and before.channel != "other" for before in rows[:at]):
            said.append(("mismatch", True))
    for each in sendings:
        mine = [row for row in rows if row.index == each.index and row.channel != "other"]
        unclear = each.end in ("unknown", "open", "erased")
        if mine:
            like, first = row_of(each), mine[0]
            same = {"n", "token", "call", "tool", "arguments", "leaf"}
            if each.end == "done":
                same.add("answer")
            wrong = any(getattr(first, name) != getattr(like, name) for name in same)
            if wrong or each.end == "unsent":
                said.append(("mismatch", True))
            elif unclear:
                said.append(("unknown", False))
        elif each.end == "done" and asked.rows is not None:
            said.append(("not_executed", True))
        elif unclear:
            late = asked.rows is not None and each.end != "erased" and (each.end != "open" or each.at + 35 < asked.now)
            said.append(("unknown", not late))
        if asked.receipts and each.end == "done" and not each.receipt:
            said.append(("receipt_missing", True))
    return Counter(said)


def found(made: Account) -> Counter[tuple[str, bool]]:
    return Counter((each.kind, each.bad) for each in made.findings)


@settings(max_examples=400, deadline=None)
@given(compared())
def test_the_comparison_finds_what_the_slow_one_does(asked: Asked) -> None:
    made = account(asked)
    assert found(made) == naive(asked)
    assert made.complete == (asked.rows is not None and not any(bad for _, bad in naive(asked)))
    kinds = Counter(kind for kind, _ in naive(asked).elements())
    assert {name: made.counts.get(name, 0) for name in kinds} == dict(kinds)
    assert made.counts.get("sendings", 0) == len(asked.sendings)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(ENDS[:2]), max_size=20), st.booleans())
def test_an_honest_pair_is_complete_at_the_grade_of_its_weakest(ends: list[End], signed: bool) -> None:
    sendings = [sending(at, at + 1, end, receipt=signed and end == "done") for at, end in enumerate(ends)]
    asked = Asked(
        audience="a", channel=CHANNEL, sendings=sendings, rows=[row_of(each) for each in sendings], now=NOW
    )  # fmt: skip
    made = account(asked)
    assert made.complete
    assert made.counts.get("matched", 0) == len(ends)
    assert made.grade == ("R3" if signed and ends and "failed" not in ends else "R2")
    assert account(replace(asked, rows=None)).complete is False


def test_grades_say_how_well_it_is_known_what_came_of_a_sending() -> None:
    assert grade_of("done", receipt=True, row=False) == "R3"
    assert grade_of("done", receipt=False, row=True) == "R2"
    assert grade_of("unknown", receipt=False, row=True) == "R2"
    assert grade_of("done", receipt=False, row=False) == "R1"
    for end in ("failed", "unknown", "open", "unsent"):
        assert grade_of(end, receipt=False, row=False) == "R0"  # type: ignore[arg-type]  # each is one


def test_ends_are_what_outcomes_say() -> None:
    assert end_of("unknown", None) == "unknown"
    assert end_of("outcome", None) == "erased"
    assert end_of("outcome", {"status": "done"}) == "done"
    assert end_of("outcome", {"status": "failed", "code": "not_sent", "unknown": False}) == "unsent"
    assert end_of("outcome", {"status": "failed", "code": "upstream_error", "unknown": True}) == "unknown"
    assert end_of("outcome", {"status": "failed", "code": "upstream_error", "unknown": False}) == "failed"


def test_the_record_of_a_comparison_lists_so_many_findings_and_counts_the_rest() -> None:
    sendings = [sending(at, at + 1, "done") for at in range(600)]
    made = account(Asked(audience="a", channel=CHANNEL, sendings=sendings, rows=[], now=NOW))
    entry = reconciled([made], {"a": {"kind": "jsonl"}}, span={"from": 0, "to": 600}, now=NOW)
    findings, backends = entry.facts["findings"], entry.facts["backends"]
    assert isinstance(findings, list)
    assert isinstance(backends, dict)
    assert (entry.kind, entry.call, len(findings), entry.facts["more"]) == ("reconciled", "", 500, 100)
    assert backends["a"]["source"] == {"kind": "jsonl"}  # type: ignore[call-overload,index]  # an object
    assert backends["a"]["counts"] == {"sendings": 600, "not_executed": 600}  # type: ignore[call-overload,index]
