"""What an engine was asked stands on record whole, in one spelling, bounded, and nothing of released rows with it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from house import house, request, review, reviews, tickets
from onbehalf.explain import asked as spelling
from onbehalf.explain import entries
from onbehalf.explain.asked import question
from onbehalf.explain.leaf import spell
from onbehalf.model import (
    Allow,
    Asked,
    AuditEntry,
    Entity,
    Json,
    Judgement,
    Presented,
    Question,
    Ref,
    canonical,
    digest,
)
from onbehalf.model_json import plain
from onbehalf.validate import questions
from replacing import replace
from validate.policy_house import DANA, NOW, person, tool, tool_call, user

SAID = Judgement(allowed=True, policies=("p",), errors=(), validated=True, engine="engine 1")


def about_tool(*entities: Entity) -> tuple[Allow, Asked]:
    call = tool_call(person(entities or DANA))
    asked = Asked(questions=(questions.about_tool(call.person, call.caller, call.tool, call.at),), said=SAID)
    found = Allow(
        call=call, resource=Ref(type="Tool", id="t"), policies=("p",), policy=digest(b""), revision=1, asked=asked
    )
    return found, asked


def fact(entry: AuditEntry) -> dict[str, Json]:
    found = plain(entry.facts)["question"]
    assert isinstance(found, dict)
    assert found["v"] == 1
    return found


def call(directory: Path, subject: str, name: str, answer: object = None, **arguments: Json) -> list[AuditEntry]:
    gateway, doors = house(directory)
    doors.answer = answer  # type: ignore[assignment]  # an answer of the house
    asyncio.run(gateway.call(Presented(token=subject), request(name, **arguments)))
    return doors.entries


def test_a_question_has_the_one_spelling_of_its_json() -> None:
    hostile = user("acme", 'dänä "\u2028\x7f', groups=("hr", "日本"))
    allow, asked = about_tool(hostile, *DANA[1:])
    spelled = question(allow.call, asked).spelled
    assert spelled == canonical(orjson.loads(spelled))
    assert dict(spell(entries.intent(allow)).facts)["question"] == spelled


def test_an_integer_without_a_spelling_of_its_own_is_told_by_its_digits() -> None:
    allow, asked = about_tool()
    row = Entity(ref=Ref(type="Review", id="acme/1"), attributes={"rating": 2**63 - 1, "ok": True}, parents=())
    asked = replace(asked, questions=(*asked.questions, _about(row)))
    told = orjson.loads(question(allow.call, asked).spelled)
    assert told["about"][1]["entities"][0]["attrs"] == {"ok": True, "rating": {"__long": str(2**63 - 1)}}


def _about(row: Entity) -> Question:
    made = questions.about_tool(person(DANA), tool_call(person(DANA)).caller, tool(), NOW)
    return replace(made, resource=row.ref, entities=(*DANA, row))


def test_a_call_without_a_resource_is_on_record_with_the_callers_slice_and_the_tool(tmp_path: Path) -> None:
    intent, _ = call(tmp_path, "dana", "reviews_list", reviews(review("7", subject="bob", status="confidential")))
    told = fact(intent)
    assert told["principal"] == {"id": "acme/dana", "type": "User"}
    assert told["action"] == "readReview"
    assert [each["uid"]["id"] for each in told["entities"]] == ["acme/dana", "acme/lead", "acme/hr"]  # type: ignore[index,union-attr,call-overload]  # JSON
    [about] = told["about"]  # type: ignore[misc]  # JSON
    assert about["resource"] == {"id": "reviews_list", "type": "Tool"}  # type: ignore[index,call-overload]  # JSON
    assert told["tool"] == {"lookup": False, "mapped": True}
    assert intent.facts["decision"]["engine"].startswith("cedarpy ")  # type: ignore[index,call-overload,union-attr]  # JSON


def test_rows_that_came_back_are_in_no_record(tmp_path: Path) -> None:
    found = call(tmp_path, "dana", "reviews_list", reviews(review("7", subject="bob", status="confidential")))
    assert len(found) == 2
    for entry in found:
        assert b"confidential" not in b"".join(value for _, value in spell(entry).facts)


def test_a_call_on_one_resource_is_on_record_with_both_questions(tmp_path: Path) -> None:
    entries_ = call(tmp_path, "dana", "tickets_update", tickets(T1="dana"), ticket_id="T1", status="closed")
    lookup, _, intent, _ = entries_
    assert len(fact(lookup)["about"]) == 1  # type: ignore[arg-type]  # JSON
    first, second = fact(intent)["about"]  # type: ignore[misc]  # JSON
    assert first["resource"] == {"id": "tickets_update", "type": "Tool"}  # type: ignore[index,call-overload]  # JSON
    assert second["resource"] == {"id": "acme/T1", "type": "Ticket"}  # type: ignore[index,call-overload]  # JSON
    assert [each["uid"]["type"] for each in second["entities"]] == ["Ticket"]  # type: ignore[index,call-overload,union-attr]  # JSON
    assert fact(intent)["tool"] == {"lookup": True, "mapped": True}


def test_a_denial_is_on_record_with_the_people_that_its_resource_names(tmp_path: Path) -> None:
    *_, denial = call(tmp_path, "dana", "tickets_update", tickets(T1="bob"), ticket_id="T1", status="closed")
    assert denial.kind == "denial"
    ids = [each["uid"]["id"] for each in fact(denial)["about"][1]["entities"]]  # type: ignore[index,call-overload,union-attr]  # JSON
    assert ids == ["acme/bob", "acme/ic", "acme/T1"]  # dana's own position is in her slice


def test_a_resource_that_is_not_there_is_asked_about_with_nothing(tmp_path: Path) -> None:
    *_, denial = call(tmp_path, "dana", "tickets_update", tickets(), ticket_id="T9", status="closed")
    assert fact(denial)["about"][1] == {"entities": [], "resource": {"id": "acme/T9", "type": "Ticket"}}  # type: ignore[index,call-overload]  # JSON


def test_a_slice_is_spelled_once_a_person_and_anew_for_another() -> None:
    allow, asked = about_tool()
    question(allow.call, asked)
    kept = allow.call.person.spellings["entities"]
    question(allow.call, asked)
    assert allow.call.person.spellings["entities"] is kept
    assert replace(allow.call.person, revision=8).spellings == {}


def test_a_slice_that_is_too_large_is_told_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spelling, "MAX_ENTITIES_BYTES", 300)
    allow, asked = about_tool()
    told = orjson.loads(question(allow.call, asked).spelled)
    assert told["entities"].keys() == {"bytes", "digest"}
    assert told["about"][0]["entities"][0]["uid"]["type"] == "Tool"


@pytest.mark.parametrize("value", [{"__entity": {"type": "User", "id": "acme/root"}}, 1.5, None, "\ud800"])
def test_what_cannot_be_spelled_is_left_out_and_the_decision_still_recorded(value: Json) -> None:
    allow, _ = about_tool(replace(DANA[0], attributes={**DANA[0].attributes, "name": value}), *DANA[1:])
    told = orjson.loads(dict(spell(entries.intent(allow)).facts)["question"])
    assert told.keys() == {"left_out", "v"}


def test_a_denial_says_by_which_policies_and_what_went_wrong(tmp_path: Path) -> None:
    gateway, doors = house(tmp_path, "policy_errs")
    asyncio.run(gateway.call(Presented(token="dana"), request("reviews_report")))
    [denial] = doors.entries
    decision = denial.facts["decision"]
    assert "policies" in decision  # type: ignore[operator]  # JSON
    assert "errs" in decision["errors"][0]  # type: ignore[index,call-overload]  # JSON
    gateway, doors = house(tmp_path)
    asyncio.run(gateway.call(Presented(token="gone"), request("reviews_report")))
    assert doors.entries[0].facts["decision"]["policies"] == ["wall:active"]  # type: ignore[index,call-overload]  # JSON
