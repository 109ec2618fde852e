"""Schemas of upstreams: none is fetched for, none hangs, and none lets a bound parameter back in."""

from __future__ import annotations

import time

import orjson
import pytest

from onbehalf.errors import ArgumentsRefused, ConfigInvalid
from onbehalf.model import Bound, Json, Lookup, Ref, Rows, ToolCall
from onbehalf.validate import route, rows
from replacing import replace
from validate import policy_house

BOUND = (Bound(parameter="tenant_id", source="tenant"),)
PLAIN: dict[str, Json] = {
    "type": "object",
    "properties": {"tenant_id": {"type": "string"}, "text": {"type": "string"}},
    "required": ["tenant_id", "text"],
}


def ref(target: str, **defs: Json) -> dict[str, Json]:
    return {"type": "object", "properties": {"a": {"$ref": target}}, "$defs": defs}


def nested(levels: int) -> dict[str, Json]:
    schema: dict[str, Json] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        ref("https://elsewhere.test/x.json"), ref("http://127.0.0.1:9/x"), ref("file:///etc/passwd"), ref("other.json"),
        ref("#/$defs/absent"), {"$schema": "https://elsewhere.test/meta", "type": "object"},
        {"type": "object", "description": "x" * 65536}, nested(30), {}, {"type": "array"}, {"type": ["object", "null"]},
        {"type": "object", "properties": {"a": {"type": "strnig"}}}, {"type": "object", "properties": []},
        {"type": "object", "properties": {"a": {"pattern": "("}}}, {"type": "object", "properties": {"a": object()}},
        {"type": "object", "properties": {"a": {"pattern": "((a{1,999}){1,999}){1,999}"}}},
        {"type": "object", "title": "\ud800"},
    ],
    ids=range(17),
)  # fmt: skip
def test_a_schema_that_cannot_be_used_alone_is_refused(schema: dict[str, Json]) -> None:
    with pytest.raises(ConfigInvalid, match="a tool's schema") as caught:
        route.prepare(schema)
    assert len(caught.value.message) < 400
    assert caught.value.message.isprintable()


def test_a_schema_of_endless_depth_is_refused_without_recursion() -> None:
    endless: dict[str, Json] = {"type": "object"}
    for _ in range(200_000):
        endless = {"not": endless}
    with pytest.raises(ConfigInvalid):
        route.prepare({"type": "object", "properties": {"a": endless}})


def test_a_schema_may_refer_to_itself() -> None:
    check = route.prepare(ref("#/$defs/n", n={"type": "object", "properties": {"next": {"$ref": "#/$defs/n"}}}))
    assert check.refusals({"a": {"next": {"next": {}}}}) == ()
    assert "a/next/next" in check.refusals({"a": {"next": {"next": 5}}})[0]


