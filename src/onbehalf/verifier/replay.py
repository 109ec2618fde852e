"""Decisions made again, from the questions that were opened and the policies of the bundle. Needs `cedarpy`, an extra.

What a gateway must do with an engine's answer is done here once more, written apart: a call is permitted only if the
engine says allow, nothing erred, at least one permit said so, the people whom a resource names are known, and what the
permits demand of the login is met. Of the policies all stand, with the walls that every bundle has.

Not made again: decisions on the rows of an answer, which are on no record; approvals that people gave; the check of
token and arguments before it. Must not read the bundle (check.py).
"""

from __future__ import annotations

import importlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from onbehalf.verifier.demands import Demands, demanded, unmet
from onbehalf.verifier.leaves import Leaf
from onbehalf.verifier.policies import Policies, PolicyFault, Said
from onbehalf.verifier.refused import Unusable

__all__ = ["OUTCOMES", "Replay", "engine", "made_again"]

OUTCOMES = ("same", "differs", "erased", "not_opened", "not_on_record", "not_decided", "policy_missing")
_KINDS = ("intent", "denial", "asked")
_NEEDED = ("decision", "question")
_UNDONE = ("approval_required", "approval_refused")
_KEPT = 8
_MAX_ENGINES = 20
_MAX_ENTITIES = 15_000


class _Malformed(Exception):
    """A question that no gateway writes."""


def engine() -> Any:  # Any: cedarpy has no types
    """The engine. Raises Unusable where it is not installed."""
    try:
        return importlib.import_module("cedarpy")
    except ImportError as error:
        raise Unusable("--replay needs the policy engine: pip install 'onbehalf-gateway[replay]'") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """How a decision comes out. `code` is that of a denial."""

    permitted: bool
    code: str
    policies: tuple[str, ...]
    erred: bool
    owed: tuple[Demands, ...]


