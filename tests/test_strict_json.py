"""The one reader of hostile JSON, against a slow one that is plainly right."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onbehalf.strict_json import NotStrict, strict_json, strict_object

DEPTH = 4
TOKENS = [
    '":"',
    '"{[}"',
    "\u00e4",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"a"',
    '"b"',
    '"\\u0061"',
    '"{:\\""',
    '"\\\\"',
    "1",
    "1e5",
    "-0",
    "null",
    " ",
    '"',
    "\\",
]


class Refused(Exception):
    pass


def plainly(data: bytes, depth: int) -> Any:
    """orjson's grammar, the standard library's pairs, and depth counted on the value."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) != len(pairs):
            raise Refused
        return dict(pairs)

    def deep(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else 1 + max(map(deep, inner), default=0)

    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Refused from error
    json.loads(data, object_pairs_hook=unique)
    if deep(value) > depth:
        raise Refused
    return value


@given(st.lists(st.sampled_from(TOKENS), max_size=24).map("".join))
@example('{"a":1,"\\u0061":2}')
@example('[{"a":{"b":1,"b":2}}]')
@example("[[[[[]]]]]")
@example("[[[[1]]]]")
@settings(max_examples=1500, deadline=None)
def test_it_takes_what_the_plain_reader_takes_and_reads_the_same(text: str) -> None:
    data = text.encode()
    try:
        expected = plainly(data, DEPTH)
    except Refused:
        with pytest.raises(NotStrict):
            strict_json(data, depth=DEPTH)
    else:
        assert strict_json(data, depth=DEPTH) == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5) | st.integers(-(2**53), 2**53),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)
def test_every_value_that_is_written_is_read_back(value: Any) -> None:
    assert strict_json(orjson.dumps(value), depth=60) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\\ud800"',
        b"NaN",
        b"Infinity",
        b"1e999",
        b"{}{}",
        b"{'a':1}",
        b"[1,]",
        b"\x00",
    ],
)
def test_what_is_not_one_value_in_utf_8_is_refused(data: bytes) -> None:
    with pytest.raises(NotStrict):
        strict_json(data, depth=8)


@pytest.mark.parametrize("data", [b"[]", b"1", b'"a"', b"null"])
def test_an_object_is_asked_for_and_nothing_else_will_do(data: bytes) -> None:
    with pytest.raises(NotStrict, match="object"):
        strict_object(data, depth=8)


@pytest.mark.parametrize(
    "data", [b"[" * 1_000_000, b"[]," * 300_000, b'{"a":' * 200_000, b'"\\' * 500_000, b"}" * 1_000_000]
)
@pytest.mark.timeout(10)  # any reader that looks at a byte twice takes minutes
def test_a_megabyte_of_nonsense_is_refused_without_looking_twice(data: bytes) -> None:
    with pytest.raises(NotStrict):
        strict_json(data, depth=32)


def test_the_message_holds_nothing_of_the_content() -> None:
    with pytest.raises(NotStrict) as refused:
        strict_json(b'{"secret":1,"secret":2}', depth=8)
    assert "secret" not in str(refused.value)