@pytest.mark.parametrize(
    "schema",
    [
        ref("#/$defs/n", n={"$ref": "#/$defs/n"}),
        ref("#/$defs/n", n={"anyOf": [{"$ref": "#/$defs/m"}]}, m={"not": {"$ref": "#/$defs/n"}}),
        {"type": "object", "allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        ref("#n", n={"$anchor": "n"}),
        ref("#/$defs/n", n={"$id": "https://x.test/n", "properties": {"b": {"$ref": "#/$defs/m"}}, "$defs": {"m": {}}}),
    ],
    ids=["itself", "in a circle", "the whole", "by an anchor", "within another id"],
)
def test_a_reference_that_cannot_be_followed_here_is_refused(schema: dict[str, Json]) -> None:
    with pytest.raises(ConfigInvalid, match="a tool's schema cannot be used") as caught:
        route.prepare(schema)
    assert caught.value.hint


def test_a_schema_may_refer_to_the_whole_of_itself() -> None:
    check = route.prepare(ref("#"))
    assert check.refusals({"a": {"a": {}}}) == ()
    assert check.refusals({"a": {"a": 1}})


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("^(a+)+$", "a" * 200_000 + "!"), ("^(?=(a+)+b)", "a" * 200_000 + "!"), (r"^(a*)*\1$", "a" * 100_000 + "!"),
        (r"(a*)*(b*)*\1\2c$", "ab" * 100_000), (r"^(?!(a|aa)+$)", "a" * 5000),
    ],
    ids=range(5),
)  # fmt: skip
def test_a_pattern_of_an_upstream_does_not_hang(pattern: str, value: str) -> None:
    started = time.process_time()
    check = route.prepare({"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}})
    assert check.refusals({"a": value})
    assert time.process_time() - started < 5


def doubling(keyword: str, levels: int) -> dict[str, Json]:
    """Each definition refers to the next one twice."""
    twice = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return ref("#/$defs/d0", **twice, **{f"d{levels}": {"type": "integer"}})


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
@pytest.mark.parametrize("value", [1, "x"])
@pytest.mark.parametrize("levels", [16, 60, 800])
def test_a_schema_that_doubles_at_each_step_does_not_hang(keyword: str, value: Json, levels: int) -> None:
    started = time.process_time()
    try:
        check = route.prepare(doubling(keyword, levels))
    except ConfigInvalid:
        assert levels == 800
    else:
        check.refusals({"a": value})
    assert time.process_time() - started < 5


def test_a_schema_for_names_that_doubles_at_each_step_does_not_hang() -> None:
    schema = doubling("allOf", 60)
    schema["properties"] = {"a": {"propertyNames": {"$ref": "#/$defs/d0"}}}
    schema["$defs"]["d60"] = {"minLength": 1}  # type: ignore[index, call-overload]  # made above
    started = time.process_time()
    assert "too large or too deep" in route.prepare(schema).refusals({"a": {"n": 1}})[0]
    assert time.process_time() - started < 5


WIDE: dict[str, tuple[dict[str, Json], Json]] = {
    "a choice of objects": ({"enum": [{"a": n} for n in range(4000)]}, {"a": 3999}),
    "names that need others": ({"dependentRequired": {f"p{n}": ["x"] for n in range(3000)}}, {}),
    "a pattern that goes back": ({"pattern": r"^(?!(a|aa)+\1c)"}, "a" * 16),
    "a pattern for names that goes back": ({"patternProperties": {r"^(?!(a|aa)+\1c)": {}}}, {"a" * 16: 1}),
}


@pytest.mark.parametrize("case", WIDE)
def test_many_values_that_each_take_long_are_refused_unchecked_and_one_is_checked(case: str) -> None:
    items, value = WIDE[case]
    check = route.prepare({"type": "object", "properties": {"a": {"type": "array", "items": items}}})
    assert check.refusals({"a": [value]}) == ()
    started = time.process_time()
    assert "too large or too deep" in check.refusals({"a": [value] * 20_000})[0]
    assert time.process_time() - started < 5


def test_many_values_that_take_no_time_are_checked() -> None:
    for items in ({"enum": [f"v{n}" for n in range(4000)]}, {"pattern": "^[a-z]{1,9}[0-9]*$"}):
        check = route.prepare({"type": "object", "properties": {"a": {"type": "array", "items": items}}})
        assert check.refusals({"a": ["v3999"] * 20_000}) == ()


def test_a_schema_that_doubles_with_each_level_of_the_value_does_not_hang() -> None:
    down: Json = {"type": "object", "properties": {"k": {"$ref": "#/$defs/x"}}}
    check = route.prepare(ref("#/$defs/x", x={"anyOf": [down, down, {"const": 5}]}))
    value: Json = 6
    answers = []
    for _ in range(30):
        started = time.process_time()
        answers.append(check.refusals({"a": value}))
        assert time.process_time() - started < 5
        value = {"k": value}
    assert all(answers)
    assert "too deep" in answers[-1][0]
    assert check.refusals({"a": {"k": {"k": {"k": 5}}}}) == ()


def test_a_common_recursive_schema_is_still_of_use() -> None:
    any_json: Json = {
        "anyOf": [
            {"type": ["string", "number", "null"]},
            {"type": "array", "items": {"$ref": "#/$defs/any"}},
            {"type": "object", "additionalProperties": {"$ref": "#/$defs/any"}},
        ]
    }
    check = route.prepare(ref("#/$defs/any", any=any_json))
    assert check.refusals({"a": {"b": [{"c": [1, "x", None, {"d": [[]]}]}] * 50}}) == ()


# --- what the model is shown ---


def test_what_is_bound_is_neither_shown_nor_required_and_the_schema_is_closed() -> None:
    shown = route.shown_schema({**PLAIN, "additionalProperties": True, "description": "d"}, BOUND)
    assert shown == {
        "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"],
        "additionalProperties": False, "description": "d",
    }  # fmt: skip
    assert "tenant_id" in PLAIN["properties"]  # type: ignore[operator]  # it is a mapping, and unchanged


def test_examples_of_whole_calls_are_not_shown_where_something_is_bound() -> None:
    shown = route.shown_schema(
        {**PLAIN, "examples": [{"tenant_id": "globex"}], "default": {"tenant_id": "globex"}}, BOUND
    )
    assert b"tenant_id" not in orjson.dumps(shown)


SUBSCHEMA: dict[str, Json] = {"required": ["tenant_id"], "properties": {"tenant_id": {"type": "string"}}}


@pytest.mark.parametrize(
    "more",
    [
        {"anyOf": [SUBSCHEMA]}, {"allOf": [SUBSCHEMA]}, {"oneOf": [SUBSCHEMA]}, {"not": SUBSCHEMA}, {"if": SUBSCHEMA},
        {"then": SUBSCHEMA}, {"else": SUBSCHEMA}, {"$ref": "#/$defs/x", "$defs": {"x": SUBSCHEMA}},
        {"$dynamicRef": "#x", "$defs": {"x": {"$dynamicAnchor": "x", **SUBSCHEMA}}}, {"minProperties": 2},
        {"patternProperties": {"tenant.*": {}}}, {"propertyNames": {"minLength": 1}}, {"unevaluatedProperties": True},
        {"dependentRequired": {"text": ["tenant_id"]}}, {"dependentSchemas": {"text": SUBSCHEMA}},
        {"dependencies": {"text": ["tenant_id"]}}, {"enum": [{"tenant_id": "globex"}]}, {"const": {}}, {"unheard": 1},
    ],
    ids=lambda more: next(iter(more)),
)  # fmt: skip
def test_nothing_is_bound_where_a_schema_says_more_than_properties(more: dict[str, Json]) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        route.shown_schema({**PLAIN, **more}, BOUND)
    assert caught.value.hint


def test_a_parameter_that_refers_to_a_bound_one_cannot_be_used() -> None:
    schema: dict[str, Json] = {
        "type": "object",
        "properties": {"a": {"$ref": "#/properties/tenant_id"}, "tenant_id": {}},
    }
    with pytest.raises(ConfigInvalid):
        route.prepare(route.shown_schema(schema, BOUND))


@pytest.mark.parametrize("keyword", ["$ref", "$recursiveRef", "$dynamicRef"])
def test_a_schema_whose_parameters_are_elsewhere_is_refused_for_older_drafts_would_not_see_it_closed(
    keyword: str,
) -> None:
    schema: dict[str, Json] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **PLAIN,
        keyword: "#/definitions/x",
    }
    with pytest.raises(ConfigInvalid, match="elsewhere"):
        route.shown_schema(schema, ())


