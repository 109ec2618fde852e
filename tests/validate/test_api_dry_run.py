"""The dry run of an operation: what may stand for one in configuration, what is sent, and what its answer is worth."""

from __future__ import annotations

import datetime
import json
from typing import Any

import msgspec
import pytest

from act.granted import allowed
from onbehalf.config import OpenapiToolSettings
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Done, DryRun, Json, Rows, Tool, ToolCall
from onbehalf.validate import route
from onbehalf.validate.api import Operation, read_document, read_operation
from onbehalf.validate.api_dry_run import Untold, dry_run_of, require_told, unfit
from replacing import replace

ONLY: dict[str, Any] = {"type": "string", "enum": ["none", "only"]}
TEXT: dict[str, Any] = {"type": "string"}


def operation(*parameters: dict[str, Any], **members: Any) -> Operation:
    body = {"type": "object", "properties": {"text": TEXT, "dry": {"type": "boolean"}, **members}}
    made: dict[str, Any] = {
        "operationId": "do",
        "parameters": [{"name": "validate", "in": "query", "schema": ONLY}, *parameters],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
    }
    document = {"openapi": "3.1.0", "paths": {"/a/{key}": {"post": made}}}
    key = {"name": "key", "in": "path", "required": True, "schema": TEXT}
    made["parameters"].append(key)
    return read_operation(read_document(json.dumps(document).encode()), "do")


def found(of: Operation | None = None, *, more: dict[str, Any] | None = None, **dry_run: Any) -> DryRun | None:
    told = {"action": "a", "writes": True, "dry_run": dry_run, **(more or {})}
    return dry_run_of("tool", msgspec.convert(told, OpenapiToolSettings), of or operation())


def header(name: str = "X-Dry-Run", **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "schema": TEXT, **more}


def test_a_dry_run_is_a_parameter_of_query_header_or_body() -> None:
    assert found(parameter="dry", value=True) == DryRun(parameter="dry", value=True)
    assert found(parameter="validate", value="only", off="none", compare=["a"]) == DryRun(
        parameter="validate", value="only", off=("none",), compare=("a",)
    )
    assert found(operation(header()), parameter="X-Dry-Run", value="yes") == DryRun(parameter="X-Dry-Run", value="yes")
    none = msgspec.convert({"action": "a"}, OpenapiToolSettings)
    assert dry_run_of("tool", none, operation()) is None


def test_off_may_be_null_which_is_not_the_same_as_left_out() -> None:
    made = found(operation(dry={"type": ["boolean", "null"]}), parameter="dry", value=True, off=None)
    assert made == DryRun(parameter="dry", value=True, off=(None,))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"parameter": "other", "value": 1}, "is no parameter of the operation"),
        ({"parameter": "key", "value": "x"}, "is no parameter of the operation"),
        ({"parameter": "Dry", "value": True}, "is no parameter of the operation"),
        ({"parameter": "dry", "value": "true"}, 'does not take `"true"`'),
        ({"parameter": "dry", "value": 1}, "does not take `1`"),
        ({"parameter": "dry", "value": True, "off": "no"}, 'does not take `"no"`'),
        ({"parameter": "validate", "value": "all"}, "does not take"),
        ({"parameter": "validate", "value": ["only"]}, "does not take"),
        ({"parameter": "validate", "value": "only", "off": "only"}, "is the same on and `off`"),
        ({"parameter": "dry", "value": datetime.date(2026, 1, 1)}, "JSON cannot say"),
        ({"parameter": "dry", "value": True, "off": float("nan")}, "JSON cannot say"),
        ({"parameter": "dry", "value": True, "more": {"writes": False}}, "writes nothing"),
        ({"parameter": "dry", "value": True, "more": {"bound": {"dry": {"constant": False}}}}, "is bound too"),
    ],
)
def test_what_is_no_dry_run_is_refused_when_loading(told: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigInvalid, match=said) as refused:
        found(**told)
    assert "`tool`" in refused.value.message


def test_the_refusal_lists_the_parameters_there_are() -> None:
    with pytest.raises(ConfigInvalid) as refused:
        found(parameter="dryrun", value=True)
    assert refused.value.hint == "in query, header and body it has `dry`, `text`, `validate`"


@pytest.mark.parametrize(
    "more", [{"required": True}, {"schema": {**TEXT, "default": "yes"}}], ids=["required", "default"]
)
def test_where_leaving_it_out_is_impossible_or_a_dry_run_too_off_must_be_said(more: dict[str, Any]) -> None:
    of = operation(header(**more))
    with pytest.raises(ConfigInvalid, match="X-Dry-Run") as refused:
        found(of, parameter="X-Dry-Run", value="yes")
    assert "`off`" in refused.value.hint
    made = found(of, parameter="X-Dry-Run", value="yes", off="no")
    assert made is not None
    assert made.off == ("no",)


