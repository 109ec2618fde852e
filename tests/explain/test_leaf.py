"""A leaf commits to every fact and shows none; opening is exact in both directions."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain import leaf
from onbehalf.model import AuditEntry, Json, UnixTime, canonical

SALT = bytes(range(32))
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def made(facts: dict[str, Json], kind: str = "intent") -> leaf.Made:
    entry = AuditEntry(kind=kind, call="call_1", at=UnixTime(1_700_000_000), facts=facts)
    return leaf.make(leaf.spell(entry), id_="0" * 32, salt=SALT)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), VALUES, max_size=6))
def test_every_fact_opens_from_its_payload(facts: dict[str, Json]) -> None:
    facts.pop("intent", None)
    both = made(facts)
    read = leaf.read(both.leaf)
    opened = leaf.open_payload(read, both.payload)
    assert {name: canonical(value) for name, value in facts.items()}.keys() == opened.keys() == read.facts.keys()
    leaf.open_leaf(read, facts, SALT)


def test_leaf_is_canonical_json_without_values() -> None:
    both = made({"caller": {"subject": "very-secret-alice"}, "intent": {"index": 7, "leaf": "sha256:0"}}, "outcome")
    assert canonical(orjson.loads(both.leaf)) == both.leaf
    assert b"very-secret-alice" not in both.leaf
    assert leaf.read(both.leaf).of == 7


def test_commitment_is_the_published_construction() -> None:
    import hmac

    own = hmac.new(SALT, b"person", "sha256").digest()
    expected = hmac.new(own, b'onbehalf/leaf/v1/person\0{"id":1}', "sha256").hexdigest()
    assert leaf.commitment("person", {"id": 1}, SALT) == expected
    assert leaf.read(made({"person": {"id": 1}}).leaf).facts == {"person": expected}


@pytest.mark.parametrize(
    "facts",
    [{"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 3}, {"a": 2, "b": 1}, {}],
    ids=["missing", "added", "changed", "exchanged", "none"],
)
def test_other_facts_do_not_open_the_leaf(facts: dict[str, Json]) -> None:
    read = leaf.read(made({"a": 1, "b": 2}).leaf)
    with pytest.raises(LedgerCorrupt):
        leaf.open_leaf(read, facts, SALT)


def test_another_salt_does_not_open_the_leaf() -> None:
    with pytest.raises(LedgerCorrupt):
        leaf.open_leaf(leaf.read(made({"a": 1}).leaf), {"a": 1}, bytes(32))


def test_large_facts_fit_because_only_commitments_stand_in_the_leaf() -> None:
    both = made({"arguments": "x" * 1_000_000})
    assert len(both.leaf) < 400


@pytest.mark.parametrize(
    "facts",
    [{"a": float("nan")}, {"A": 1}, {"": 1}, {"a": 2**60}, {"a": "\ud800"}, {f"a{i}": i for i in range(900)}],
    ids=["nan", "name", "empty", "huge", "surrogate", "many"],
)
def test_what_cannot_be_committed_to_is_refused(facts: dict[str, Json]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        made(facts)


@pytest.mark.parametrize("entry", [b"", b"{}", b"[]", b"\xff", b'{"v":1}'])
def test_what_is_no_leaf_is_refused(entry: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        leaf.read(entry)


def test_a_later_leaf_version_is_refused() -> None:
    with pytest.raises(LedgerCorrupt, match="version"):
        leaf.read(made({}).leaf.replace(b'"v":1', b'"v":2'))
