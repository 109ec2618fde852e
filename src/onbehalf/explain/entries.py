"""What happened, as entries for the record: one function a kind.

Facts are plain JSON, so that each gets a commitment of its own and can be opened alone. Must not hold
formatting for people (story.py) or what the model is told (reply.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import orjson

from onbehalf.errors import OnbehalfError
from onbehalf.explain.asked import question
from onbehalf.explain.erasure import login_name
from onbehalf.model import (
    Allow,
    Applied,
    Approval,
    Ask,
    Asked,
    AuditEntry,
    Caller,
    CallId,
    Candidate,
    Canonical,
    Deny,
    Digest,
    Done,
    Json,
    Outcome,
    Owed,
    Person,
    Receipt,
    Ref,
    Tool,
    ToolCall,
    ToolRequest,
    UnixTime,
    canonical,
    digest,
)  # fmt: skip
from onbehalf.model_value import Value

__all__ = [
    "Released", "about", "approval", "asked", "denial", "intent", "not_sent", "outcome", "owed", "refusal",
    "unconnected", "unknown",
]  # fmt: skip

T = TypeVar("T")

_MAX_REFUSED_BYTES = 16_384
_MAX_ERRORS = 10
_NOT_PERMITTED = ("not_permitted", "policy_error")
_MAX_ERROR = 300
_UNTOUCHED = Applied()
_DONE = Canonical(canonical({"status": "done", "code": "", "message": "", "unknown": False}))
_UNKNOWN = "the gateway stopped before an outcome was on record; whether it was done is not known"
_NOT_SENT = "the client went away, or time ran out, before anything was sent"


class Released(Value, frozen=True, kw_only=True):
    """Which rows came back and which of them went on to the client. `ids` are entity ids of these `types`, and `people`
    the ids of the people whom they refer to."""

    returned: int
    ids: Sequence[str]
    types: frozenset[str] = frozenset()
    people: frozenset[str] = frozenset()
    applied: Applied = _UNTOUCHED


def intent(allow: Allow, *, audience: str = "", purpose: str = "", after: Receipt | None = None) -> AuditEntry:
    """What is about to be done, and why it may be. Durable before anything is sent to `audience`.

    `purpose` is "" for what was asked for, `lookup` or `preview` for what comes before it. `after` is the intent of an
    earlier sending of the same, which was refused.
    """
    call = allow.call
    facts = _about(call)
    decision: dict[str, Json] = {
        "effect": "allow",
        "policies": list(allow.policies),
        "policy": allow.policy,
        "revision": allow.revision,
        "resource": _ref(allow.resource),
    }
    if allow.owed:
        decision["obligations"] = [owed(each) for each in allow.owed]
    facts["decision"] = decision
    if purpose:
        facts["purpose"] = purpose
    if after is not None:
        facts["after"] = {"index": after.index, "leaf": after.leaf}
    if call.where is not None:
        facts["scope"] = {"predicate": call.where.sql, "parameters": [*sorted(call.where.parameters)]}
    if call.page is not None:
        facts["page"] = {"size": call.page.size, "first": not call.page.cursor}
    if call.expected:
        facts["expected"] = call.expected
    if allow.approval is not None:
        facts["approval"] = _approval(allow.approval)
    return _decided("intent", call, facts, allow.asked, audience=audience)


def asked(ask: Ask, wanted: Approval) -> AuditEntry:
    """A call that waits for people's approval; nothing of it is done yet."""
    facts = _about(ask.call)
    facts["decision"] = {
        "effect": "ask",
        "policies": list(ask.policies),
        "policy": ask.policy,
        "revision": ask.revision,
        "resource": _ref(ask.resource),
        "approvers": [*sorted(ask.approvers)],
        "obligations": [owed(each) for each in ask.owed],
    }
    facts["approval"] = {**_approval(wanted), "until": wanted.until}
    return _decided("asked", ask.call, facts, ask.asked)


def about(ask: Ask, shown: Json) -> Json:
    """What people see before they approve a call: who, what exactly, and what would change."""
    tool = ask.call.tool
    return {
        "person": _person(ask.call.person),
        "client": ask.call.caller.client,
        "tool": {"name": tool.name, "title": tool.title, "description": tool.description, "writes": tool.writes},
        "arguments": orjson.loads(ask.call.arguments),
        "bound": _set_here(tool),
        "resource": _ref(ask.resource),
        "policies": [each.policy for each in ask.owed if each.obligations.approve],
        "changes": shown,
    }


def approval(of: Approval, voter: Caller, person: str, *, approves: bool, now: UnixTime) -> AuditEntry:
    """That a person approved or refused what a call waits for; a record of its own, before it counts.

    `person` is their id within the tenant."""
    facts: dict[str, Json] = {
        "caller": _caller(voter),
        "person": {"id": person},
        "approval": _approval(of),
        "vote": "approved" if approves else "refused",
    }
    return AuditEntry(kind="approval", call=of.call, at=now, facts=facts, about=f"{voter.tenant}/{person}")


