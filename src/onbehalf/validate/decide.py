"""What an engine's judgement is worth: the one file that makes an Allow, an Ask or a Deny.

A Cedar engine alone is not fail-closed: a forbid that errors is skipped, and the request allowed. So the answer
counts only when 1 it is about this call, 2 it was asked on schema-checked entities, 3 nothing erred, 4 it says
allow, 5 at least one policy said so, and 6 what these policies demand can be met; 7 where that is an approval, it is
asked for first. Must not hold what is asked
(questions.py), what can be demanded (obligations.py) or an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from onbehalf.errors import StepUpNeeded
from onbehalf.model import (
    Allow,
    Approval,
    Approver,
    Ask,
    Asked,
    Caller,
    Candidate,
    Conjunct,
    Decision,
    Deny,
    Digest,
    Judgement,
    Owed,
    Predicate,
    Question,
    Reason,
    StepUp,
    Tool,
    ToolCall,
    UnixTime,
)
from onbehalf.validate import obligations, questions, route

__all__ = [
    "DEFAULT_REMEDY", "approved", "as_tried", "asking", "decide", "looked_up", "may", "narrowed", "offered", "owing",
    "step_up_needed", "tried", "unapproved",
]  # fmt: skip

DEFAULT_REMEDY = "Ask the owner of this data, or whoever looks after access in your company."
_MAX_TEXT = 1_000
_MAX_NAMED = 4


def tried(decision: Allow | Ask) -> Allow:
    """What may be done, now or once it is approved, may be tried by its upstream and taken back."""
    return replace(_allow(decision), call=route.tried(decision.call))


def looked_up(decision: Allow | Ask) -> Allow:
    """A lookup may be done before anybody approved it: nothing that it finds is released."""
    return _allow(decision)


def asking(decision: Allow | Ask, approvers: frozenset[Approver]) -> Allow | Ask:
    """The same, to be approved by these besides."""
    if not approvers:
        return decision
    have = decision.approvers if isinstance(decision, Ask) else frozenset()
    one = _allow(decision)
    return Ask(
        call=one.call, resource=one.resource, policies=one.policies, policy=one.policy, revision=one.revision,
        owed=one.owed, approvers=approvers | have, asked=one.asked,
    )  # fmt: skip


def approved(ask: Ask, approval: Approval) -> Allow:
    """What people approved. That they did, and may, is checked in approval.py."""
    return replace(_allow(ask), approval=approval)


def unapproved(ask: Ask, *, code: str, remedy: str) -> Deny:
    """What was not approved, or cannot be: `code` is `approval_required` or `approval_refused`."""
    by = next((each for each in ask.owed if each.obligations.approve), None)
    whose = " and ".join(f"`{each}`" for each in sorted(ask.approvers))
    permits = f"`{by.policy}` permits this" if by else "The rows are permitted"
    said = "was refused" if code == "approval_refused" else "was not given"
    return Deny(
        call=ask.call, resource=ask.resource,
        reason=Reason(
            code=code, text=f"{permits} with the approval of {whose}, which {said}.", policy=by.policy if by else ""
        ),
        remedy=remedy, candidates=(), policy=ask.policy, revision=ask.revision, asked=ask.asked,
    )  # fmt: skip


def step_up_needed(deny: Deny, needs: StepUp) -> StepUpNeeded:
    """A denial that another login would change, as the error that carries what it must be."""
    error = StepUpNeeded(deny.reason.text, scopes=needs.scopes, acr=needs.acr, max_age=needs.max_age, hint=deny.remedy)
    error.call = deny.call.id
    return error


def _allow(decision: Allow | Ask) -> Allow:
    return Allow(
        call=decision.call, resource=decision.resource, policies=decision.policies, policy=decision.policy,
        revision=decision.revision, owed=decision.owed, asked=decision.asked,
    )  # fmt: skip


def narrowed(allow: Allow, where: Predicate) -> Allow:
    """What is allowed, on the rows that `where` lets through."""
    return replace(allow, call=route.narrowed(allow.call, where))


def as_tried(decision: Allow | Ask, changed: str) -> Allow | Ask:
    """Less than what was decided: to be done only if `changed`, an upstream's digest, is what comes of it."""
    return replace(decision, call=route.as_tried(decision.call, changed))


def owing(judgement: Judgement, besides: Sequence[Owed]) -> Judgement:
    """The judgement with what another one of the same call demands besides."""
    return replace(judgement, owed=tuple(dict.fromkeys((*besides, *judgement.owed)))) if besides else judgement


def offered(judgement: Judgement, *, tool: Tool, caller: Caller, approvable: bool, now: UnixTime) -> bool:
    """Whether a tool may be shown to a caller: whether a call of it could be allowed, legs 2 to 6, now or after another
    login. `approvable` says whether approvals can be given here at all."""
    if not may(judgement):
        return False
    unmet = obligations.unmet(judgement.owed, tool=tool, caller=caller, now=now)
    if unmet is not None and unmet.step_up is None:
        return False
    return approvable or not obligations.approvers(judgement.owed)


