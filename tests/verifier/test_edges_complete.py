"""What stands against completeness is counted and told exactly, leaf by leaf, and up to its bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from onbehalf.verifier.backend_rows import BackendRecord, Row
from onbehalf.verifier.channels import channel_of
from onbehalf.verifier.complete import Completeness, Statement
from onbehalf.verifier.leaves import Leaf, Run
from onbehalf.verifier.opened import Opened
from onbehalf.verifier.refused import Unusable

ORIGIN, DESK, SHOP = "gateway.example/log", "https://desk.example/mcp", "https://shop.example/mcp"
CHANNEL, OTHER = channel_of(ORIGIN, DESK), channel_of(ORIGIN, SHOP)
HASH = b"h" * 32
LEAF = "sha256:" + HASH.hex()
COUNTS = dict.fromkeys(("sendings", "rows", "answers", "signed", "not_done", "settled", "outside"), 0)


def row(record: int, n: int = 1, **changed: Any) -> Row:
    """What an honest backend keeps of the call of intent `record`."""
    said = {
        "channel": CHANNEL, "n": n, "token": f"c{record}.{record}", "call": f"c{record}", "tool": "write",
        "arguments": "sha256:a", "record": record, "leaf": LEAF, "at": 1000, "answer": "sha256:b", "status": 200,
    }  # fmt: skip
    return Row(**{**said, **changed})


class Log:
    """Leaves from `start` on, taken one by one."""

    def __init__(self, *rows: Row, start: int = 0, size: int = 100, given: bool = True) -> None:
        records = [BackendRecord(audience=DESK, digest="", rows=[*rows])] if given else []
        self.all = Completeness(ORIGIN, start, size, records)
        self.index, self.at = start, 1000

    def leaf(self, kind: str, call: str = "", of: int = -1, n: int = 0, *, sound: bool = True, **facts: Any) -> str:
        index, self.index = self.index, self.index + 1
        leaf = Leaf(kind, call, self.at, of, (), [], CHANNEL if n else "", n)
        here = Opened(index=index, facts={name: (json.dumps(value), "") for name, value in facts.items()})
        return self.all.take(index, leaf, HASH, here if facts else None, sound=sound)

    def intent(self, n: int = 1, **facts: Any) -> int:
        facts = {"tool": {"remote": "write"}, "arguments_digest": "sha256:a", **facts}
        assert self.leaf("intent", f"c{self.index}", n=n, **facts) == ""
        return self.index - 1

    def call(self, n: int = 1, kind: str = "outcome", status: str = "done", **facts: Any) -> int:
        of = self.intent(n)
        self.leaf(kind, f"c{of}", of, outcome={"status": status, **facts.pop("told", {})}, **facts)
        return of

    def said(self, end: int | None = None) -> Statement:
        (one,) = self.all.statements(self.index if end is None else end)
        return one


def counted(said: Statement) -> dict[str, int]:
    assert said.counts.keys() == COUNTS.keys()
    return {name: count for name, count in said.counts.items() if count}


def test_a_statement_lists_a_hundred_reasons_counts_the_others_and_is_told_whole() -> None:
    said = Statement(backend="b", channel="c", start=2, end=9, by="records", grade="R2", counts={"rows": 1})
    told = {
        "backend": "b", "channel": "c", "range": {"from": 2, "to": 9}, "complete": True, "by": "records",
        "grade": "R2", "counts": {"rows": 1}, "reasons": [], "reasons_not_listed": 0,
    }  # fmt: skip
    assert said.as_json() == told
    for each in range(102):
        said.against(str(each))
    reasons = [str(each) for each in range(100)]
    assert said.as_json() == {**told, "complete": False, "grade": "", "reasons": reasons, "reasons_not_listed": 2}
    assert not Statement(backend="b", channel="c", start=2, end=9).complete


def test_calls_that_a_backend_signed_kept_and_did_not_do_are_counted_apart() -> None:
    log = Log(row(0), row(2, 2), row(4, 3), row(6, 4, answer=""))
    log.call(1, answer_digest="sha256:b")
    log.call(2, result_digest="sha256:b")
    log.call(3, status="failed")
    log.call(4, answer_digest="sha256:b")
    log.call(5, status="failed")
    log.call(6, kind="unknown")
    log.call(7, told={"unknown": True}, status="failed")
    said = log.said()
    assert (said.complete, said.by, said.grade, said.reasons) == (True, "records", "R2", [])
    assert (said.backend, said.channel, said.start, said.end) == (DESK, CHANNEL, 0, 14)
    assert counted(said) == {"sendings": 7, "rows": 4, "answers": 2, "not_done": 1, "settled": 2}


def test_it_is_r3_where_every_row_was_signed_for_and_r2_where_one_was_not() -> None:
    for signed, grade in ((2, "R3"), (1, "R2"), (0, "R2")):
        log = Log(row(0), row(2, 2))
        for each in range(2):
            receipt = {"backend_receipt": "r"} if each < signed else {}
            log.call(each + 1, answer_digest="sha256:b", **receipt)
        said = log.said()
        assert (said.grade, said.counts["signed"]) == (grade, signed)
    assert Log().said().grade == "R2"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"n": 9}, "number"), ({"call": "x"}, "call"), ({"token": "c0.1"}, "token"), ({"leaf": LEAF[:-1]}, "leaf"),
        ({"tool": "x"}, "tool"), ({"arguments": "x"}, "arguments"), ({"call": "x", "tool": "x"}, "call, tool"),
    ],
)  # fmt: skip
def test_each_member_of_a_row_is_held_against_its_intent(change: dict[str, Any], what: str) -> None:
    log = Log(row(0, **change))
    log.call()
    assert log.said().reasons == [f"leaf 0: the backend's record has another {what}"]


def test_what_is_not_opened_or_does_not_hold_is_not_held_against_a_row() -> None:
    log = Log(row(0, tool="x", arguments="x"), row(2, 2), row(4, 3))
    log.leaf("intent", "c0", n=1)
    log.leaf("outcome", "c0", 0)
    log.leaf("intent", "c2", n=2, tool="write")
    log.leaf("outcome", "c2", 2, sound=False, outcome={"status": "done"}, answer_digest="sha256:x")
    log.leaf("intent", "c4", n=3, sound=False, tool={"remote": "x"})
    log.leaf("outcome", "c4", 4, outcome="done", answer_digest="sha256:x")
    said = log.said()
    assert (said.reasons, counted(said)) == ([], {"sendings": 3, "rows": 3})


def test_what_the_gateway_says_of_an_end_and_the_backend_does_not_is_a_reason() -> None:
    log = Log(row(6, 4), row(8, 5))
    log.call(1)
    of = log.intent(2)
    log.leaf("outcome", f"c{of}", of)
    log.call(3, status="failed")
    log.call(4, status="failed", told={"code": "not_sent"})
    log.call(5, answer_digest="sha256:x")
    said = log.said()
    assert said.reasons == [
        "leaf 0: the gateway has an answer, and the backend's record has no such call",
        "leaf 2: not in the backend's record, and what came of it is not opened",
        "leaf 6: the gateway says that it was never sent, and the backend did it",
        "leaf 8: the backend's record has another answer",
    ]
    assert counted(said) == {"sendings": 5, "rows": 2, "answers": 1, "not_done": 1}


def test_an_intent_that_is_open_at_the_end_is_settled_by_its_row_only() -> None:
    log = Log(row(0))
    log.intent(1)
    log.intent(2)
    said = log.said()
    assert said.reasons == ["leaf 1: open at the end of the range, and not in the backend's record"]
    assert counted(said) == {"sendings": 2, "rows": 1, "settled": 1}


def test_problems_are_listed_to_a_hundred() -> None:
    log = Log()
    for each in range(102):
        log.call(each + 1)
    said = log.said()
    assert (len(said.reasons), said.more) == (100, 2)


def test_rows_of_no_intent_count_by_their_leaf_and_their_time() -> None:
    def strayed(*rows: Row) -> tuple[list[str], dict[str, int]]:
        log = Log(row(11), *rows, start=10, size=20)
        log.leaf("denial")
        log.call()
        log.leaf("stop")
        log.at = 2000
        log.leaf("denial")
        said = log.said()
        return said.reasons, counted(said)

    here, nobody = {"sendings": 1, "rows": 1}, "and leaf {} is no intent to"
    assert strayed() == ([], here)
    for record in (10, 12, 14):
        assert strayed(row(record)) == (
            [f"the backend did call c{record} at 1000, {nobody.format(record)}"], here,
        )  # fmt: skip
    for record, at in ((9, 1000), (15, 1000), (19, 1000), (20, 1961), (20, 3000)):
        assert strayed(row(record, at=at)) == ([], {**here, "outside": 1})
    for record in (20, 21):
        assert strayed(row(record, at=1960)) == (
            [f"the backend did call c{record} at 1960, before the last of these leaves, and names leaf {record}, "
             "which the log does not have"], here,
        )  # fmt: skip
    assert strayed(row(11, 2), row(15), row(11, 3)) == (
        ["the backend's record has leaf 11 twice"] * 2, {**here, "outside": 1},
    )  # fmt: skip
    for at in (995, 2005):
        assert strayed(row(3, channel=OTHER, at=at)) == (
            [f"the backend did call c3 at {at}, on a channel that is none of this log's"], here,
        )  # fmt: skip
    for at in (994, 2006):
        assert strayed(row(3, channel=OTHER, at=at)) == ([], {**here, "outside": 1})


def test_several_strays_are_told_in_their_order() -> None:
    log = Log(row(3), row(1), row(2))
    for _ in range(4):
        log.leaf("denial")
    assert [each.split()[4] for each in log.said().reasons] == ["c1", "c2", "c3"]


def test_two_records_of_one_backend_are_refused_and_those_of_two_are_told_apart() -> None:
    records = [BackendRecord(audience=each, digest="", rows=[]) for each in (DESK, SHOP)]
    made = Completeness(ORIGIN, 0, 1, records)
    assert made.compares
    assert {each.backend: each.channel for each in made.statements(0)} == {DESK: CHANNEL, SHOP: OTHER}
    with pytest.raises(Unusable, match=f"two records were given of {SHOP}"):
        Completeness(ORIGIN, 0, 1, [*records, records[1]])
    assert not Completeness(ORIGIN, 0, 1, []).compares


def test_holes_silences_and_intents_without_a_number_stand_against_every_channel() -> None:
    log = Log(given=False)
    log.intent(1)
    assert log.leaf("intent", "x", n=5) == f"it has number 5 of channel {CHANNEL}, where 2 is next"
    log.leaf("intent", "x")
    log.at += 126
    log.leaf("denial")
    assert log.said().reasons[-3:] == [
        "numbers of this channel are missing, 1 times",
        "silence of 126 s before leaf 3, and no heartbeat for 125 s or more",
        "1 intents have no number: they are from an older gateway",
    ]
    sound = Log()
    sound.call(1)
    assert sound.said().reasons == ["leaf 0: the gateway has an answer, and the backend's record has no such call"]


def test_a_run_counts_as_its_leaves_do() -> None:
    made = Completeness(ORIGIN, 3, 9, [])
    made.run(3, Run(2, {"intent": 2}, 10, 900, (890, 4), [(890, 4)], [], [], [], {CHANNEL: (4, 5)}, 1))
    assert (made.channels.all[CHANNEL].first, made.channels.all[CHANNEL].last, made.channels.uncounted) == (4, 5, 1)
    assert made.silence.gaps() == [(890, 4)]


def test_heartbeats_and_a_stop_say_their_pace_and_name_their_channels() -> None:
    for kind in ("heartbeat", "stop"):
        log = Log(given=False)
        log.leaf("intent", "c0", n=1)
        sent: Mapping[str, Any] = {
            "x" * 501: {"channel": channel_of(ORIGIN, "x" * 501)}, SHOP: {"channel": CHANNEL}, "a": 1, "b": {},
            "c": {"channel": 1}, DESK: {"channel": CHANNEL},
        }  # fmt: skip
        log.leaf(kind, every=300, sent=sent)
        log.leaf(kind, every=2, sent=7)
        assert (log.said().backend, log.all.silence.limit) == (DESK, 605)
        assert log.all._names == {CHANNEL: DESK, channel_of(ORIGIN, "x" * 501): "x" * 500}
    log = Log(given=False)
    log.leaf("denial", every=300, sent={DESK: {"channel": CHANNEL}})
    assert (log.all._names, log.all.silence.limit) == ({}, 125)


def compared(start: int = 0, *, leaves: int = 4, end: int = 2, first: int = 1, **told: Any) -> Log:
    """Intents with numbers, and a comparison of the first leaves on record."""
    log = Log(start=start, given=False)
    for each in range(leaves):
        log.intent(each + first)
    told = {
        "channel": CHANNEL,
        "compared": True,
        "complete": True,
        "grade": "R2",
        "numbers": [first, first + 1],
        **told,
    }
    log.leaf("reconciled", span={"from": start, "to": end}, backends={DESK: told})
    return log


def test_a_comparison_that_is_on_record_is_told_for_its_leaves() -> None:
    for grade in ("R2", "R3"):
        said = compared(grade=grade).said()
        assert (said.by, said.grade, said.start, said.end, said.counts) == ("reconciliation", grade, 0, 2, {"leaf": 4})
        assert (said.reasons, said.backend, said.channel) == ([], DESK, CHANNEL)
    assert compared(3, end=5, first=7).said().start == 3
    assert compared(end=4).said(3).end == 3


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"complete": 1}, "the comparison at leaf 4 found differences"),
        ({"grade": "R1"}, "the comparison at leaf 4 found differences"),
        ({"numbers": [1, 5]}, "the comparison at leaf 4 tells of numbers that no leaf has"),
        ({"numbers": ["1", 2]}, "the comparison at leaf 4 tells of numbers that no leaf has"),
        ({"numbers": [1, "2"]}, "the comparison at leaf 4 tells of numbers that no leaf has"),
        ({"numbers": [2, 2]}, "the comparison at leaf 4 begins after number 1, which is within its leaves"),
    ],
)  # fmt: skip
def test_a_comparison_that_is_not_of_these_leaves_shows_nothing(told: dict[str, Any], reason: str) -> None:
    assert compared(**told).said().reasons == [reason]


@pytest.mark.parametrize("numbers", [[1, 4], [1, 1], [0, 0], None, [], [1, 2, 3], [2]])
def test_a_comparison_of_some_numbers_or_of_none_is_one(numbers: Sequence[int] | None) -> None:
    assert compared(numbers=numbers).said().reasons == []


def test_a_comparison_of_leaves_after_the_first_may_begin_at_any_number() -> None:
    log = compared(numbers=[1, 1], end=1)
    told = {"channel": CHANNEL, "compared": True, "complete": True, "grade": "R2", "numbers": [3, 4]}
    log.leaf("reconciled", span={"from": 1, "to": 5}, backends={DESK: told})
    assert (log.said().reasons, log.said().start, log.said().counts) == ([], 1, {"leaf": 5})
    log.leaf("reconciled", span={"from": 0, "to": 0}, backends={DESK: told})
    assert log.said().reasons == [
        "the comparison at leaf 6 begins after number 1, which is within its leaves",
        "the comparison on record is of other leaves",
    ]


def test_a_comparison_of_leaves_before_the_range_says_nothing_of_it() -> None:
    log = Log(start=10, given=False)
    log.intent(4)
    told = {"channel": CHANNEL, "compared": True, "complete": True, "grade": "R2", "numbers": [1, 3]}
    log.leaf("reconciled", span={"from": 5, "to": 10}, backends={DESK: told})
    assert log.said().reasons == ["the comparison on record is of other leaves"]
    assert (log.said().start, log.said().end) == (10, 10)


def test_the_comparison_of_a_channel_of_which_no_leaf_is_here_is_no_statement() -> None:
    log = Log(given=False)
    log.leaf("reconciled", span={"from": 0, "to": 0}, backends={DESK: {"channel": CHANNEL, "compared": True}})
    assert log.all.statements(1) == []


@pytest.mark.parametrize(
    "facts",
    [
        {"span": 1, "backends": {}}, {"span": {"from": 0, "to": 1}, "backends": 1},
        {"span": {"from": "0", "to": 1}}, {"span": {"from": 0, "to": "1"}}, {"span": {"from": -1, "to": 1}},
        {"span": {"from": 2, "to": 1}}, {"span": {"from": 0, "to": 2}}, {"backends": {DESK: 1}},
        {"backends": {DESK: {"channel": 1, "compared": True}}}, {"backends": {DESK: {"channel": OTHER}}},
        {"backends": {DESK: {"channel": CHANNEL, "compared": 1}}},
        {"backends": {SHOP: {"channel": CHANNEL, "compared": True, "complete": True, "grade": "R2"}}},
    ],
)  # fmt: skip
def test_a_comparison_of_no_known_form_says_nothing(facts: dict[str, Any]) -> None:
    log = Log(given=False)
    log.intent(1)
    told = {"channel": CHANNEL, "compared": True, "complete": True, "grade": "R2", "numbers": [1, 1]}
    log.leaf("reconciled", **{"span": {"from": 0, "to": 1}, "backends": {DESK: told}, **facts})
    (reason,) = log.said().reasons
    assert reason == "no record of the backend's own was given, and no comparison with one is on record"
    assert (log.said().by, log.said().start, log.said().end) == ("", 0, 2)
    assert log.said().backend in ("", DESK)


def test_the_edges_of_a_span_and_the_bounds_of_names() -> None:
    long = "x" * 501
    log = Log(start=2, given=False)
    log.intent(1)
    told = {"channel": CHANNEL, "compared": True, "complete": True, "grade": "R" * 11, "numbers": [1, 1]}
    more = {"z": 1, "y": {"channel": OTHER}, long: {"channel": channel_of(ORIGIN, long), "compared": True}}
    log.leaf("reconciled", span={"from": 0, "to": 3}, backends={**more, DESK: told})
    assert log.said().grade == "R" * 10
    assert log.all._names[channel_of(ORIGIN, long)] == "x" * 500
    assert log.all._said[channel_of(ORIGIN, long)].backend == "x" * 500


def nested(depth: int) -> Any:
    """Lists within objects within lists."""
    value: Any = 1
    for each in range(depth):
        value = [value] if each % 2 else {"a": value}
    return value


def test_facts_are_read_to_a_depth_of_32_also_those_that_are_not_needed() -> None:
    for given in (True, False):
        Log(given=given).leaf("intent", "c0", n=1, tool=nested(32))
        with pytest.raises(ValueError, match="nested deeper than 32"):
            Log(given=given).leaf("intent", "c0", n=1, tool=nested(33))
    Log(given=False).leaf("denial", tool=nested(40))
    Log(given=False).leaf("intent", "c0", n=1, sound=False, tool=nested(40))


def test_what_is_only_held_against_a_backends_record_is_not_read_without_one() -> None:
    made = Completeness(ORIGIN, 0, 9, [])
    for index, kind in enumerate(("intent", "outcome")):
        name = {"intent": "tool", "outcome": "outcome"}[kind]
        here = Opened(index=index, facts={name: ("no JSON", "")})
        made.take(index, Leaf(kind, "", 1, index - 1, (), []), HASH, here, sound=True)
    here = Opened(index=2, facts={"every": ("no JSON", "")})
    with pytest.raises(json.JSONDecodeError):
        made.take(2, Leaf("stop", "", 1, -1, (), []), HASH, here, sound=True)
