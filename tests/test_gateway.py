"""The corridor with in-memory doors: the order of the rooms, and every named failure at every step of the walk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from house import LOGINS, TOOLS, house, request, review, reviews, tickets
from onbehalf.errors import OnbehalfError
from onbehalf.model import Done, Presented

DANA, BOB, ERIN = Presented(token="dana"), Presented(token="bob"), Presented(token="erin")
MIXED = reviews(
    review("1", subject="bob"),
    review("2", subject="carol"),
    review("3", subject="dana"),
    review("4", tenant="globex", subject="erin"),
    review("5", subject="nobody"),
    {"id": "6", "tenant": "acme"},
)


def ids(content: Any) -> list[str]:
    return [row["id"] for row in content["structuredContent"]["rows"]]


def test_a_manager_gets_her_teams_rows_and_her_own_and_the_record_names_them(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path)
    doors.answer = MIXED
    reply = asyncio.run(gateway.call(DANA, request("reviews_list")))
    assert ids(reply.content) == ["1", "2", "3"]
    assert "nobody" not in str(reply.content)
    assert "globex" not in str(reply.content)
    intent, outcome = doors.entries
    assert (intent.kind, outcome.kind) == ("intent", "outcome")
    assert intent.facts["decision"]["policies"] == ["reviews-call"]  # type: ignore[index,call-overload]
    assert outcome.facts["rows"] == {
        "returned": 6,
        "released": 3,
        "withheld": 3,
        "ids": ["acme/1", "acme/2", "acme/3"],
        "types": ["Review"],
        "people": ["acme/bob", "acme/carol", "acme/dana", "acme/zoe"],
    }
    assert reply.receipt == doors.receipt(0)
    assert reply.content["_meta"]["onbehalf/call"] == intent.call  # type: ignore[index,call-overload]


def test_a_report_gets_only_his_own_rows_from_the_same_answer(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path)
    doors.answer = MIXED
    assert ids(asyncio.run(gateway.call(BOB, request("reviews_list"))).content) == ["1"]


def test_a_person_of_another_tenant_gets_none_of_them(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path)
    doors.answer = reviews(review("1", subject="bob"), review("2", subject="erin"))
    assert ids(asyncio.run(gateway.call(ERIN, request("reviews_list"))).content) == []


def test_the_bound_tenant_is_the_callers_whatever_is_sent(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path)
    asyncio.run(gateway.call(DANA, request("reviews_list")))
    assert doors.sent[0].arguments == b'{"tenant_id":"acme"}'
    reply = asyncio.run(gateway.call(DANA, request("reviews_list", tenant_id="globex")))
    assert reply.denial == "bound_parameter"
    assert len(doors.sent) == 1
    assert doors.entries[-1].kind == "denial"


def test_a_person_who_left_can_do_nothing_and_sees_nothing(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path)
    assert asyncio.run(gateway.tools(Presented(token="gone"))) == []
    assert asyncio.run(gateway.call(Presented(token="gone"), request("reviews_list"))).denial == "not_permitted"
    assert doors.sent == []


def test_an_owner_changes_a_ticket_after_it_was_looked_up_in_her_name(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path)
    doors.answer = tickets(T1="bob")
    reply = asyncio.run(gateway.call(BOB, request("tickets_update", ticket_id="T1", status="open")))
    assert reply.denial == ""
    assert [call.tool.name for call in doors.sent] == ["tickets_get", "tickets_update"]
    assert [entry.kind for entry in doors.entries] == ["intent", "outcome", "intent", "outcome"]
    assert doors.entries[0].facts["purpose"] == "lookup"
    assert doors.entries[2].facts["decision"]["resource"] == {"type": "Ticket", "id": "acme/T1"}  # type: ignore[index,call-overload]


def test_anothers_ticket_and_one_that_is_not_there_are_refused_in_the_same_words(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path)
    doors.answer = tickets(T1="bob", T2="carol")
    others = asyncio.run(gateway.call(BOB, request("tickets_update", ticket_id="T2")))
    absent = asyncio.run(gateway.call(BOB, request("tickets_update", ticket_id="T9")))
    assert others.denial == absent.denial == "not_permitted"
    said = [
        str({key: value for key, value in each.content.items() if key != "_meta"}).replace(each.call, "")
        for each in (others, absent)
    ]
    assert said[0] == said[1]
    assert [call.tool.name for call in doors.sent] == ["tickets_get", "tickets_get"]
    assert "Ask its owner" in said[0]


@pytest.mark.parametrize(
    "found",
    [
        {"id": "T1", "tenant": "globex", "owner_id": "bob"},
        {"id": "T2", "tenant": "acme", "owner_id": "bob"},
        [{"id": "T1", "tenant": "acme", "owner_id": "bob"}, {"id": "T1", "tenant": "acme", "owner_id": "bob"}],
    ],
)
def test_a_lookup_that_finds_another_resource_allows_nothing(tmp_path: Path, found: Any) -> None:
    gateway, doors = house(tmp_path)
    doors.answer = lambda _: Done(content={"structuredContent": {"ticket": found}})
    assert asyncio.run(gateway.call(BOB, request("tickets_update", ticket_id="T1"))).denial == "not_permitted"
    assert len(doors.sent) == 1


# --- each named failure, at its step: what the client gets, what was sent, what is on record ---

RAISED = [
    ("issuer_down", "issuer_unavailable", []),
    ("directory_down", "directory_unavailable", ["denial"]),
    ("scope_missing", "insufficient_scope", ["denial"]),
    ("ledger_full", "ledger_unavailable", []),
]


@pytest.mark.parametrize(("failure", "code", "kinds"), RAISED)
def test_what_is_refused_with_an_error_was_never_sent(
    tmp_path: Path, failure: str, code: str, kinds: list[str]
) -> None:
    gateway, doors = house(tmp_path, failure)
    doors.answer = tickets(T1="bob")
    with pytest.raises(OnbehalfError) as refused:
        asyncio.run(gateway.call(BOB, request("tickets_update", ticket_id="T1")))
    assert refused.value.code == code
    assert doors.sent == []
    assert [entry.kind for entry in doors.entries] == kinds


TOLD = [
    ("person_unknown", "person_unknown", 0, ["denial"]),
    ("policy_errs", "policy_error", 0, ["denial"]),
    ("signer_gone", "resource_unavailable", 0, ["intent", "outcome", "denial"]),
    ("lookup_fails", "resource_unavailable", 1, ["intent", "outcome", "denial"]),
]


@pytest.mark.parametrize(("failure", "code", "sent", "kinds"), TOLD)
def test_what_is_refused_with_a_reply_is_on_record(
    tmp_path: Path, failure: str, code: str, sent: int, kinds: list[str]
) -> None:
    gateway, doors = house(tmp_path, failure)
    doors.answer = tickets(T1="bob")
    reply = asyncio.run(gateway.call(BOB, request("tickets_update", ticket_id="T1")))
    assert reply.denial == code
    assert reply.content["isError"] is True
    assert len(doors.sent) == sent
    assert [entry.kind for entry in doors.entries] == kinds


def test_a_denial_that_cannot_be_recorded_is_an_error(tmp_path: Path) -> None:
    gateway, _ = house(tmp_path, "ledger_full")
    with pytest.raises(OnbehalfError, match="no space"):
        asyncio.run(gateway.call(BOB, request("reviews_list", tenant_id="globex")))


@pytest.mark.parametrize("name", ["nothing_like_it", "hidden_tool"])
def test_an_unknown_and_a_hidden_tool_are_refused_alike_and_recorded(tmp_path: Path, name: str) -> None:
    gateway, doors = house(tmp_path)
    with pytest.raises(OnbehalfError) as refused:
        asyncio.run(gateway.call(BOB, request(name)))
    assert refused.value.code == "unknown_tool"
    assert doors.entries[0].kind == "denial"
    assert doors.counted[-1][0] in ("", "hidden_tool")


def test_a_failed_upstream_is_told_as_failed_and_on_record(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "upstream_fails")
    reply = asyncio.run(gateway.call(DANA, request("reviews_list")))
    assert reply.denial == "upstream_timeout"
    assert doors.entries[-1].facts["outcome"]["status"] == "failed"  # type: ignore[index,call-overload]


def test_an_upstream_that_breaks_its_promise_leaves_a_closed_intent(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "upstream_raises")
    with pytest.raises(RuntimeError):
        asyncio.run(gateway.call(DANA, request("reviews_list")))
    assert [entry.kind for entry in doors.entries] == ["intent", "outcome"]
    assert doors.entries[1].facts["outcome"]["code"] == "interrupted"  # type: ignore[index,call-overload]


@pytest.mark.parametrize(("tool", "unknown"), [("reviews_list", False), ("tickets_update", True)])
def test_a_call_cancelled_while_the_upstream_hangs_is_closed_and_a_write_is_not_known(
    tmp_path: Path, tool: str, unknown: bool
) -> None:
    gateway, doors = house(tmp_path, "call_hangs")
    doors.answer = tickets(T1="bob")

    async def cancelled() -> None:
        task = asyncio.create_task(gateway.call(BOB, request(tool, **({"ticket_id": "T1"} if unknown else {}))))
        while not any(call.tool.name == tool for call in doors.sent):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert doors.entries[-1].kind == "outcome"
    outcome: Any = doors.entries[-1].facts["outcome"]
    assert (outcome["status"], outcome["code"], outcome["unknown"]) == ("failed", "interrupted", unknown)


def test_rows_that_cannot_be_decided_are_not_released_and_the_outcome_says_so(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "directory_down_later")
    doors.answer = MIXED
    with pytest.raises(OnbehalfError) as refused:
        asyncio.run(gateway.call(DANA, request("reviews_list")))
    assert refused.value.code == "directory_unavailable"
    assert doors.entries[-1].facts["rows"] == {"returned": 6, "released": 0, "withheld": 6, "ids": []}


def test_what_was_done_but_cannot_be_recorded_is_not_released(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "ledger_full_later")
    doors.answer = MIXED
    with pytest.raises(OnbehalfError) as refused:
        asyncio.run(gateway.call(DANA, request("reviews_list")))
    assert refused.value.code == "ledger_unavailable"


def test_more_rows_than_the_limit_are_refused_not_cut(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, max_rows=2)
    doors.answer = MIXED
    reply = asyncio.run(gateway.call(DANA, request("reviews_list")))
    assert reply.denial == "too_many_rows"
    assert "structuredContent" not in reply.content
    assert doors.entries[-1].facts["rows"]["released"] == 0  # type: ignore[index,call-overload]


def test_listing_and_calling_ask_by_the_same_rules(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path)
    doors.answer = tickets()
    for login in LOGINS:
        listed = {tool.name for tool in asyncio.run(gateway.tools(Presented(token=login)))}
        for tool in (tool for tool in TOOLS if tool.exposed):
            arguments = {"ticket_id": "T1"} if tool.name.startswith("tickets") else {}
            before = len(doors.sent)
            reply = asyncio.run(gateway.call(Presented(token=login), request(tool.name, **arguments)))
            asked = len(doors.sent) > before
            assert asked == (tool.name in listed), (login, tool.name, reply.denial)


def test_who_says_who_calls_and_records_nothing(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path)
    assert asyncio.run(gateway.who(BOB)).subject == "bob"
    assert doors.entries == []


def test_no_token_text_reaches_the_record_or_the_reply(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path)
    doors.answer = MIXED
    reply = asyncio.run(gateway.call(DANA, request("reviews_list")))
    assert "signed" not in str(doors.entries)
    assert "signed" not in str(reply)
