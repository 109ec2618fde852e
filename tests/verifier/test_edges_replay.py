"""A decision made again: what makes it the same, each way in which it differs, and bounds of policies and questions.

The policies are played where only their answer matters, so that each answer can be had.
"""

from __future__ import annotations

import copy
from importlib.metadata import version
from typing import Any

import cedarpy
import pytest

from onbehalf.verifier import replay
from onbehalf.verifier.demands import Demands
from onbehalf.verifier.leaves import Leaf
from onbehalf.verifier.policies import PolicyFault, Said
from onbehalf.verifier.refused import Unusable
from onbehalf.verifier.replay import OUTCOMES, Replay, made_again
from verifier.test_edges_policies import ALICE, DESK, PERMIT, TENANT, answer, bundle, entity, uid

QUESTION: dict[str, Any] = {
    "v": 1, "principal": ALICE, "action": "write", "login": {}, "tool": {"mapped": True},
    "context": {"client": entity("Client", "app"), "scopes": ["desk"], "now": 100},
    "entities": [
        {"uid": ALICE, "attrs": {"tenant": TENANT, "active": True}, "parents": []},
        {"uid": uid("Tenant", "acme"), "attrs": {}, "parents": []},
    ],
    "about": [
        {"resource": DESK, "entities": [{"uid": DESK, "attrs": {"tenant": TENANT, "writes": True}, "parents": []}]}
    ],
}  # fmt: skip
DECISION: dict[str, Any] = {
    "effect": "allow",
    "policies": ["p"],
    "policy": "sha256:1",
    "resource": DESK,
    "engine": "e 1",
}
FACTS: dict[str, Any] = {
    "decision": DECISION, "question": QUESTION, "person": {"id": "acme/alice"},
    "caller": {"tenant": "acme", "client": "app", "scopes": ["desk"]},
    "tool": {"name": "desk", "action": "write", "writes": True},
}  # fmt: skip
LEAF = Leaf("intent", "c", 100, -1, ("decision", "question"), [])