def unconnected(call: ToolCall) -> AuditEntry:
    """A call that is allowed, and waits for its person to connect their account at the upstream."""
    facts = _about(call)
    facts["decision"] = {"effect": "ask", "code": "connection_needed"}
    return AuditEntry(kind="asked", call=call.id, at=call.at, facts=facts, about=call.person.known_as)


def denial(deny: Deny) -> AuditEntry:
    """A decided refusal, condition by condition; the one record of such a call."""
    facts = _about(deny.call)
    facts["decision"] = {
        "effect": "deny",
        "code": deny.reason.code,
        "text": deny.reason.text,
        "remedy": deny.remedy,
        "policy": deny.policy,
        "revision": deny.revision,
        "resource": _ref(deny.resource),
        "candidates": [_candidate(candidate) for candidate in deny.candidates],
        **_answer(deny),
    }
    return _decided("denial", deny.call, facts, deny.asked)


def _decided(
    kind: str, call: ToolCall, facts: dict[str, Json | Canonical], asked: Asked | None, *, audience: str = ""
) -> AuditEntry:
    """The record of a decision, with what its engine was asked, so that it can be made again."""
    if asked is not None:
        facts["question"] = question(call, asked)
        decision = facts["decision"]
        assert isinstance(decision, dict)  # INVARIANT: every caller above made it so
        decision["engine"] = asked.said.engine
    return AuditEntry(
        kind=kind, call=call.id, at=call.at, facts=facts, audience=audience, about=call.person.known_as
    )  # fmt: skip


def _answer(deny: Deny) -> dict[str, Json]:
    """What an engine said to what was denied, as far as it said anything: by which policies, and what went wrong; and
    what was demanded, where it was permitted and denied for that."""
    if deny.asked is None:
        return {}
    said = deny.asked.said
    told: dict[str, Json] = {"policies": [*said.policies]} if said.policies else {}
    if said.errors:
        told["errors"] = [each[:_MAX_ERROR] for each in said.errors[:_MAX_ERRORS]]
    if said.owed and deny.reason.code not in _NOT_PERMITTED:
        told["obligations"] = [owed(each) for each in said.owed]
    return told


def unknown(call: str, *, at: UnixTime, index: int, leaf: bytes) -> AuditEntry:
    """That nobody knows what came of the intent at `index`, whose leaf hash is `leaf`."""
    told: dict[str, Json] = {"status": "unknown", "code": "interrupted", "message": _UNKNOWN, "unknown": True}
    return AuditEntry(kind="unknown", call=call, at=at, facts={"intent": _place(index, leaf), "outcome": told})


def not_sent(call: str, *, at: UnixTime, index: int, leaf: bytes, about: str = "") -> AuditEntry:
    """That nothing was done of the intent at `index`, whose leaf hash is `leaf`, and which is `about` this person."""
    told: dict[str, Json] = {"status": "failed", "code": "not_sent", "message": _NOT_SENT, "unknown": False}
    facts: dict[str, Json] = {"intent": _place(index, leaf), "outcome": told}
    return AuditEntry(kind="outcome", call=call, at=at, facts=facts, about=about)


def _place(index: int, leaf: bytes) -> Json:
    return {"index": index, "leaf": Digest(f"sha256:{leaf.hex()}")}


def refusal(
    call: CallId, error: OnbehalfError, *, caller: Caller, person: Person | None, request: ToolRequest, now: UnixTime
) -> AuditEntry:
    """A call refused before it could be decided: unknown tool, arguments, scope, unknown person (then None)."""
    facts: dict[str, Json] = {
        "caller": _caller(caller),
        "tool": {"name": request.tool[:200]},
        "decision": {"effect": "deny", "code": error.code, "text": error.message, "remedy": error.hint},
        "via": {"agent": request.agent, "protocol": request.protocol},
    }
    try:
        sent = canonical(dict(request.arguments))
    except ValueError:
        sent = b""
    if len(sent) <= _MAX_REFUSED_BYTES and sent:
        facts["arguments"] = orjson.loads(sent)
    about = person.known_as if person is not None else login_name(caller.evidence.issuer, caller.subject)
    return AuditEntry(kind="denial", call=call, at=now, facts=facts, about=about)


def outcome(
    call: ToolCall, receipt: Receipt, result: Outcome, released: Released | None, *, now: UnixTime
) -> AuditEntry:
    """What came of an intent. Payload stays out: the digest of what the upstream said, and row ids."""
    facts: dict[str, Json | Canonical] = {"intent": {"index": receipt.index, "leaf": receipt.leaf}}
    if receipt.witnessed is not None:
        facts["witnessed"] = {"size": receipt.witnessed.size, "by": dict[str, Json](receipt.witnessed.by)}
    if isinstance(result, Done):
        facts["outcome"] = _DONE
        facts["result_digest"] = digest(orjson.dumps(result.content, option=orjson.OPT_SORT_KEYS))
        if result.answer:
            facts["answer_digest"] = result.answer
        if result.receipt:
            facts["backend_receipt"] = result.receipt
    else:
        status: Json = "failed"
        facts["outcome"] = {"status": status, "code": result.code, "message": result.message, "unknown": result.unknown}
    if released is not None:
        facts["rows"] = _rows(released)
        if released.applied.rows:
            facts["obligations"] = [{**owed(each), "rows": count} for each, count in released.applied.rows]
    return AuditEntry(kind="outcome", call=call.id, at=now, facts=facts, about=call.person.known_as)