def may(judgement: Judgement) -> bool:
    """Whether a judgement counts as yes: legs 2 to 5. For rows, of which obligations.keep asks for leg 6."""
    return (
        judgement.validated is True
        and not judgement.errors
        and judgement.allowed is True
        and len(judgement.policies) > 0
    )


def decide(
    call: ToolCall,
    *,
    question: Question,
    judgement: Judgement,
    candidates: Callable[[], tuple[Candidate, ...]],
    policy: Digest,
) -> Decision:
    """Allow one call, or once it is approved, or deny it. `candidates` is asked only for a denial.

    `policy_error` is told apart from `not_permitted` only about a tool: about a row it would tell a missing row,
    or one of another tenant, from one that is merely not permitted.
    """
    own = _is_about(call, question)
    permitted = own and may(judgement)
    unmet = obligations.unmet(judgement.owed, tool=call.tool, caller=call.caller, now=call.at) if permitted else None
    asked = Asked(questions=_asked(call, question), said=judgement)
    if permitted and unmet is None:
        allow = Allow(
            call=call,
            resource=question.resource,
            policies=judgement.policies,
            policy=policy,
            revision=call.person.revision,
            owed=judgement.owed,
            asked=asked,
        )
        return asking(allow, obligations.approvers(judgement.owed))
    named = tuple(each for each in candidates() if _speaks(each))
    return Deny(
        call=call,
        resource=question.resource,
        reason=_unmet(unmet) if unmet else _reason(question, judgement if own else None, named),
        remedy=unmet.remedy if unmet else _remedy(named),
        candidates=named,
        policy=policy,
        revision=call.person.revision,
        step_up=unmet.step_up if unmet else None,
        asked=asked,
    )


def _asked(call: ToolCall, question: Question) -> tuple[Question, ...]:
    """All that this decision rests on: whoever is asked about a resource was asked about the tool before."""
    if question.resource.type == "Tool":
        return (question,)
    return questions.about_tool(call.person, call.caller, call.tool, call.at), question


def _unmet(unmet: obligations.Unmet) -> Reason:
    return Reason(code=unmet.code, text=unmet.text[:_MAX_TEXT], policy=unmet.policy)


def _reason(question: Question, judgement: Judgement | None, named: Sequence[Candidate]) -> Reason:
    """Why it is denied. `judgement` is None where the question was not about this call."""
    broken = judgement is None or not judgement.validated or bool(judgement.errors)
    code = "policy_error" if broken and question.resource.type == "Tool" else "not_permitted"
    wall = next((each for each in named if each.effect == "forbid" and _holds(each)), None)
    text = _sentence(wall, named, judgement)[:_MAX_TEXT]
    return Reason(code=code, text=text, policy=wall.policy if wall else "")


def _is_about(call: ToolCall, question: Question) -> bool:
    """Leg 1: this person or service, in its own tenant, doing this tool's action."""
    return (
        question.principal == call.person.ref
        and question.action == call.tool.action
        and call.person.tenant == call.caller.tenant
        and call.person.kind == call.caller.kind
    )


def _remedy(candidates: Sequence[Candidate]) -> str:
    # of every permit whatever held: a remedy that followed the conditions would tell which row exists
    remedies = dict.fromkeys(each.remedy for each in candidates if each.effect == "permit" and each.remedy)
    return " ".join(remedies) or DEFAULT_REMEDY


def _sentence(wall: Candidate | None, candidates: Sequence[Candidate], judgement: Judgement | None) -> str:
    """Why, for people: what forbade it, or what went wrong, or what each permit lacked."""
    if judgement is None:
        return "The question asked was not about this call, which denies."
    if wall is not None:
        return f"Forbidden by `{wall.policy}`: {wall.doc}"
    if not judgement.validated:
        return f"The question could not be put to the policies, which denies: {_first(judgement.errors)}."
    if judgement.errors:
        return f"A policy could not be evaluated, which denies: {_first(judgement.errors)}."
    lacking = [_lack(each) for each in candidates if each.effect == "permit" and not _holds(each)]
    if not lacking:
        return "No policy permits this."
    more = f"; and {len(lacking) - _MAX_NAMED} more" if len(lacking) > _MAX_NAMED else ""
    return f"No policy permits this: {'; '.join(lacking[:_MAX_NAMED])}{more}."


def _lack(candidate: Candidate) -> str:
    unmet: Conjunct | None = next((each for each in candidate.conjuncts if each.holds is False), None)
    if unmet is not None:
        return f"`{candidate.policy}` asks for `{unmet.text}`, which is not so"
    unmet = next((each for each in candidate.conjuncts if each.holds is None), None)
    return f"`{candidate.policy}` asks for `{unmet.text}`, which cannot be told" if unmet else f"`{candidate.policy}`"


def _speaks(candidate: Candidate) -> bool:
    """Whether a policy is about this kind of resource at all; the kind is known to whoever asks."""
    return not any(each.holds is False and each.text.startswith("resource is ") for each in candidate.conjuncts)


def _holds(candidate: Candidate) -> bool:
    return all(conjunct.holds is True for conjunct in candidate.conjuncts)


def _first(errors: Sequence[str]) -> str:
    return errors[0].rstrip(".") if errors else "no reason was given"