def test_alternatives_are_kept_where_nothing_is_bound() -> None:
    schema: dict[str, Json] = {**PLAIN, "required": [], "anyOf": [{"required": ["text"]}, {"required": ["tenant_id"]}]}
    check = route.prepare(route.shown_schema(schema, ()))
    assert check.refusals({"text": "a"}) == ()
    assert check.refusals({})
    assert check.refusals({"text": "a", "other": 1})


@pytest.mark.parametrize(
    "schema", [{}, {"type": "array"}, {"type": "object", "properties": []}, {"type": "object", "required": "text"}]
)
def test_a_schema_without_named_parameters_cannot_be_shown(schema: dict[str, Json]) -> None:
    with pytest.raises(ConfigInvalid):
        route.shown_schema(schema, ())


def test_a_tool_without_parameters_takes_none() -> None:
    check = route.prepare(route.shown_schema({"type": "object"}, ()))
    assert check.refusals({}) == ()
    assert "there is no parameter `a`" in check.refusals({"a": 1})[0]


def test_parameters_that_seem_to_choose_a_person_are_named() -> None:
    names = (
        "userId",
        "user_id",
        "tenant-id",
        "on_behalf_of",
        "text",
        "reporter",
        "subject",
        "SUB",
        "usage",
        "emails",
        "tenantId",
        "filter.user id",
        "personal",
        "person_id",
    )
    schema: dict[str, Json] = {"type": "object", "properties": {name: {} for name in names}}
    assert route.identity_like(schema) == (
        "userId",
        "user_id",
        "tenant-id",
        "on_behalf_of",
        "subject",
        "SUB",
        "tenantId",
        "filter.user id",
        "person_id",
    )
    assert route.identity_like({}) == route.identity_like({"properties": []}) == ()


