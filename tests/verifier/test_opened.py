"""What was opened: against the leaf's commitments, against each other, and in the one order of its file."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onbehalf.explain import leaf as written
from onbehalf.explain import tree
from onbehalf.model import AuditEntry, Json, UnixTime, canonical, digest
from onbehalf.verifier import opened as opened_module
from onbehalf.verifier.leaves import Intent, read_leaf
from onbehalf.verifier.opened import Opened, Reading, opened_lines
from onbehalf.verifier.receipts import Receipts

INTENT = Intent(call="c", at=1, hash=tree.leaf_hash(b"intent"))


def made_of(kind: str, facts: dict[str, Json]) -> written.Made:
    entry = AuditEntry(kind=kind, call="c", at=UnixTime(1), facts=facts)
    return written.make(written.spell(entry), id_="0", salt=b"s" * 32)


def problems(kind: str, facts: dict[str, Json], intent: Intent | None = None) -> list[str]:
    """What is said of a leaf that commits to exactly these facts, all opened: the log is honest about saying them."""
    made = made_of(kind, facts)
    opened = Opened(index=9, facts=written.opened_facts(written.read(made.leaf), made.payload))
    return [*Reading(receipts=Receipts({})).take(read_leaf(made.leaf), opened, intent)]


def test_arguments_have_the_digest_beside_them() -> None:
    arguments: Json = {"word": "é", "n": 1e21}
    assert problems("intent", {"arguments": arguments, "arguments_digest": digest(canonical(arguments))}) == []
    assert problems("intent", {"arguments": arguments}) == []
    [text] = problems("intent", {"arguments": arguments, "arguments_digest": digest(b"{}")})
    assert "digest" in text


def test_an_outcome_names_the_intent_of_its_leaf_by_number_and_hash() -> None:
    good = f"sha256:{INTENT.hash.hex()}"
    assert problems("outcome", {"intent": {"index": 4, "leaf": good}}, INTENT) == []
    assert (
        problems("outcome", {"intent": {"index": 4, "leaf": "sha256:0"}}) == []
    )  # not in the range: nothing to compare
    [text] = problems("outcome", {"intent": {"index": 4, "leaf": "sha256:0"}}, INTENT)
    assert "another intent" in text
    for strange in (None, [], {"index": 4}, {"index": "4", "leaf": good}):
        facts: dict[str, Json] = {"intent": strange}  # type: ignore[dict-item]  # plain JSON
        assert len(problems("outcome", facts, INTENT)) == (strange is not None)


def test_a_number_of_the_intent_that_is_not_its_leafs_is_found() -> None:
    made = made_of("outcome", {"intent": {"index": 4, "leaf": "x"}})
    facts = written.opened_facts(written.read(made.leaf), made.payload)
    moved = read_leaf(made.leaf.replace(b'"of":4', b'"of":5'))
    [text] = [*Reading(receipts=Receipts({})).take(moved, Opened(index=9, facts=facts), None)]
    assert "another intent" in text


def test_a_fact_that_the_leaf_does_not_commit_to_is_found() -> None:
    made = made_of("x", {"a": 1})
    (_, salt) = written.opened_facts(written.read(made.leaf), made.payload)["a"]
    for facts, why in (
        ({"b": ("1", salt)}, "commits to no such fact"), ({"a": ("1", "xx")}, "salt is malformed"),
        ({"a": ("1 ", salt)}, "not what its leaf commits to"), ({"a": ("\ud800", salt)}, "half a character"),
    ):  # fmt: skip
        [text] = [*Reading(receipts=Receipts({})).take(read_leaf(made.leaf), Opened(index=0, facts=facts), None)]
        assert why in text


def lines(*said: Any) -> list[Opened]:
    return [*opened_lines(json.dumps(each).encode() for each in said)]


def fact(index: int, name: str) -> dict[str, Any]:
    return {"index": index, "fact": name, "json": "1", "salt": "0" * 64}


def test_lines_are_taken_together_leaf_by_leaf() -> None:
    found = lines(fact(1, "a"), fact(1, "b"), {"index": 3, "erased": True}, fact(7, "a"))
    assert [(each.index, each.erased, [*each.facts]) for each in found] == [
        (1, False, ["a", "b"]), (3, True, []), (7, False, ["a"])
    ]  # fmt: skip


@pytest.mark.parametrize(
    "said",
    [
        (fact(2, "a"), fact(1, "a")), (fact(1, "a"), fact(2, "a"), fact(1, "b")), (fact(1, "a"), fact(1, "a")),
        (fact(1, "a"), {"index": 1, "erased": True}), ({"index": 1, "erased": True}, fact(1, "a")),
        ({"index": 1, "erased": False},), ({"index": True, "erased": True},), ({**fact(1, "a"), "more": 1},),
        ({**fact(1, "a"), "json": 1},), (fact(-1, "a"),), ([],), ({"index": 1},),
    ],
    ids=range(12),
)  # fmt: skip
def test_lines_out_of_order_or_of_two_meanings_are_refused(said: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="line"):
        lines(*said)


SPELLINGS = st.builds(
    lambda index, fact, text, salt: json.dumps(
        {"index": index, "fact": fact, "json": text, "salt": salt}, separators=(",", ":"), ensure_ascii=False
    ).encode("utf-8", "surrogatepass"),
    st.integers(0, 10**16), st.sampled_from(["tool", "a_1", "A", ""]),
    st.text(st.sampled_from('{}[]:,"\\a é\n\x7f\ud800')), st.sampled_from(["0" * 64, "F" * 64, ""]),
)  # fmt: skip


@settings(deadline=None)
@given(SPELLINGS, st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=2)), max_size=2))
def test_the_quick_reading_of_a_line_reads_nothing_that_the_strict_one_does_not(
    line: bytes, changes: list[tuple[int, bytes]]
) -> None:
    for place, other in changes:
        at = place % len(line)
        line = line[:at] + other + line[at + 1 :]
    quick = opened_module._PLAIN.fullmatch(line)
    if quick is not None:
        assert opened_module._line(line) == opened_module._any_line(line)


def test_a_usual_line_is_read_quickly() -> None:
    line = b'{"index":7,"fact":"tool","json":"{\\"a\\":[\\"b\\"]}","salt":"%b"}' % (b"0" * 64)
    assert opened_module._PLAIN.fullmatch(line) is not None
    assert opened_module._line(line) == (7, ("tool", '{"a":["b"]}', "0" * 64), -1)


def test_more_facts_of_one_leaf_than_fit_into_any_are_refused_and_not_kept() -> None:
    lines = [{"index": 0, "fact": f"f{each}", "json": "1", "salt": "0" * 64} for each in range(1001)]
    with pytest.raises(ValueError, match="line 1001: leaf 0 has more facts than any leaf"):
        [*opened_lines(json.dumps(each).encode() for each in lines)]
    assert len([*opened_lines(json.dumps(each).encode() for each in lines[:1000])]) == 1
