"""A writing call that is sent again, under a new call id, is not done again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from house import Doors, house, request, tickets
from onbehalf.gateway import Gateway
from onbehalf.model import Done, Failed, Json, Outcome, Presented, Reply, ToolCall

OWNERS = tickets(**{"7": "bob", "8": "bob"})


def update(gateway: Gateway, *, token: str = "bob", key: str = "", ticket: str = "7", status: str = "closed") -> Reply:
    asked = replace(request("tickets_update", ticket_id=ticket, status=status), once=key)
    return asyncio.run(gateway.call(Presented(token=token), asked))


def written(doors: Doors) -> list[ToolCall]:
    return [call for call in doors.sent if call.tool.writes]


def answering(outcome: Outcome) -> Callable[[ToolCall], Outcome]:
    return lambda call: outcome if call.tool.writes else OWNERS(call)


@pytest.fixture
def standing(tmp_path: Path) -> tuple[Gateway, Doors]:
    gateway, doors = house(tmp_path)
    doors.answer = OWNERS
    return gateway, doors


def test_the_same_call_sent_again_is_done_once_and_said_to_be(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    first = update(gateway)
    again = update(gateway)
    assert first.denial == ""
    assert again.denial == "done_before"
    assert first.call in str(again.content)
    assert len(written(doors)) == 1
    [*_, last] = doors.entries
    assert (last.kind, last.call) == ("denial", again.call)


@pytest.mark.parametrize(
    "other",
    [{"status": "open"}, {"ticket": "8"}, {"key": "k1"}],
    ids=["another argument", "another ticket", "a key of its own"],
)
def test_what_asks_for_another_effect_is_done(standing: tuple[Gateway, Doors], other: dict[str, str]) -> None:
    gateway, doors = standing
    assert update(gateway).denial == ""
    assert update(gateway, **other).denial == ""
    assert len(written(doors)) == 2


def test_a_given_key_stands_for_one_effect(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    assert update(gateway, key="k1").denial == ""
    assert update(gateway, key="k1").denial == "done_before"
    assert update(gateway, key="k1", status="open").denial == "key_reused"
    assert update(gateway, key="k2").denial == ""
    assert len(written(doors)) == 2


def test_another_person_with_the_same_key_and_arguments_is_another_call(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    assert update(gateway, key="k").denial == ""
    doors.answer = tickets(**{"7": "carol"})
    assert update(gateway, token="carol", key="k").denial == ""
    assert len(written(doors)) == 2


@pytest.mark.parametrize(
    "outcome",
    [
        Failed(code="upstream_unavailable", message="m", unknown=False),
        Done(content={"content": [], "isError": True}),
    ],
    ids=["not sent", "refused by the tool"],
)
def test_what_had_no_effect_may_be_sent_again(standing: tuple[Gateway, Doors], outcome: Outcome) -> None:
    gateway, doors = standing
    doors.answer = answering(outcome)
    update(gateway)
    doors.answer = OWNERS
    assert update(gateway).denial == ""
    assert len(written(doors)) == 2


def test_what_may_have_had_an_effect_is_not_sent_again(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    doors.answer = answering(Failed(code="upstream_timed_out", message="m", unknown=True))
    assert update(gateway).denial == "upstream_timed_out"
    doors.answer = OWNERS
    again = update(gateway)
    assert again.denial == "done_before"
    assert "do not repeat" in str(again.content)
    assert len(written(doors)) == 1


def test_a_call_that_was_denied_is_not_remembered(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    doors.answer = tickets(**{"7": "carol"})
    assert update(gateway).denial == "not_permitted"
    doors.answer = OWNERS
    assert update(gateway).denial == ""
    assert doors.begun


def test_where_it_cannot_be_told_nothing_is_sent(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "once_down")
    doors.answer = OWNERS
    assert update(gateway).denial == "once_unavailable"
    assert written(doors) == []


def test_where_the_end_cannot_be_kept_the_call_stays_begun(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "once_fails_after")
    doors.answer = OWNERS
    assert update(gateway).denial == ""
    assert update(gateway).denial == "done_before"
    assert len(written(doors)) == 1


def test_reading_may_be_repeated(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    asked: Json = "7"
    for _ in range(2):
        reply = asyncio.run(gateway.call(Presented(token="bob"), request("tickets_get", ticket_id=asked)))
        assert reply.denial == ""
    assert len(doors.sent) == 2
    assert not doors.begun
