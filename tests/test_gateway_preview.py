"""A writing call whose upstream can try it first: every row is decided before one is changed, and what was shown is
what is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from house import Doors, house, request
from onbehalf.gateway import Gateway
from onbehalf.model import Done, Failed, Json, Outcome, Presented, Reply, ToolCall, canonical, digest


def changing(*owners: str, tenant: str = "acme") -> Callable[[ToolCall], Outcome]:
    """A database where every call changes one ticket of each of these owners."""
    found: list[Json] = [{"id": str(at), "tenant": tenant, "owner_id": owner} for at, owner in enumerate(owners)]

    def answer(call: ToolCall) -> Outcome:
        changed = digest(canonical(found))
        if not call.dry and call.expected != changed:
            return Failed(code="change_stale", message="m", unknown=False)
        return Done(content={"content": [], "structuredContent": {"rows": found}}, digest=changed)

    return answer


@pytest.fixture
def standing(tmp_path: Path) -> tuple[Gateway, Doors]:
    gateway, doors = house(tmp_path)
    doors.answer = changing("bob", "bob")
    return gateway, doors


def asked(gateway: Gateway, tool: str = "tickets_close", *, token: str = "bob", change: str = "") -> Reply:
    arguments: dict[str, Json] = {"ticket_id": "7"}
    if change:
        arguments["change"] = change
    return asyncio.run(gateway.call(Presented(token=token), request(tool, **arguments)))


def done(doors: Doors) -> list[ToolCall]:
    return [call for call in doors.sent if not call.dry]


def shown(reply: Reply) -> str:
    assert reply.denial == ""
    meta = reply.content["_meta"]
    assert isinstance(meta, dict)
    return str(meta["onbehalf/change"])


def test_it_is_tried_decided_and_then_done_as_tried(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    assert asked(gateway).denial == ""
    [tried, acted] = doors.sent
    assert (tried.dry, acted.dry) == (True, False)
    assert acted.expected
    kinds = [(entry.kind, entry.facts.get("purpose")) for entry in doors.entries]
    assert kinds == [("intent", "preview"), ("outcome", None), ("intent", None), ("outcome", None)]
    assert doors.entries[2].facts["expected"] == acted.expected


@pytest.mark.parametrize("owners", [("carol",), ("bob", "carol"), ("carol", "bob", "bob")])
def test_one_row_that_may_not_change_spoils_the_whole_change(
    standing: tuple[Gateway, Doors], owners: tuple[str, ...]
) -> None:
    gateway, doors = standing
    doors.answer = changing(*owners)
    assert asked(gateway).denial == "not_permitted"
    assert done(doors) == []
    assert [entry.kind for entry in doors.entries] == ["intent", "outcome", "denial"]


def test_rows_of_another_tenant_are_never_changed(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    doors.answer = changing("bob", tenant="globex")
    assert asked(gateway).denial == "not_permitted"
    assert done(doors) == []


def test_a_row_that_cannot_be_read_spoils_it_too(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    doors.answer = lambda _: Done(content={"structuredContent": {"rows": [{"id": "1"}]}}, digest=digest(b""))
    assert asked(gateway).denial == "resource_unavailable"
    assert done(doors) == []


def test_what_changed_between_trying_and_doing_is_not_done(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    first, second = changing("bob"), changing("bob", "carol")
    doors.answer = lambda call: (first if call.dry else second)(call)
    assert asked(gateway).denial == "change_stale"


def test_where_it_cannot_be_tried_it_is_not_done(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    doors.answer = lambda _: Failed(code="upstream_unavailable", message="m", unknown=False)
    assert asked(gateway).denial == "upstream_unavailable"
    assert done(doors) == []


# --- where the client must ask for what it was shown ----------------------------------------


def test_nothing_changes_until_the_shown_change_is_asked_for_and_then_once(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    first = asked(gateway, "tickets_move")
    change = shown(first)
    assert done(doors) == []
    assert change in str(first.content["content"])
    assert first.content["structuredContent"] == {
        "rows": [{"id": "0", "tenant": "acme", "owner_id": "bob"}, {"id": "1", "tenant": "acme", "owner_id": "bob"}]
    }
    assert asked(gateway, "tickets_move", change=change).denial == ""
    assert len(done(doors)) == 1
    assert asked(gateway, "tickets_move", change=change).denial == "change_stale"
    assert len(done(doors)) == 1


def test_a_change_that_was_never_shown_is_not_made(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    change = shown(asked(gateway, "tickets_move"))
    doors.changes.clear()  # the name is right, but nobody was shown it
    assert asked(gateway, "tickets_move", change=change).denial == "change_stale"
    assert asked(gateway, "tickets_move", change=digest(b"guessed")).denial == "change_stale"
    assert done(doors) == []


def test_what_would_change_now_must_be_what_was_shown(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    change = shown(asked(gateway, "tickets_move"))
    doors.answer = changing("bob", "bob", "bob")
    assert asked(gateway, "tickets_move", change=change).denial == "change_stale"
    assert done(doors) == []


def test_nobody_else_can_make_a_change_that_was_shown_to_one(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    doors.answer = changing()  # rows that everybody may change: none
    change = shown(asked(gateway, "tickets_move"))
    assert asked(gateway, "tickets_move", token="carol", change=change).denial == "change_stale"
    assert done(doors) == []


def test_a_shown_change_is_kept_for_a_while_only(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    change = shown(asked(gateway, "tickets_move"))
    [(name, until)] = doors.changes.items()
    assert (name, until - doors.now()) == (change, 900)


def test_the_upstream_never_hears_of_the_change_parameter(standing: tuple[Gateway, Doors]) -> None:
    gateway, doors = standing
    change = shown(asked(gateway, "tickets_move"))
    asked(gateway, "tickets_move", change=change)
    assert {call.arguments for call in doors.sent} == {b'{"ticket_id":"7"}'}
