"""What every Engine promises: an answer to whatever is asked, never an exception, and never a yes by default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.model import Entity, Json, Judgement, Question, Ref
from onbehalf.ports import Engine
from onbehalf.validate import questions, rows
from onbehalf.validate.decide import may
from onbehalf.validate.rows import Row
from validate.policy_house import DANA, NOW, PEOPLE, POLICIES, SHAPE, bundle_at, caller, person, review, tool

TEXT = st.text(max_size=8)
REF = st.builds(
    lambda type_, id_: Ref(type=type_, id=id_), st.sampled_from(["User", "Tool", "Review", "Nope", ""]), TEXT
)
VALUE: st.SearchStrategy[Json | Ref] = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, REF)
ENTITY = st.builds(
    lambda ref, attributes, parents: Entity(ref=ref, attributes=attributes, parents=tuple(parents)),
    REF, st.dictionaries(TEXT, VALUE, max_size=3), st.lists(REF, max_size=2),
)  # fmt: skip
QUESTION = st.builds(
    lambda principal, action, resource, context, entities: Question(
        principal=principal, action=action, resource=resource, context=context, entities=tuple(entities)
    ),
    REF, st.sampled_from(["reviews.list", "other", "", "nope"]), REF, st.dictionaries(TEXT, VALUE, max_size=3),
    st.lists(ENTITY, max_size=4),
)  # fmt: skip


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return CedarEngine.load(
        bundle_at(tmp_path_factory.mktemp("p")), tools=[tool(), replace(tool("o", "other"), rows=None)]
    )


@given(question=QUESTION)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_nonsense_is_answered_and_the_answer_is_no(engine: Engine, question: Question) -> None:
    judgement = engine.judge(question)
    assert not may(judgement)
    engine.candidates(question)


def test_what_the_permits_that_say_yes_demand_comes_with_their_yes(tmp_path: Path) -> None:
    shaping = POLICIES.replace('@id("manager-read")', '@id("manager-read") @columns("status")')
    shaping = shaping.replace('@id("reviews-call")', '@id("reviews-call") @max_rows("5")')
    engine = CedarEngine.load(bundle_at(tmp_path, shaping), tools=[tool()])
    [about_bob, about_zoe] = rows.extract(
        SHAPE, {"structuredContent": {"rows": [review(subject="bob"), review(subject="zoe")]}}, limit=9
    ).rows
    asker, entities = person(DANA), [entity for each in PEOPLE.values() for entity in each]

    def said(row: Row) -> Judgement:
        return engine.judge(questions.about_row(asker, caller(), tool(), NOW, row, entities))

    on_tool = engine.judge(questions.about_tool(asker, caller(), tool(), NOW))
    assert [(each.policy, each.obligations.max_rows) for each in on_tool.owed] == [("reviews-call", 5)]
    assert said(about_bob).policies == ("hr-read", "manager-read")
    assert [(each.policy, each.obligations.columns) for each in said(about_bob).owed] == [
        ("manager-read", frozenset({"status"}))
    ]
    assert said(about_zoe).policies == ("hr-read",)
    assert said(about_zoe).owed == ()


def test_the_digest_is_of_the_bundle(tmp_path: Path) -> None:
    first = CedarEngine.load(bundle_at(tmp_path / "a"), tools=[tool()])
    again = CedarEngine.load(bundle_at(tmp_path / "b"), tools=[tool()])
    assert first.policy == again.policy
    assert first.policy.startswith("sha256:")
