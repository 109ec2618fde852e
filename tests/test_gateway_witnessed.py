"""The corridor with a tool whose calls must be witnessed: without a quorum nothing is sent, and that is on record."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from house import house, request, tickets
from onbehalf.errors import ActError, LedgerUnavailable
from onbehalf.model import Presented

DANA = Presented(token="dana")
UPDATE = request("tickets_update", ticket_id="t1", status="done")


def said(reply: Any) -> str:
    return str(reply.content["content"][0]["text"])


def test_a_witnessed_call_is_sent_with_a_receipt_that_says_by_whom_and_the_outcome_says_so(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "all_witnessed")
    doors.answer = tickets(t1="dana")
    reply = asyncio.run(gateway.call(DANA, UPDATE))
    assert (reply.denial, [each.tool.name for each in doors.sent]) == ("", ["tickets_get", "tickets_update"])
    intent, outcome = doors.entries[-2:]
    assert intent.facts["tool"]["durability"] == "witnessed"  # type: ignore[index,call-overload]
    by = outcome.facts["witnessed"]["by"]  # type: ignore[index,call-overload]
    assert [*by] == ["w"]
    assert outcome.facts["witnessed"]["size"] == 3  # type: ignore[index,call-overload]


def test_a_tool_that_need_not_be_witnessed_waits_for_nobody(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "witnesses_down")
    doors.answer = tickets(t1="dana")
    assert asyncio.run(gateway.call(DANA, UPDATE)).denial == ""
    assert "witnessed" not in doors.entries[-1].facts


def test_without_a_quorum_nothing_is_sent_that_is_on_record_and_it_may_be_tried_again(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "all_witnessed", "witnesses_down")
    doors.answer = tickets(t1="dana")
    reviews = asyncio.run(gateway.call(DANA, request("reviews_list")))
    assert (reviews.denial, doors.sent) == ("witnesses_unavailable", [])
    assert "too few witnesses answered" in said(reviews)
    assert "tried again later" in said(reviews)
    intent, outcome = doors.entries
    assert (intent.kind, outcome.kind) == ("intent", "outcome")
    told = outcome.facts["outcome"]
    assert isinstance(told, dict)
    assert (told["status"], told["code"], told["unknown"]) == ("failed", "witnesses_unavailable", False)
    doors.broken.remove("witnesses_down")
    assert asyncio.run(gateway.call(DANA, request("reviews_list"))).denial == ""


def test_a_writing_call_that_was_not_witnessed_is_not_known_as_begun(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "all_witnessed")
    doors.answer = tickets(t1="dana")
    cosigned, asked = doors.cosigned, 0

    async def only_lookups(receipt: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == 2:
            doors.broken.add("witnesses_down")
        return await cosigned(receipt)

    object.__setattr__(gateway, "witnesses", type("W", (), {"cosigned": staticmethod(only_lookups)})())
    assert asyncio.run(gateway.call(DANA, UPDATE)).denial == "witnesses_unavailable"
    assert [each.tool.name for each in doors.sent] == ["tickets_get"]
    assert doors.begun == {}
    doors.broken.clear()
    assert asyncio.run(gateway.call(DANA, UPDATE)).denial == ""


def test_where_a_witness_disowns_the_log_nothing_is_sent_then_or_later(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "all_witnessed", "log_disowned")
    for _ in range(2):
        with pytest.raises(LedgerUnavailable):
            asyncio.run(gateway.call(DANA, request("reviews_list")))
    assert doors.sent == []
    assert [each.kind for each in doors.entries] == ["intent"]


def test_a_client_that_leaves_while_witnesses_are_asked_leaves_a_call_that_was_not_sent(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "all_witnessed", "witnesses_hang")

    async def leave() -> None:
        call = asyncio.create_task(gateway.call(DANA, request("reviews_list")))
        await doors.reached.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(leave())
    assert doors.sent == []
    assert doors.entries[-1].facts["outcome"]["code"] == "not_sent"  # type: ignore[index,call-overload]
    assert doors.entries[-1].facts["outcome"]["unknown"] is False  # type: ignore[index,call-overload]


def test_without_witnesses_at_all_there_is_no_grant_for_a_witnessed_call(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "all_witnessed", "no_witnesses")
    with pytest.raises(ActError, match="not witnessed"):
        asyncio.run(gateway.call(DANA, request("reviews_list")))
    assert doors.sent == []
    assert doors.entries[-1].facts["outcome"]["code"] == "not_sent"  # type: ignore[index,call-overload]
