"""What permits demand, from the policy text to the answer and the record: in the house, and in one that runs."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from company import company, said
from house import POLICIES, Doors, house, request, review, reviews, tickets
from onbehalf.explain.leaf import Record
from onbehalf.explain.story import story
from onbehalf.model import Digest, Done, Json, Presented, Reply
from test_gateway_preview import changing

ROOT = Path(__file__).parents[1]
SECRET = "confidential-9876"
TEAM = reviews(
    *(review(str(number), subject="bob", comment=SECRET, salary=5200) for number in range(1, 5)),
    review("5", subject="dana", comment="of-herself-1234", salary=9100),
    review("6", tenant="globex", subject="erin", comment=SECRET),
)


def annotated(policy: str, annotations: str, *, text: str = POLICIES) -> str:
    assert f'@id("{policy}")' in text
    return text.replace(f'@id("{policy}")', f'@id("{policy}") {annotations}')


def asked(
    directory: Path, policies: str, *, login: str = "dana", scopes: tuple[str, ...] = (), **other: Any
) -> tuple[Reply, Doors]:
    gateway, doors = house(directory, policies=policies, **other)
    doors.answer, doors.scopes = TEAM, frozenset(scopes)
    return asyncio.run(gateway.call(Presented(token=login), request("reviews_list"))), doors


def released(reply: Reply) -> list[dict[str, Any]]:
    content: Any = reply.content
    return list(content["structuredContent"]["rows"])


def texts(reply: Reply) -> list[str]:
    content: Any = reply.content
    return [block["text"] for block in content["content"]]


def told(doors: Doors) -> str:
    records = [
        Record(index=at, leaf=Digest("sha256:0"), kind=each.kind, call=each.call, at=each.at, facts=each.facts)
        for at, each in enumerate(doors.entries)
    ]
    return story(records).as_text()


def test_columns_masks_and_the_number_of_rows_are_applied_after_rows_are_decided_and_told(tmp_path: Path) -> None:
    policies = annotated("reviews-call", '@columns("id,status,comment,salary") @max_rows("3")')
    policies = annotated("manager-read", '@mask("comment:hash,salary:null")', text=policies)
    reply, doors = asked(tmp_path, policies)
    found = released(reply)
    assert [sorted(row) for row in found] == [["comment", "id", "salary", "status"]] * 3
    assert {row["salary"] for row in found} == {None}
    assert len({row["comment"] for row in found}) == 1
    assert SECRET not in str(reply.content)
    assert "subject_id" not in str(reply.content)
    rows, note = texts(reply)
    assert json.loads(rows) == {"rows": found}
    assert "2 more rows are not given" in note
    assert "`salary` is given as null" in note
    intent, outcome = doors.entries
    decision: Any = intent.facts["decision"]
    assert decision["obligations"] == [
        {"policy": "reviews-call", "columns": ["comment", "id", "salary", "status"], "max_rows": 3}
    ]
    assert outcome.facts["rows"] == {
        "returned": 6, "released": 3, "withheld": 1, "cut": 2, "ids": ["acme/1", "acme/2", "acme/3"],
        "types": ["Review"], "people": ["acme/bob", "acme/zoe"],
    }  # fmt: skip
    assert outcome.facts["obligations"] == [
        {"policy": "manager-read", "mask": {"comment": "hash", "salary": "null"}, "rows": 3},
        {"policy": "reviews-call", "columns": ["comment", "id", "salary", "status"], "max_rows": 3, "rows": 3},
    ]
    text = told(doors)
    assert "reviews-call demands only the fields comment, id, salary, status; at most 3 rows" in text
    assert "manager-read had comment as hash; salary as null: in 3 rows" in text
    assert "2 more were permitted and over the most that may be released" in text


def test_each_row_is_shaped_by_the_permits_that_let_it_through(tmp_path: Path) -> None:
    reply, _ = asked(tmp_path, annotated("manager-read", '@mask("comment:last4")'))
    assert {row["comment"] for row in released(reply)} == {"…9876", "of-herself-1234"}


def test_without_a_key_what_is_to_be_hashed_is_null(tmp_path: Path) -> None:
    reply, _ = asked(tmp_path, annotated("manager-read", '@mask("comment:hash")'), mask_key=b"")
    assert "`comment` is given as null" in texts(reply)[-1]
    assert [row["comment"] for row in released(reply)] == [None] * 4 + ["of-herself-1234"]


def test_a_row_whose_permit_needs_an_approval_is_withheld(tmp_path: Path) -> None:
    reply, doors = asked(tmp_path, annotated("manager-read", '@approve("manager")'))
    assert [row["id"] for row in released(reply)] == ["5"]
    assert doors.entries[-1].facts["rows"]["withheld"] == 5  # type: ignore[index,call-overload]


def test_a_call_that_needs_an_approval_is_denied_recorded_and_not_listed(tmp_path: Path) -> None:
    policies = annotated("reviews-call", '@approve("two-person")')
    reply, doors = asked(tmp_path, policies)
    assert reply.denial == "approval_required"
    assert "an approval" in str(reply.content["content"])
    assert doors.sent == []
    [denial] = doors.entries
    decision: Any = denial.facts["decision"]
    assert decision["code"] == "approval_required"
    assert "`reviews-call` permits this with the approval of `two-person`" in decision["text"]
    assert "approval_required" in told(doors)
    gateway, _ = house(tmp_path / "again", policies=policies)
    assert "reviews_list" not in {each.name for each in asyncio.run(gateway.tools(Presented(token="dana")))}


def test_a_purpose_comes_from_the_token_and_goes_on_record_and_with_the_answer(tmp_path: Path) -> None:
    policies = annotated("reviews-call", '@purpose("appraisal,audit")')
    without, doors = asked(tmp_path / "without", policies)
    assert without.denial == "purpose_not_shown"
    assert "purpose:appraisal" in str(without.content["content"])
    assert doors.sent == []
    reply, doors = asked(tmp_path / "with", policies, scopes=("purpose:audit", "purpose:other"))
    assert len(released(reply)) == 5
    assert reply.content["_meta"]["onbehalf/purposes"] == ["audit"]  # type: ignore[index,call-overload]
    assert "this purpose only: audit" in str(reply.content["content"])
    assert doors.entries[1].facts["rows"]["purposes"] == ["audit"]  # type: ignore[index,call-overload]
    assert "may be used for audit only" in told(doors)


def test_a_tool_without_mapped_rows_cannot_show_a_part_and_is_denied(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, policies=annotated("reviews-call", '@mask("a:null")'))
    doors.answer = lambda _: Done(content={"content": [{"type": "text", "text": SECRET}]})
    reply = asyncio.run(gateway.call(Presented(token="dana"), request("reviews_report")))
    assert reply.denial == "obligation_unmet"
    assert doors.sent == []
    assert "reviews_report" not in {each.name for each in asyncio.run(gateway.tools(Presented(token="dana")))}


def test_a_purpose_can_be_met_without_mapped_rows(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, policies=annotated("reviews-call", '@purpose("audit")'))
    doors.answer = lambda _: Done(content={"content": [{"type": "text", "text": "all"}]})
    doors.scopes = frozenset({"purpose:audit"})
    reply = asyncio.run(gateway.call(Presented(token="dana"), request("reviews_report")))
    assert "this purpose only: audit" in str(reply.content["content"])


def test_text_beside_the_rows_does_not_carry_what_was_cut_from_them(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, policies=annotated("reviews-call", '@columns("id")'))
    blocks: Json = [{"type": "text", "text": SECRET}]
    rows: Json = [review("1", comment=SECRET)]
    doors.answer = lambda _: Done(content={"content": blocks, "structuredContent": {"rows": rows, "note": SECRET}})
    reply = asyncio.run(gateway.call(Presented(token="dana"), request("reviews_list")))
    assert released(reply) == [{"id": "1"}]
    assert SECRET not in str(reply)


# --- writes --------------------------------------------------------------------------------


def changed(directory: Path, policies: str, tool: str, *, scopes: tuple[str, ...] = ()) -> tuple[Reply, Doors]:
    gateway, doors = house(directory, policies=policies)
    doors.answer = tickets(T1="bob") if tool == "tickets_update" else changing("bob", "bob")
    doors.scopes = frozenset({"tickets.write", *scopes})
    return asyncio.run(gateway.call(Presented(token="bob"), request(tool, ticket_id="T1"))), doors


@pytest.mark.parametrize("tool", ["tickets_update", "tickets_close", "tickets_move"])
def test_a_change_of_a_row_that_needs_an_approval_is_not_made(tmp_path: Path, tool: str) -> None:
    reply, doors = changed(tmp_path, annotated("ticket-own", '@approve("manager")'), tool)
    assert reply.denial == "approval_required"
    assert [call for call in doors.sent if not call.dry and call.tool.name == tool] == []
    assert doors.entries[-1].kind == "denial"


@pytest.mark.parametrize("tool", ["tickets_update", "tickets_close"])
def test_what_the_call_and_the_resource_demand_must_be_met_together(tmp_path: Path, tool: str) -> None:
    policies = annotated("ticket-own", '@purpose("b")', text=annotated("tickets-call", '@purpose("a,b")'))
    both = ("purpose:a", "purpose:b")
    assert changed(tmp_path / "1", policies, tool, scopes=both)[0].denial == ""
    policies = policies.replace('"a,b"', '"a"')
    reply, doors = changed(tmp_path / "2", policies, tool, scopes=both)
    assert reply.denial == "purpose_not_shown"
    assert doors.entries[-1].kind == "denial"


def test_what_would_change_and_what_changed_are_shown_as_demanded_and_no_row_is_left_unchanged(tmp_path: Path) -> None:
    policies = annotated("ticket-own", '@columns("id,owner_id") @mask("owner_id:null") @max_rows("1")')
    for tool in ("tickets_close", "tickets_move"):
        reply, doors = changed(tmp_path / tool, policies, tool)
        assert reply.denial == ""
        assert released(reply) == [{"id": "0", "owner_id": None}]
        assert doors.entries[-1].facts["rows"]["cut"] == 1  # type: ignore[index,call-overload]


# --- the page, and a gateway that runs -----------------------------------------------------


def test_the_example_of_the_page_is_a_policy_with_every_obligation(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    [example] = [block for block in blocks if "@columns" in block]
    rules = annotated("reviews-call", "") + example.replace("manager-read", "manager-read-shaped")
    reply, _ = asked(tmp_path, rules, scopes=("purpose:appraisal",))
    assert {row["comment"] for row in released(reply)} > {None}
    for kind in ("columns", "mask", "max_rows", "purpose", "approve"):
        assert f"@{kind}" in page


NOTES = "INSERT INTO notes VALUES ('acme', 3, 'alice', 'account 4711-0815'), ('acme', 4, 'alice', 'account 4711-9999');"


def test_a_running_gateway_shapes_rows_of_a_database_and_explains_it(tmp_path: Path) -> None:
    with company(tmp_path / "it", desk=False) as made:
        made.edit(
            '@id("own")', '@id("own") @columns("id,text") @mask("text:last4") @max_rows("2")', name="policies/own.cedar"
        )
        with closing(sqlite3.connect(made.directory / "notes.db")) as base:
            base.executescript(NOTES)
        with made.serving():
            result = made.call("notes_list")
        assert result["structuredContent"] == {"rows": [{"id": 1, "text": "…"}, {"id": 3, "text": "…0815"}]}
        assert "4711" not in json.dumps(result)
        assert result["_meta"]["onbehalf/cut"] == 1
        text = " ".join(said("explain", "last", "-c", made.config).out.split())
        assert "own had only the fields id, text; text as last4; at most 2 rows: in 2 rows" in text
        assert "1 more were permitted and over the most that may be released" in text


def test_a_running_gateway_is_not_started_on_an_obligation_that_cannot_be_read(tmp_path: Path) -> None:
    with company(tmp_path / "it", desk=False) as made:
        made.edit('@id("own")', '@id("own") @max_row("2")', name="policies/own.cedar")
        checked = said("check", "-c", made.config)
        assert checked.code == 1
        assert "policy `own` has an unknown annotation @max_row;" in " ".join(checked.out.split())