def test_values_that_are_spelled_alike_where_they_stand_are_the_same() -> None:
    either = {"name": "q", "in": "query", "schema": {"type": "string"}}
    with pytest.raises(ConfigInvalid):
        found(operation({**either, "schema": {"type": "array", "items": TEXT}}), parameter="q", value=["a"], off=["a"])
    with pytest.raises(ConfigInvalid, match="cannot stand in a header"):
        found(operation(header()), parameter="X-Dry-Run", value="yes\r\nX-Evil: 1")


def test_a_header_that_stands_there_twice_but_for_case_is_refused_for_a_model_could_send_the_other() -> None:
    with pytest.raises(ConfigInvalid, match="but for upper and lower case"):
        found(operation(header(), header("x-dry-run")), parameter="X-Dry-Run", value="yes")


# --- the last look before it is sent ---


def call(*, off: tuple[Json, ...] = (), dry: bool = False, expected: str = "", dry_run: bool = True) -> ToolCall:
    made = allowed({"text": "a"}).call
    tool = replace(made.tool, dry_run=DryRun(parameter="dry", value=True, off=off)) if dry_run else made.tool
    return replace(made, tool=tool, dry=dry, expected=expected)


@pytest.mark.parametrize(
    ("made", "arguments", "fit"),
    [
        (call(dry=True), {"dry": True}, True),
        (call(dry=True), {}, False),
        (call(dry=True), {"dry": False}, False),
        (call(dry=True), {"dry": 1}, False),
        (call(expected="d"), {}, True),
        (call(expected="d"), {"dry": True}, False),
        (call(expected="d"), {"dry": False}, False),
        (call(expected="d", off=(False,)), {"dry": False}, True),
        (call(expected="d", off=(False,)), {}, False),
        (call(), {}, False),
        (call(dry_run=False), {}, True),
        (call(dry_run=False, dry=True), {}, False),
        (call(dry_run=False, expected="d"), {}, False),
    ],
)
def test_nothing_is_tried_without_the_parameter_or_done_with_it(
    made: ToolCall, arguments: dict[str, Json], fit: bool
) -> None:
    assert (unfit(made, arguments) == "") is fit


def test_a_call_that_is_tried_has_other_arguments_and_goes_back_to_its_own() -> None:
    made = call(off=(False,))
    tried = route.tried(made)
    assert (tried.arguments, tried.dry) == (b'{"dry":true,"text":"a"}', True)
    assert tried.digest != made.digest
    assert unfit(tried, json.loads(tried.arguments)) == ""
    assert route.as_tried(made, "d").arguments == made.arguments


# --- what its answer is worth ---

TOOL = call().tool
SHAPE = Rows(type="Order", at=("orders",), id="id", tenant="tenant", attributes={})


def told(answer: Json, *, tool: Tool = TOOL, compare: tuple[str, ...] = ()) -> str:
    content: dict[str, Json] = {"structuredContent": answer} if isinstance(answer, dict | list) else {}
    tool = replace(tool, dry_run=DryRun(parameter="dry", value=True, compare=compare))
    return require_told(tool, answer, Done(content=content))


def test_the_same_answer_however_it_is_spelled_is_the_same_change() -> None:
    assert told({"a": 1, "b": 2}) == told({"b": 2, "a": 1.0})
    assert len({told(None), told({}), told([]), told({"a": 1}), told({"a": True}), told("a")}) == 6


def test_only_the_fields_that_count_are_compared() -> None:
    assert told({"a": 1, "at": 5}, compare=("a",)) == told({"a": 1, "at": 6}, compare=("a",))
    assert told({"a": 1}, compare=("a",)) != told({"a": 2}, compare=("a",))


@pytest.mark.parametrize("answer", [None, {}, {"b": 1}, [], "a"])
def test_an_answer_without_a_field_that_counts_is_no_answer(answer: Json) -> None:
    with pytest.raises(Untold, match="`a` to compare"):
        told(answer, compare=("a",))


@pytest.mark.parametrize("answer", [None, {}, {"orders": None}, {"orders": "x"}, []])
def test_an_answer_without_a_place_for_the_rows_to_decide_is_no_answer(answer: Json) -> None:
    with pytest.raises(Untold, match="no rows"):
        told(answer, tool=replace(TOOL, rows=SHAPE))
    assert told({"orders": []}, tool=replace(TOOL, rows=SHAPE))


def test_an_answer_that_has_no_one_spelling_is_no_answer() -> None:
    with pytest.raises(Untold, match="no one spelling"):
        told({"a": 2**60})
