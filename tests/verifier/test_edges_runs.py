"""What is told of many leaves at once is exact: where a run begins and ends, and what stands in it to be joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from onbehalf.verifier import merkle, runs, walk
from onbehalf.verifier.leaves import MAX_LEAF, Leaf, Pairing, Run
from onbehalf.verifier.runs import Examined, examined, subtrees

A, B = "a" * 16, "b" * 16
CALLS = [f"call_{each}" for each in range(9)]


def line(kind: str, at: int, call: str = "", *, of: int = -1, n: int = 0, ch: str = A, facts: str = "") -> bytes:
    """A leaf in its one spelling."""
    channel, number, about = f'"ch":"{ch}",' if n else "", f'"n":{n},' if n else "", f'"of":{of},' if of >= 0 else ""
    return (
        f'{{"at":{at},"call":"{call}",{channel}"facts":{{{facts}}},"id":"","kind":"{kind}",{number}{about}"v":1}}'
    ).encode()


def named(*names: str) -> bytes:
    return line("denial", 1, facts=",".join(f'"{name}":"{"0" * 64}"' for name in names))


def block(*lines: bytes) -> bytes:
    return b"".join(each + b"\n" for each in lines)


def hashes(*lines: bytes) -> list[bytes]:
    return [merkle.leaf_hash(each) for each in lines]


def told(start: int, *lines: bytes) -> list[Run]:
    """The runs of these leaves; the tree over them is right, and none is too long."""
    found = examined(start, block(*lines))
    assert (found.pieces, found.too_long) == (merkle.pieces(start, hashes(*lines)), False)
    return found.runs


def test_a_run_tells_all_that_must_be_joined_with_what_came_before() -> None:
    lines = [
        line("intent", 10, CALLS[0], n=7),
        line("intent", 12, CALLS[1], n=8),
        line("intent", 15, CALLS[2]),
        line("intent", 15, CALLS[3], n=4, ch=B),
        line("outcome", 18, CALLS[0], of=5),
        line("unknown", 20, CALLS[2], of=7),
        line("outcome", 23, CALLS[4], of=4),
        line("unknown", 30, CALLS[5], of=0),
        line("denial", 37, CALLS[6]),
        line("intent", 38, CALLS[7], n=9),
        line("denial", 38),
    ]
    made = hashes(*lines)
    assert told(5, *lines) == [
        Run(
            11, {"intent": 5, "outcome": 2, "unknown": 2, "denial": 2}, 10, 38, (7, 12),
            [(3, 7), (3, 9), (3, 11), (7, 12), (7, 13)],
            [(6, CALLS[1], 12, made[1]), (8, CALLS[3], 15, made[3]), (14, CALLS[7], 38, made[9])],
            [(4, CALLS[4]), (0, CALLS[5])], [7, 0], {A: (7, 9), B: (4, 4)}, 1,
        )
    ]  # fmt: skip


def test_where_clocks_stand_or_run_backwards_the_first_of_the_longest_gaps_is_told() -> None:
    assert told(0, *(line("x", at) for at in (9, 7, 5, 5, 5)))[0].gap == (0, 3)
    assert told(0, line("x", 9), line("x", 7))[0].gap == (-2, 1)
    assert told(3, line("x", 9)) == [Run(1, {"x": 1}, 9, 9, None, [], [], [], [], {}, 0)]
    assert told(0, line("x", 1), line("x", 3), line("x", 6))[0].silent == [(3, 2)]


def test_where_nothing_begins_nothing_is_told() -> None:
    nothing = Run(0, {}, 0, 0, None, [], [], [], [], {}, 0)
    assert runs._run(4, [b"{}"], hashes(b"{}"), 0, runs._Shapes()) == nothing


@pytest.mark.parametrize("kind", ["heartbeat", "stop", "reconciled", "erased", "start", "key_change"])
def test_a_leaf_that_changes_how_others_are_read_is_in_no_run(kind: str) -> None:
    assert [each.leaves for each in told(4, line("x", 1), line(kind, 1), line("x", 1))] == [1, 1, 1]
    assert told(4, line(kind, 1), line(kind, 2)) == [Run(2)]


def test_leaves_that_are_none_stand_together_between_the_runs() -> None:
    good, bad = line("x", 1), b"{}"
    found = told(3, bad, good, good, bad, bad, bad, good, bad)
    assert [(each.leaves, bool(each.kinds)) for each in found] == [
        (1, False), (2, True), (3, False), (1, True), (1, False),
    ]  # fmt: skip
    assert told(3) == []


def test_a_number_that_does_not_go_on_begins_another_run() -> None:
    lines = [line("intent", 1, CALLS[0], n=3), line("intent", 1, CALLS[1], n=5), line("intent", 1, CALLS[2], n=6)]
    assert [(each.leaves, each.channels) for each in told(2, *lines)] == [(1, {A: (3, 3)}), (2, {A: (5, 6)})]


def test_an_answer_to_another_call_or_to_no_intent_of_the_run_begins_another() -> None:
    intent = line("intent", 1, CALLS[0], n=1)
    first, second = told(2, intent, line("outcome", 1, CALLS[1], of=2))
    assert (first.leaves, [each[0] for each in first.open]) == (1, [2])
    assert second.answers == [(2, CALLS[1])]
    twice = told(2, intent, line("outcome", 1, CALLS[0], of=2), line("outcome", 1, CALLS[0], of=2))
    assert [(each.leaves, [*each.open], [*each.answers]) for each in twice] == [(2, [], []), (1, [], [(2, CALLS[0])])]
    for later in (2, 3, 9):
        assert told(2, line("outcome", 1, CALLS[0], of=later)) == [Run(1)]
    assert told(2, line("outcome", 1, CALLS[0])) == told(2, line("unknown", 1, CALLS[0])) == [Run(1)]
    assert told(0, line("outcome", 1, CALLS[0]), line("x", 1))[0] == Run(1)
    assert told(1, line("outcome", 1, CALLS[0], of=0))[0].answers == [(0, CALLS[0])]


def test_a_block_with_a_line_too_long_is_not_examined_and_one_of_the_most_is() -> None:
    longest = b"x" * MAX_LEAF
    for given in (examined, subtrees):
        assert not given(0, block(longest, b"")).too_long
        assert not given(0, block(*[line("x", 1)] * 2000)).too_long
        assert not given(0, b"").too_long
    assert examined(0, block(b"", longest + b"x")) == Examined([], [], True)
    assert subtrees(0, block(b"", longest + b"x")).too_long


def test_leaves_to_be_taken_by_themselves_are_one_run_of_no_kinds_and_their_tree() -> None:
    lines = [line("x", each) for each in range(5)]
    assert subtrees(3, block(*lines)) == Examined(merkle.pieces(3, hashes(*lines)), [Run(5)], False)


def test_names_make_a_shape_when_they_come_for_the_fourth_time() -> None:
    shapes = runs._Shapes()
    for known in (0, 0, 0, 1, 1):
        assert shapes.groups(named("tool")) == (b"1", b"", None, b"denial", None, None)
        assert len(shapes._known) == known
    assert shapes.groups(line("outcome", 5, "c", of=0)) == (b"5", b"c", None, b"outcome", None, b"0")
    assert shapes.groups(line("intent", 5, "c", n=3)) == (b"5", b"c", A.encode(), b"intent", b"3", None)
    assert shapes.groups(b"{}") is None


def test_eight_shapes_are_made_of_at_most_32_names() -> None:
    shapes = runs._Shapes()
    many = [f"a{each:02}" for each in range(33)]
    for names in (many, many[:32], *([f"b{each}"] for each in range(9))):
        for _ in range(4):
            assert shapes.groups(named(*names)) is not None
    assert [each.groups(named(*many[:32])) is not None for each in shapes._known] == [True, *[False] * 7]
    assert shapes._known[-1].groups(named("b6")) is not None


def summed(*given: Run | Leaf) -> dict[str, Any]:
    """What is told of leaves and runs that follow each other from leaf 4 on."""
    made, index = walk._Summary(), 4
    for each in given:
        if isinstance(each, Run):
            assert made.fits(each)
            made.run(index, each)
            index += each.leaves
        else:
            made.take(index, each)
            index += 1
    found: dict[str, Any] = made.told(Pairing(4))
    return {name: found[name] for name in ("kinds", "first_at", "last_at", "longest_gap")}


def leaf(kind: str, at: int) -> Leaf:
    return Leaf(kind, "", at, -1, (), [])


def test_a_summary_is_the_same_of_runs_and_of_their_leaves() -> None:
    one = Run(3, {"x": 2, "y": 1}, 5, 9, (3, 5))
    assert summed(one) == {
        "kinds": {"x": 2, "y": 1}, "first_at": 5, "last_at": 9, "longest_gap": {"seconds": 3, "before": 5},
    }  # fmt: skip
    assert summed(leaf("y", 0), Run(1, {"y": 1}, 7, 7), leaf("y", 14), Run(2, {"x": 2}, 16, 24, (8, 8))) == {
        "kinds": {"y": 3, "x": 2}, "first_at": 0, "last_at": 24, "longest_gap": {"seconds": 8, "before": 8},
    }  # fmt: skip
    assert summed(leaf("y", 3), Run(1, {"y": 1}, 10, 10), leaf("y", 17))["longest_gap"] == {"seconds": 7, "before": 5}


def test_a_run_fits_a_summary_up_to_a_thousand_kinds() -> None:
    made = walk._Summary()
    made.run(0, Run(998, {f"k{each}": 1 for each in range(998)}))
    assert made.fits(Run(2, {"k0": 1, "l": 1, "m": 1}))
    assert not made.fits(Run(3, {"l": 1, "m": 1, "n": 1}))


def test_blocks_are_cut_where_a_root_is_wanted_and_numbered_by_their_first_leaf() -> None:
    def given() -> Iterator[bytes]:
        yield block(b"a", b"b", b"c", b"d")
        yield block(b"e", b"f")

    def cut(*stops: int) -> list[tuple[int, bytes]]:
        return [*walk._numbered(given(), 10, stops)]

    whole = [(10, b"a\nb\nc\nd\n"), (14, b"e\nf\n")]
    assert cut() == cut(10, 14, 16) == cut(9, 17) == whole
    assert cut(11, 13, 15) == [(10, b"a\n"), (11, b"b\nc\n"), (13, b"d\n"), (14, b"e\n"), (15, b"f\n")]
    assert cut(12) == [(10, b"a\nb\n"), (12, b"c\nd\n"), (14, b"e\nf\n")]