@dataclass(slots=True)
class Replay:
    """Makes decisions again, leaf by leaf, and counts. `bundle` gives a bundle by its digest, or None."""

    cedar: Any  # Any: as `engine` gives it
    bundle: Callable[[str], bytes | None]
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    engines: dict[str, int] = field(default_factory=dict)
    _ready: OrderedDict[str, Policies | None] = field(default_factory=OrderedDict)
    _faults: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The engine here, as records name theirs."""
        return f"cedarpy {version('cedarpy')}"

    def take(self, leaf: Leaf, said: dict[str, Any], *, erased: bool) -> tuple[str, str]:
        """A finding about the next leaf: its code and text, or twice "". `said` are its facts as far as they were
        opened and hold."""
        if leaf.kind not in _KINDS:
            return "", ""
        outcome, code, text = self._outcome(leaf, said, erased=erased)
        self.counts[outcome] += 1
        return code, text

    def _outcome(self, leaf: Leaf, said: dict[str, Any], *, erased: bool) -> tuple[str, str, str]:
        decision = said.get("decision")
        if erased:
            return "erased", "", ""
        if "question" not in leaf.names:
            undecided = isinstance(decision, dict) and "policy" not in decision
            return "not_decided" if undecided else "not_on_record", "", ""
        if any(name not in said for name in _NEEDED):
            return "not_opened", "", ""
        question = said["question"]
        if not isinstance(decision, dict) or not isinstance(question, dict):
            return "differs", "question_malformed", "its question or decision is none"
        if "left_out" in question or _too_large(question):
            return "not_on_record", "", ""
        self._count_engine(decision.get("engine"))
        try:
            if other := _other(leaf, said, decision, question):
                return "differs", "question_other", f"the question on record is not about this call: {other}"
            policies = self._policies(str(decision.get("policy"))[:100])
            if policies is None:
                return "policy_missing", "", ""
            text = _difference(decision, said, made_again(policies, question))
        except PolicyFault as error:
            return "policy_missing", "policy_unusable", str(error)
        except (_Malformed, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            return "differs", "question_malformed", f"its question is none that a gateway writes ({error!r:.100})"
        return ("differs", "decision_differs", text) if text else ("same", "", "")

    def _count_engine(self, name: object) -> None:
        named = str(name)[:100]
        if named in self.engines or len(self.engines) < _MAX_ENGINES:
            self.engines[named] = self.engines.get(named, 0) + 1

    def _policies(self, digest: str) -> Policies | None:
        """The policies of a digest, made ready; None where they are missing, and after a fault that was told."""
        if digest in self._ready:
            self._ready.move_to_end(digest)
            return self._ready[digest]
        self._ready[digest] = None
        if len(self._ready) > _KEPT:
            self._ready.popitem(last=False)
        data = self.bundle(digest) if digest not in self._faults else None
        if data is None:
            return None
        try:
            self._ready[digest] = Policies(self.cedar, data)
        except PolicyFault as error:
            self._faults[digest] = str(error)
            raise PolicyFault(f"the policies {digest} cannot be used: {error}") from error
        return self._ready[digest]


def _too_large(question: dict[str, Any]) -> bool:
    """Whether entities stand with their digest only."""
    about = question.get("about")
    parts = [question, *(about if isinstance(about, list) else ())]
    return any(isinstance(each, dict) and isinstance(each.get("entities"), dict) for each in parts)


def _other(leaf: Leaf, said: dict[str, Any], decision: dict[str, Any], question: dict[str, Any]) -> str:
    """What of the question is not of this call, as far as its other facts were opened; "" where all is."""
    context, about, tenant = question["context"], question["about"], None
    many = sum(len(each["entities"]) for each in (question, *about))
    if question["v"] != 1 or not 1 <= len(about) <= 2 or many > _MAX_ENTITIES:
        raise _Malformed
    for kind, fact in (("User", "person"), ("Service", "service")):
        if fact in said and question["principal"] != {"type": kind, "id": said[fact]["id"]}:
            return "it asks for another person"
    if context["now"] != leaf.at:
        return "it was asked at another time"
    if "caller" in said:
        caller, tenant = said["caller"], said["caller"]["tenant"]
        if context["client"] != _entity_of("Client", caller["client"]) or context["scopes"] != caller["scopes"]:
            return "its client or scopes are not the caller's"
    if "tool" in said:
        tool, first = said["tool"], about[0]
        if question["action"] != tool["action"] or first["resource"] != {"type": "Tool", "id": tool["name"]}:
            return "its tool or action is another"
        attributes = first["entities"][-1]["attrs"]
        if attributes["writes"] != tool["writes"] or tenant not in (None, attributes["tenant"]["__entity"]["id"]):
            return "it says of the tool what it is not"
    return "" if decision.get("resource") == about[-1]["resource"] else "it was decided on another resource"


def _entity_of(kind: str, id_: object) -> dict[str, Any]:
    return {"__entity": {"type": kind, "id": id_}}


def made_again(policies: Policies, question: dict[str, Any]) -> _Made:
    """What the policies make of it: of the tool, and of the resource if that is permitted."""
    principal, action = question["principal"], question["action"]
    scopes, login, tool = question["context"]["scopes"], question["login"], question["tool"]
    own = question["entities"]
    known = {_uid(each["uid"]) for each in own}
    owed: tuple[Demands, ...] = ()
    for about in question["about"]:
        entities = [*own, *(each for each in about["entities"] if _uid(each["uid"]) not in known)]
        asked = policies.ask(principal, action, about["resource"], question["context"], entities)
        asked = _known(asked, about["resource"], entities)
        here = tuple(policies.owed[policy] for policy in asked.policies if policy in policies.owed)
        owed = tuple(dict.fromkeys((*owed, *here)))
        if not (asked.answered and asked.allowed and asked.policies and not asked.errors):
            broken = (not asked.answered or asked.errors) and about["resource"]["type"] == "Tool"
            code = "policy_error" if broken else "not_permitted"
            return _Made(permitted=False, code=code, policies=asked.policies, erred=bool(asked.errors), owed=())
        code = unmet(owed, mapped=tool["mapped"], scopes=scopes, login=login, now=question["context"]["now"])
        if code:
            return _Made(permitted=False, code=code, policies=asked.policies, erred=False, owed=owed)
    return _Made(permitted=True, code="", policies=asked.policies, erred=False, owed=owed)


def _known(asked: Said, resource: dict[str, Any], entities: list[dict[str, Any]]) -> Said:
    """The answer, with an error if the resource names people whom nobody knows: of those Cedar says false or true."""
    if resource["type"] == "Tool":
        return asked
    known = {_uid(each["uid"]) for each in entities}
    about = next((each for each in entities if _uid(each["uid"]) == _uid(resource)), None)
    named = [each.get("__entity") for each in about["attrs"].values() if isinstance(each, dict)] if about else []
    absent = any(each is not None and each["type"] == "User" and _uid(each) not in known for each in named)
    return asked.with_error() if absent else asked


def _uid(value: dict[str, Any]) -> tuple[str, str]:
    return value["type"], value["id"]


def _difference(decision: dict[str, Any], said: dict[str, Any], made: _Made) -> str:
    """How the record differs from what comes out, "" where it does not.

    A denial for want of an approval was permitted by policies. What was looked up or tried before an approval was
    allowed as far; approvals that rows demanded are not of the question.
    """
    effect, code = decision.get("effect"), decision.get("code", "")
    permitted = effect in ("allow", "ask") or (effect == "deny" and code in _UNDONE)
    now = "permitted" if made.permitted else f"denied ({made.code})"
    if permitted != made.permitted or (not permitted and code != made.code):
        return f"on record it is {effect}{f' ({code})' if code else ''}, and it comes out {now}"
    approvers = any("approve" in demanded(each) for each in made.owed)
    if permitted and approvers and effect == "allow" and not {"approval", "purpose"} & said.keys():
        return "it was done without the approval that is demanded"
    if decision.get("policies", []) != [*made.policies]:
        return "it is by other policies than those on record"
    recorded = sorted(json.dumps(each, sort_keys=True) for each in decision.get("obligations", []))
    if recorded != sorted(json.dumps(demanded(each), sort_keys=True) for each in made.owed):
        return "other obligations are on record than its policies demand"
    if bool(decision.get("errors")) != made.erred:
        return "an error is on record that does not come out, or the other way round"
    return ""
