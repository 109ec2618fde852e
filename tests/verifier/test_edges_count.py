"""What is counted on the way counts at its bounds: samples, channels, silence, erasures, demands, a backend's rows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from onbehalf.verifier import backend_rows, silence
from onbehalf.verifier.backend_rows import read_rows
from onbehalf.verifier.channels import Channels, channel_of
from onbehalf.verifier.demands import Demands, demanded, read_demands, unmet
from onbehalf.verifier.erasures import Erasures
from onbehalf.verifier.leaves import Leaf
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.sample import Sample, asked_sample
from onbehalf.verifier.silence import Silence


def leaf(kind: str = "intent", *, at: int = 0, of: int = -1, channel: str = "", number: int = 0) -> Leaf:
    return Leaf(kind, "", at, of, (), [], channel, number)


# --- samples ---


def test_the_rank_of_a_call_is_the_hash_of_seed_and_index() -> None:
    ranked = sorted(range(20), key=lambda index: hashlib.sha256(b"s" + index.to_bytes(8, "big")).digest())
    made = Sample(seed=b"s", count=3)
    for index in range(20):
        made.take(index, leaf(), whole=False)
    assert (made.withheld(), made.size, made.population) == (sorted(ranked[:3]), 3, 20)


def test_a_chosen_call_is_whole_only_with_all_of_its_leaves() -> None:
    for first, second, withheld in ((True, True, []), (True, False, [0]), (False, True, [0])):
        made = Sample(seed=b"s", count=1)
        made.take(0, leaf("denial"), whole=first)
        made.take(1, leaf("outcome", of=0), whole=second)
        assert made.withheld() == withheld
        assert made.population == 1


def test_a_sample_has_1_to_10000_calls_and_its_seed_is_the_word_or_the_head() -> None:
    assert asked_sample({}, b"") is None
    for count in ("1", "10000", "00001"):
        made = asked_sample({"sample": count}, b"note")
        assert made is not None
        assert made.count == int(count)
        assert made.seed == hashlib.sha256(b"onbehalf/sample/v1\0head\0note").digest()
    made = asked_sample({"sample": "1", "seed": "w"}, b"note")
    assert made is not None
    assert made.seed == hashlib.sha256(b"onbehalf/sample/v1\0word\0w").digest()
    for count in ("0", "10001", "000001", "+1", "²", "٣", ""):
        with pytest.raises(ValueError, match="1 to 10000 calls"):
            asked_sample({"sample": count}, b"")


# --- channels ---


def test_a_channel_is_named_by_log_and_audience() -> None:
    expected = hashlib.sha256(b"onbehalf/channel/v1/log\0https://a").hexdigest()[:16]
    assert channel_of("log", "https://a") == expected


def test_numbers_follow_each_other_in_each_channel() -> None:
    held = Channels(start=0)
    assert held.take(leaf()) == ""
    for channel, number, said in (
        ("a", 1, ""), ("a", 2, ""), ("b", 2, "number 2 of channel b, where 1 is next"), ("b", 3, ""),
        ("a", 2, "number 2 of channel a, where 3 is next"), ("a", 3, ""), ("a", 5, "where 4 is next"),
    ):  # fmt: skip
        problem = held.take(leaf(channel=channel, number=number))
        assert problem == said if not said else said in problem
    assert held.uncounted == 1
    a, b = held.all["a"], held.all["b"]
    assert ((a.first, a.last, a.holes), (b.first, b.last, b.holes)) == ((1, 5, 2), (2, 3, 1))
    later = Channels(start=1)
    assert later.take(leaf(channel="a", number=7)) == ""
    assert later.take(leaf(channel="a", number=8)) == ""
    assert later.take(leaf(channel="a", number=8)) != ""


def test_more_than_10000_channels_are_said() -> None:
    held = Channels(start=1)
    for number in range(10_000):
        assert held.take(leaf(channel=f"c{number}", number=1)) == ""
    assert held.take(leaf(channel="more", number=1)) == "there are more channels than any log has"
    assert len(held.all) == 10_000
    assert held.take(leaf(channel="c0", number=2)) == ""


# --- silence ---


def test_a_gap_is_longer_than_two_heartbeats_and_5_seconds_and_no_stop_precedes_it() -> None:
    held = Silence()
    for index, (kind, at) in enumerate(
        [("start", 7), ("x", 132), ("x", 258), ("stop", 300), ("start", 9000), ("x", 9126), ("x", 9252)]
    ):
        held.take(index, leaf(kind, at=at))
    assert (held.first, held.last, held.limit) == (7, 9252, 125)
    assert held.gaps() == [(126, 2), (126, 5), (126, 6)]
    held.said(61)
    assert (held.limit, held.gaps()) == (127, [])


def test_the_slowest_heartbeat_counts_and_only_what_is_a_pace() -> None:
    held = Silence()
    for every, kept in (
        (0, 0), (True, 0), ("9", 0), (-1, 0), (3601, 0), (1, 1), (3600, 3600), (5, 3600), (3600.0, 3600),
    ):  # fmt: skip
        held.said(every)
        assert held.every == kept
    assert Silence(every=1).limit == 7


def test_gaps_of_two_seconds_are_none_and_leaves_may_begin_at_0() -> None:
    held = Silence(every=1)
    for index, at in enumerate((0, 2, 5, 7, 10)):
        held.take(index, leaf("x", at=at))
    assert (held.first, held._gaps) == (0, [(3, 2), (3, 4)])


def test_of_many_gaps_the_longest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "_LISTED", 2)
    held, at = Silence(every=1), 0
    for index, gap in enumerate((0, 10, 90, 20, 80, 30, 70, 40, 60, 50)):
        at += gap
        held.take(index, leaf("x", at=at))
    assert len(held._gaps) == 2
    assert held.gaps() == [(90, 2), (80, 4)]


def test_a_hundred_gaps_are_listed() -> None:
    held = Silence(every=1)
    for index in range(103):
        held.take(index, leaf("x", at=10 * index))
    assert [index for _, index in held.gaps()] == [*range(1, 101)]


# --- erasures ---


def scope(**changed: Any) -> dict[str, Any]:
    return {"count": 2, "first": 3, "last": 6, **changed}


def erased(*indices: int, fact: Any = None, by: int = 9) -> Erasures:
    held = Erasures()
    held.leaf(9, 77)
    held.told(9, scope() if fact is None else fact)
    for index in indices:
        held.erased(index, by)
    return held


def test_what_is_called_erased_lies_within_what_its_leaf_tells_of() -> None:
    for indices, problems in (
        ((3, 6), []), ((4,), []), ((), []), ((2, 4), [2]), ((3, 7), [3]), ((3, 4, 5), [3]),
    ):  # fmt: skip
        assert [index for index, _ in erased(*indices).problems(0, 10)] == problems, indices


def test_a_leaf_in_the_range_that_says_nothing_of_it_is_found_and_one_outside_is_not() -> None:
    for by, problems in ((8, [4]), (10, []), (0, [4]), (9, []), (-1, [])):
        assert [index for index, _ in erased(4, by=by).problems(0, 10)] == problems, by
    assert [*erased(4, by=2).problems(2, 10)] != []
    assert [*erased(4, by=1).problems(2, 10)] == []


def test_a_fact_that_tells_of_no_erasure_is_found() -> None:
    for bad in ([], 1, {}, scope(count=True), scope(first="3"), scope(before=None), scope(keys={}), scope(last=1.5)):
        assert [index for index, _ in erased(4, fact=bad).problems(0, 10)] == [9], bad


def test_erasures_are_told_leaf_by_leaf() -> None:
    held = erased(3, 6, fact=scope(before=5, keys=["k"]))
    held.erased(4, -1)
    held.erased(5, 50)
    assert held.as_json() == [
        {"leaf": None, "at": None, "here": 1, "scope": None},
        {"leaf": 9, "at": 77, "here": 2, "scope": {"count": 2, "first": 3, "last": 6, "before": 5, "keys": 1}},
        {"leaf": 50, "at": None, "here": 1, "scope": None},
    ]
    assert erased().as_json()[0]["here"] == 0
    assert erased(fact=scope()).as_json()[0]["scope"] == {"count": 2, "first": 3, "last": 6, "before": 0, "keys": 0}
    zero = Erasures()
    zero.erased(0, 0)
    assert zero.as_json()[0]["leaf"] == 0


def test_erasures_are_bounded_at_100000_and_listed_to_1000() -> None:
    held = Erasures()
    for index in range(100_000):
        held.leaf(index, 0)
        held.erased(index, index + 10)
    held.erased(100_001, 10)
    with pytest.raises(ValueError, match="more than 100000"):
        held.leaf(100_000, 0)
    with pytest.raises(ValueError, match="more than 100000"):
        held.erased(100_002, 200_000)
    assert len(held.as_json()) == 1000


# --- demands ---


def owed(**annotations: str) -> Demands:
    found = read_demands("p", annotations)
    assert found is not None
    return found


def code(*all_: Demands, mapped: bool = True, scopes: Any = (), login: Any = None, now: int = 1000) -> str:
    return unmet(all_, mapped=mapped, scopes=[*scopes], login=login or {}, now=now)


def test_demands_are_read_sorted_and_told_as_the_record_has_them() -> None:
    made = owed(columns="b, a", mask="x:y:last4, a:hash", max_rows="5", scope="s", max_age="60", other="z")
    assert demanded(made) == {
        "policy": "p", "columns": ["a", "b"], "mask": {"x:y": "last4", "a": "hash"}, "max_rows": 5, "scope": ["s"],
        "max_age": 60,
    }  # fmt: skip
    assert made.of("mask") == (("a", "hash"), ("x:y", "last4"))
    assert (made.of("max_rows"), made.of("acr")) == ((5,), None)
    assert read_demands("p", {"other": "x"}) is None
    for bad in ({"scope": None}, {"max_rows": 5}, {"max_age": "soon"}):
        with pytest.raises(ValueError, match=r"no value|invalid literal"):
            read_demands("p", bad)


@pytest.mark.parametrize("kind", ["columns", "mask", "max_rows"])
def test_demands_on_rows_need_an_answer_that_is_mapped(kind: str) -> None:
    made = owed(**{kind: "5"})
    assert code(owed(scope="s"), made, mapped=False, scopes=["s"]) == "obligation_unmet"
    assert code(made) == ""
    assert code(owed(scope="s"), mapped=False, scopes=["s"]) == ""


def test_a_purpose_is_one_that_all_policies_name() -> None:
    a, ab = owed(purpose="a"), owed(purpose="a,b")
    assert code(ab, scopes=["purpose:b"]) == ""
    assert code(ab, scopes=["b"]) == "purpose_not_shown"
    assert code(a, ab, scopes=["purpose:b"]) == "purpose_not_shown"
    assert code(a, owed(purpose="b"), scopes=["purpose:a", "purpose:b"]) == "purpose_not_shown"


def test_all_scopes_and_one_of_the_kinds_of_login_are_needed() -> None:
    assert code(owed(scope="s,t"), scopes=["s", "t", "u"]) == ""
    assert code(owed(scope="s,t"), scopes=["s"]) == "step_up_needed"
    assert code(owed(scope="s"), owed(scope="t"), scopes=["s"]) == "step_up_needed"
    assert code(owed(acr="high,low"), login={"acr": "low"}) == ""
    assert code(owed(acr="high,low"), owed(acr="high"), login={"acr": "low"}) == "step_up_needed"
    assert code(owed(acr="high")) == "step_up_needed"


def test_a_login_is_as_old_as_the_strictest_policy_lets_it_be_and_30_seconds() -> None:
    for at, holds in (
        (910, True),
        (909, False),
        (1030, True),
        (1031, False),
        (True, False),
        (None, False),
        ("1", False),
    ):
        assert (code(owed(max_age="60"), owed(max_age="900"), login={"auth_time": at}) == "") is holds, at
    assert code(owed(scope="s"), scopes=["s"], login={"auth_time": 0}) == ""


# --- a backend's rows ---

TEXTS = dict.fromkeys(("channel", "token", "call", "tool", "arguments", "leaf", "answer"), "x")
ROW: dict[str, Any] = {**TEXTS, "n": 1, "record": 2, "at": 3, "status": 200}


def written(place: Path, *rows: Any) -> Path:
    place.write_bytes(b"".join(json.dumps(each).encode() + b"\n" for each in rows))
    return place


def test_a_backends_rows_are_read_whole_with_the_digest_of_their_file(tmp_path: Path) -> None:
    path = written(tmp_path / "rows", ROW, {**ROW, "n": 0, "tool": "t" * 2048, "at": 2**53 - 1})
    read = read_rows("https://b", path)
    assert (read.audience, len(read.rows)) == ("https://b", 2)
    assert read.digest == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    first, second = read.rows
    assert (first.n, first.record, first.at, first.status, first.tool) == (1, 2, 3, 200, "x")
    assert (second.n, second.at, len(second.tool)) == (0, 2**53 - 1, 2048)
    assert read_rows("b", written(tmp_path / "none")).rows == []


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ([], "members of a row"), ({**ROW, "more": 1}, "members of a row"), ({"n": 1}, "members of a row"),
        ({**ROW, "tool": 1}, "no text, or too long"), ({**ROW, "tool": "t" * 2049}, "no text, or too long"),
        ({**ROW, "n": True}, "no whole number"), ({**ROW, "n": -1}, "no whole number"),
        ({**ROW, "at": 2**53}, "no whole number"), ({**ROW, "n": "1"}, "no whole number"),
        ({**ROW, "n": [[1]]}, "no row of a backend's record"),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_line_that_is_no_row_is_named(tmp_path: Path, bad: Any, why: str) -> None:
    with pytest.raises(Unusable, match=f"line 2 of .*{why}"):
        read_rows("b", written(tmp_path / "rows", ROW, bad))


def test_a_backends_record_is_bounded_in_rows_bytes_and_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "rows", ROW, ROW)
    line = path.stat().st_size // 2
    for name, most in (("_MAX_ROWS", 2), ("_MAX_BYTES", 2 * line), ("_MAX_LINE", line)):
        with monkeypatch.context() as patch:
            patch.setattr(backend_rows, name, most)
            assert len(read_rows("b", path).rows) == 2
            patch.setattr(backend_rows, name, most - 1)
            with pytest.raises(Unusable, match="too many or too long"):
                read_rows("b", path)
    with pytest.raises(Unusable, match="cannot be read"):
        read_rows("b", tmp_path / "nothing")


def test_a_backends_line_has_at_most_65536_bytes(tmp_path: Path) -> None:
    row = json.dumps(ROW).encode()
    for size, holds in ((65_536, True), (65_537, False)):
        (tmp_path / "rows").write_bytes(row + b" " * (size - len(row) - 1) + b"\n")
        if holds:
            assert len(read_rows("b", tmp_path / "rows").rows) == 1
        else:
            with pytest.raises(Unusable, match="too many or too long"):
                read_rows("b", tmp_path / "rows")
