"""Decisions on record come out the same when they are made again, in two programs; what was changed does not."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from house import POLICIES, SCHEMA, TOOLS, Doors, house, request, review, reviews, tickets
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.errors import OnbehalfError
from onbehalf.explain.leaf import Record
from onbehalf.gateway import Gateway
from onbehalf.model import CallId, Json, Presented, ToolCall, UnixTime
from onbehalf.validate import questions, rows
from onbehalf.validate.rows import Row
from replacing import replace
from replay_house import again, by_verifier, decided, obliged, recorded, replay_of
from validate import pushdown_house
from validate.policy_house import BOB, EVIDENCE, NOW, bundle_at, caller, person, tool_call


def calls(directory: Path, *broken: str, policies: str = POLICIES) -> tuple[list[Record], CedarEngine]:
    """A few calls of all kinds in one house: allowed, denied, looked up, tried first."""
    gateway, doors = house(directory, *broken, policies=policies)
    asyncio.run(walked(gateway, doors))
    engine = gateway.standing().engine
    assert isinstance(engine, CedarEngine)
    return recorded(doors.entries), engine


async def walked(gateway: Gateway, doors: Doors) -> None:
    def answer(call: ToolCall) -> Any:
        if call.tool.name == "tickets_get":
            return tickets(T1="dana", T2="bob")(call)
        return reviews(review("7", subject="bob"), review("8", subject="zoe"))(call)

    doors.answer = answer
    for subject in ("dana", "bob", "gone", "erin"):
        for name, arguments in (
            ("reviews_list", {}), ("reviews_report", {}), ("tickets_get", {"ticket_id": "T1"}),
            ("tickets_update", {"ticket_id": "T1"}), ("tickets_update", {"ticket_id": "T2"}),
            ("tickets_update", {"ticket_id": "T9"}), ("tickets_close", {"ticket_id": "T1"}), ("no_such", {}),
        ):  # fmt: skip
            with contextlib.suppress(OnbehalfError):  # some denials are errors to a client, and on record all the same
                await gateway.call(Presented(token=subject), request(name, **arguments))


def decisions(records: Iterable[Record]) -> list[Record]:
    return [each for each in records if "question" in each.facts]


def test_every_decision_of_a_house_comes_out_as_it_is_on_record(tmp_path: Path) -> None:
    records, engine = calls(tmp_path)
    found = decisions(records)
    assert {each.kind for each in found} == {"intent", "denial"}
    assert len(found) > 20
    for record in found:
        assert again(engine, record).differs == ""
        assert by_verifier(engine, record) == ("same", "")


@pytest.mark.parametrize("demand", ['@approve("manager")', '@scope("x")', '@purpose("audit")', '@max_rows("1")'])
def test_decisions_with_obligations_come_out_the_same(tmp_path: Path, demand: str) -> None:
    for permit in ("tickets-call", "ticket-own", "reviews-call"):
        policies = POLICIES.replace(f'@id("{permit}")', f'@id("{permit}") {demand}')
        records, engine = calls(tmp_path / permit, policies=policies)
        for record in decisions(records):
            assert again(engine, record).differs == ""
            assert by_verifier(engine, record) == ("same", "")


def test_a_policy_that_errs_errs_again(tmp_path: Path) -> None:
    records, engine = calls(tmp_path, "policy_errs")
    found = decisions(records)
    assert {each.kind for each in found} == {"denial"}
    for record in found:
        assert again(engine, record).differs == ""
        assert by_verifier(engine, record) == ("same", "")


def random_decisions(seed: int, directory: Path) -> tuple[list[Record], CedarEngine | None]:
    """Decisions of random people under random policies, on a tool and on random rows."""
    chance = random.Random(seed)
    text = obliged(chance, pushdown_house.policies(chance))
    spaced = seed % 2 == 1
    tool = pushdown_house.SPACED_TOOL if spaced else pushdown_house.TOOL
    engine = pushdown_house.loaded(directory / str(seed), pushdown_house.spaced(text) if spaced else text, tool)
    if engine is None:
        return [], None
    world = pushdown_house.World(chance)
    tool = replace(tool, rows=tool.rows if chance.random() < 0.9 else None)
    made = []
    for who in chance.sample([*pushdown_house.people_of(world)], 4):
        evidence = replace(
            EVIDENCE,
            acr=chance.choice(("", "phr", "pwd")),
            auth_time=chance.choice((None, UnixTime(NOW - 10), UnixTime(5))),
        )
        scopes = frozenset(chance.sample(("x", "y", "purpose:audit"), chance.randint(0, 3)))
        by = replace(caller(tenant=who.tenant), scopes=scopes, evidence=evidence)
        call = replace(tool_call(who, wanted=tool), caller=by)
        about_tool = questions.about_tool(who, by, tool, call.at)
        made.append(decided(engine, call, about_tool))
        judgement = engine.judge(about_tool)
        if not judgement.allowed or "code" in made[-1].facts["decision"]:  # type: ignore[operator]  # JSON
            continue
        for row in chance.sample(world.rows, 12):
            found = rows.extract(pushdown_house.SHAPE, {"structuredContent": {"rows": [row]}}, limit=1).rows
            for one in found:
                question = about_row(call, one, world, spaced=spaced)
                made.append(decided(engine, call, question, judgement.owed))
    return recorded(made), engine


def about_row(call: ToolCall, row: Row, world: pushdown_house.World, *, spaced: bool) -> Any:
    people = [each for id_ in row.people for each in world.people.get(f"{row.ref.id.partition('/')[0]}/{id_}", ())]
    if spaced:
        ref = replace(row.ref, type="HR::Review")
        row = replace(row, ref=ref, entity=replace(row.entity, ref=ref))
    return questions.about_row(call.person, call.caller, call.tool, call.at, row, people)


@pytest.mark.parametrize("part", range(4))
def test_random_decisions_come_out_the_same_in_both_programs(tmp_path: Path, part: int) -> None:
    seen: dict[str, int] = {}
    for seed in range(part * 12, part * 12 + 12):
        records, engine = random_decisions(seed, tmp_path)
        for record in records:
            assert engine is not None
            assert again(engine, record).differs == "", (seed, record.facts)
            assert by_verifier(engine, record) == ("same", ""), (seed, record.facts)
            decision = record.facts["decision"]
            assert isinstance(decision, dict)
            key = str(decision.get("code", "")) or str(decision["effect"])
            seen[key] = seen.get(key, 0) + 1
    assert seen["allow"] > 5
    assert seen["not_permitted"] > 5


def changed(record: Record, **facts: Json) -> Record:
    decision = record.facts["decision"]
    assert isinstance(decision, dict)
    return replace(record, facts={**record.facts, "decision": {**decision, **facts}})


def test_a_decision_that_its_policies_do_not_make_differs(tmp_path: Path) -> None:
    records, engine = calls(tmp_path)
    for record in decisions(records):
        denied = record.kind == "denial"
        wrong = (
            changed(record, effect="allow", code="") if denied else changed(record, effect="deny", code="not_permitted")
        )
        assert again(engine, wrong).differs
        assert by_verifier(engine, wrong)[0] == "differs"
        other = changed(record, policies=["own-read"])
        assert again(engine, other).differs
        assert by_verifier(engine, other)[0] == "differs"


def test_another_slice_on_record_comes_out_otherwise(tmp_path: Path) -> None:
    records, engine = calls(tmp_path)
    record = next(each for each in decisions(records) if each.kind == "intent")
    question = record.facts["question"]
    assert isinstance(question, dict)
    entities = question["entities"]
    assert isinstance(entities, list)
    [user, *others] = entities
    assert isinstance(user, dict)
    assert isinstance(user["attrs"], dict)
    idle = {**user, "attrs": {**user["attrs"], "active": False}}
    wrong = replace(record, facts={**record.facts, "question": {**question, "entities": [idle, *others]}})
    assert "deny" in (again(engine, wrong).differs or "")
    assert by_verifier(engine, wrong)[0] == "differs"


def test_a_question_about_another_call_is_found_by_the_verifier(tmp_path: Path) -> None:
    records, engine = calls(tmp_path)
    found = decisions(records)
    questions_ = {str(each.facts["question"]): each.facts["question"] for each in found}
    for record in found:
        for text, question in questions_.items():
            if text != str(record.facts["question"]):
                wrong = replace(record, facts={**record.facts, "question": question})
                assert by_verifier(engine, wrong)[0] == "differs"


def test_what_cannot_be_made_again_is_told_why(tmp_path: Path) -> None:
    records, engine = calls(tmp_path)
    record = decisions(records)[0]
    question = record.facts["question"]
    assert isinstance(question, dict)

    def of(**facts: Json) -> Record:
        return replace(record, facts={**record.facts, **facts})

    large: Json = {**question, "entities": {"bytes": 1, "digest": "sha256:0"}}
    assert again(engine, of(question=large)).why_not == "too_large"
    assert again(engine, of(question={"left_out": "w", "v": 1})).why_not == "left_out"
    assert again(engine, of(question=None)).why_not == "not_on_record"
    assert again(engine, of(question={**question, "v": 2})).why_not == "unreadable"
    assert again(engine, of(question={**question, "about": []})).why_not == "unreadable"
    assert again(engine, replace(record, facts={}, erased=True)).why_not == "erased"
    assert by_verifier(engine, of(question=large)) == ("not_on_record", "")
    assert by_verifier(engine, of(question={"left_out": "w", "v": 1})) == ("not_on_record", "")
    for hostile in ({**question, "v": 2}, {**question, "about": []}, {**question, "entities": [1]}, {}, [], 7, "x"):
        assert by_verifier(engine, of(question=hostile))[0] == "differs"  # type: ignore[arg-type]  # JSON


def test_a_refusal_before_any_decision_is_told_apart(tmp_path: Path) -> None:
    records, engine = calls(tmp_path)
    refused = [each for each in records if each.kind == "denial" and "question" not in each.facts]
    assert refused
    for record in refused:
        assert again(engine, record).why_not == "not_decided"
        assert by_verifier(engine, record) == ("not_decided", "")
    outcome = next(each for each in records if each.kind == "outcome")
    assert replay_of(engine).again(outcome) is None


def test_policies_that_are_not_kept_leave_the_record_as_it_is(tmp_path: Path) -> None:
    records, engine = calls(tmp_path)
    record = decisions(records)[0]
    found = again(engine, changed(record, policy="sha256:" + "0" * 64))
    assert found.differs is None
    assert found.was is not None
    assert found.was.effect == "allow"
    assert by_verifier(engine, changed(record, policy="sha256:" + "0" * 64)) == ("policy_missing", "")


def test_other_policies_are_asked_besides(tmp_path: Path) -> None:
    records, engine = calls(tmp_path / "a")
    other = CedarEngine.load(
        bundle_at(
            tmp_path / "b", POLICIES.replace('@id("tickets-call")', '@id("tickets-call") @scope("more")'), SCHEMA
        ),
        tools=TOOLS,
    )
    replayed = [replay_of(engine, other=other).again(each) for each in decisions(records)]
    ways = {(str(each.was), str(each.now)) for each in replayed if each is not None}
    assert ("allow", "deny (step_up_needed)") in ways
    assert ("deny (not_permitted)", "deny (step_up_needed)") in ways
    assert ("allow", "allow") in ways


def test_a_call_denied_before_its_resource_was_looked_up_is_permitted_only_so_far(tmp_path: Path) -> None:
    records, engine = calls(
        tmp_path / "a", policies=POLICIES.replace("when { principal has position };", "when { false };")
    )
    other = CedarEngine.load(bundle_at(tmp_path / "b", POLICIES, SCHEMA), tools=TOOLS)
    denied = next(
        each for each in decisions(records)
        if each.kind == "denial" and each.facts["tool"]["name"] == "tickets_update"  # type: ignore[index,call-overload]  # JSON
    )  # fmt: skip
    found = replay_of(engine, other=other).again(denied)
    assert found is not None
    assert str(found.now) == "allow, and would go on to its resource"


def test_memory_of_a_replay_does_not_grow_with_people(tmp_path: Path) -> None:
    engine = CedarEngine.load(bundle_at(tmp_path / "p"), tools=[tool_call(person(BOB)).tool])
    replay = replay_of(engine)
    for number in range(700):
        who = person((replace(BOB[0], attributes={**BOB[0].attributes, "name": f"n{number}"}), *BOB[1:]))
        call = replace(tool_call(who), id=CallId(f"call_{number}"))
        entry = decided(engine, call, questions.about_tool(who, call.caller, call.tool, call.at))
        found = replay.again(recorded([entry])[0])
        assert found is not None
        assert found.differs == ""
    assert len(replay._slices) <= 512