def changed(value: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A deep copy. A name with `__` changes a member of a member."""
    made = copy.deepcopy(value)
    for path, new in changes.items():
        *parents, last = path.split("__")
        at: Any = made
        for each in parents:
            at = at[int(each) if each.lstrip("-").isdigit() else each]
        at[last] = new
    return made


def again(facts: dict[str, Any], leaf: Leaf = LEAF, *, erased: bool = False, data: bytes | None = None) -> Any:
    """What is found of one decision, and as what it counts."""
    made = Replay(cedarpy, lambda _: bundle(PERMIT) if data is None else data or None)
    found = made.take(leaf, facts, erased=erased)
    (counted,) = [name for name, count in made.counts.items() if count] or [""]
    assert sum(made.counts.values()) == bool(counted)
    return counted, *found


def test_a_decision_is_the_same_whatever_else_is_opened() -> None:
    for leaving in ((), ("person",), ("caller",), ("tool",), ("person", "caller", "tool")):
        facts = {name: value for name, value in FACTS.items() if name not in leaving}
        assert again(facts) == ("same", "", "")
    for kind in ("denial", "asked"):
        assert again(FACTS, LEAF._replace(kind=kind))[0] == "same"
    assert again(FACTS, LEAF._replace(kind="outcome")) == ("", "", "")


def test_what_cannot_be_made_again_is_counted_by_its_reason() -> None:
    assert again(FACTS, erased=True) == ("erased", "", "")
    unasked = LEAF._replace(names=("decision",))
    assert again({"decision": {"effect": "deny"}}, unasked) == ("not_decided", "", "")
    for decision in (DECISION, None, "x"):
        assert again({"decision": decision}, unasked) == ("not_on_record", "", "")
    for name in ("decision", "question"):
        assert again({name: FACTS[name]}) == ("not_opened", "", "")
    for question in ({"left_out": "x"}, changed(QUESTION, entities={}), changed(QUESTION, about__0__entities={})):
        assert again({**FACTS, "question": question}) == ("not_on_record", "", "")
    assert again(FACTS, data=b"") == ("policy_missing", "", "")
    found = again(FACTS, data=b"{}")
    assert found == (
        "policy_missing",
        "policy_unusable",
        "the policies sha256:1 cannot be used: it is no policy bundle",
    )
    for part in ({"decision": 1}, {"question": 1}, {"decision": 1, "question": 1}):
        assert again({**FACTS, **part}) == ("differs", "question_malformed", "its question or decision is none")
    assert {*OUTCOMES} == {*Replay(cedarpy, lambda _: None).counts}


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ({"principal": uid("User", "acme/bob")}, "it asks for another person"),
        ({"principal": uid("Service", "acme/alice")}, "it asks for another person"),
        ({"context__now": 101}, "it was asked at another time"),
        ({"context__client": entity("Client", "x")}, "its client or scopes are not the caller's"),
        ({"context__client": entity("User", "app")}, "its client or scopes are not the caller's"),
        ({"context__scopes": []}, "its client or scopes are not the caller's"),
        ({"action": "read"}, "its tool or action is another"),
        ({"about__0__resource": uid("Tool", "x")}, "its tool or action is another"),
        ({"about__0__resource": uid("Note", "desk")}, "its tool or action is another"),
        ({"about__0__entities__-1__attrs__writes": False}, "it says of the tool what it is not"),
        ({"about__0__entities__-1__attrs__tenant": entity("Tenant", "x")}, "it says of the tool what it is not"),
    ],
)  # fmt: skip
def test_a_question_that_is_not_of_its_call_is_found(question: dict[str, Any], text: str) -> None:
    facts = {**FACTS, "question": changed(QUESTION, **question)}
    assert again(facts) == ("differs", "question_other", f"the question on record is not about this call: {text}")


def test_of_a_service_and_of_two_resources_each_is_held_against_its_own() -> None:
    service = {**FACTS, "service": {"id": "acme/job"}}
    del service["person"]
    asked = changed(QUESTION, principal=uid("Service", "acme/job"), context__now=99)
    other = "the question on record is not about this call: "
    assert again({**service, "question": asked})[2] == f"{other}it was asked at another time"
    assert again({**service, "question": {**asked, "principal": ALICE}})[2] == f"{other}it asks for another person"
    note = uid("Note", "n")
    two = changed(QUESTION, about=[*QUESTION["about"], {"resource": note, "entities": []}])
    resource = f"{other}it was decided on another resource"
    assert again({**FACTS, "question": two})[2] == resource
    assert again({**FACTS, "question": two, "decision": {**DECISION, "resource": note}})[2] != resource
    assert again({**FACTS, "decision": {**DECISION, "resource": note}})[2] == resource


@pytest.mark.parametrize(
    "question",
    [
        {"v": 2}, {"about": []}, {"about": QUESTION["about"] * 3}, {"about": None}, {"context": None},
        {"entities": [{"uid": ALICE, "attrs": {}, "parents": []}] * 15_000},
    ],
)  # fmt: skip
def test_a_question_that_no_gateway_writes_is_malformed(question: dict[str, Any]) -> None:
    counted, code, text = again({**FACTS, "question": {**QUESTION, **question}})
    assert (counted, code) == ("differs", "question_malformed")
    assert text.startswith("its question is none that a gateway writes (")
    assert len(text) <= 160


def test_a_question_has_at_most_15000_entities() -> None:
    many = {**QUESTION, "entities": [{"uid": ALICE, "attrs": {}, "parents": []}] * 14_999}
    other = changed(many, context__now=1)
    assert again({**FACTS, "question": other})[1] == "question_other"


def test_a_decision_that_comes_out_otherwise_says_how() -> None:
    forbidden = bundle('@id("p") permit (principal, action == Action::"read", resource);')
    assert again(FACTS, data=forbidden) == (
        "differs", "decision_differs", "on record it is allow, and it comes out denied (not_permitted)",
    )  # fmt: skip
    assert again({**FACTS, "decision": {**DECISION, "effect": "deny", "code": "x"}})[2] == (
        "on record it is deny (x), and it comes out permitted"
    )


def made(permitted: bool = True, code: str = "", erred: bool = False, owed: Any = (), by: Any = ("p",)) -> Any:
    return replay._Made(permitted=permitted, code=code, policies=by, erred=erred, owed=owed)


APPROVE, ROWS = Demands("p", (("approve", ("boss",)),)), Demands("q", (("max_rows", (5,)),))
TOLD = [{"policy": "p", "approve": ["boss"]}, {"policy": "q", "max_rows": 5}]
WITHOUT = "it was done without the approval that is demanded"
OWED = "other obligations are on record than its policies demand"


@pytest.mark.parametrize(
    ("decision", "said", "came", "text"),
    [
        ({}, {}, made(), ""), ({"effect": "ask"}, {}, made(), ""),
        ({"effect": "deny", "code": "approval_required"}, {}, made(), ""),
        ({"effect": "deny", "code": "approval_refused"}, {}, made(), ""),
        ({"effect": "deny", "code": "not_permitted"}, {}, made(False, "not_permitted"), ""),
        ({"effect": "deny", "code": "policy_error"}, {}, made(False, "not_permitted"),
         "on record it is deny (policy_error), and it comes out denied (not_permitted)"),
        ({"effect": "allow", "code": "approval_required"}, {}, made(False, "x"),
         "on record it is allow (approval_required), and it comes out denied (x)"),
        ({"effect": "x"}, {}, made(), "on record it is x, and it comes out permitted"),
        ({"policies": ["q"]}, {}, made(), "it is by other policies than those on record"),
        ({"policies": ["q", "p"]}, {}, made(by=("p", "q")), "it is by other policies than those on record"),
        ({"obligations": TOLD[1:]}, {}, made(owed=(ROWS,)), ""), ({}, {}, made(owed=(ROWS,)), OWED),
        ({"obligations": TOLD[1:]}, {}, made(), OWED),
        ({"obligations": TOLD[::-1]}, {"approval": 1}, made(owed=(APPROVE, ROWS)), ""),
        ({"obligations": TOLD[:1]}, {"purpose": 1}, made(owed=(APPROVE,)), ""),
        ({"obligations": TOLD[:1]}, {}, made(owed=(APPROVE,)), WITHOUT),
        ({"obligations": TOLD[:1], "effect": "ask"}, {}, made(owed=(APPROVE,)), ""),
        ({"errors": ["x"]}, {}, made(erred=True), ""),
        ({"errors": ["x"]}, {}, made(), "an error is on record that does not come out, or the other way round"),
        ({}, {}, made(erred=True), "an error is on record that does not come out, or the other way round"),
    ],
)  # fmt: skip
def test_a_record_is_held_against_what_comes_out(decision: Any, said: Any, came: Any, text: str) -> None:
    assert replay._difference({"effect": "allow", "policies": ["p"], **decision}, said, came) == text


def test_a_record_without_policies_was_decided_by_none() -> None:
    denied = {"effect": "deny", "code": "x"}
    assert replay._difference(denied, {}, made(False, "x", by=())) == ""
    assert replay._difference(denied, {}, made(False, "x")) == "it is by other policies than those on record"


class Played:
    """Policies that answer as they are told; what they were asked."""

    def __init__(self, *answers: Said, owed: dict[str, Demands] | None = None) -> None:
        self._answers, self.owed, self.asked = [*answers], owed or {}, list[Any]()

    def ask(self, *asked: Any) -> Said:
        self.asked.append(asked)
        return self._answers.pop(0)


def came_out(*answers: Said, owed: dict[str, Demands] | None = None, **question: Any) -> Any:
    played: Any = Played(*answers, owed=owed)
    return made_again(played, changed(QUESTION, **question))


def test_a_call_is_permitted_only_where_the_engine_allows_it_by_a_policy_and_nothing_erred() -> None:
    assert came_out(answer("p")) == made()
    denied = made(False, "not_permitted", by=())
    assert came_out(answer(allowed=False)) == denied
    assert came_out(answer()) == denied
    assert came_out(answer("f", allowed=False)) == made(False, "not_permitted", by=("f",))
    assert came_out(answer("p", errors=True)) == made(False, "policy_error", True)
    assert came_out(answer("p", answered=False)) == made(False, "policy_error")
    note = [{"resource": uid("Note", "n"), "entities": [{"uid": uid("Note", "n"), "attrs": {}}]}]
    assert came_out(answer("p", errors=True), about=note) == made(False, "not_permitted", True)
    assert came_out(answer("p", answered=False), about=note) == made(False, "not_permitted")


def test_a_resource_is_asked_about_where_its_tool_is_permitted_with_each_entity_once() -> None:
    note = {"uid": uid("Note", "n"), "attrs": {}, "parents": []}
    about = [*QUESTION["about"], {"resource": note["uid"], "entities": [QUESTION["entities"][0], note]}]
    played: Any = Played(answer("p"), answer("q"))
    assert made_again(played, {**QUESTION, "about": about}) == made(by=("q",))
    own = QUESTION["entities"]
    context = QUESTION["context"]
    assert played.asked == [
        (ALICE, "write", DESK, context, [*own, QUESTION["about"][0]["entities"][0]]),
        (ALICE, "write", note["uid"], context, [*own, note]),
    ]  # fmt: skip
    assert came_out(answer(allowed=False), about=about) == made(False, "not_permitted", by=())


def test_what_permits_demand_is_owed_once_and_must_be_met() -> None:
    owed = {"p": ROWS, "q": APPROVE}
    two = [*QUESTION["about"], {"resource": uid("Tool", "x"), "entities": []}]
    assert came_out(answer("p"), answer("p", "q"), owed=owed, about=two) == made(by=("p", "q"), owed=(ROWS, APPROVE))
    unmapped = came_out(answer("p"), owed=owed, tool__mapped=False)
    assert unmapped == made(False, "obligation_unmet", owed=(ROWS,))
    assert came_out(answer("p", allowed=False), owed=owed) == made(False, "not_permitted")
    purpose = {"p": Demands("p", (("purpose", ("care",)),))}
    assert came_out(answer("p"), owed=purpose).code == "purpose_not_shown"
    assert came_out(answer("p"), owed=purpose, context__scopes=["purpose:care"]).permitted
    age = {"p": Demands("p", (("max_age", (60,)),))}
    assert came_out(answer("p"), owed=age, login={"auth_time": 10}).permitted
    assert came_out(answer("p"), owed=age, login={"auth_time": 9}).code == "step_up_needed"


def test_a_resource_that_names_people_whom_nobody_knows_is_an_error() -> None:
    note, bob = uid("Note", "n"), entity("User", "acme/bob")
    for attrs, errors in (
        ({}, False), ({"owner": bob}, True), ({"owner": entity("User", "acme/alice")}, False),
        ({"owner": "bob"}, False),
        ({"tenant": entity("Tenant", "x")}, False), ({"n": {"__long": "5"}}, False), ({"a": 1, "owner": bob}, True),
    ):  # fmt: skip
        about = {"resource": note, "entities": [{"uid": note, "attrs": attrs}]}
        came = came_out(answer("p"), about=[about])
        assert (came.erred, came.permitted) == (errors, not errors), attrs
    assert came_out(answer("p"), about=[{"resource": note, "entities": []}]).permitted
    tool = {"resource": DESK, "entities": [{"uid": DESK, "attrs": {"owner": bob}}]}
    assert came_out(answer("p"), about=[tool]).permitted


def test_engines_that_records_name_are_counted_up_to_twenty() -> None:
    one = Replay(cedarpy, lambda _: None)
    for each in [*range(21), 0, 20]:
        one.take(LEAF, {**FACTS, "decision": {**DECISION, "engine": f"e{each}"}}, erased=False)
    assert one.engines == {"e0": 2, **{f"e{each}": 1 for each in range(1, 20)}}
    assert one.name == f"cedarpy {version('cedarpy')}"
    two = Replay(cedarpy, lambda _: None)
    two.take(LEAF, {**FACTS, "decision": {**DECISION, "engine": "e" * 101}}, erased=False)
    assert two.engines == {"e" * 100: 1}


def test_eight_bundles_are_kept_ready_and_a_fault_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def given(digest: str) -> bytes | None:
        asked.append(digest)
        return None if digest == "none" else digest.encode()

    def policies(_: Any, data: bytes) -> Any:
        if data == b"bad":
            raise PolicyFault("why")
        return data

    monkeypatch.setattr(replay, "Policies", policies)
    one = Replay(cedarpy, given)
    assert [one._policies(each) for each in "abcdefgh"] == [each.encode() for each in "abcdefgh"]  # type: ignore[comparison-overlap]  # played
    assert one._policies("a") == b"a"  # type: ignore[comparison-overlap]  # played
    assert one._policies("none") is None
    assert one._policies("none") is None
    assert asked == [*"abcdefgh", "none"]
    assert [one._policies(each) for each in "ca"] == [b"c", b"a"]  # type: ignore[comparison-overlap]  # played
    assert asked[9:] == []
    one._policies("b")
    assert asked[9:] == ["b"]
    with pytest.raises(PolicyFault, match="the policies bad cannot be used: why"):
        one._policies("bad")
    assert one._policies("bad") is None
    for each in "ijklmnop":  # until it is kept no more
        one._policies(each)
    assert one._policies("bad") is None
    assert asked.count("bad") == 1


def test_a_policy_is_named_by_at_most_100_letters() -> None:
    asked: list[str] = []
    one = Replay(cedarpy, lambda digest: asked.append(digest))  # type: ignore[func-returns-value]  # nothing is here
    one.take(LEAF, {**FACTS, "decision": {**DECISION, "policy": "x" * 101}}, erased=False)
    assert asked == ["x" * 100]


def test_without_the_engine_a_replay_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert replay.engine() is cedarpy
    monkeypatch.setitem(__import__("sys").modules, "cedarpy", None)
    with pytest.raises(Unusable, match="--replay needs the policy engine"):
        replay.engine()
