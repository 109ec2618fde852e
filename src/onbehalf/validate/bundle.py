"""What a policy bundle must look like, checked on its JSON form (EST), and how a policy is taken apart.

The walls stand here as Cedar text: they are part of every bundle and no file can leave them out. Must not parse
Cedar, read files or ask an engine: the engine door does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from onbehalf.errors import PolicyInvalid
from onbehalf.model import Json, Obligations, canonical
from onbehalf.validate import demands

__all__ = [
    "WALLS", "Est", "Files", "Policy", "Source", "conditions", "conjuncts", "covering", "permit",
    "policies_of", "require_clean", "require_shallow", "speaks_to", "spelled", "tidy", "unspelled",
]  # fmt: skip

Est: TypeAlias = dict[str, Any]
"""Cedar's JSON form of one policy or expression; `Any` because its shape is Cedar's and changes with its operators."""

WALLS = """
@id("wall:tenant")
@doc("Nobody reaches anything of another tenant.")
forbid (principal, action, resource) unless { principal.tenant == resource.tenant };

@id("wall:active")
@doc("A person who is not active may do nothing.")
forbid (principal, action, resource) unless { principal.active };
"""

_WALL_PREFIX = "wall:"
_KNOWN = ("id", "doc", "owner", "remedy", *demands.KINDS)
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}")
_MAX_SHOWN = 10
_NEGATED = {"==": "!=", "!=": "=="}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_PATH_IN_PARENTHESES = re.compile(r"(?<![\w\])])\(([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\)")
_ANY: Est = {part: {"op": "All"} for part in ("principal", "action", "resource")}
_BRACKET = re.compile(r'//[^\n\r]*|"(?:[^"\\]|\\[\s\S])*"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<end>;)')
_MAX_BRACKETS = 64
_MAX_STATEMENT = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file of a bundle, by its path within the bundle."""

    name: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """All that is in force with a bundle."""

    policies: tuple[Source, ...]
    schemas: tuple[Source, ...]
    core: str
    walls: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy with its annotations, in Cedar's JSON form. `obligations` is what it demands of what it permits."""

    id: str
    doc: str
    remedy: str
    obligations: Obligations
    est: Est


def spelled(policies: Sequence[Source], schemas: Sequence[Source], *, core: str) -> bytes:
    """The bytes that the digest of a bundle is of, as canonical JSON: all that was in force, for later readers."""
    pairs: list[list[Json]] = [[[each.name, each.text] for each in files] for files in (policies, schemas)]
    value: Json = {"core": core, "policies": pairs[0], "schemas": pairs[1], "walls": WALLS}
    return canonical(value)


def unspelled(spelled: bytes) -> Files:
    """The files of a bundle that `spelled` gave. Raises ValueError for what it did not give."""
    try:
        said = orjson.loads(spelled)
        pairs = {kind: [(name, text) for name, text in said[kind]] for kind in ("policies", "schemas")}
        core, walls = said["core"], said["walls"]
    except (TypeError, KeyError) as error:
        raise ValueError("it is no bundle") from error
    texts = [core, walls, *(each for found in pairs.values() for pair in found for each in pair)]
    if not all(isinstance(each, str) for each in texts):
        raise ValueError("it is no bundle")
    sources = {kind: tuple(Source(name=name, text=text) for name, text in found) for kind, found in pairs.items()}
    for source in (*sources["policies"], *sources["schemas"], Source(name="walls", text=walls)):
        require_shallow(source)
    return Files(policies=sources["policies"], schemas=sources["schemas"], core=core, walls=walls)


def policies_of(est: Est) -> tuple[Policy, ...]:
    """The policies of one parsed text, in its order. Only for text that `require_clean` has passed, or the walls."""
    return tuple(
        Policy(
            id=each["annotations"]["id"],
            doc=each["annotations"]["doc"],
            remedy=each["annotations"].get("remedy") or "",
            obligations=_owed(each["annotations"]),
            est=each,
        )
        for each in _in_order(est)
    )


def require_clean(files: Iterable[tuple[str, Est]]) -> None:
    """Lint parsed files, each `(name, EST)`. Raises PolicyInvalid naming each fault with its file and policy."""
    faults: list[str] = []
    seen: dict[str, str] = {}
    for name, est in files:
        faults += [f"{name}: a template stands here; write policies without slots"] * bool(est.get("templates"))
        for number, policy in enumerate(_in_order(est), start=1):
            annotations: Mapping[str, str | None] = policy.get("annotations") or {}
            where = f"{name}: policy `{annotations.get('id') or f'number {number}'}`"
            faults += [f"{where} {fault}" for fault in _faults(policy, annotations)]
            own = annotations.get("id")
            if own and own in seen:
                faults.append(f"{where} has the id of a policy in {seen[own]}")
            seen.setdefault(own or "", name)
    if faults:
        more = [f"and {len(faults) - _MAX_SHOWN} more"] if len(faults) > _MAX_SHOWN else []
        raise PolicyInvalid("; ".join([*faults[:_MAX_SHOWN], *more]), hint="docs/policy.md lists the rules")


def _faults(policy: Est, annotations: Mapping[str, str | None]) -> list[str]:
    own = annotations.get("id") or ""
    faults = []
    if not own:
        faults.append("has no @id")
    elif own.startswith(_WALL_PREFIX):
        faults.append(f"has an @id beginning with `{_WALL_PREFIX}`, which only the gateway's own walls have")
    elif not _ID.fullmatch(own):
        faults.append("has an @id that is not 1 to 100 letters, digits or `._:/-`")
    if not (annotations.get("doc") or "").strip():
        faults.append("has no @doc")
    for unknown in sorted(annotations.keys() - set(_KNOWN)):
        faults.append(f"has an unknown annotation @{unknown}; known ones are @{', @'.join(_KNOWN)}")
    if policy.get("effect") == "permit" and _is_bare(policy):
        faults.append("permits everything to everyone: it has neither scope nor condition")
    for kind in sorted(annotations.keys() & demands.KINDS.keys()):
        if policy.get("effect") != "permit":
            faults.append(f"forbids, and so cannot have the obligation @{kind}")
        try:
            demands.read(kind, annotations[kind] or "")
        except ValueError as error:
            faults.append(f"has an unreadable @{kind}: expected {error}")
    return faults


