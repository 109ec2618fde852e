"""The one spelling of JSON, held to the library that is slow and plainly right."""

from __future__ import annotations

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.model import Json, canonical

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def slowly(value: Json) -> bytes | None:
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError):
        return None


@settings(max_examples=400, deadline=None)
@given(ANYTHING)
def test_every_value_has_the_spelling_of_rfc_8785_or_none(value: Json) -> None:
    expected = slowly(value)
    if expected is None:
        with pytest.raises(ValueError, match="no canonical form"):
            canonical(value)
    else:
        assert canonical(value) == expected


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        ({"b": 1, "a": [True, None, "x"]}, b'{"a":[true,null,"x"],"b":1}'),
        (
            {"\u20ac": 1, "\r": 2, "\U0001f600": 3, "\ufb33": 4},
            '{"\\r":2,"\u20ac":1,"\U0001f600":3,"\ufb33":4}'.encode(),
        ),
        ([1e21, 0.1, -0.0, 1.0, 5e-324], b"[1e+21,0.1,0,1,5e-324]"),
        ("\x00\x1f\x7f\"\\/", b'"\\u0000\\u001f\x7f\\"\\\\/"'),
        ([2**53 - 1, -(2**53) + 1], b"[9007199254740991,-9007199254740991]"),
    ],
)  # fmt: skip
def test_known_values_are_spelled_as_rfc_8785_says(value: Json, spelled: bytes) -> None:
    assert canonical(value) == spelled


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, [{"a": -(2**53)}], "\ud800", {"\udfff": 1}])
def test_what_has_no_spelling_is_refused(value: Json) -> None:
    with pytest.raises(ValueError, match="no canonical form"):
        canonical(value)
