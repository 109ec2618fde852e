"""Policies of a bundle made ready to be asked: up to their bounds, in their one form, by the engine's words alone.

The engine is played where only its answer matters, so that each answer can be had.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import cedarpy
import pytest

from onbehalf.verifier import policies as ready
from onbehalf.verifier.demands import Demands
from onbehalf.verifier.policies import WALLS, Policies, PolicyFault, Said

CORE = (
    "entity Tenant; entity Client; entity User { tenant: Tenant, active: Bool };"
    "entity Service { tenant: Tenant, active: Bool }; entity Tool { tenant: Tenant, writes: Bool };"
    "type Context = { client: Client, scopes: Set<String>, now: Long };"
)
ACTIONS = (
    "action read, write appliesTo { principal: User, resource: Tool, context: Context };"
    "action run appliesTo { principal: [User, Service], resource: Tool, context: Context };"
)
PERMIT = '@id("p") permit (principal, action, resource);'


def bundle(*policies: str, core: str = CORE, actions: str = ACTIONS, **more: Any) -> bytes:
    pairs = [[f"{number}.cedar", text] for number, text in enumerate(policies)]
    said = {"core": core, "policies": pairs, "schemas": [["s", actions]], "walls": WALLS, **more}
    return json.dumps(said).encode()


def entity(type_: str, id_: str) -> dict[str, Any]:
    return {"__entity": {"type": type_, "id": id_}}


def uid(type_: str, id_: str) -> dict[str, str]:
    return {"type": type_, "id": id_}


ALICE, DESK = uid("User", "acme/alice"), uid("Tool", "desk")
TENANT = entity("Tenant", "acme")


def answer(*policies: str, allowed: bool = True, answered: bool = True, errors: bool = False) -> Said:
    return Said(allowed=allowed, answered=answered, policies=policies, errors=errors)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("(" * 64, True), ("(" * 65, False), ("[{(" * 21 + "[", True), ("[{(" * 21 + "[[", False),
        ("()" * 100, True), ("(((" + ")" + "(" * 62, True), ("(((" + ")" + "(" * 63, False),
        ("[]{}()" * 100, True), ("()" + "(" * 64, True), (")" * 9 + "(" * 64, True),
        (")" * 9 + "(" * 65, False), ('"' + "(" * 65 + '\\""', True), ("//" + "(" * 65 + "\n", True),
        ("//\n" + "(" * 65, False), ("a" * 8000, True), ("a" * 8001, False), ("a" * 8000 + ";", True),
        ("a" * 8001 + ";", False), ("a;" + "b" * 8000 + ";", True), ("a;" + "b" * 8001 + ";", False),
        ("a;" + "b" * 8000, True), ("a;" + "b" * 8001, False), ("a" * 5000 + "();" + "b" * 5000, True),
        ("a" * 5000 + "()" + "b" * 5000, False), ("a" * 5000 + '";"' + "b" * 5000, False), ("(" * 65 + ";", False),
    ],
)  # fmt: skip
def test_a_text_that_is_nested_too_deep_or_has_a_statement_too_long_is_refused(text: str, holds: bool) -> None:
    if holds:
        ready._require_shallow(text)
    else:
        with pytest.raises(ValueError, match=r"too deep|too long"):
            ready._require_shallow(text)


def fault(data: bytes, cedar: Any = cedarpy) -> str:
    with pytest.raises(PolicyFault) as found:
        Policies(cedar, data)
    return str(found.value)


def test_a_bundle_is_read_up_to_its_bounds_and_in_its_one_form() -> None:
    data = bundle(PERMIT)
    room = (10 << 20) - len(data)
    Policies(cedarpy, data + b" " * room)
    assert fault(data + b" " * (room + 1)) == f"it has more than {10 << 20} bytes"
    assert fault(bundle(PERMIT, more=1)) == fault(b"[]") == "it is no policy bundle"
    assert fault(bundle(PERMIT, walls="")) == "its walls are not those that every bundle has"
    name: Any = "n"
    for _ in range(5):
        name = [name]
    Policies(cedarpy, bundle(policies=[[name, PERMIT]]))
    assert fault(bundle(policies=[[[name], PERMIT]])) == "nested deeper than 8"
    deep = "//" + "\n" + "{" * 65
    for spoiled in (bundle(deep), bundle(PERMIT, core=deep), bundle(PERMIT, actions=deep)):
        assert fault(spoiled) == "it is nested too deep, or a statement is too long"


def test_a_policy_fits_the_schema_is_no_template_and_has_an_id_of_its_own() -> None:
    assert fault(bundle('@id("p") permit (principal, action, resource) when { principal.x };')) == (
        "a policy does not fit the schema"
    )
    assert fault(bundle('@id("p") permit (principal == ?principal, action, resource);')) == "it has a template"
    for texts in (["permit (principal, action, resource);"], [PERMIT, PERMIT], [PERMIT.replace("p", "wall:tenant", 1)]):
        assert fault(bundle(*texts)) in ("a policy has no id of its own", "a policy does not fit the schema")
    assert Policies(cedarpy, bundle('@id("p") @max_rows("5") permit (principal, action, resource);')).owed == {
        "p": Demands("p", (("max_rows", (5,)),))
    }


class Engine:
    """Plays cedarpy: policies are as they are told, and so is each answer."""

    def __init__(self, policies: int = 1, *answers: Any, error: BaseException | None = None) -> None:
        self._static = {
            str(each): {"annotations": {"id": f"p{each}"}, "effect": "forbid"} for each in range(policies)
        }  # fmt: skip
        self._answers, self._error = [*answers], error
        self.asked: list[Any] = []
        self.Schema = SimpleNamespace(from_str=lambda text: "schema")
        self.PolicySet = SimpleNamespace(from_json_str=lambda text: json.loads(text)["staticPolicies"])
        self.Entities = SimpleNamespace(from_json_str=self._entities)

    def _entities(self, text: str, schema: str) -> Any:
        if self._error is not None:
            raise self._error
        return json.loads(text)

    def validate_policies(self, text: str, schema: str) -> bool:
        return True

    def policies_to_json_str(self, text: str) -> str:
        return json.dumps({"staticPolicies": self._static if text != WALLS else {}})

    def is_authorized(self, request: Any, policies: Any, entities: Any, *, schema: str) -> Any:
        self.asked.append((request, policies, entities))
        decision, reasons, errors = self._answers.pop(0)
        return SimpleNamespace(
            decision=SimpleNamespace(name=decision), diagnostics=SimpleNamespace(reasons=reasons, errors=errors)
        )


def test_a_bundle_has_at_most_2000_policies_and_a_fault_300_letters() -> None:
    Policies(Engine(2000), bundle(PERMIT))
    assert fault(bundle(PERMIT), Engine(2001)) == "it has more than 2000 policies"
    broken = Engine()

    def refuse(_: str) -> str:
        raise ValueError("x" * 301)

    broken.Schema = SimpleNamespace(from_str=refuse)
    assert fault(bundle(PERMIT), broken) == "x" * 300


UNANSWERED = Said(allowed=False, answered=False, policies=(), errors=True)
CONTEXT = {"now": 1}


def asked(engine: Engine, principal: str = "User", action: str = "write", entities: Sequence[Any] = ()) -> Said:
    made = Policies(engine, bundle(PERMIT))
    return made.ask(uid(principal, "a"), action, DESK, CONTEXT, [*entities])


def test_what_the_engine_says_is_told_as_it_says_it() -> None:
    for told, expected in (
        (("Allow", ["b", "a"], []), answer("a", "b")), (("Deny", [], ["x"]), answer(allowed=False, errors=True)),
        (("NoDecision", [], []), answer(allowed=False, answered=False)),
    ):  # fmt: skip
        assert asked(Engine(1, told)) == expected
    assert answer("p").with_error() == answer("p", errors=True)


def test_what_is_asked_is_the_request_with_its_entities() -> None:
    engine = Engine(1, ("Allow", [], []))
    attrs = {"n": {"__long": "5"}, "t": TENANT, "l": [{"__long": "-7"}, "x"]}
    asked(engine, action="Ns::Sub::write", entities=[{"uid": ALICE, "attrs": attrs, "parents": []}])
    assert engine.asked == [
        (
            {"principal": uid("User", "a"), "action": uid("Ns::Sub::Action", "write"), "resource": DESK,
             "context": '{"now": 1}'},
            {"p0": engine._static["0"]},
            [{"uid": ALICE, "attrs": {"n": 5, "t": TENANT, "l": [-7, "x"]}, "parents": []}],
        )
    ]  # fmt: skip
    engine = Engine(1, ("Allow", [], []))
    asked(engine)
    assert engine.asked[0][0]["action"] == uid("Action", "write")


def test_a_service_is_answered_only_where_the_schema_lets_services_do_this() -> None:
    engine = Engine(1, ("NoDecision", [], []))
    assert asked(engine, "Service") == Said(allowed=False, answered=True, policies=(), errors=False)
    ((probe, policies, entities),) = engine.asked
    assert (policies, entities, probe["action"]) == ({}, [], uid("Action", "write"))
    assert probe["principal"] == uid("Service", "t/p")
    assert asked(Engine(1, ("Deny", [], []), ("Allow", ["p"], [])), "Service") == answer("p")
    assert asked(Engine(1), "Tool") == UNANSWERED
    real = Policies(cedarpy, bundle(PERMIT.replace("(principal,", "(principal is Service,")))
    for action, expected in (("run", ("p",)), ("write", ())):
        job = {"uid": uid("Service", "t/j"), "attrs": {"tenant": TENANT, "active": True}, "parents": []}
        desk = {"uid": DESK, "attrs": {"tenant": TENANT, "writes": True}, "parents": []}
        context = {"client": entity("Client", "app"), "scopes": [], "now": 1}
        said = real.ask(job["uid"], action, DESK, context, [job, desk])
        assert (said.policies, said.allowed, said.answered, said.errors) == (expected, action == "run", True, False)


def test_where_the_engine_cannot_be_asked_it_is_not_answered_and_what_ends_the_program_is_let_through() -> None:
    panic = type("PanicException", (BaseException,), {})
    for error in (ValueError(), TypeError(), panic()):
        assert asked(Engine(error=error)) == UNANSWERED
    for ends in (KeyboardInterrupt(), MemoryError()):
        with pytest.raises(type(ends)):
            asked(Engine(error=ends))
    for value in (
        {"__long": "x"},
        {"__long": 5},
        {"__long": "5", "x": 1},
        {},
        {"__long": "9" * 20},
        {"__entity": 1, "x": 1},
    ):
        assert asked(Engine(), entities=[{"uid": ALICE, "attrs": {"n": value}}]) == UNANSWERED


@pytest.mark.parametrize(
    ("scope", "people", "services"),
    [
        ({"op": "All"}, True, False), ({"op": "is", "entity_type": "Service"}, False, True),
        ({"op": "is", "entity_type": "User"}, True, False), ({"op": "==", "entity": uid("Service", "j")}, False, True),
        ({"op": "==", "entity": ALICE}, True, False), ({"op": "in", "entity": uid("Service", "j")}, True, False),
        ({"op": "=="}, True, False), ({"op": "is", "entity_type": "Service", "in": 1}, False, True),
    ],
)  # fmt: skip
def test_a_permit_speaks_to_people_unless_its_scope_names_services_and_a_forbid_to_all(
    scope: dict[str, Any], people: bool, services: bool
) -> None:
    for effect, expected in (("permit", [people, services]), ("forbid", [True, True])):
        policy = {"effect": effect, "principal": scope}
        assert [ready._speaks_to(policy, each) for each in ("User", "Service")] == expected
