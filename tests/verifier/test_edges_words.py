"""What a report says of keys and heads of the past, and what the command takes for a number of processes."""

from __future__ import annotations

import json
import os
from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

import pytest

from onbehalf.verifier import archive, backend_rows, command
from onbehalf.verifier.leaves import Leaf
from onbehalf.verifier.opened import Opened, Reading
from onbehalf.verifier.receipts import Receipts
from onbehalf.verifier.report import KeySpan, Past, Quorum, Report
from onbehalf.verifier.strict import strict
from verifier.test_edges_walk import SALT, line

EMPTY: dict[str, Any] = {"open": [], "unknown": []}


def told(**named: Any) -> list[str]:
    return Report(summary=EMPTY, **named).as_text().splitlines()


def test_whose_heads_are_whose_is_told_where_there_was_more_than_one_key() -> None:
    spans = [KeySpan("old", 0, 14), KeySpan("new", 15, None)]
    expected = [
        "           heads of 0 to 14 leaves by old, leaf 14 names the next",
        "           heads from 15 leaves on by new",
    ]
    assert [each for each in told(keys=spans) if "heads " in each] == expected
    assert not [each for each in told(keys=spans[1:]) if "heads " in each]
    assert not [each for each in told() if "heads " in each]


def looked_back(**named: Any) -> list[str]:
    lines = told(**named)
    place = next((at for at, each in enumerate(lines) if "earlier heads" in each or "witnessed" in each), len(lines))
    return lines[place:]


def test_what_existed_when_is_told_of_twenty_heads() -> None:
    past = [Past(7, None), *(Past(10 + each, 86_400 * each) for each in range(21))]
    existed = [
        f"existed    leaves before {10 + each} at 1970-01-{1 + each:02} 00:00:00 UTC, by the quorum"
        for each in range(20)
    ]
    first = "           {} earlier heads, each a beginning of the newest"
    assert looked_back(past=past[:21]) == [first.format(21), *existed]
    assert looked_back(past=past) == [first.format(22), *existed, "           … and 1 more (--json)"]
    assert looked_back(past=past[:1]) == [first.format(1)]
    assert looked_back() == []


def test_whether_witnessed_calls_are_shown_to_be_so_is_told() -> None:
    quorum, what = (
        Quorum(name="q", met=True, cosigned={}),
        "witnessed  3 calls before they were sent, say their outcomes",
    )
    assert looked_back(witnessed=3) == [f"{what}; give --policy to see it shown"]
    assert looked_back(witnessed=3, quorum=quorum) == [f"{what}: for each the head is here with the quorum"]
    for count, more in ((20, ""), (21, " …")):
        named = ", ".join(map(str, range(20)))
        assert looked_back(witnessed=3, quorum=quorum, unshown=[*range(count)]) == [
            f"{what}: NOT SHOWN for intents {named}{more}"
        ]


def test_findings_that_are_not_kept_are_counted() -> None:
    made = Report()
    for _ in range(1003):
        made.found("x", "y", "z")
    assert (len(made.findings), made.more, made.findings[0].index) == (1000, 3, -1)


@pytest.mark.parametrize("text", ["0", "17", "0016", "-1", "two", "", "\u0661", "1.0"])
def test_a_number_of_processes_is_1_to_16(text: str) -> None:
    assert [command._jobs(each) for each in ("1", "2", "16", "016")] == [1, 2, 16, 16]
    with pytest.raises(ArgumentTypeError, match="expected 1 to 16"):
        command._jobs(text)


def test_as_many_processes_as_processors_are_started_and_four_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, expected in ((1, 1), (3, 3), (4, 4), (9, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, count=count: {*range(count)}, raising=False)
        assert command._processors() == expected
    asked: list[int] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda which: asked.append(which) or {1}, raising=False)
    command._processors()
    assert asked == [0]  # this process
    monkeypatch.delattr(os, "sched_getaffinity")
    for here, expected in ((None, 1), (2, 2), (9, 4)):
        monkeypatch.setattr(os, "cpu_count", lambda here=here: here)
        assert command._processors() == expected


def test_a_report_as_json_stands_in_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = Report(summary=EMPTY)
    monkeypatch.setattr(command, "check", lambda *_, **__: report)
    command.main([str(tmp_path / "x.zip"), "--json"])
    assert capsys.readouterr().out == json.dumps(report.as_json(), indent=2) + "\n"


def test_the_first_leaf_may_be_an_intent_that_was_witnessed() -> None:
    made = Reading(Receipts({}))
    for of, counted in ((0, 1), (-1, 1), (3, 2)):
        text = '{"size":9}'
        line_ = line("outcome", witnessed=text)
        commitment = line_.split(b'"witnessed":"')[1][:64]
        leaf = Leaf("outcome", "c", 1, of, ("witnessed",), [commitment])
        assert [*made.take(leaf, Opened(index=5, facts={"witnessed": (text, SALT)}), None)] == []
        assert made.witnessed.count == counted


def test_words_of_others_and_marks_before_json_are_bounded() -> None:
    assert archive._said(ValueError("x" * 201)) == "x" * 200
    with pytest.raises(ValueError, match="BOM"):
        strict("\ufeff{}", depth=2)
    assert (backend_rows._MAX_BYTES, backend_rows._MAX_LINE, backend_rows._MAX_ROWS) == (1 << 30, 1 << 16, 1_000_000)
