"""What was sent becomes a call only when it fits, and what is bound is the caller's whatever was sent."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.errors import ArgumentsRefused, BoundParameter, ConfigInvalid, DirectoryStale, ScopeMissing
from onbehalf.model import Bound, Json, Person, Tool, ToolCall, ToolRequest, UnixTime, canonical, digest
from onbehalf.validate import route
from validate import policy_house

SCHEMA: dict[str, Json] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "maxLength": 20},
        "count": {"type": "integer"},
        "inner": {"type": "object"},
        "words": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["text"],
    "additionalProperties": False,
}
OWN = Bound(parameter="tenant_id", source="tenant")
SECRET = "hunter2-" + "s" * 3000
OPEN: dict[str, Json] = {"type": "object"}


def called(
    arguments: dict[str, Json], *bound: Bound, schema: dict[str, Json] = SCHEMA, who: Person | None = None,
    tool: Tool | None = None,
) -> ToolCall:  # fmt: skip
    made = replace(tool or policy_house.tool(), bound=bound, schema=schema)
    arrival = route.Arrival(
        id=policy_house.tool_call(policy_house.person(policy_house.DANA)).id, at=policy_house.NOW,
        caller=policy_house.caller(), person=who or policy_house.person(policy_house.DANA),
    )  # fmt: skip
    request = ToolRequest(tool=made.name, arguments=arguments, protocol="2026-07-28", agent="chat/1")
    return route.route(request, tool=made, check=route.prepare(schema), arrival=arrival)


def refused(arguments: dict[str, Json], *bound: Bound, schema: dict[str, Json] = SCHEMA) -> str:
    with pytest.raises(ArgumentsRefused) as caught:
        called(arguments, *bound, schema=schema)
    assert caught.value.code == "arguments_refused"
    assert caught.value.hint
    assert len(caught.value.message) < 1000
    assert caught.value.message.isprintable()
    return caught.value.message


def prepared(schema: dict[str, Json]) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        route.prepare(schema)
    return caught.value.message


# --- the walk ---


def test_a_call_holds_what_was_sent_in_its_one_spelling() -> None:
    sent: dict[str, Json] = {"text": "ü", "count": 1, "inner": {"b": 1.0, "a": [None, True, "€"]}}
    call = called(sent, OWN)
    assert call.arguments == canonical({**sent, "tenant_id": "acme"})
    assert call.digest == digest(call.arguments)
    assert (call.protocol, call.agent) == ("2026-07-28", "chat/1")


def test_scopes_are_asked_first_and_all_are_named() -> None:
    tool = replace(policy_house.tool(), scopes=frozenset({"b.read", "a.read", "reviews.read"}))
    with pytest.raises(ScopeMissing) as caught:
        called({"tenant_id": "x", "wrong": 1}, OWN, tool=tool)
    assert caught.value.scopes == {"a.read", "b.read", "reviews.read"}
    assert "`a.read`, `b.read`" in caught.value.message
    assert caught.value.protocol


def test_routing_leaves_what_was_sent_as_it_was() -> None:
    sent: dict[str, Json] = {"text": "a"}
    called(sent, OWN)
    assert sent == {"text": "a"}


# --- bound parameters ---


@pytest.mark.parametrize("value", ["acme", "globex", None, "", [], {}, 0, False, math.nan, "\ud800"], ids=ascii)
def test_a_bound_parameter_that_is_sent_is_refused_whatever_its_value(value: Json) -> None:
    with pytest.raises(BoundParameter) as caught:
        called({"text": "a", "tenant_id": value}, OWN)
    assert caught.value.code == "bound_parameter"
    assert caught.value.hint
    assert "globex" not in caught.value.message


def test_the_name_of_a_bound_parameter_deeper_down_is_the_tools_own_affair() -> None:
    call = called({"text": "a", "inner": {"tenant_id": "globex"}}, OWN)
    assert orjson.loads(call.arguments) == {"text": "a", "inner": {"tenant_id": "globex"}, "tenant_id": "acme"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["globex", "erin"]),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["tenant_id", "Tenant_id", "tenant_id ", "me", "limit", "text", "a"]) | st.text(max_size=4)


@given(sent=st.dictionaries(NAMES, JSON, max_size=4))
@settings(max_examples=200, deadline=None)
def test_whatever_is_sent_a_bound_parameter_is_the_callers(sent: dict[str, Json]) -> None:
    bound = (OWN, Bound(parameter="me", source="principal", name="id"), Bound(parameter="limit", source="constant"))
    try:
        call = called(sent, *bound, schema=OPEN)  # the schema allows everything: only binding is at work
    except ArgumentsRefused:
        return
    made = orjson.loads(call.arguments)
    assert (made.pop("tenant_id"), made.pop("me"), made.pop("limit")) == ("acme", "dana", None)
    assert {"tenant_id", "me", "limit"}.isdisjoint(sent)
    assert made.keys() == sent.keys()


@pytest.mark.parametrize(
    ("name", "value"),
    [("id", "dana"), ("name", "Dana"), ("position", "lead"), ("subject", "s"), ("level", 0), ("on", False)],
)
def test_a_bound_parameter_is_what_the_directory_says_of_the_caller(name: str, value: Json) -> None:
    who = replace(policy_house.person(policy_house.DANA), name="Dana", attributes={"level": 0, "on": False})
    call = called({"text": "a"}, Bound(parameter="p", source="principal", name=name), who=who)
    assert orjson.loads(call.arguments)["p"] == value


@pytest.mark.parametrize("attributes", [{}, *({"department": value} for value in (None, "", "  ", [], {}))])
def test_what_the_directory_lacks_is_a_refusal_and_never_an_empty_value(attributes: dict[str, Json]) -> None:
    who = replace(policy_house.person(policy_house.DANA), attributes=attributes)
    with pytest.raises(ArgumentsRefused, match="`department`, which the directory does not have") as caught:
        called({"text": "a"}, Bound(parameter="p", source="principal", name="department"), who=who)
    assert caught.value.hint


def test_a_person_without_a_position_cannot_use_a_tool_bound_to_it() -> None:
    with pytest.raises(ArgumentsRefused, match="`position`"):
        called(
            {"text": "a"}, Bound(parameter="p", source="principal", name="position"),
            who=policy_house.person(policy_house.ZOE),
        )  # fmt: skip


def test_a_directory_attribute_cannot_stand_in_for_who_the_person_is() -> None:
    who = replace(policy_house.person(policy_house.DANA), attributes={"id": "erin", "subject": "erin"})
    for name in ("id", "subject"):
        call = called({"text": "a"}, Bound(parameter="p", source="principal", name=name), who=who)
        assert orjson.loads(call.arguments)["p"] != "erin"


# --- what does not fit ---


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ({"text": "a", "other": SECRET}, "`other`"),
        ({"text": 5}, "`text`"),
        ({"text": "a", "words": ["a", {"k": SECRET}]}, "`words/1`"),
        ({"text": SECRET}, "`text`"),
        ({}, "text"),
        ({"count": 5}, "text"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place_and_without_its_value(sent: dict[str, Json], place: str) -> None:
    said = refused(sent)
    assert place in said
    assert "hunter2" not in said


@pytest.mark.parametrize("schema", [SCHEMA, {"type": "object", "additionalProperties": {"type": "string"}}])
@pytest.mark.parametrize("name", ["k" * 5000, "a\nb\x1b[31m", "`; drop"])
def test_names_that_were_sent_are_said_short_and_printable(schema: dict[str, Json], name: str) -> None:
    said = refused({"text": "a", **{f"{name}{number}": number for number in range(1000)}}, schema=schema)
    assert "k" * 100 not in said


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("enum", ["b"]), ("const", "b"), ("pattern", "^x"), ("maxLength", 1), ("anyOf", [{"type": "null"}]),
        ("not", {}), ("oneOf", [{}, {}]), ("type", "array"), ("minLength", 5000),
    ],
)  # fmt: skip
def test_no_keyword_echoes_the_value_that_was_sent(keyword: str, value: Json) -> None:
    said = refused({"a": SECRET}, schema={"type": "object", "properties": {"a": {keyword: value}}})
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, 2**53, -(2**53), 10**30, 10**5000, "\ud800", {"\ud800": 1}, [1, [math.nan]]],
    ids=range(9),
)
def test_what_has_no_one_spelling_is_refused(value: Json) -> None:
    said = refused({"a": value}, schema=OPEN)
    assert "00000000" not in said


def test_a_lone_surrogate_as_a_name_is_refused() -> None:
    refused({"\ud800": 1}, schema=OPEN)
    refused({"text": "a", "\ud800": 1})


def test_depth_and_size_are_bounded() -> None:
    nested: Json = 1
    for _ in range(100_000):
        nested = [nested]
    assert "deeper than 32" in refused({"a": nested}, schema=OPEN)
    assert "larger than 1048576 bytes" in refused({"a": "x" * 2**20}, schema=OPEN)
    assert "larger than 1048576 bytes" in refused({"a": [0] * 2**20}, schema=OPEN)
    called({"a": "x" * (2**20 - 100)}, schema=OPEN)


def test_half_a_million_wrong_values_are_refused_without_a_message_for_each() -> None:
    started = time.process_time()
    refused({"text": "a", "words": [1] * 500_000})
    assert time.process_time() - started < 5


# --- what is known of the caller is too old ---


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize(("until", "late"), [(None, False), (0, False), (-1, True), (-(10**9), True), (1, False)])
def test_only_a_tool_that_writes_is_refused_to_somebody_of_whom_too_little_is_known(
    writes: bool, until: int | None, late: bool
) -> None:
    fresh = None if until is None else UnixTime(policy_house.NOW + until)
    who = replace(policy_house.person(policy_house.DANA), fresh_until=fresh)
    tool = replace(policy_house.tool(), writes=writes)
    if writes and late:
        with pytest.raises(DirectoryStale) as caught:
            called({"text": "x"}, who=who, tool=tool)
        assert (caught.value.code, bool(caught.value.hint)) == ("directory_stale", True)
    else:
        assert called({"text": "x"}, who=who, tool=tool).tool.writes is writes
