"""A decision made again from what its record says was asked: the same engine, the same legs, no world around it.

Made again is what the policies say of the questions on record, and whether what they demand is met by the login on
record. Not made again: the check of the token, arguments and scopes of the tool before it; approvals that people gave
or rows demanded; and the decisions on the rows of an answer, which are on no record. Must not read a ledger, or hold
how a question is spelled (explain/asked.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msgspec.structs import replace

from onbehalf.model import Entity, Json, Judgement, Owed, Question, Ref, UnixTime
from onbehalf.validate import decide, obligations

__all__ = ["NotReplayable", "Recalled", "Ruling", "recalled", "ruling"]

Effect: TypeAlias = Literal["allow", "ask", "deny"]
_DEPTH = 64


class NotReplayable(Exception):
    """This decision cannot be made again. `reason` is `too_large`, `left_out`, `not_on_record`, `unreadable` or
    `no_such_action`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Login:
    acr: str
    auth_time: UnixTime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _By:
    scopes: frozenset[str]
    evidence: _Login


@dataclass(frozen=True, slots=True, kw_only=True)
class _Of:
    name: str
    scopes: frozenset[str]
    rows: object | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What was asked, as values again. `goes_on` says that the call was yet to be decided on a resource."""

    questions: tuple[Question, ...]
    by: _By
    of: _Of
    now: UnixTime
    goes_on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a bundle makes of a question. `code` is that of a denial. With `goes_on` the call is permitted so far, and
    would be decided on a resource that is on no record."""

    effect: Effect
    code: str
    policies: tuple[str, ...]
    errors: tuple[str, ...]
    owed: tuple[Owed, ...]
    goes_on: bool = False


Slices: TypeAlias = Callable[[Json, Callable[[], tuple[Entity, ...]]], tuple[Entity, ...]]
"""Gives the same tuple for the same JSON while it remembers it, so that an engine prepares a slice once."""


def recalled(fact: Json, *, slices: Slices) -> Recalled:
    """The questions of a record. Raises NotReplayable."""
    if not isinstance(fact, dict):
        raise NotReplayable("not_on_record")
    if "left_out" in fact:
        raise NotReplayable("left_out")
    try:
        return _recalled(fact, slices)
    except (KeyError, TypeError, ValueError) as error:
        raise NotReplayable("unreadable") from error


def _recalled(fact: Mapping[str, Json], slices: Slices) -> Recalled:
    if fact["v"] != 1:
        raise ValueError("another version")
    context, login, tool = (_map(fact[name]) for name in ("context", "login", "tool"))
    own = _slice(fact["entities"], slices)
    principal, action = _ref(fact["principal"]), str(fact["action"])
    values = {name: _value(each) for name, each in context.items()}
    asked: list[Question] = []
    known = {entity.ref for entity in own}
    for each in map(_map, _list(fact["about"])):
        entities = (*own, *(entity for entity in _entities(each["entities"]) if entity.ref not in known))
        asked.append(
            Question(
                principal=principal, action=action, resource=_about(_ref(each["resource"]), entities), context=values,
                entities=entities,
            )
        )  # fmt: skip
    at = login.get("auth_time")
    scopes, now = values["scopes"], values["now"]
    if not isinstance(scopes, list) or not isinstance(now, int) or not asked:
        raise ValueError("no context of ours")
    evidence = _Login(acr=str(login.get("acr", "")), auth_time=UnixTime(at) if isinstance(at, int) else None)
    return Recalled(
        questions=tuple(asked), by=_By(scopes=frozenset(map(str, scopes)), evidence=evidence),
        of=_Of(name=asked[0].resource.id, scopes=frozenset(), rows=True if tool["mapped"] else None),
        now=UnixTime(now), goes_on=tool["lookup"] is True and len(asked) == 1,
    )  # fmt: skip


def ruling(asked: Recalled, judge: Callable[[Question], Judgement]) -> Ruling:
    """What an engine with its policies makes of it: of the tool, and of the resource where that is permitted."""
    besides: tuple[Owed, ...] = ()
    for number, question in enumerate(asked.questions, start=1):
        said = decide.owing(judge(question), besides)
        if not decide.may(said):
            broken = not said.validated or bool(said.errors)
            code = "policy_error" if broken and question.resource.type == "Tool" else "not_permitted"
            return _denied(replace(said, owed=()), code)
        unmet = obligations.unmet(said.owed, tool=asked.of, caller=asked.by, now=asked.now)
        if unmet is not None:
            return _denied(said, unmet.code)
        besides = said.owed
        if number == len(asked.questions):
            effect: Effect = "ask" if obligations.approvers(said.owed) else "allow"
            return Ruling(
                effect=effect, code="", policies=said.policies, errors=(), owed=said.owed, goes_on=asked.goes_on
            )
    raise NotReplayable("unreadable")


def _denied(said: Judgement, code: str) -> Ruling:
    return Ruling(effect="deny", code=code, policies=said.policies, errors=said.errors, owed=said.owed)


def _slice(value: Json, slices: Slices) -> tuple[Entity, ...]:
    if isinstance(value, dict):  # its digest and length
        raise NotReplayable("too_large")
    return slices(value, lambda: _entities(value))


def _entities(value: Json) -> tuple[Entity, ...]:
    if isinstance(value, dict):
        raise NotReplayable("too_large")
    return tuple(_entity(_map(each)) for each in _list(value))


def _entity(value: Mapping[str, Json]) -> Entity:
    return Entity(
        ref=_ref(value["uid"]), attributes={name: _value(each) for name, each in _map(value["attrs"]).items()},
        parents=tuple(map(_ref, _list(value["parents"]))),
    )  # fmt: skip


def _about(resource: Ref, entities: Sequence[Entity]) -> Ref:
    """The resource by the very reference that its entity has, which is how an engine knows a tool's own entity."""
    return next((each.ref for each in reversed(entities) if each.ref == resource), resource)


def _ref(value: Json) -> Ref:
    named = _map(value)
    return Ref(type=str(named["type"]), id=str(named["id"]))


def _map(value: Json) -> Mapping[str, Json]:
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise ValueError("no list")
    return value


def _value(value: Json, depth: int = 0) -> Json | Ref:
    if depth > _DEPTH:
        raise ValueError("nested too deep")
    if isinstance(value, dict):
        if value.keys() == {"__long"}:
            return int(str(value["__long"]))
        return _ref(value["__entity"])
    if isinstance(value, list):
        found: list[Json] = []
        for each in value:
            found.append(_value(each, depth + 1))  # type: ignore[arg-type]  # a set of references is a list of them
        return found
    return value