def _approval(approval: Approval) -> dict[str, Json]:
    """An approval without its id, which is half a key to its page."""
    by: list[Json] = [vote.person for vote in approval.votes]
    return {"binding": approval.binding, "asked_by": approval.call, "approved_by": by}


def _rows(released: Released) -> dict[str, Json]:
    applied = released.applied
    told: dict[str, Json] = {
        "returned": released.returned,
        "released": len(released.ids),
        "withheld": released.returned - len(released.ids) - applied.cut,
        "ids": list(released.ids),
    }
    if released.types:
        told["types"] = [*sorted(released.types)]
    if released.people:
        told["people"] = [*sorted(released.people)]
    if applied.cut:
        told["cut"] = applied.cut
    if applied.purposes:
        told["purposes"] = list(applied.purposes)
    return told


def owed(by: Owed) -> dict[str, Json]:
    """What a policy demands, by the names of its annotations."""
    one, told = by.obligations, dict[str, Json](policy=by.policy)
    if one.columns != "every":
        told["columns"] = [*sorted(one.columns)]
    if one.masks:
        told["mask"] = dict[str, Json](sorted(one.masks))
    if one.max_rows != "every":
        told["max_rows"] = one.max_rows
    if one.purposes != "every":
        told["purpose"] = [*sorted(one.purposes)]
    if one.approve:
        told["approve"] = [*sorted(one.approve)]
    if one.scopes:
        told["scope"] = [*sorted(one.scopes)]
    if one.acr != "every":
        told["acr"] = [*sorted(one.acr)]
    if one.max_age != "every":
        told["max_age"] = one.max_age
    return told


def _about(call: ToolCall) -> dict[str, Json | Canonical]:
    person, tool = call.person, call.tool
    return {
        "caller": _spelled_once(call.caller, call.caller.spellings, _caller),
        # who acts, under the name of what they are: whoever reads of people finds no service among them
        person.kind: _spelled_once(person, person.spellings, _person),
        "tool": _spelled_once(tool, tool.spellings, _tool),
        "arguments": Canonical(call.arguments),
        "arguments_digest": call.digest,
        "via": {"agent": call.agent, "protocol": call.protocol},
    }


def _spelled_once(of: T, spellings: dict[str, bytes], said: Callable[[T], Json]) -> Json | Canonical:
    """The fact about a value that many calls have in common. What has no spelling is left for who records it."""
    found = spellings.get("fact")
    if found is None:
        value = said(of)
        try:
            found = spellings["fact"] = canonical(value)
        except ValueError:
            return value
    return Canonical(found)


def _person(person: Person) -> Json:
    if person.kind == "service":
        return {"id": person.ref.id, "name": person.name}
    return {"id": person.ref.id, "name": person.name, "revision": person.revision}


def _tool(tool: Tool) -> Json:
    told: dict[str, Json] = {
        "name": tool.name,
        "upstream": tool.upstream,
        "remote": tool.remote,
        "action": tool.action,
        "definition": tool.definition,
        "writes": tool.writes,
        "bound": _set_here(tool),
    }
    if tool.dry_run:
        told["dry_run"] = tool.dry_run.parameter
    if tool.durability != "durable":
        told["durability"] = tool.durability
    return told


def _set_here(tool: Tool) -> list[Json]:
    """The parameters that the gateway sets, and no model."""
    own: list[Json] = [tool.dry_run.parameter] if tool.dry_run else []
    return [*(each.parameter for each in tool.bound), *own]


def _caller(caller: Caller) -> dict[str, Json]:
    evidence = caller.evidence
    proof: dict[str, Json] = {"proof": evidence.proof}
    if evidence.thumbprint:
        proof["thumbprint"] = evidence.thumbprint
    kind: dict[str, Json] = {"kind": caller.kind, "service": caller.service} if caller.kind != "person" else {}
    return {
        **kind,
        "subject": caller.subject,
        "tenant": caller.tenant,
        "client": caller.client,
        "actors": list(caller.actors),
        "scopes": [*sorted(caller.scopes)],
        "issuer": caller.evidence.issuer,
        "key": caller.evidence.key,
        "algorithm": caller.evidence.algorithm,
        "token": caller.evidence.token,
        **proof,
    }


def _candidate(candidate: Candidate) -> dict[str, Json]:
    return {
        "policy": candidate.policy,
        "effect": candidate.effect,
        "doc": candidate.doc,
        "remedy": candidate.remedy,
        "conjuncts": [{"text": conjunct.text, "holds": conjunct.holds} for conjunct in candidate.conjuncts],
    }


def _ref(ref: Ref) -> dict[str, Json]:
    return {"type": ref.type, "id": ref.id}
