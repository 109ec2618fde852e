from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onbehalf.model import (
    Allow,
    Ask,
    Candidate,
    Conjunct,
    Decision,
    Deny,
    Digest,
    Judgement,
    Obligations,
    Owed,
    Question,
    Ref,
)
from onbehalf.validate import decide, questions
from replacing import replace
from validate.policy_house import BOB, DANA, NOW, caller, person, tool, tool_call

POLICY = Digest("sha256:" + "0" * 64)
YES = Judgement(allowed=True, policies=("p",), errors=(), validated=True)
CALL = tool_call(person(DANA))
ASKED = questions.about_tool(person(DANA), caller(), tool(), NOW)


def candidate(name: str, effect: str, *held: bool | None, remedy: str = "") -> Candidate:
    conjuncts = tuple(Conjunct(text=f"c{number}", holds=each) for number, each in enumerate(held))
    return Candidate(
        policy=name,
        effect="permit" if effect == "permit" else "forbid",
        doc=f"Doc of {name}.",
        remedy=remedy,
        conjuncts=conjuncts,
    )


def decided(judgement: Judgement, *candidates: Candidate, question: Question = ASKED) -> Decision:
    return decide.decide(CALL, question=question, judgement=judgement, candidates=lambda: candidates, policy=POLICY)


def denied(judgement: Judgement, *candidates: Candidate, question: Question = ASKED) -> Deny:
    decision = decided(judgement, *candidates, question=question)
    assert isinstance(decision, Deny)
    return decision


def test_all_legs_standing_allow_with_policies_digest_and_revision() -> None:
    def unasked() -> tuple[Candidate, ...]:
        raise AssertionError("candidates are for denials only")

    decision = decide.decide(CALL, question=ASKED, judgement=YES, candidates=unasked, policy=POLICY)
    assert decision == Allow(call=CALL, resource=ASKED.resource, policies=("p",), policy=POLICY, revision=7)


SHAPED = Owed(policy="p", obligations=Obligations(columns=frozenset({"a"})))
APPROVED = Owed(policy="q", obligations=Obligations(approve=frozenset({"manager"})))


def test_what_is_demanded_goes_with_the_allow_or_is_asked_for() -> None:
    allow = decided(replace(YES, owed=(SHAPED,)))
    assert isinstance(allow, Allow)
    assert allow.owed == (SHAPED,)
    ask = decided(replace(YES, owed=(SHAPED, APPROVED)))
    assert isinstance(ask, Ask)
    assert (ask.approvers, ask.owed) == ({"manager"}, (SHAPED, APPROVED))
    deny = decide.unapproved(ask, code="approval_required", remedy="Ask them.")
    assert (deny.reason.code, deny.reason.policy, deny.remedy) == ("approval_required", "q", "Ask them.")
    assert "with the approval of `manager`, which was not given" in deny.reason.text


def test_more_that_is_asked_for_makes_an_allow_an_ask_and_an_ask_a_larger_one() -> None:
    allow, ask = decided(YES), decided(replace(YES, owed=(APPROVED,)))
    assert not isinstance(allow, Deny)
    assert not isinstance(ask, Deny)
    assert decide.asking(allow, frozenset()) is allow
    more = decide.asking(ask, frozenset({"self"}))
    assert isinstance(more, Ask)
    assert more.approvers == {"self", "manager"}
    tried = decide.tried(more)
    assert isinstance(tried, Allow)
    assert tried.call.dry


def test_what_is_demanded_of_a_call_holds_for_its_resource_too() -> None:
    both = decide.owing(replace(YES, owed=(SHAPED,)), (APPROVED, SHAPED))
    assert both.owed == (APPROVED, SHAPED)
    assert isinstance(decided(both), Ask)
    assert decide.owing(YES, ()) is YES


def test_a_denial_stays_one_whatever_is_demanded() -> None:
    no = replace(YES, allowed=False, owed=(APPROVED,))
    assert denied(no).reason.code == "not_permitted"


