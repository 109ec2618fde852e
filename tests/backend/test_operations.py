"""What a request asks for is read as the gateway meant it, or not at all."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from backend.api_document import BYTES, DOCUMENT
from onbehalf.backend.operations import HttpRequest, read_operations
from onbehalf.errors import (
    BodyMalformed,
    CallTokenMismatch,
    CallTokenRefused,
    ConfigInvalid,
    MediaTypeRefused,
    OnbehalfError,
    RequestRefused,
)  # fmt: skip
from onbehalf.model import canonical
from onbehalf.validate.api import read_document, read_operation
from onbehalf.validate.api_request import Unsendable, request_of

READ = read_document(BYTES)
OPERATIONS = read_operations(BYTES, base_path="/v1/")
TEXTS = st.text(max_size=12) | st.sampled_from(["", "a,b", "a b+c", "%2F", "é&=?#", "newest", "1", "true"])
WHOLES = st.integers(-(2**53) + 1, 2**53 - 1)
# A whole float beyond 2**53 is spelled as an integer that has no canonical form: it is refused, not misread.
NUMBERS = WHOLES | st.floats(-(2.0**53) + 1, 2.0**53 - 1)
VALUES: dict[str, dict[str, Any]] = {
    "listItems": {
        "state": TEXTS, "limit": WHOLES, "ratio": NUMBERS, "all": st.booleans(), "ids": st.lists(TEXTS, max_size=3),
        "sizes": st.lists(NUMBERS, max_size=3), "X-Trace": TEXTS, "X-Levels": st.lists(WHOLES, max_size=3),
    },
    "getItem": {"id": TEXTS},
    "changeItem": {
        "id": TEXTS, "dry_run": st.booleans(), "note": TEXTS, "amount": NUMBERS, "tags": st.lists(TEXTS, max_size=3),
        "more": st.dictionaries(TEXTS, TEXTS | WHOLES | st.none(), max_size=3),
    },
    "putItems": {"body": st.lists(WHOLES, max_size=4)},
    "getParts": {"id": WHOLES, "numbers": st.lists(WHOLES, min_size=1, max_size=3)},
    "newestItem": {},
}  # fmt: skip


def plain(method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> HttpRequest:
    path, _, query = target.partition("?")
    return HttpRequest(method=method, path=unquote(path), query=query, headers=headers, body=body)


def asked(method: str, target: str, *headers: tuple[str, str], body: bytes = b"") -> tuple[str, Any]:
    found = OPERATIONS.asked(plain(method, target, *headers, body=body))
    return found.tool, dict(found.arguments)


@st.composite
def calls(draw: Any) -> tuple[str, dict[str, Any]]:
    tool = draw(st.sampled_from(sorted(VALUES)))
    needed = {each.name for each in read_operation(READ, tool).parameters if each.required}
    return tool, {name: draw(values) for name, values in VALUES[tool].items() if name in needed or draw(st.booleans())}


@effort(max_examples=400, deadline=None)
@given(calls())
def test_what_the_gateway_sends_is_read_as_what_its_token_says(call: tuple[str, dict[str, Any]]) -> None:
    tool, arguments = call
    try:
        sent = request_of(read_operation(READ, tool), arguments)
        expected = canonical(arguments)
    except (Unsendable, ValueError):
        return
    headers = [(name.lower(), value) for name, value in sent.headers]
    headers += [("content-type", "application/json")] if sent.body is not None else []
    found, read = asked(sent.method, f"/v1{sent.target}", *headers, body=sent.body or b"")
    if tool == "getItem" and arguments["id"] == "newest":
        assert (found, read) == ("newestItem", {})  # the concrete path wins, and the token is for another tool
        return
    assert (found, canonical(read)) == (tool, expected)


def test_the_property_above_is_not_empty() -> None:
    sent = request_of(read_operation(READ, "listItems"), {"ids": ["a", "b,c"], "ratio": 0.5, "state": "x y"})
    assert asked("GET", f"/v1{sent.target}") == ("listItems", {"ids": ["a", "b,c"], "ratio": 0.5, "state": "x y"})


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/nothing"), ("GET", "/items"), ("GET", "/v1items"), ("POST", "/v1/items"), ("get", "/v1/items"),
        ("GET", "/v1/items/"), ("GET", "/v1//items"), ("GET", "/v1/items/%2E%2E"), ("GET", "/v1/items/a%2Fb"),
        ("HEAD", "/v1/items"), ("GET", "/v1/pairs/a-b"), ("GET", "/v1"), ("GET", ""),
    ],
)  # fmt: skip
def test_a_request_that_is_no_operation_is_refused(method: str, target: str) -> None:
    with pytest.raises(CallTokenMismatch, match="not exactly one operation"):
        asked(method, target)


@pytest.mark.parametrize(
    "query",
    [
        "state=a&state=b", "unknown=1", "state", "state=a&", "&state=a", "state=a+b", "limit=01", "limit=1.5e0",
        "state=a;limit=1",
        "limit=%201", "limit=true", "limit=", "limit=1&limit=1", "all=True", "all=1", "all=yes", "ratio=NaN",
        "ratio=1.0", "ratio=Infinity", "ratio=1e5", "state=%ff", "ids[]=a", "sizes=1,,2", "state=\xe9", "limit=[1]",
        "ratio=" + "9" * 20_000,
    ],
)  # fmt: skip
def test_a_query_with_two_readings_or_one_that_nobody_declared_is_refused(query: str) -> None:
    with pytest.raises(CallTokenMismatch):
        asked("GET", f"/v1/items?{query}")


JSON = ("content-type", "application/json")


@pytest.mark.parametrize(
    ("headers", "body", "error"),
    [
        ([JSON], b'{"note":"a","note":"b"}', BodyMalformed),
        ([JSON], b"\xff", BodyMalformed),
        ([JSON], b"[" * 99, BodyMalformed),
        ([JSON], b"[]", CallTokenMismatch),
        ([JSON], b'{"owner":"bob"}', CallTokenMismatch),
        ([("content-type", "application/x-www-form-urlencoded")], b"note=a", MediaTypeRefused),
        ([], b"{}", MediaTypeRefused),
        ([JSON, JSON], b"{}", MediaTypeRefused),
        ([("content-type", "application/json; charset=utf-7")], b"{}", MediaTypeRefused),
        ([("content-type", "application/json, text/html")], b"{}", MediaTypeRefused),
        ([("content-type", "application/jsonp")], b"{}", MediaTypeRefused),
        ([JSON, ("content-encoding", "gzip")], b"{}", MediaTypeRefused),
    ],
)
def test_a_body_that_is_not_one_clear_object_of_declared_members_is_refused(
    headers: list[tuple[str, str]], body: bytes, error: type[OnbehalfError]
) -> None:
    with pytest.raises(error):
        asked("PATCH", "/v1/items/1", *headers, body=body)


def test_a_body_where_the_document_has_none_is_refused() -> None:
    with pytest.raises(CallTokenMismatch, match="body"):
        asked("GET", "/v1/items", JSON, body=b"{}")


def test_a_declared_header_that_stands_twice_is_refused_and_others_are_passed_over() -> None:
    assert asked("GET", "/v1/items", ("x-trace", "a"), ("x-other", "b")) == ("listItems", {"X-Trace": "a"})
    with pytest.raises(CallTokenMismatch, match="header"):
        asked("GET", "/v1/items", ("x-trace", "a"), ("x-trace", "a"))


def test_named_operations_must_be_readable_and_others_are_not_served() -> None:
    with pytest.raises(ConfigInvalid, match="whole segment"):
        read_operations(DOCUMENT, only=["getPair"])
    with pytest.raises(ConfigInvalid, match="no operation"):
        read_operations(DOCUMENT, only=["gone"])
    with pytest.raises(ConfigInvalid, match="no operation"):
        read_operations({"openapi": "3.1.0", "paths": {}})
    few = read_operations(DOCUMENT, only=["getItem"])
    assert few.asked(plain("GET", "/items/7")).arguments == {"id": "7"}
    with pytest.raises(CallTokenMismatch):
        few.asked(plain("GET", "/items"))


@effort(max_examples=200, deadline=None)
@given(
    st.sampled_from(["GET", "PUT", "PATCH", "HEAD", "X"]), st.text(max_size=30), st.text(max_size=30),
    st.binary(max_size=40), st.text(max_size=10),
)  # fmt: skip
def test_nothing_but_a_refusal_comes_of_garbage(method: str, path: str, query: str, body: bytes, text: str) -> None:
    headers = (JSON, ("x-trace", text), ("x-levels", text))
    for place in (path, "/v1/items", f"/v1/items/{path}"):
        request = HttpRequest(method=method, path=place, query=query, headers=headers, body=body)
        with contextlib.suppress(RequestRefused, CallTokenRefused):
            OPERATIONS.asked(request)