# --- the one resource a call is about ---

SHAPE = Rows(type="Ticket", at=("rows",), id="id", tenant="tenant", attributes={})
GET = replace(policy_house.tool("tickets_get", shape=SHAPE), bound=BOUND)
ID_SCHEMA: dict[str, Json] = {"type": "object", "properties": {"id": {"type": ["string", "integer"]}}}


def about(value: Json) -> ToolCall:
    made = policy_house.tool_call(policy_house.person(policy_house.DANA))
    tool = replace(made.tool, lookup=Lookup(tool="tickets_get", parameter="id", argument="ticket"))
    return replace(made, tool=tool, arguments=orjson.dumps({"ticket": value, "tenant_id": "globex"}))


@pytest.mark.parametrize(("value", "id_"), [("T-1", "T-1"), (7, "7"), ("globex/T-1", "globex/T-1"), (" ", " ")])
def test_a_lookup_asks_for_the_one_resource_in_the_callers_name(value: Json, id_: str) -> None:
    call = about(value)
    found = route.route_lookup(call, tool=GET, check=route.prepare(ID_SCHEMA))
    assert orjson.loads(found.arguments) == {"id": value, "tenant_id": "acme"}
    assert (found.id, found.at, found.caller, found.person) == (call.id, call.at, call.caller, call.person)
    assert route.lookup_value(call) == id_


@pytest.mark.parametrize("value", ["", None, True, False, 1.5, [], ["T-1"], {"id": "T-1"}, "x" * 300, 10**300])
def test_what_names_no_one_resource_is_refused(value: Json) -> None:
    call = replace(about(""), arguments=orjson.dumps({"ticket": value if value != 10**300 else 1e300}))
    for refuse in (route.lookup_value, lambda each: route.route_lookup(each, tool=GET, check=route.prepare(ID_SCHEMA))):
        with pytest.raises(ArgumentsRefused, match="`ticket` names no resource") as caught:
            refuse(call)
        assert caught.value.hint


def test_a_call_without_the_argument_or_about_nothing_is_refused() -> None:
    with pytest.raises(ArgumentsRefused):
        route.lookup_value(replace(about("a"), arguments=b"{}"))
    with pytest.raises(ArgumentsRefused):
        route.lookup_value(replace(about("a"), tool=policy_house.tool()))


def test_an_id_that_does_not_fit_the_lookups_schema_is_refused() -> None:
    schema: dict[str, Json] = {"type": "object", "properties": {"id": {"type": "string", "pattern": "^T-[0-9]+$"}}}
    with pytest.raises(ArgumentsRefused, match="`ticket`: `id`") as caught:
        route.route_lookup(about("../globex"), tool=GET, check=route.prepare(schema))
    assert "globex" not in caught.value.message


@pytest.mark.parametrize("row", [{"tenant": "globex", "id": "T-1"}, {"tenant": "acme/globex", "id": "T-1"}])
def test_an_id_with_a_slash_never_names_a_row_of_another_tenant(row: dict[str, Json]) -> None:
    wanted = Ref(type="Ticket", id=f"acme/{route.lookup_value(about('globex/T-1'))}")
    found = rows.extract(SHAPE, {"structuredContent": {"rows": [row]}}, limit=2).rows
    assert wanted not in [each.ref for each in found]
    [own] = rows.extract(SHAPE, {"structuredContent": {"rows": [{"tenant": "acme", "id": "globex/T-1"}]}}, limit=2).rows
    assert own.ref == wanted
    assert own.entity.attributes["tenant"] == Ref(type="Tenant", id="acme")
