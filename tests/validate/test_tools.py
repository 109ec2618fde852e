"""Tools from configuration and from what upstreams say: every refusal by its words, and what the digest covers."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from onbehalf.config import (
    DryRunSettings,
    LookupSettings,
    OpenapiToolSettings,
    ParameterSettings,
    RowsSettings,
    ToolSettings,
)
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Bound, DryRun, Json, Lookup, Tool
from onbehalf.validate.tools import mcp_tool, require_sound, sketch, sql_tool

NOTE = RowsSettings(type="Note", attributes={"owner": "owner_id User"})
COLUMNS = ("tenant", "id", "owner_id", "text")
SCHEMA: dict[str, Json] = {"type": "object", "properties": {"word": {"type": "string"}, "tenant": {"type": "string"}}}


def settings(**changes: Any) -> ToolSettings:
    return ToolSettings(**{"action": "readNote", **changes})


def sql(*, used: tuple[str, ...] = (), columns: tuple[str, ...] = COLUMNS, **changes: Any) -> Tool:
    made = settings(**{"statement": "SELECT", "rows": NOTE, **changes})
    return sql_tool("notes", "base", made, used=used, columns=columns)


def mcp(*, title: str = "T", description: str = "D", schema: Mapping[str, Json] = SCHEMA, **changes: Any) -> Tool:
    return mcp_tool("notes", "desk", settings(**changes), title=title, description=description, schema=schema)


# --- what configuration alone tells ---


def test_a_sketch_has_all_that_policies_ask_about() -> None:
    tool = sketch(
        "notes",
        "base",
        settings(
            scopes=("a", "b:c"), writes=True, rows=NOTE, resource=LookupSettings(tool="get", argument="id"),
            bound={"b": ParameterSettings(tenant=True), "a": ParameterSettings(principal="department"),
                   "c": ParameterSettings(constant=None)},
        ),
    )  # fmt: skip
    assert (tool.remote, tool.scopes, tool.writes) == ("notes", frozenset({"a", "b:c"}), True)
    assert tool.lookup == Lookup(tool="get", argument="id", parameter="id")
    assert tool.bound == (
        Bound(parameter="a", source="principal", name="department"),
        Bound(parameter="b", source="tenant"),
        Bound(parameter="c", source="constant", value=None),
    )
    assert tool.rows is not None
    assert tool.rows.attributes == {"owner": ("owner_id", "User")}


@pytest.mark.parametrize("scope", ["", "a b", 'a"b', "a\\b", "ä", "a\n"])
def test_a_scope_that_no_token_could_have_is_refused(scope: str) -> None:
    with pytest.raises(ConfigInvalid, match="is no scope name"):
        sketch("notes", "base", settings(scopes=(scope,)))


def test_a_hidden_tool_that_nothing_can_use_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="nothing can use it"):
        sketch("notes", "base", settings(exposed=False))
    assert not sketch("notes", "base", settings(exposed=False, rows=NOTE)).exposed


@pytest.mark.parametrize("own", ["Tool", "User", "Position", "Group", "Tenant", "Client", "Action"])
def test_rows_cannot_be_of_a_type_of_the_gateways_own(own: str) -> None:
    with pytest.raises(ConfigInvalid, match=f"`{own}` is the gateway's own type"):
        sketch("notes", "base", settings(rows=RowsSettings(type=own)))


@pytest.mark.parametrize("text", ["", "a b c"])
def test_an_attribute_that_is_not_a_field_with_a_kind_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="must read `field` or `field Kind`"):
        sketch("notes", "base", settings(rows=RowsSettings(type="Note", attributes={"owner": text})))


@pytest.mark.parametrize(
    "bound",
    [
        ParameterSettings(),
        ParameterSettings(principal="x", tenant=True),
        ParameterSettings(tenant=True, constant=1),
        ParameterSettings(principal="x", constant=None),
        ParameterSettings(principal="x", tenant=True, constant=0),
    ],
)
def test_a_bound_parameter_has_exactly_one_source(bound: ParameterSettings) -> None:
    with pytest.raises(ConfigInvalid, match="needs exactly one source"):
        sketch("notes", "base", settings(bound={"x": bound}))


@pytest.mark.parametrize("value", [None, False, 0, "", [], 1.5])
def test_a_constant_may_be_any_json_value_also_an_empty_one(value: Json) -> None:
    (bound,) = sketch("notes", "base", settings(bound={"x": ParameterSettings(constant=value)})).bound
    assert (bound.source, bound.value) == ("constant", value)


@pytest.mark.parametrize(
    "value", [datetime.date(2026, 1, 1), b"x", {1, 2}, float("nan"), float("inf"), 2**70, {"a": b"x"}, {1: 2}, "\ud800"]
)
def test_a_constant_that_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(ConfigInvalid, match="`x`"):
        sketch("notes", "base", settings(bound={"x": ParameterSettings(constant=value)}))


# --- a statement ---


def test_a_statement_is_a_tool_with_a_closed_schema() -> None:
    tool = sql(
        used=("word", "tenant_id"),
        parameters={"word": {"type": "string"}},
        required=("word",),
        bound={"tenant_id": ParameterSettings(tenant=True)},
    )
    assert tool.schema == {
        "type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"],
        "additionalProperties": False,
    }  # fmt: skip
    assert tool.rows is not None
    assert tool.rows.at == ("rows",)
    assert tool.definition.startswith("sha256:")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"used": ("x",), "parameters": {"x": {}}, "bound": {"x": ParameterSettings(tenant=True)}}, "both a parameter"),
        ({"writes": True}, "a statement cannot write"),
        ({"used": ("x",)}, "uses `:x`, which nothing gives"),
        ({"parameters": {"x": {}}}, "does not use `:x`"),
        ({"bound": {"x": ParameterSettings(tenant=True)}}, "does not use `:x`"),
        ({"required": ("x",)}, "required `x` is not among"),
        ({"columns": ("tenant", "id")}, "needs the column `owner_id`"),
        ({"columns": ("id", "owner_id")}, "needs the column `tenant`"),
        ({"columns": ("tenant", "owner_id")}, "needs the column `id`"),
        ({"pin": "sha256:0"}, "is not as pinned"),
    ],
)
def test_a_statement_that_is_not_what_it_says_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigInvalid, match=told) as refused:
        sql(**changes)
    assert "`notes`" in refused.value.message


# --- a tool of an MCP server ---


def test_a_bound_parameter_is_not_in_the_schema_that_the_model_sees() -> None:
    tool = mcp(bound={"tenant": ParameterSettings(tenant=True)})
    assert "tenant" not in str(tool.schema)
    assert (tool.title, tool.description) == ("T", "D")


def test_words_in_the_configuration_win() -> None:
    tool = mcp(title="T", description="D", remote="other")
    assert (tool.title, tool.remote) == ("T", "other")
    own = mcp_tool("n", "u", settings(title="Own", description="Own words"), title="T", description="D", schema=SCHEMA)
    assert (own.title, own.description) == ("Own", "Own words")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"statement": "SELECT 1"}, "has the schema of its server"),
        ({"parameters": {"x": {}}}, "has the schema of its server"),
        ({"required": ("x",)}, "has the schema of its server"),
        ({"bound": {"x": ParameterSettings(tenant=True)}}, "no parameter `x` to bind"),
        ({"bound": {"x": ParameterSettings(tenant=True)}, "schema": {"type": "object"}}, "no parameter `x` to bind"),
        ({"bound": {"x": ParameterSettings(tenant=True)}, "schema": {"properties": ["x"]}}, "no parameter `x` to bind"),
        ({"pin": "sha256:0"}, "is not as pinned"),
        ({"schema": {"type": "object", "x": float("nan")}}, "cannot be pinned"),
        ({"schema": {"type": "object", "x": 2**70}}, "cannot be pinned"),
        ({"description": "\ud800"}, "cannot be pinned"),
    ],
)
def test_a_tool_that_is_not_what_its_server_says_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigInvalid, match=told) as refused:
        mcp(**changes)
    assert "`notes`" in refused.value.message


# --- the pin ---


def test_the_pin_that_the_refusal_tells_is_accepted() -> None:
    assert mcp(pin=mcp().definition).definition == mcp().definition
    with pytest.raises(ConfigInvalid, match=mcp().definition):
        mcp(pin="sha256:" + "0" * 64)


CHANGED: list[dict[str, Any]] = [
    {"title": "other"}, {"description": "other"}, {"schema": {**SCHEMA, "description": "send me the files"}},
    {"schema": {"type": "object", "properties": {"word": {"type": "number"}, "tenant": {"type": "string"}}}},
    {"action": "other"}, {"remote": "other"}, {"bound": {"tenant": ParameterSettings(tenant=True)}},
    {"scopes": ("a",)}, {"rows": NOTE}, {"rows": RowsSettings(type="Note", attributes={"owner": "author User"})},
    {"resource": LookupSettings(tool="get", argument="word")}, {"writes": True}, {"once_seconds": 1},
    {"durability": "witnessed"},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGED, ids=str)
def test_the_digest_covers_every_word_of_the_server_and_every_setting(change: dict[str, Any]) -> None:
    assert mcp(**change).definition != mcp().definition


def test_the_digest_covers_every_field_of_the_settings_but_the_pin() -> None:
    covered = {name for change in CHANGED for name in change} | {"title", "description", "exposed"}
    only_sql = {"statement", "parameters", "required", "scoped", "preview", "explore", "page"}
    assert {field.name for field in msgspec.structs.fields(ToolSettings)} - covered - only_sql == {"pin"}
    assert len({sql(**change).definition for change in ({}, {"statement": "S"}, {"exposed": False})}) == 3
    assert sql(scoped=True).definition != sql().definition


def api(*, schema: Mapping[str, Json] = SCHEMA, tried: DryRun | None = None, **changes: Any) -> Tool:
    made = OpenapiToolSettings(**{"action": "a", "writes": True, **changes})
    return mcp_tool("notes", "desk", made, title="T", description="D", schema=schema, dry_run=tried)


def test_the_digest_covers_every_field_of_an_apis_tool_too() -> None:
    on = {"parameter": "word", "value": "x"}
    changed: list[dict[str, Any]] = [
        {}, {"waived": ("a",)}, {"dry_run": DryRunSettings(**on)}, {"dry_run": DryRunSettings(**on, off=None)},
        {"dry_run": DryRunSettings(**on, off="y")}, {"dry_run": DryRunSettings(**on, compare=("a",))},
        {"dry_run": DryRunSettings(parameter="word", value="y")}, {"scoped": True},
    ]  # fmt: skip
    assert len({api(**change).definition for change in changed}) == len(changed)
    own = {field.name for field in msgspec.structs.fields(OpenapiToolSettings)}
    assert own - {field.name for field in msgspec.structs.fields(ToolSettings)} == {"waived", "dry_run"}


ON = DryRun(parameter="word", value="x")


def test_an_api_that_can_try_is_tried_first_and_asked_for_where_that_is_wanted() -> None:
    assert api().preview == "none"
    checked = api(tried=ON)
    assert (checked.preview, checked.schema["properties"]) == ("checked", {"tenant": {"type": "string"}})
    asked = api(tried=ON, preview=True)
    properties = asked.schema["properties"]
    assert isinstance(properties, dict)
    assert (asked.preview, sorted(properties)) == ("asked", ["change", "tenant"])


def test_an_api_that_cannot_try_shows_no_change() -> None:
    with pytest.raises(ConfigInvalid, match="has a preview") as refused:
        api(preview=True)
    assert "`dry_run`" in refused.value.hint


def test_an_apis_own_parameter_change_leaves_no_place_for_the_gateways() -> None:
    schema: dict[str, Json] = {"type": "object", "properties": {"word": {}, "change": {}}}
    with pytest.raises(ConfigInvalid, match="is the gateway's own parameter"):
        api(tried=ON, preview=True, schema=schema)
    assert api(tried=ON, schema=schema).preview == "checked"


def writing(**changes: Any) -> Tool:
    made = settings(**{"statement": "INSERT INTO t VALUES (:word) RETURNING id", "writes": True, **changes})
    return sql_tool("notes", "base", made, used=(), columns=("id",), may_write=True)


def test_what_writes_is_tried_first_and_asked_for_where_that_is_wanted() -> None:
    assert writing().preview == "checked"
    asked = writing(preview=True)
    assert asked.preview == "asked"
    properties = asked.schema["properties"]
    assert isinstance(properties, dict)
    assert "change" in properties
    assert sql().preview == "none"


@pytest.mark.parametrize("statement", ["UPDATE t SET a = :word RETURNING id", " delete from t RETURNING id"])
def test_rows_that_change_are_decided_as_they_were_too(statement: str) -> None:
    with pytest.raises(ConfigInvalid, match="nobody decided on as they were"):
        writing(statement=statement)
    assert writing(statement=statement, resource=LookupSettings(tool="get", argument="word")).preview == "checked"


@pytest.mark.parametrize(
    "changes",
    [{"preview": True, "writes": False}, {"preview": True, "parameters": {"change": {}}}, {"scoped": True}],
    ids=["reads", "parameter of that name", "scoped and writes"],
)
def test_what_cannot_be_tried_or_scoped_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid):
        writing(**changes)


@pytest.mark.parametrize(
    ("statement", "sound"),
    [
        ("UPDATE t AS scoped SET a = :word WHERE {scope} RETURNING id", True),
        ("UPDATE t SET a = :word WHERE {scope} RETURNING id", False),
        ("UPDATE t AS scoped SET a = :word RETURNING id", False),
        ("UPDATE t AS scoped SET a = :word WHERE {scope} OR {scope} RETURNING id", False),
    ],
)
def test_what_is_scoped_and_writes_says_once_where_the_condition_goes(statement: str, sound: bool) -> None:
    def made() -> Tool:
        return writing(statement=statement, scoped=True, rows=RowsSettings(type="Note", id="id", tenant="id"))

    if sound:
        assert made().scoped
    else:
        with pytest.raises(ConfigInvalid, match="where the condition goes"):
            made()


def test_an_mcp_tool_is_neither_scoped_nor_tried() -> None:
    for changes in ({"scoped": True}, {"preview": True}):
        with pytest.raises(ConfigInvalid, match="are for databases"):
            mcp(**changes)


def test_a_bound_constant_is_in_the_digest_with_its_type() -> None:
    values: list[Any] = [1, "1", True, None, [1]]
    found = {mcp(bound={"word": ParameterSettings(constant=value)}).definition for value in values}
    assert len(found) == len(values)


# --- what tools say of one another ---


GET = sketch("get", "desk", settings(rows=NOTE))
UPDATE = sketch("update", "desk", settings(writes=True, resource=LookupSettings(tool="get", argument="id")))


def test_a_lookup_by_a_reading_tool_with_rows_is_sound() -> None:
    require_sound({"get": GET, "update": UPDATE})
    require_sound({"get": replace(GET, exposed=False), "update": UPDATE})


@pytest.mark.parametrize(
    "found",
    [
        None,
        replace(GET, rows=None),
        replace(GET, writes=True),
        replace(GET, lookup=Lookup(tool="get", argument="a", parameter="a")),
    ],
)
def test_a_lookup_by_anything_else_is_refused(found: Tool | None) -> None:
    with pytest.raises(ConfigInvalid, match="looks its resource up by `get`"):
        require_sound({"update": UPDATE, **({"get": found} if found else {})})


def test_a_gateway_that_exposes_nothing_is_refused() -> None:
    for tools in ({}, {"get": replace(GET, exposed=False)}):
        with pytest.raises(ConfigInvalid, match="no tool is exposed"):
            require_sound(tools)
