"""Who may approve what: every demand, by every kind of person."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onbehalf.model import Approval, Approver, Ask, CallId, Digest, Entity, UnixTime, Vote
from onbehalf.validate import approval
from replacing import replace
from validate.policy_house import BOB, CAROL, DANA, IC, LEAD, NOW, ZOE, person, place, tool_call, user

HEAD = place("Position", "acme", "head")
HIGH = place("Position", "acme", "lead", "head")
OLGA = (user("acme", "olga", position="head"), HEAD)
SAME = (user("acme", "sam", position="ic"), IC)
LEFT = (user("acme", "lou", position="head", active=False), HEAD)
ERIN = (user("globex", "erin", position="lead"), place("Position", "globex", "lead"))
EVERYBODY: list[Entity] = [*DANA, *BOB, *CAROL, *ZOE, *OLGA, *SAME, *LEFT, *ERIN, HIGH]
ALL: list[Approver] = ["self", "manager", "two-person"]


def wanted(*approvers: Approver, of: str = "bob", votes: tuple[str, ...] = (), refused: bool = False) -> Approval:
    given = tuple(Vote(person=each, at=NOW) for each in votes)
    return Approval(
        id="i", binding=Digest("d"), tenant="acme", person=of, call=CallId("c"), approvers=frozenset(approvers), at=NOW,
        until=UnixTime(NOW + 900), refused=refused, votes=given,
    )  # fmt: skip


def voters(*approvers: Approver, of: str = "bob") -> set[str]:
    names = ["dana", "bob", "carol", "zoe", "olga", "sam", "lou", "erin", "nobody", ""]
    return {each for each in names if approval.may_vote(wanted(*approvers, of=of), each, EVERYBODY)}


def met(*votes: str, by: tuple[Approver, ...], of: str = "bob", refused: bool = False) -> bool:
    return approval.met(wanted(*by, of=of, votes=votes, refused=refused), EVERYBODY)


def test_only_those_who_are_asked_may_vote() -> None:
    assert voters("self") == {"bob"}
    assert voters("manager") == {"dana", "olga"}  # not who left, nor the same position, nor another tenant's lead
    assert voters("two-person") == {"bob", "dana", "olga"}
    assert voters("self", "manager") == {"bob", "dana", "olga"}
    assert voters() == set()


def test_without_a_position_nobody_is_above() -> None:
    assert voters("manager", of="zoe") == set()
    assert voters("two-person", of="zoe") == {"zoe"}
    assert not met("zoe", "dana", by=("two-person",), of="zoe")


def test_nobody_approves_for_somebody_who_left() -> None:
    assert voters("self", "manager", "two-person", of="lou") == set()


def test_a_demand_is_met_by_those_it_names() -> None:
    assert met("bob", by=("self",))
    assert not met("dana", by=("self",))
    assert met("dana", by=("manager",))
    assert met("olga", by=("manager",))
    assert not met("bob", by=("manager",))
    assert not met("erin", "sam", "lou", "carol", by=("manager",))


def test_two_people_are_two_and_one_of_them_is_above() -> None:
    for pair in (("bob", "dana"), ("dana", "olga"), ("olga", "bob")):
        assert met(*pair, by=("two-person",))
    for few in ((), ("bob",), ("dana",), ("dana", "dana"), ("bob", "carol"), ("dana", "lou")):
        assert not met(*few, by=("two-person",))


def test_two_demands_are_both_to_be_met() -> None:
    assert not met("bob", by=("self", "manager"))
    assert not met("dana", by=("self", "manager"))
    assert met("bob", "dana", by=("self", "manager"))


@given(st.sets(st.sampled_from(ALL)), st.lists(st.sampled_from(["dana", "bob", "sam", "lou", "erin", "olga", "zoe"])))
def test_what_is_refused_is_never_met_and_no_demand_is_met_by_nobody(by: set[Approver], votes: list[str]) -> None:
    assert not met(*votes, by=tuple(by), refused=True)
    assert not met(by=tuple(by))
    if met(*votes, by=tuple(by)):
        assert set(votes) & {"bob", "dana", "olga"}
        assert all(met(*votes, by=(each,)) for each in by)


@pytest.mark.parametrize("hidden", [IC, LEAD])
def test_an_org_chart_that_is_not_whole_makes_nobody_a_manager(hidden: Entity) -> None:
    without = [each for each in EVERYBODY if each.ref != hidden.ref]
    expected = hidden.ref == LEAD.ref  # dana's position is named by bob's, whatever is said of it
    assert approval.may_vote(wanted("manager"), "dana", without) is expected
    assert not approval.may_vote(wanted("manager"), "olga", without)


def test_a_circle_in_the_org_chart_ends() -> None:
    around = [user("acme", "a", position="x"), place("Position", "acme", "x", "y"), place("Position", "acme", "y", "x")]
    assert not approval.may_vote(wanted("manager", of="a"), "a", around)


def ask() -> Ask:
    return Ask(
        call=tool_call(person(BOB)), resource=BOB[0].ref, policies=("p",), policy=Digest("p"), revision=7, owed=(),
        approvers=frozenset({"manager"}),
    )  # fmt: skip


def test_what_is_approved_is_this_call_and_no_other() -> None:
    one, call = ask(), ask().call
    name = approval.binding(one, "", key=b"k")
    assert name == approval.binding(replace(one, revision=8, call=replace(call, id=CallId("another"))), "", key=b"k")
    others = [
        replace(one, call=replace(call, digest=Digest("other"))),
        replace(one, call=replace(call, person=person(CAROL))),
        replace(one, call=replace(call, caller=replace(call.caller, client="other"))),
        replace(one, call=replace(call, caller=replace(call.caller, tenant="globex"))),
        replace(one, call=replace(call, tool=replace(call.tool, definition=Digest("other")))),
        replace(one, call=replace(call, tool=replace(call.tool, name="other"))),
        replace(one, policy=Digest("other")),
        replace(one, approvers=frozenset({"self"})),
    ]
    names = {approval.binding(each, "", key=b"k") for each in others}
    names |= {approval.binding(one, "changed", key=b"k"), approval.binding(one, "", key=b"other")}
    assert len(names | {name}) == len(others) + 3


def test_whose_approval_is_needed_is_told_in_words() -> None:
    assert approval.in_words(frozenset({"manager"})) == "somebody above you"
    assert "; and by " in approval.in_words(frozenset({"manager", "self"}))