def _owed(annotations: Mapping[str, str | None]) -> Obligations:
    named = annotations.keys() & demands.KINDS.keys()
    return demands.merge(demands.read(kind, annotations[kind] or "") for kind in named)


def _is_bare(policy: Est) -> bool:
    return all(policy[part]["op"] == "All" for part in _ANY) and not conjuncts(policy)


def _in_order(est: Est) -> list[Est]:
    """Policies as they stand in the file: Cedar calls them policy0, policy1, and lists policy10 before policy2."""
    named: dict[str, Est] = est.get("staticPolicies") or {}
    return [named[key] for key in sorted(named, key=lambda key: int(key.removeprefix("policy")))]


# --- taking a policy apart -----------------------------------------------------------------


def conjuncts(policy: Est) -> tuple[Est, ...]:
    """The conditions that must all be true for a policy to apply: top-level conjuncts, `unless` negated.

    A literal `true` is no condition and is left out.
    """
    found: list[Est] = []
    for condition in policy.get("conditions") or []:
        if condition["kind"] == "when":
            found += _split(condition["body"], "&&")
        else:  # unless { a || b } is !a && !b
            found += [_negated(part) for part in _split(condition["body"], "||")]
    return tuple(part for part in found if part != {"Value": True})


def conditions(policy: Est) -> list[Est]:
    """The scope's own conditions, then the conjuncts. The action is left out: a slice holds only its policies."""
    scope = [_scope_condition(name, policy[name]) for name in ("principal", "resource") if policy[name]["op"] != "All"]
    return [*scope, *conjuncts(policy)]


def speaks_to(policy: Policy, principal: str) -> bool:
    """Whether a policy can be for a kind of principal. A forbid is for all that its scope fits. A permit is for people,
    unless its scope itself says `principal is Service` or names one."""
    if policy.est["effect"] == "forbid":
        return True
    scope = policy.est["principal"]
    named = scope.get("entity_type") or (scope.get("entity") or {}).get("type") if scope["op"] in ("is", "==") else ""
    return (named == "Service") == (principal == "Service")


def covering(action: Est) -> Est:
    """A permit for an action scope and nothing else, for asking an engine which actions the scope covers."""
    return {"effect": "permit", **_ANY, "action": action, "conditions": []}


def _scope_condition(name: str, scope: Est) -> Est:
    left: Est = {"Var": name}
    if scope["op"] == "is":
        inside = {"in": {"Value": {"__entity": scope["in"]["entity"]}}} if "in" in scope else {}
        return {"is": {"left": left, "entity_type": scope["entity_type"], **inside}}
    return {scope["op"]: {"left": left, "right": {"Value": {"__entity": scope["entity"]}}}}


def permit(condition: Est, kind: str = "when") -> Est:
    """A permit on this one condition, for asking an engine whether it holds."""
    return {"effect": "permit", **_ANY, "conditions": [{"kind": kind, "body": condition}]}


def _split(body: Est, operator: str) -> list[Est]:
    # a loop, not recursion: a chain of a thousand conjuncts is a thousand deep
    parts: list[Est] = []
    open_ = [body]
    while open_:
        node = open_.pop()
        if operator in node:
            open_ += [node[operator]["right"], node[operator]["left"]]
        else:
            parts.append(node)
    return parts


def _negated(node: Est) -> Est:
    [(operator, inside)] = node.items()
    if operator in _NEGATED:
        return {_NEGATED[operator]: inside}
    if operator == "!":
        negated: Est = inside["arg"]
        return negated
    if operator == "Value" and isinstance(inside, bool):
        return {"Value": not inside}
    return {"!": {"arg": node}}


def require_shallow(source: Source) -> None:
    """Refuse what is nested too deep, before any parser sees it: brackets over 64, statements over 8,000 characters.

    Cedar's parser overflows the stack on a few thousand brackets or on chains such as `a && b && ...` of some hundred
    thousand characters, which ends the process and no handler can catch. Raises PolicyInvalid.
    """
    depth = start = 0
    for found in _BRACKET.finditer(source.text):
        depth = depth + 1 if found["open"] else max(0, depth - 1) if found["close"] else depth
        if depth > _MAX_BRACKETS:
            raise PolicyInvalid(f"{source.name}: brackets nest deeper than {_MAX_BRACKETS}", hint="split the policy")
        if found["end"]:
            _require_short(source, found.start() - start)
            start = found.end()
    _require_short(source, len(source.text) - start)


def _require_short(source: Source, length: int) -> None:
    if length > _MAX_STATEMENT:
        raise PolicyInvalid(f"{source.name}: a statement is over {_MAX_STATEMENT} characters", hint="split the policy")


def tidy(text: str) -> str:
    """A condition as a person would write it: parentheses around plain paths go. String literals are not touched."""
    literals: list[str] = []

    def keep(match: re.Match[str]) -> str:
        literals.append(match[0])
        return f"\x00{len(literals) - 1}\x00"

    shown = _STRING.sub(keep, text.strip())
    before = ""
    while before != shown:
        before, shown = shown, _PATH_IN_PARENTHESES.sub(r"\1", shown)
    return re.sub(r"\x00(\d+)\x00", lambda match: literals[int(match[1])], shown)
