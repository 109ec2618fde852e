"""How often a schema may look at one value, at worst: a bound on the work of checking, known before anything is sent.

`anyOf` over two schemas that both go down looks at the value 32 levels below 2**32 times. The check runs where it
cannot be stopped, so arguments that could cost too much are refused unchecked. What one keyword goes through entry by
entry counts as a look each, and a pattern that may go back as many. Must not hold the check (route.py).
"""

from __future__ import annotations

from collections import Counter
from urllib.parse import unquote

import jsonschema_rs

from onbehalf.model import Json

__all__ = ["looks"]

_MOST = 10**9
_GOING_BACK = 1_000
"""Looks that one match of a pattern counts as, if it needs lookaround or a reference to what it matched before."""
_SAME = frozenset({"$ref", "$dynamicRef", "$recursiveRef", "not", "if", "then", "else"})
_SAME_LISTS = frozenset({"allOf", "anyOf", "oneOf"})
_SAME_NAMED = frozenset({"dependentSchemas", "dependencies"})
_BELOW = frozenset(
    {"items", "additionalItems", "additionalProperties", "contains", "propertyNames", "unevaluatedItems"}
    | {"unevaluatedProperties"}
)
_Children = Counter[tuple[str, int]]


def looks(schema: dict[str, Json], levels: int) -> tuple[int, ...]:
    """For values of 0 to `levels` levels, how often any one part of the value may be looked at, at most 10**9.

    Raises ValueError for a `$ref` that is not of the form `#/…`, or that makes a circle at one and the same value, and
    RecursionError for hundreds in a row.
    """
    return _Looks(schema).table(levels)


class _Looks:
    def __init__(self, root: dict[str, Json]) -> None:
        self._root = root
        self._nodes: dict[int, Json] = {}
        self._done: dict[int, tuple[int, _Children]] = {}
        self._costs: dict[tuple[int, int], int] = {}

    def table(self, levels: int) -> tuple[int, ...]:
        return tuple(self._cost(self._known(self._root), level) for level in range(levels + 1))

    def _known(self, node: Json) -> int:
        self._nodes[id(node)] = node  # kept, so that no other value gets its id
        return id(node)

    def _cost(self, node: int, levels: int) -> int:
        """At most how often one part is looked at: all that is looked at here, or below under one name."""
        if (node, levels) not in self._costs:
            here, below = self._here(node, ())
            most = here
            if levels > 0:
                sums: Counter[str] = Counter()
                for (name, child), times in below.items():
                    sums[name] = min(_MOST, sums[name] + times * self._cost(child, levels - 1))
                every = sums.pop("", 0)
                most = max(here, every + max(sums.values(), default=0))
            self._costs[node, levels] = min(_MOST, most)
        return self._costs[node, levels]

    def _here(self, node: int, trail: tuple[int, ...]) -> tuple[int, _Children]:
        """How many schemas look at the same value, and which at what is in it (by name; "" for any)."""
        if node in trail:
            raise ValueError("a schema refers to itself without going into its value")
        if node in self._done:
            return self._done[node]
        schema, total, below = self._nodes[node], 1, _Children()
        total += _alone(schema)
        if isinstance(schema, dict):
            if schema is not self._root and any(isinstance(schema.get(each), str) for each in ("$id", "id")):
                raise ValueError("a part of a schema has an `$id`, so that its `$ref` are not this schema's")
            for keyword, value in schema.items():
                for child in self._same(keyword, value):
                    count, under = self._here(self._known(child), (*trail, node))
                    total = min(_MOST, total + count)
                    below.update({key: min(_MOST, times) for key, times in under.items()})
                for name, child, times in _below(keyword, value):
                    below[name, self._known(child)] += times
        self._done[node] = (total, below)
        return total, below

    def _same(self, keyword: str, value: Json) -> list[Json]:
        if keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
            return [self._target(value)]
        if keyword in _SAME:
            return [value]
        if keyword in _SAME_LISTS and isinstance(value, list):
            return value
        return list(value.values()) if keyword in _SAME_NAMED and isinstance(value, dict) else []

    def _target(self, ref: Json) -> Json:
        if not isinstance(ref, str) or (ref != "#" and not ref.startswith("#/")):
            raise ValueError("a `$ref` is not of the form `#/…`")
        found: Json = self._root
        for part in ref.split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                raise ValueError("a `$ref` goes nowhere")
        return found


def _alone(schema: Json) -> int:
    """The work beyond one look that a schema's own keywords are at one value. A choice of plain values is hashed."""
    if not isinstance(schema, dict):
        return 0
    choice, needed, pattern = schema.get("enum"), schema.get("dependentRequired"), schema.get("pattern")
    work = len(needed) if isinstance(needed, dict) else 0
    if isinstance(choice, list) and any(isinstance(each, dict | list) for each in choice):
        work += len(choice)
    return work + (_going_back(pattern) if isinstance(pattern, str) else 0)


def _going_back(pattern: str) -> int:
    """Nothing for a pattern that the engine without going back takes too: its time grows with the text only."""
    try:
        jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=jsonschema_rs.RegexOptions())
    except ValueError:
        return _GOING_BACK
    return 0


def _below(keyword: str, value: Json) -> list[tuple[str, Json, int]]:
    """Name ("" for any), schema, and how many times over its work counts."""
    if keyword == "properties" and isinstance(value, dict):
        return [(name, each, 1) for name, each in value.items()]
    if keyword == "patternProperties" and isinstance(value, dict):
        return [("", each, 1 + _going_back(pattern)) for pattern, each in value.items()]
    if keyword in ("items", "prefixItems") and isinstance(value, list):
        return [("", each, 1) for each in value]
    return [("", value, 1)] if keyword in _BELOW and isinstance(value, dict) else []
