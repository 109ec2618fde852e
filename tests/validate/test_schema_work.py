"""The bound on the work of a check holds: no value is looked at more often than it says."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.model import Json
from onbehalf.validate.schema_work import looks

LEAF: dict[str, Json] = {"type": "string"}
REFS = st.sampled_from(["#", "#/$defs/a", "#/$defs/b"]).map(lambda target: {"$ref": target})
SCHEMAS = st.recursive(
    st.just(LEAF) | REFS,
    lambda each: st.fixed_dictionaries(
        {},
        optional={
            "anyOf": st.lists(each, max_size=3), "allOf": st.lists(each, max_size=2), "not": each, "if": each,
            "properties": st.dictionaries(st.sampled_from(["k", "l"]), each, max_size=2), "items": each,
            "additionalProperties": each, "prefixItems": st.lists(each, max_size=2), "contains": each,
        },
    ),
    max_leaves=6,
)  # fmt: skip
VALUES = st.recursive(
    st.just("x"), lambda each: st.lists(each, max_size=2) | st.dictionaries(st.sampled_from("klm"), each), max_leaves=5
)


def levels(value: Json) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inside is None else 1 + max(map(levels, inside), default=0)


def look(root: dict[str, Json], schema: Json, value: Json, place: str, seen: Counter[str]) -> None:
    """Every look that a check without any short cut takes."""
    seen[place] += 1
    if not isinstance(schema, dict):
        return
    same = [*schema.get("anyOf", []), *schema.get("allOf", []), *(schema[k] for k in ("not", "if") if k in schema)]  # type: ignore[misc]  # made above
    if "$ref" in schema:
        same.append({"#": root, "#/$defs/a": root["$defs"]["a"], "#/$defs/b": root["$defs"]["b"]}[schema["$ref"]])  # type: ignore[index, call-overload]  # made above
    for each in same:
        look(root, each, value, place, seen)
    for key, item in value.items() if isinstance(value, dict) else ():
        here = schema.get("properties", {}).get(key, schema.get("additionalProperties"))  # type: ignore[union-attr]  # made above
        if here is not None:
            look(root, here, item, f"{place}/{key}", seen)
    for number, item in enumerate(value if isinstance(value, list) else ()):
        first = schema.get("prefixItems", [])
        here = first[number] if number < len(first) else schema.get("items")  # type: ignore[index, arg-type]  # made above
        for each in (here, schema.get("contains")):
            if each is not None:
                look(root, each, item, f"{place}/{number}", seen)


@given(root=SCHEMAS, a=SCHEMAS, b=SCHEMAS, value=VALUES)
@settings(max_examples=300, deadline=None)
def test_no_part_of_a_value_is_looked_at_more_often_than_said(
    root: dict[str, Json], a: dict[str, Json], b: dict[str, Json], value: Json
) -> None:
    schema = {**root, "$defs": {"a": a, "b": b}}
    try:
        table = looks(schema, 8)
    except ValueError:  # a circle, which is refused
        return
    seen: Counter[str] = Counter()
    look(schema, schema, value, "", seen)
    assert max(seen.values()) <= table[levels(value)]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (LEAF, (1, 1, 1)),
        ({"anyOf": [LEAF, LEAF]}, (3, 3, 3)),
        ({"properties": {"a": {"anyOf": [LEAF, LEAF]}, "b": LEAF}}, (1, 3, 3)),
        ({"properties": {"a": {"$ref": "#"}}}, (1, 2, 2)),
        ({"properties": {"a": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}}, (1, 5, 10)),
    ],
)  # fmt: skip
def test_looks_are_counted_by_level(schema: dict[str, Json], expected: tuple[int, ...]) -> None:
    assert looks(schema, 2) == expected


def test_looks_grow_no_further_than_a_bound() -> None:
    twice: dict[str, Json] = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(100)}
    assert looks({"$ref": "#/$defs/d0", "$defs": {**twice, "d100": {}}}, 0) == (10**9,)
