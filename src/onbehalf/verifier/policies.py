"""A policy bundle made ready to be asked, from its bytes; bounded, as its text may be by anybody.

Must not know what was decided (replay.py).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any

from onbehalf.verifier.demands import Demands, read_demands
from onbehalf.verifier.strict import strict

__all__ = ["WALLS", "Policies", "PolicyFault", "Said"]

WALLS = """
@id("wall:tenant")
@doc("Nobody reaches anything of another tenant.")
forbid (principal, action, resource) unless { principal.tenant == resource.tenant };

@id("wall:active")
@doc("A person who is not active may do nothing.")
forbid (principal, action, resource) unless { principal.active };
"""
_MAX_BYTES = 10 << 20
_MAX_POLICIES = 2_000
_MAX_BRACKETS = 64
_MAX_STATEMENT = 8_000
_BRACKET = re.compile(r'//[^\n\r]*|"(?:[^"\\]|\\[\s\S])*"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<end>;)')
_LONG = re.compile(r"-?[0-9]{1,19}")
_NOBODY = '{"client":{"__entity":{"type":"Client","id":"c"}},"scopes":[],"now":0}'


class PolicyFault(Exception):
    """A bundle that cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What the engine said. `answered` is false where it could not be asked; `policies` are those that determined."""

    allowed: bool
    answered: bool
    policies: tuple[str, ...]
    errors: bool

    def with_error(self) -> Said:
        return replace(self, errors=True)


_UNANSWERED = Said(allowed=False, answered=False, policies=(), errors=True)
_NOT_THEIRS = Said(allowed=False, answered=True, policies=(), errors=False)


class Policies:
    """The policies of one bundle. `owed` holds what permits demand, by policy."""

    def __init__(self, cedar: Any, data: bytes) -> None:  # Any: cedarpy has no types
        """Raises PolicyFault."""
        self._cedar = cedar
        self.owed: dict[str, Demands] = {}
        try:
            texts, schema = _texts(data)
            self._schema = cedar.Schema.from_str(schema)
            static = self._parsed(texts)
            for name, each in static.items():
                if (demands := read_demands(name, each["annotations"])) is not None:
                    self.owed[name] = demands
            own = {name: each for name, each in static.items() if _speaks_to(each, "User")}
            services = {name: each for name, each in static.items() if _speaks_to(each, "Service")}
            self._sets = {"User": _set(cedar, own), "Service": _set(cedar, services)}
            self._none = _set(cedar, {})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise PolicyFault(f"{error}"[:300]) from error

    def ask(
        self, principal: dict[str, Any], action: str, resource: dict[str, Any], context: dict[str, Any],
        entities: list[dict[str, Any]],
    ) -> Said:  # fmt: skip
        """What they say. Where it cannot be asked so, it is not answered."""
        space, separator, id_ = action.rpartition("::")
        named = {"type": f"{space}{separator}Action", "id": id_}
        request = {
            "principal": principal, "action": named, "resource": resource, "context": json.dumps(context),
        }  # fmt: skip
        policies = self._sets.get(principal["type"])
        if policies is None:
            return _UNANSWERED
        if principal["type"] == "Service" and not self._is_for_services(named):
            return _NOT_THEIRS
        try:
            known = [
                {**each, "attrs": {name: _value(value) for name, value in each["attrs"].items()}} for each in entities
            ]
            handle = self._cedar.Entities.from_json_str(json.dumps(known), self._schema)
            result = self._cedar.is_authorized(request, policies, handle, schema=self._schema)
        except BaseException as error:
            if isinstance(error, (ValueError, TypeError)) or type(error).__name__ == "PanicException":
                return _UNANSWERED
            raise
        decision = result.decision.name
        answered, errors = decision != "NoDecision", bool(result.diagnostics.errors)
        determined = tuple(sorted(result.diagnostics.reasons))
        return Said(allowed=decision == "Allow", answered=answered, policies=determined, errors=errors)

    def _is_for_services(self, action: dict[str, str]) -> bool:
        """Whether the schema lets a service do this at all."""
        probe = {
            "principal": {"type": "Service", "id": "t/p"}, "action": action, "resource": {"type": "Tool", "id": "t"},
            "context": _NOBODY,
        }  # fmt: skip
        nobody = self._cedar.Entities.from_json_str("[]", self._schema)
        asked = self._cedar.is_authorized(probe, self._none, nobody, schema=self._schema)
        return bool(asked.decision.name != "NoDecision")

    def _parsed(self, texts: list[str]) -> dict[str, Any]:
        """All policies by their @id, strictly validated."""
        found: dict[str, Any] = {}
        for text in texts:
            if not self._cedar.validate_policies(text, self._schema):
                raise ValueError("a policy does not fit the schema")
            est = json.loads(self._cedar.policies_to_json_str(text))
            if est.get("templates"):
                raise ValueError("it has a template")
            for each in est["staticPolicies"].values():
                name = each.get("annotations", {}).get("id")
                if not isinstance(name, str) or name in found:
                    raise ValueError("a policy has no id of its own")
                found[name] = each
        if len(found) > _MAX_POLICIES:
            raise ValueError(f"it has more than {_MAX_POLICIES} policies")
        return found


def _texts(data: bytes) -> tuple[list[str], str]:
    """The policies' texts, the walls first, and the schema's."""
    if len(data) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES} bytes")
    said = strict(data, depth=8)
    if not isinstance(said, dict) or said.keys() != {"core", "policies", "schemas", "walls"}:
        raise ValueError("it is no policy bundle")
    if said["walls"] != WALLS:
        raise ValueError("its walls are not those that every bundle has")
    policies, schemas = ([text for _, text in said[name]] for name in ("policies", "schemas"))
    texts = [WALLS, *policies]
    for text in (*texts, said["core"], *schemas):
        _require_shallow(text)
    return texts, "\n".join([said["core"], *schemas])


def _require_shallow(text: str) -> None:
    """Cedar's parser overflows the stack on what is nested deep or chained long, which would end this program."""
    depth = start = 0
    for found in _BRACKET.finditer(text):
        depth = depth + 1 if found["open"] else max(0, depth - 1) if found["close"] else depth
        ends = bool(found["end"])
        if depth > _MAX_BRACKETS or (ends and found.start() - start > _MAX_STATEMENT):
            raise ValueError("it is nested too deep, or a statement is too long")
        start = found.end() if ends else start
    if len(text) - start > _MAX_STATEMENT:
        raise ValueError("a statement is too long")


def _speaks_to(policy: dict[str, Any], principal: str) -> bool:
    """A forbid is for all whom its scope fits. A permit is for people, unless its scope says `principal is Service` or
    names one."""
    if policy["effect"] == "forbid":
        return True
    scope = policy["principal"]
    named = scope.get("entity_type") or (scope.get("entity") or {}).get("type") if scope["op"] in ("is", "==") else ""
    return bool((named == "Service") == (principal == "Service"))


def _set(cedar: Any, policies: dict[str, Any]) -> Any:  # Any: cedarpy has no types
    return cedar.PolicySet.from_json_str(json.dumps({"templates": {}, "staticPolicies": policies, "templateLinks": []}))


def _value(value: Any) -> Any:  # Any: JSON
    """A value in Cedar's JSON: long integers, which the record spells as text, as they are."""
    if isinstance(value, dict):
        long = value.get("__long")
        if value.keys() == {"__long"} and isinstance(long, str) and _LONG.fullmatch(long):
            return int(long)
        if value.keys() != {"__entity"}:
            raise ValueError("a value is none that a question has")
        return value
    return [_value(each) for each in value] if isinstance(value, list) else value
