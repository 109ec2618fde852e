"""What every Engine promises: an answer to whatever is asked, never an exception, and never a yes by default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.model import Entity, Json, Question, Ref
from onbehalf.ports import Engine
from onbehalf.validate.decide import may
from validate.policy_house import bundle_at, tool

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


def test_the_digest_is_of_the_bundle(tmp_path: Path) -> None:
    first = CedarEngine.load(bundle_at(tmp_path / "a"), tools=[tool()])
    again = CedarEngine.load(bundle_at(tmp_path / "b"), tools=[tool()])
    assert first.policy == again.policy
    assert first.policy.startswith("sha256:")
