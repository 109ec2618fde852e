"""Decisions that wait for people, and those on services, come out the same when they are made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.explain.leaf import Record
from onbehalf.model import Tool
from onbehalf.validate import questions
from replay_house import again, by_verifier, decided, recorded
from service_house import call_of, service
from test_gateway_approvals import Town, annotated, id_of, town
from validate.policy_house import DANA, POLICIES, bundle_at, person, tool


def decisions(there: Town) -> tuple[list[Record], CedarEngine]:
    engine = there.gateway.standing().engine
    assert isinstance(engine, CedarEngine)
    return [each for each in recorded(there.doors.entries) if "question" in each.facts], engine


def walked(there: Town) -> None:
    """A call that is asked for, and approved; one that is refused; one that is tried first."""
    first = there.call()
    there.vote("dana", id_of(first))
    assert there.call().denial == ""
    there.clock[0] += 100
    other = there.call(ticket_id="T2", status="open")
    there.vote("dana", id_of(other), approves=False)
    assert there.call(ticket_id="T2", status="open").denial == "approval_refused"
    there.call("tickets_close", ticket_id="T1")


@pytest.mark.parametrize("permit", ["ticket-own", "tickets-call"])
def test_calls_that_people_approve_or_refuse_come_out_the_same(tmp_path: Path, permit: str) -> None:
    for there in town(tmp_path, annotated(permit, "manager")):
        walked(there)
        records, engine = decisions(there)
        assert {each.kind for each in records} == {"intent", "asked", "denial"}
        for record in records:
            assert again(engine, record).differs == ""
            assert by_verifier(engine, record) == ("same", "")


def test_what_was_done_without_the_approval_that_is_demanded_differs(tmp_path: Path) -> None:
    for there in town(tmp_path, annotated("tickets-call", "manager")):
        walked(there)
        records, engine = decisions(there)
        approved = [each for each in records if "approval" in each.facts and each.kind == "intent"]
        assert approved
        for record in approved:
            without = replace(record, facts={name: each for name, each in record.facts.items() if name != "approval"})
            assert "without the approval" in (again(engine, without).differs or "")
            assert by_verifier(engine, without)[0] == "differs"


SERVICES = """
entity Review { tenant: Tenant, subject: User, author: User, status: String, rating?: Long };
action "reviews.list" appliesTo { principal: [User, Service], resource: [Tool, Review], context: Context };
action "other" appliesTo { principal: User, resource: [Tool], context: Context };
"""
FOR_SERVICES = """
@id("people") @doc("d") @remedy("r") permit (principal, action == Action::"reviews.list", resource is Tool);
@id("export") @doc("d") @remedy("r")
permit (principal == Service::"acme/export", action == Action::"reviews.list", resource is Tool);
@id("nobody") @doc("d") @remedy("r") forbid (principal is Service, action, resource) when { context.now < 0 };
"""


@pytest.mark.parametrize("name", ["export", "import"])
@pytest.mark.parametrize("wanted", [tool(), tool("elsewhere", "other", shape=None)])
def test_decisions_on_services_come_out_the_same(tmp_path: Path, name: str, wanted: Tool) -> None:
    tools = [tool(), tool("elsewhere", "other", shape=None)]
    engine = CedarEngine.load(bundle_at(tmp_path, FOR_SERVICES, SERVICES), tools=tools)
    for who in (service(name), person(DANA)):
        call = call_of(who, wanted=wanted)
        entry = decided(engine, call, questions.about_tool(who, call.caller, wanted, call.at))
        [record] = recorded([entry])
        assert again(engine, record).differs == ""
        assert by_verifier(engine, record) == ("same", "")
        permitted = wanted.action == "reviews.list" and (who.kind == "person" or name == "export")
        assert (record.kind == "intent") is permitted


def test_a_person_cannot_be_passed_off_as_a_service_of_that_name(tmp_path: Path) -> None:
    engine = CedarEngine.load(bundle_at(tmp_path, POLICIES), tools=[tool()])
    call = call_of(person(DANA))
    [record] = recorded([decided(engine, call, questions.about_tool(call.person, call.caller, call.tool, call.at))])
    question = record.facts["question"]
    assert isinstance(question, dict)
    wrong = replace(
        record, facts={**record.facts, "question": {**question, "principal": {"type": "Service", "id": "acme/dana"}}}
    )
    assert by_verifier(engine, wrong)[0] == "differs"
