"""What is checked besides the record is begun only where it is asked for; what outcomes say of witnesses is bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cedarpy
import pytest

from onbehalf.verifier import witnessed
from onbehalf.verifier.besides import NOTHING_BESIDES, Besides, Under
from onbehalf.verifier.leaves import Leaf
from onbehalf.verifier.witnessed import Witnessed

LEAF = Leaf("intent", "c", 1, -1, (), [])


def bundle(_: str) -> bytes | None:
    return None


def test_nothing_is_begun_that_is_not_asked_for(tmp_path: Path) -> None:
    assert (NOTHING_BESIDES.replay, NOTHING_BESIDES.tokens, NOTHING_BESIDES.backends) == (False, None, ())
    assert NOTHING_BESIDES.begin(bundle) is None
    begun = Besides(replay=True).begin(bundle)
    assert begun is not None
    assert begun.replay is not None
    assert (begun.replay.cedar, begun.replay.bundle, begun.tokens) == (cedarpy, bundle, None)
    begun = Besides(tokens=tmp_path / "kept").begin(bundle)
    assert begun is not None
    assert begun.tokens is not None
    assert (begun.tokens.path, begun.replay) == (tmp_path / "kept", None)


class Played:
    """Plays both: finds what it is told to, and notes what it was given."""

    name, counts, engines = "engine", {"same": 1}, {"e": 1}

    def __init__(self, *found: tuple[str, str]) -> None:
        self._found, self.given = found, list[Any]()

    def read(self, *given: Any) -> Any:
        self.given.append(given)
        yield from self._found

    def take(self, *given: Any, **named: Any) -> Any:
        self.given.append((*given, *named.values()))
        return self._found[0] if named else iter(self._found)


def test_both_are_given_each_leaf_and_what_they_find_is_told_in_order() -> None:
    replay: Any = Played(("decision_differs", "text"))
    tokens: Any = Played(("token_differs", "one"), ("token_twice", "two"))
    both = Under(replay=replay, tokens=tokens)
    assert [*both.keys("jwks", 3, 9)] == [("token_differs", "one"), ("token_twice", "two")]
    assert [*both.take(4, LEAF, b"h", {"a": 1}, erased=True)] == [
        ("decision_differs", "text"), ("token_differs", "one"), ("token_twice", "two"),
    ]  # fmt: skip
    assert (replay.given, tokens.given) == ([(LEAF, {"a": 1}, True)], [("jwks", 3, 9), (4, LEAF, b"h", {"a": 1})])
    assert both.told() == ({"same": 1, "engine": "engine", "recorded_engines": {"e": 1}}, {"same": 1})
    quiet: Any = Played(("", ""))
    assert [*Under(replay=quiet, tokens=None).take(4, LEAF, b"h", {}, erased=False)] == []
    none = Under(replay=None, tokens=None)
    assert ([*none.keys("jwks", 3, 9)], [*none.take(4, LEAF, b"h", {}, erased=False)], none.told()) == (
        [], [], (None, None),
    )  # fmt: skip


def test_a_head_that_was_cosigned_for_an_intent_has_it_and_a_thousand_are_listed_of_each() -> None:
    claims = Witnessed()
    for said in (None, [], {}, {"size": -1}, {"size": True}, {"size": "6"}):
        assert claims.take(0, said) == "its fact `witnessed` names no head"
    for size in (0, 5):
        text = f"its fact `witnessed` names a head of {size} leaves, which has not its intent 5"
        assert claims.take(5, {"size": size}) == text
    assert (claims.take(5, {"size": 6}), claims.count) == ("", 1)
    for index in range(1001):
        assert claims.take(index, {"size": 2000}) == ""
    assert claims.intents == {6: [5], 2000: [*range(1000)]}
    assert claims.count == 1002


def test_outcomes_name_at_most_a_million_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (witnessed.LISTED, witnessed._MOST_SIZES) == (1000, 1_000_000)
    monkeypatch.setattr(witnessed, "_MOST_SIZES", 2)
    claims = Witnessed()
    assert [claims.take(0, {"size": size}) for size in (1, 2, 1, 3, 2)] == [
        "", "", "", "its fact `witnessed` names another head than a million before it", "",
    ]  # fmt: skip
    assert claims.intents == {1: [0, 0], 2: [0, 0]}
