"""What is made on each call: as frozen, as comparable and as silent as a dataclass, whatever it is built on."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

import onbehalf
from onbehalf.model import (
    Allow,
    Ask,
    AuditEntry,
    Canonical,
    Deny,
    Digest,
    Done,
    Entity,
    Presented,
    Reason,
    Ref,
    Shown,
    ToolRequest,
    UnixTime,
)
from onbehalf.model_value import Value
from validate.policy_house import BOB, person, tool_call

SOURCE = Path(onbehalf.__file__).parent
HIDDEN = {
    "onbehalf.doors.upstream_mcp_wire.Answer": {"result"},
    "onbehalf.explain.leaf.Made": {"payload"},
    "onbehalf.explain.leaf.Spelled": {"facts", "about"},
    "onbehalf.model.Allow": {"asked"},
    "onbehalf.model.Ask": {"asked"},
    "onbehalf.model.AuditEntry": {"facts", "about"},
    "onbehalf.model.CallToken": {"compact"},
    "onbehalf.model.Deny": {"asked"},
    "onbehalf.model.Done": {"content"},
    "onbehalf.model.Page": {"cursor"},
    "onbehalf.model.Predicate": {"parameters"},
    "onbehalf.model.Reply": {"content"},
    "onbehalf.model.ToolCall": {"arguments"},
    "onbehalf.model.ToolRequest": {"arguments", "seen"},
    "onbehalf.model_callers.Presented": {"token"},
    "onbehalf.model_callers.Shown": {"proof", "certificate"},
    "onbehalf.model_json.Canonical": {"spelled"},
    "onbehalf.validate.rows.Row": {"raw"},
}
"""What none of them shows; whoever adds a secret to one adds it here."""
ENTRY = AuditEntry(
    kind="intent", call="call_1", at=UnixTime(1), facts={"word": "secret-fact"}, about="acme/secret-name"
)


def kinds(of: type[Value] = Value) -> list[type[Value]]:
    return [each for found in of.__subclasses__() for each in (*kinds(found), found)]


@pytest.fixture(scope="module", autouse=True)
def _all_of_the_house_that_has_some_is_loaded() -> None:
    for file in sorted(SOURCE.rglob("*.py")):
        if "model_value" in file.read_text(encoding="utf-8"):
            importlib.import_module(".".join(file.relative_to(SOURCE.parent).with_suffix("").parts))


def decided(kind: type[Any], asked: object) -> Any:
    """A decision of this kind on one call, that came of this being `asked`."""
    own: dict[type[Any], dict[str, Any]] = {
        Allow: {"policies": ("p",), "owed": ()},
        Ask: {"policies": ("p",), "owed": (), "approvers": frozenset({"self"})},
        Deny: {"reason": Reason(code="c", text="t"), "remedy": "r", "candidates": ()},
    }
    call = msgspec.structs.replace(tool_call(person(BOB)), person=None, caller=None, tool=None)
    common = {"call": call, "resource": Ref(type="Tool", id="t"), "policy": Digest("d"), "revision": 1}
    return kind(**common, **own[kind], asked=asked)


def test_every_kind_hides_what_it_must_and_all_that_it_hides_are_fields_of_it() -> None:
    found = {f"{each.__module__}.{each.__qualname__}": each for each in kinds() if each.__struct_fields__}
    assert {name: set(each.hidden) for name, each in found.items() if each.hidden} == HIDDEN
    assert [name for name, each in found.items() if not each.hidden <= set(each.__struct_fields__)] == []


def test_every_kind_is_frozen_and_compared_by_its_fields_but_for_what_a_request_showed() -> None:
    assert [each.__name__ for each in kinds() if not each.__struct_config__.frozen] == []
    assert [each.__name__ for each in kinds() if not each.__struct_config__.eq] == ["Shown"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Ref(type="User", id="acme/bob"), "Ref(type='User', id='acme/bob')"),
        (Presented(token="secret"), "Presented(shown=None)"),
        (Shown(dpop=True, method="POST", proof="secret"), "Shown(dpop=True, method='POST')"),
        (Canonical(b"secret"), "Canonical()"),
        (Done(content={"a": "secret"}), "Done(digest='', receipt='', answer='')"),
        (ENTRY, "AuditEntry(kind='intent', call='call_1', at=1, audience='')"),
    ],
)
def test_what_is_hidden_is_not_shown_to_anybody(value: Value, shown: str) -> None:
    assert repr(value) == str(value) == f"{value}" == shown
    assert "secret" not in repr([value]) + repr(value.__rich_repr__())


def test_nothing_of_one_can_be_changed_and_nothing_can_be_added() -> None:
    ref: Any = Ref(type="User", id="acme/bob")
    for name in ("id", "other"):
        with pytest.raises(AttributeError):
            setattr(ref, name, "acme/dana")
        with pytest.raises(AttributeError):
            delattr(ref, name)
    assert ref == Ref(type="User", id="acme/bob")


def test_its_fields_are_given_by_name_and_no_others() -> None:
    kind: Any = Ref
    for given, named in (((), {"type": "User"}), (("User", "acme/bob"), {}), ((), {"type": "a", "id": "b", "c": "d"})):
        with pytest.raises(TypeError):
            kind(*given, **named)


def test_equal_ones_are_one_key_and_another_kind_with_the_same_fields_is_another() -> None:
    ref = Ref(type="User", id="acme/bob")
    assert {ref: 1}[Ref(type="User", id="acme/bob")] == 1
    assert ref != Ref(type="User", id="acme/dana")
    assert Canonical(b"a") != Digest("a")
    assert ref != ("User", "acme/bob")


def test_one_that_holds_what_cannot_be_hashed_is_not_hashed_either() -> None:
    for value in (ENTRY, Done(content={}), Entity(ref=Ref(type="a", id="b"), attributes={}, parents=())):
        with pytest.raises(TypeError, match="unhashable"):
            hash(value)


def test_what_two_requests_showed_is_never_the_same() -> None:
    one, other = Shown(dpop=True, method="POST"), Shown(dpop=True, method="POST")
    assert one != other
    assert len({one, other}) == 2


@pytest.mark.parametrize("kind", [Allow, Ask, Deny])
def test_a_decision_is_compared_without_what_was_asked_and_does_not_show_it(kind: type[Any]) -> None:
    one, other = decided(kind, asked={"unhashable": "secret"}), decided(kind, asked=None)
    assert one == other
    assert hash(one) == hash(other)
    assert one != msgspec.structs.replace(other, revision=2)
    assert "secret" not in repr(one)
    assert kind.__struct_fields__[-1] == "asked"


def test_decisions_of_two_kinds_are_never_the_same() -> None:
    assert len({decided(kind, asked=None) for kind in (Allow, Ask, Deny)}) == 3
    assert decided(Allow, asked=None) != decided(Deny, asked=None)


def test_a_default_is_of_one_value_alone() -> None:
    request = ToolRequest(tool="t", arguments={}, protocol="p", agent="a")
    assert (request.once, request.seen) == ("", "")
    assert msgspec.structs.replace(request, once="k").once == "k"
    assert request.once == ""
