"""What many calls have in common is spelled once for the record, and anew for whatever is not the same."""

from __future__ import annotations

import pytest

from onbehalf.explain import entries
from onbehalf.explain.leaf import spell
from onbehalf.model import Allow, AuditEntry, Canonical, DryRun, Ref, ToolCall, canonical, digest
from onbehalf.model_json import plain
from replacing import replace
from validate.policy_house import DANA, person, tool_call


def intent(call: ToolCall) -> AuditEntry:
    resource = Ref(type="Tool", id="t")
    return entries.intent(
        Allow(call=call, resource=resource, policies=("p",), policy=digest(b""), revision=call.person.revision)
    )


def test_who_calls_through_what_and_which_tool_are_spelled_once() -> None:
    call = tool_call(person(DANA))
    first, again = intent(call), intent(replace(call, agent="another"))
    for name in ("caller", "person", "tool"):
        one, other = first.facts[name], again.facts[name]
        assert isinstance(one, Canonical)
        assert isinstance(other, Canonical)
        assert one.spelled is other.spelled
    assert plain(again.facts)["via"] != plain(first.facts)["via"]


def test_what_is_changed_is_spelled_anew() -> None:
    call = tool_call(person(DANA))
    before = plain(intent(call).facts)
    changed = replace(
        call,
        caller=replace(call.caller, client="another"),
        person=replace(call.person, revision=99),
        tool=replace(call.tool, dry_run=DryRun(parameter="dry", value=True, off=(False,)), durability="witnessed"),
    )
    after = plain(intent(changed).facts)
    assert after["caller"] == {**before["caller"], "client": "another"}  # type: ignore[dict-item]  # JSON
    assert after["person"] == {**before["person"], "revision": 99}  # type: ignore[dict-item]  # JSON
    told = {"dry_run": "dry", "durability": "witnessed", "bound": [*before["tool"]["bound"], "dry"]}  # type: ignore[index,call-overload,misc]  # JSON
    assert after["tool"] == {**before["tool"], **told}  # type: ignore[dict-item]  # JSON


def test_it_is_spelled_as_any_fact_is() -> None:
    facts = intent(tool_call(person(DANA))).facts
    spelled = dict(spell(AuditEntry(kind="intent", call="c", at=intent(tool_call(person(DANA))).at, facts=facts)).facts)
    assert {name: canonical(value) for name, value in plain(facts).items()} == spelled


def test_what_has_no_spelling_is_refused_where_it_is_recorded() -> None:
    call = tool_call(person(DANA))
    broken = replace(call, caller=replace(call.caller, client="\ud800"))
    with pytest.raises(ValueError, match="no canonical form"):
        spell(intent(broken))
    assert "fact" not in broken.caller.spellings
