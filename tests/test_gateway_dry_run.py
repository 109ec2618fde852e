"""Calls of an API that has a dry run, on the way through the house: tried by a call of its own, decided, then done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from house import Doors, house, request
from onbehalf.gateway import Gateway, Offer, Standing
from onbehalf.model import Done, DryRun, Failed, Json, Outcome, Presented, Reply, ToolCall, canonical, digest
from onbehalf.validate import route

DRY = DryRun(parameter="dry", value=True)


def changing(*owners: str) -> Callable[[ToolCall], Outcome]:
    """An API that would change, or changes, one ticket of each of these owners; it compares nothing."""
    found: list[Json] = [{"id": str(at), "tenant": "acme", "owner_id": owner} for at, owner in enumerate(owners)]

    def answer(call: ToolCall) -> Outcome:
        content: dict[str, Json] = {"content": [], "structuredContent": {"rows": found}}
        return Done(content=content, digest=digest(canonical(found)) if call.dry else "")

    return answer


def built(directory: Path, dry_run: DryRun = DRY) -> tuple[Gateway, Doors]:
    """The house, whose `tickets_close` (checked) and `tickets_move` (asked) are operations with a dry run."""
    gateway, doors = house(directory)
    before = gateway.standing()
    offers: Mapping[str, Offer] = {
        name: replace(each, tool=replace(each.tool, dry_run=dry_run if each.tool.preview != "none" else None))
        for name, each in before.offers.items()
    }
    standing = Standing(engine=before.engine, offers=offers)
    doors.answer = changing("bob", "bob")
    return replace(gateway, standing=lambda: standing), doors


@pytest.fixture
def standing(tmp_path: Path) -> tuple[Gateway, Doors]:
    return built(tmp_path)


def asked(gateway: Gateway, tool: str = "tickets_close", **more: Json) -> Reply:
    return asyncio.run(gateway.call(Presented(token="bob"), request(tool, ticket_id="7", **more)))


def shown(reply: Reply) -> str:
    meta = reply.content["_meta"]
    assert isinstance(meta, dict)
    return str(meta["onbehalf/change"])


def sent(doors: Doors) -> list[tuple[bool, bytes]]:
    return [(call.dry, call.arguments) for call in doors.sent]


TRIED, DONE = (True, b'{"dry":true,"ticket_id":"7"}'), (False, b'{"ticket_id":"7"}')


def test_a_call_is_tried_with_the_parameter_and_done_without_it(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    assert asked(gateway).denial == ""
    assert sent(doors) == [TRIED, DONE]
    tried, acted = (entry.facts for entry in doors.entries if entry.kind == "intent")
    assert (tried["purpose"], tried["arguments"]) == ("preview", {"dry": True, "ticket_id": "7"})
    assert acted["arguments"] == {"ticket_id": "7"}
    assert acted["expected"]
    assert tried["arguments_digest"] != acted["arguments_digest"]  # a call token for the one is none for the other
    for facts in (tried, acted):
        assert isinstance(facts["tool"], dict)
        assert (facts["tool"]["dry_run"], facts["tool"]["bound"]) == ("dry", ["dry"])


def test_where_it_has_an_off_that_is_sent_when_it_is_done(tmp_path: Path) -> None:
    gateway, doors = built(tmp_path, replace(DRY, off=(False,)))
    assert asked(gateway).denial == ""
    assert sent(doors) == [TRIED, (False, b'{"dry":false,"ticket_id":"7"}')]


@pytest.mark.parametrize("value", [True, False, None, "true", {"dry": False}])
@pytest.mark.parametrize("tool", ["tickets_close", "tickets_move"])
def test_a_model_that_sends_the_parameter_is_refused_and_on_record(
    standing: tuple[Gateway, Doors], tool: str, value: Json
) -> None:
    gateway, doors = standing
    assert asked(gateway, tool, dry=value).denial == "bound_parameter"
    assert doors.sent == []
    [entry] = doors.entries
    assert entry.kind == "denial"
    assert entry.facts["arguments"] == {"ticket_id": "7", "dry": value}


@pytest.mark.parametrize("owners", [("carol",), ("bob", "carol")])
def test_one_row_that_may_not_change_spoils_the_whole_and_the_denial_is_of_what_was_asked_for(
    standing: tuple[Gateway, Doors], owners: tuple[str, ...]
) -> None:
    gateway, doors = standing
    doors.answer = changing(*owners)
    assert asked(gateway).denial == "not_permitted"
    assert sent(doors) == [TRIED]
    assert [entry.kind for entry in doors.entries] == ["intent", "outcome", "denial"]
    assert doors.entries[-1].facts["arguments"] == {"ticket_id": "7"}


def test_a_dry_run_that_fails_ends_the_call_and_it_may_be_sent_again(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    doors.answer = lambda _: Failed(code="upstream_unavailable", message="HTTP status 500", unknown=False)
    assert asked(gateway, "tickets_close").denial == "upstream_unavailable"
    assert sent(doors) == [TRIED]
    doors.answer = changing("bob")
    assert asked(gateway, "tickets_close").denial == ""


def test_nothing_changes_until_the_shown_change_is_asked_for_and_then_once(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    change = shown(asked(gateway, "tickets_move"))
    assert sent(doors) == [TRIED]
    assert asked(gateway, "tickets_move", change=change).denial == ""
    assert sent(doors) == [TRIED, TRIED, DONE]
    assert asked(gateway, "tickets_move", change=change).denial == "change_stale"
    assert sent(doors).count(DONE) == 1


def test_an_api_that_answers_otherwise_the_second_time_does_nothing(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    change = shown(asked(gateway, "tickets_move"))
    doors.answer = changing("bob", "bob", "bob")
    assert asked(gateway, "tickets_move", change=change).denial == "change_stale"
    assert sent(doors) == [TRIED, TRIED]


def test_the_same_call_sent_again_is_known_by_what_was_asked_for(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    change = shown(asked(gateway, "tickets_move"))
    assert asked(gateway, "tickets_move", change=change).denial == ""
    again = shown(asked(gateway, "tickets_move"))
    assert asked(gateway, "tickets_move", change=again).denial == "done_before"
    assert sent(doors).count(DONE) == 1


def test_arguments_that_only_the_dry_run_makes_too_large_are_refused(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    most = 1 * 2**20 - len(orjson.dumps({"ticket_id": ""}))
    reply = asyncio.run(gateway.call(Presented(token="bob"), request("tickets_close", ticket_id="x" * most)))
    assert reply.denial == "arguments_refused"
    assert doors.sent == []


def test_the_parameter_is_one_that_route_sets_however_it_is_reached(standing: tuple[Gateway, Doors]) -> None:
    gateway, _ = standing
    tool = gateway.standing().offers["tickets_close"].tool
    schema: dict[str, Json] = {"type": "object", "properties": {"ticket_id": {}, "dry": {}}, "required": ["dry"]}
    shown = route.shown_schema(schema, tool.bound, tool.dry_run)
    assert (shown["properties"], shown["required"]) == ({"ticket_id": {}}, [])
