"""OpenAPI documents, read: what is refused, and what becomes of a schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from onbehalf.errors import ConfigInvalid
from onbehalf.validate.api import read_document, read_operation
from onbehalf.validate.api_schema import exposed

ROOT = Path(__file__).parents[2]


def document(operation: dict[str, Any] | None = None, *, path: str = "/a", **more: Any) -> bytes:
    paths = {path: {"post": {"operationId": "do", **(operation or {})}}}
    return json.dumps({"openapi": "3.0.3", "paths": paths, **more}).encode()


def body(schema: Any) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"openapi": "2.0"}',
        b'{"openapi": "3.2.0"}',
        b'{"openapi": "3.0.0", "openapi": "3.1.0"}',
        b"openapi: 3.1.0\na: &a [1]\nb: [*a, *a]\n",
        b"openapi: 3.1.0\na: !!python/object/apply:os.system [true]\n",
        b"openapi: 3.1.0\na: " + b"[" * 100 + b"]" * 100,
        b'{"openapi": "3.1.0", "a": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"openapi": "3.1.0"}' + b" " * (4 * 2**20),
    ],
)
def test_what_is_no_bounded_document_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigInvalid):
        read_document(data)


def test_yaml_and_json_are_read_alike() -> None:
    data = document(body({"type": "object", "properties": {"text": {"type": "string"}}}))
    as_yaml = yaml.safe_dump(json.loads(data)).encode()
    assert read_operation(read_document(data), "do") == read_operation(read_document(as_yaml), "do")


@pytest.mark.parametrize("reference", ["https://evil.test/a", "other.yaml#/a", "#/no", "#a", "file:///etc/passwd", 7])
def test_a_reference_out_of_the_document_is_refused(reference: Any) -> None:
    with pytest.raises(ConfigInvalid):
        read_operation(read_document(document(body({"$ref": reference}))), "do")


@pytest.mark.parametrize(
    "schemas",
    [
        {"A": {"$ref": "#/components/schemas/A"}},
        {"A": {"type": "object", "properties": {"a": {"$ref": "#/components/schemas/A"}}}},
        {
            "A": {"allOf": [{"$ref": "#/components/schemas/B"}] * 9},
            "B": {"allOf": [{"$ref": "#/components/schemas/A"}]},
        },
        {"A": {"patternProperties": {"": {}}}},
        {"A": {"$dynamicRef": "#a"}},
    ],
)
def test_a_schema_that_holds_itself_or_says_what_is_not_known_is_refused(schemas: Any) -> None:
    data = document(body({"$ref": "#/components/schemas/A"}), components={"schemas": schemas})
    with pytest.raises(ConfigInvalid):
        read_operation(read_document(data), "do")


@pytest.mark.parametrize("path", ["a", "/a/../b", "/a//b", "/a?b", "/a#b", "/{key}", "/%2e", "/a\\b"])
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(ConfigInvalid):
        read_operation(read_document(document(path=path)), "do")


def test_a_nested_object_takes_no_members_that_nobody_declared() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "integer", "nullable": True}}}
    found = read_operation(read_document(document(body({"type": "object", "properties": {"in": inner}}))), "do")
    assert found.schema()["properties"] == {
        "in": {
            "type": "object",
            "properties": {"a": {"type": ["integer", "null"]}},
            "additionalProperties": False,
        }
    }


NAMES = (
    "user_id userId owner ownerid tenant X-Tenant-Id account org email on_behalf_of onBehalfOf sub impersonate "
    "customer orgId runAs"
)


@pytest.mark.parametrize("name", NAMES.split())
def test_a_name_that_looks_like_an_identity_is_found(name: str) -> None:
    assert exposed(name, {"type": "string"}) == [name]
    assert exposed("a", {"type": "object", "properties": {name: {}}, "additionalProperties": False})[0] == f"a.{name}"


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"type": ["object", "null"]}, {"anyOf": [{}]}])
def test_an_object_open_to_anything_is_found(schema: dict[str, Any]) -> None:
    assert exposed("a", schema) == ["a"]


def test_a_harmless_argument_is_not_found() -> None:
    assert exposed("status", {"type": "string"}) == []
