"""JSON with one meaning, or none."""

from __future__ import annotations

import pytest

from onbehalf.verifier.strict import strict


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a":[1,{"b":"[[[[{\\""}]}',
         {"a": [1, {"b": '[[[[{"'}]}), ('"\\u00e9"', "é"), (b"1e2", 100.0), (b" null\n", None),
        (b'["]","\\\\"]', ["]", "\\"]),
    ],
)  # fmt: skip
def test_a_value_is_read(text: bytes, value: object) -> None:
    assert strict(text, depth=3) == value


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":1,"a":1}', b'{"x":[{"a":1,"\\u0061":2}]}', b"NaN", b"-Infinity", b"1e999", b"[[[[1]]]]", b'{"a":', b"",
        b"[1] [2]", b"\xff", b'{"a":[[{"b":1}]]}', b"[" * 100_000, b"1" * 5000,
    ],
    ids=range(13),
)  # fmt: skip
def test_what_has_two_meanings_or_none_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        strict(text, depth=3)
