"""Ready questions, asked of records that are made for them."""

from __future__ import annotations

from typing import Any

from explain import viewed
from onbehalf.doors.query_duckdb import Desk
from onbehalf.doors.sink_parquet import table
from onbehalf.explain.ready_questions import Question, calls_by, who_read
from onbehalf.explain.views import View
from onbehalf.model import Json


def outcome(index: int, *, intent: dict[str, Json] = viewed.INTENT, erased: bool = False, **rows: Json) -> View:
    facts: dict[str, Json] = {**viewed.OUTCOME, "rows": {**viewed.ROWS, **rows}}  # type: ignore[dict-item]
    return viewed.seen("outcome", facts, index=index, intent=intent, erased=erased)


def asked(question: Question, *views: View) -> list[tuple[Any, ...]]:
    desk = Desk([table(views)])
    try:
        return [*desk.ask(question.sql, question.values, most=100, seconds=10).rows]
    finally:
        desk.close()


def unseen(*views: View) -> int:
    return asked(Question(sql=who_read().beside), *views)[0][0]  # type: ignore[no-any-return]


def test_different_rows_are_counted_once_over_all_answers() -> None:
    views = [outcome(1), outcome(2, ids=["acme/r2", "acme/r3"]), outcome(3, types=["Ticket"], ids=["acme/r9"])]
    (row,) = asked(who_read("Review"), *views)
    assert row[:5] == ("acme/alice", viewed.CALLER["client"], "reviews_list", 2, 3)  # type: ignore[index,call-overload]
    assert asked(who_read("Ticket"), *views)[0][3] == 1
    assert asked(who_read(), *views)[0][3] == 3


def test_what_only_the_gateway_looked_up_was_read_by_nobody_and_what_a_preview_showed_was() -> None:
    looked = outcome(1, intent={**viewed.INTENT, "purpose": "lookup"})
    assert asked(who_read("Review"), looked) == []
    assert unseen(looked) == 0
    assert len(asked(who_read("Review"), outcome(1, intent={**viewed.INTENT, "purpose": "preview"}))) == 1


def test_nothing_that_was_withheld_failed_or_denied_counts_as_read() -> None:
    failed: dict[str, Json] = {**viewed.OUTCOME, "outcome": {"status": "failed", "code": "x", "unknown": False}}
    views = [
        outcome(1, released=0, ids=[]), viewed.seen("denial", {**viewed.ABOUT, "decision": viewed.DENY}),
        viewed.seen("outcome", failed, intent=viewed.INTENT),
    ]  # fmt: skip
    assert asked(who_read("Review"), *views) == []


def test_people_narrow_it_and_no_people_are_nobody() -> None:
    assert len(asked(who_read("Review", people=["acme/zoe", "acme/bob"]), outcome(1))) == 1
    assert asked(who_read("Review", people=["acme/zoe"]), outcome(1)) == []
    assert asked(who_read("Review", people=[]), outcome(1)) == []


def test_a_name_is_a_value_and_never_a_part_of_the_question() -> None:
    for name in ("' OR 1=1 --", "$people", "acme/alice'; DROP TABLE records"):
        assert asked(who_read(name), outcome(1)) == []
        assert asked(calls_by(name), outcome(1)) == []


def test_answers_that_cannot_be_seen_into_are_erased_of_no_type_or_whole() -> None:
    whole = {name: value for name, value in viewed.OUTCOME.items() if name != "rows"}
    assert unseen(outcome(1)) == 0
    assert unseen(outcome(1, erased=True)) == 1
    assert unseen(outcome(1, types=[])) == 1
    assert unseen(viewed.seen("outcome", whole, intent=viewed.INTENT)) == 1