def test_a_tool_is_offered_where_a_call_could_be_allowed() -> None:
    for judgement, shown in (
        (YES, True), (replace(YES, allowed=False), False), (replace(YES, owed=(SHAPED,)), True),
        (replace(YES, owed=(APPROVED,)), False),
    ):  # fmt: skip
        assert decide.offered(judgement, tool=tool(), caller=caller(), approvable=False, now=NOW) is shown
        assert isinstance(decided(judgement), Allow) is shown
    approved = replace(YES, owed=(APPROVED,))
    assert decide.offered(approved, tool=tool(), caller=caller(), approvable=True, now=NOW)


@given(
    st.builds(
        Judgement,
        allowed=st.booleans(),
        policies=st.lists(st.text(min_size=1), max_size=2).map(tuple),
        errors=st.lists(st.text(), max_size=2).map(tuple),
        validated=st.booleans(),
    ),
    st.booleans(),
    st.booleans(),
)
def test_nothing_is_allowed_when_any_leg_fails(judgement: Judgement, same_action: bool, same_person: bool) -> None:
    question = replace(
        ASKED,
        action=ASKED.action if same_action else "other",
        principal=ASKED.principal if same_person else BOB[0].ref,
    )
    legs = (judgement.allowed, judgement.policies, not judgement.errors, judgement.validated, same_action, same_person)
    assert isinstance(decided(judgement, question=question), Allow) is all(legs)
    assert decide.may(judgement) is all(legs[:4])


@pytest.mark.parametrize(
    ("judgement", "code"),
    [
        (replace(YES, allowed=False, policies=()), "not_permitted"),
        (replace(YES, errors=("boom",)), "policy_error"),
        (replace(YES, validated=False), "policy_error"),
        (replace(YES, policies=()), "not_permitted"),
    ],
)
def test_a_denial_about_a_tool_tells_an_error_from_a_refusal(judgement: Judgement, code: str) -> None:
    assert denied(judgement).reason.code == code


def test_a_denial_about_a_row_has_one_code_whether_the_row_is_missing_foreign_or_refused() -> None:
    row = replace(ASKED, resource=Ref(type="Review", id="acme/1"))
    judgements = (
        replace(YES, allowed=False),
        replace(YES, errors=("entity does not exist",)),
        replace(YES, validated=False),
    )
    assert {denied(each, question=row).reason.code for each in judgements} == {"not_permitted"}


def test_the_remedy_names_every_permit_once_in_order_whatever_held() -> None:
    def remedy(holds: bool | None) -> str:
        return denied(
            replace(YES, allowed=False),
            candidate("w", "forbid", holds, remedy="Never said."),
            candidate("a", "permit", holds, remedy="Ask A."),
            candidate("b", "permit", not holds, remedy="Ask B."),
            candidate("c", "permit", holds, remedy="Ask A."),
        ).remedy

    assert remedy(True) == remedy(False) == remedy(None) == "Ask A. Ask B."


def test_without_any_remedy_there_is_a_default() -> None:
    assert denied(replace(YES, allowed=False)).remedy == decide.DEFAULT_REMEDY


def test_the_sentence_says_what_each_permit_lacked() -> None:
    no = replace(YES, allowed=False, policies=())
    deny = denied(
        no, candidate("w", "forbid", False), candidate("a", "permit", True, False), candidate("b", "permit", None)
    )
    assert deny.reason.text == (
        "No policy permits this: `a` asks for `c1`, which is not so; `b` asks for `c0`, which cannot be told."
    )
    assert [each.policy for each in deny.candidates] == ["w", "a", "b"]


def test_the_sentence_names_the_forbid_that_applies() -> None:
    deny = denied(
        replace(YES, allowed=False, policies=("w",)), candidate("w", "forbid", True), candidate("a", "permit", True)
    )
    assert deny.reason.text == "Forbidden by `w`: Doc of w."
    assert deny.reason.policy == "w"


def test_a_person_of_another_tenant_than_the_caller_is_denied() -> None:
    call = replace(CALL, caller=caller(tenant="globex"))
    decision = decide.decide(call, question=ASKED, judgement=YES, candidates=lambda: (), policy=POLICY)
    assert isinstance(decision, Deny)
