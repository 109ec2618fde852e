"""An OpenAPI document with every place that an argument may stand at."""

from __future__ import annotations

import json
from typing import Any

TEXT, WHOLE, NUMBER, TRUTH = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))


def parameter(name: str, place: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema, **more}


def listed(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


BODY = {
    "type": "object", "additionalProperties": False,
    "properties": {"note": TEXT, "amount": NUMBER, "tags": listed(TEXT), "more": {"type": "object"}},
}  # fmt: skip
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {
        "/items": {
            "get": {"operationId": "listItems", "parameters": [
                parameter("state", "query", TEXT), parameter("limit", "query", WHOLE),
                parameter("ratio", "query", NUMBER), parameter("all", "query", TRUTH),
                parameter("ids", "query", listed(TEXT)), parameter("sizes", "query", listed(NUMBER), explode=False),
                parameter("X-Trace", "header", TEXT), parameter("X-Levels", "header", listed(WHOLE)),
            ]},
            "put": {"operationId": "putItems", "requestBody": {"required": True, "content": {
                "application/json": {"schema": listed(WHOLE)}}}},
        },
        "/items/{id}": {
            "get": {"operationId": "getItem", "parameters": [parameter("id", "path", TEXT)]},
            "patch": {"operationId": "changeItem", "parameters": [
                parameter("id", "path", TEXT), parameter("dry_run", "query", TRUTH)],
                "requestBody": {"content": {"application/json": {"schema": BODY}}}},
        },
        "/items/newest": {"get": {"operationId": "newestItem"}},
        "/items/{id}/parts/{numbers}": {"get": {"operationId": "getParts", "parameters": [
            parameter("id", "path", WHOLE), parameter("numbers", "path", listed(WHOLE))]}},
        "/pairs/{a}-{b}": {"get": {"operationId": "getPair", "parameters": [
            parameter("a", "path", TEXT), parameter("b", "path", TEXT)]}},
    },
}  # fmt: skip
BYTES = json.dumps(DOCUMENT).encode()
