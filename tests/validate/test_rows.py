from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onbehalf.model import Json, Ref
from onbehalf.validate import rows
from validate.policy_house import SHAPE, review


def content(*items: Json) -> dict[str, Json]:
    return {"structuredContent": {"rows": list(items), "total": 99}, "content": [{"type": "text", "text": "all"}]}


def test_a_row_becomes_an_entity_of_its_own_tenant() -> None:
    found = rows.extract(SHAPE, content(review("9", tenant="globex", subject="erin")), limit=10)
    assert found.returned == 1
    [row] = found.rows
    assert row.ref == Ref(type="Review", id="globex/9")
    assert row.entity.attributes["tenant"] == Ref(type="Tenant", id="globex")
    assert row.entity.attributes["subject"] == Ref(type="User", id="globex/erin")
    assert row.people == {"erin", "zoe"}


@pytest.mark.parametrize(
    "changed",
    [
        {"id": None}, {"id": True}, {"id": 1.5}, {"id": ""}, {"id": {}}, {"tenant": None}, {"tenant": ""},
        {"tenant": "acme/x"}, {"tenant": 5}, {"status": 5}, {"status": ["final"]}, {"rating": "4"}, {"rating": True},
        {"rating": 4.0}, {"rating": 2**63}, {"subject_id": False}, {"subject_id": {"__entity": {}}},
    ],
)  # fmt: skip
def test_a_malformed_row_is_counted_and_never_released(changed: dict[str, Json]) -> None:
    answer = content(review("1") | changed, review("2"))
    found = rows.extract(SHAPE, answer, limit=10)
    assert [row.id for row in found.rows] == ["2"]
    assert found.returned == 2


def test_a_row_with_a_missing_field_is_withheld() -> None:
    short = review("1")
    del short["status"]
    assert rows.extract(SHAPE, content(short), limit=10) == rows.Extracted(rows=(), returned=1)


@pytest.mark.parametrize(("found", "there"), [([], True), ({}, True), (None, False), ("a", False), (7, False)])
def test_rows_are_given_where_a_list_or_an_object_stands(found: Json, there: bool) -> None:
    assert rows.given(SHAPE, {"structuredContent": {"rows": found}}) is there
    assert not rows.given(SHAPE, {"structuredContent": {"other": found}})
    assert not rows.given(SHAPE, {})


def test_a_null_leaves_the_attribute_absent() -> None:
    [row] = rows.extract(SHAPE, content(review(rating=None)), limit=10).rows
    assert "rating" not in row.entity.attributes


def test_a_mapped_attribute_cannot_replace_the_tenant() -> None:
    shape = replace(SHAPE, attributes={**SHAPE.attributes, "tenant": ("claimed", "Tenant")})
    [row] = rows.extract(shape, content(review(tenant="globex", claimed="acme")), limit=10).rows
    assert row.entity.attributes["tenant"] == Ref(type="Tenant", id="globex")


def test_rows_beyond_the_limit_are_only_counted() -> None:
    found = rows.extract(SHAPE, content(*(review(str(number)) for number in range(5))), limit=2)
    assert [row.id for row in found.rows] == ["0", "1"]
    assert found.returned == 5


def test_the_released_answer_holds_kept_rows_and_nothing_beside() -> None:
    answer = content(review("1"), review("2"))
    kept = [row for row in rows.extract(SHAPE, answer, limit=10).rows if row.id == "2"]
    released = rows.release(SHAPE, answer, kept)
    assert released["structuredContent"] == {"rows": [review("2")]}
    assert set(released) == {"structuredContent", "content"}
    assert "99" not in str(released["content"])


def test_one_object_stays_one_object_or_becomes_null() -> None:
    shape = replace(SHAPE, at=("a", "b"))
    answer: dict[str, Json] = {"structuredContent": {"a": {"b": review(), "c": 1}}, "isError": False}
    found = rows.extract(shape, answer, limit=10)
    assert rows.release(shape, answer, found.rows)["structuredContent"] == {"a": {"b": review()}}
    assert rows.release(shape, answer, ())["structuredContent"] == {"a": {"b": None}}


@pytest.mark.parametrize("value", [None, 5, "rows", True, {"other": []}, {"rows": "x"}])
def test_an_answer_without_rows_at_the_path_releases_nothing(value: Json) -> None:
    answer: dict[str, Json] = {"structuredContent": value, "content": [{"type": "text", "text": "secret"}]}
    assert rows.extract(SHAPE, answer, limit=10) == rows.Extracted(rows=(), returned=0)
    assert "secret" not in str(rows.release(SHAPE, answer, ()))


def test_a_row_nested_beyond_spelling_does_not_go_on() -> None:
    deep: Json = []
    for _ in range(2_000):
        deep = [deep]
    answer = content(review(deep=deep))
    released = rows.release(SHAPE, answer, rows.extract(SHAPE, answer, limit=10).rows)
    assert "structuredContent" not in released


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON | st.fixed_dictionaries(dict.fromkeys(review(), JSON)), max_size=4))
def test_whatever_comes_back_is_counted_and_never_raises(items: list[Json]) -> None:
    found = rows.extract(SHAPE, {"structuredContent": {"rows": items}}, limit=3)
    assert found.returned == len(items) >= len(found.rows)
    rows.release(SHAPE, {"structuredContent": {"rows": items}}, ())
