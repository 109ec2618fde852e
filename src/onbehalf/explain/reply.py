"""What the client, and so the model, is told: the result, or a reason class and a remedy, no more.

Conditions, policies and the existence of rows outside a person's reach are for the record only.
"""

from __future__ import annotations

from collections.abc import Mapping

from onbehalf.errors import OnbehalfError
from onbehalf.model import Applied, Approval, CallId, Deny, Failed, Json, Mask, Receipt, Reply, Waiting

__all__ = ["answered", "connecting", "denied", "failed", "previewed", "refused", "waiting"]

_CLASSES = {
    "not_permitted": "you are not permitted to do this",
    "policy_error": "this could not be decided, so it is denied",
    "arguments_refused": "the arguments do not fit this tool",
    "bound_parameter": "an argument was sent that only the gateway may set",
    "insufficient_scope": "the access token lacks a scope this tool needs",
    "person_unknown": "the directory does not know you",
    "directory_stale": "the directory is too old for a call that writes",
    "unknown_tool": "there is no such tool for you",
    "approval_required": "this is permitted only with an approval",
    "approval_refused": "a person was asked to approve this, and refused",
    "connection_needed": "this needs your own account at the system behind this tool",
    "purpose_not_shown": "this is permitted for a stated purpose only",
    "witnesses_unavailable": "its record must be witnessed from outside first, and too few witnesses answered",
    "obligation_unmet": "what may be shown of this cannot be told from what may not",
}
_AS: Mapping[Mask, str] = {
    "last4": "by its last four characters",
    "hash": "under another name, the same for equal values",
    "null": "as null whatever it is",
}
_UNTOUCHED = Applied()
_HOPELESS = {
    "upstream_asks": "this tool needs an answer that cannot be given through this gateway; do not repeat it",
    "too_many_rows": "more came back than may be given at once; ask for less",
    "result_too_large": "more came back than may be given at once; ask for less",
    "query_failed": "the database did not take the query as it is, or could not compute it; ask in another way",
    "query_too_costly": "the query would take too much work; ask for less, or in another way",
    "login_needed": "the company's login wants this person to log in anew, more strongly, or to consent first; have "
    "them do so and come back with a new token: until then this is refused however often it is sent",
    "exchange_impossible": "the system behind this tool is reached with the company's own login only, and this token "
    "is not of it, or is bound to a key; do not repeat it, have the client log in there",
    "upstream_token_unfit": "the token that was given for the system behind this tool is for another one, for this "
    "gateway, or over; do not repeat it, have whoever runs the gateway look at what the upstream's login gives",
    "arguments_refused": "the system behind this tool does not take these arguments; send others",
}


def answered(
    call: CallId, content: Mapping[str, Json], receipt: Receipt, applied: Applied = _UNTOUCHED, cursor: str = ""
) -> Reply:
    """The released result, with where it is on record, what of it is not as it came back, and how to get more."""
    told = _told(_continued(content, cursor), applied)
    return Reply(call=call, content={**told, "_meta": _meta(call, receipt, applied)}, receipt=receipt, denial="")


def previewed(answer: Reply, change: str) -> Reply:
    """What would change, and how to ask for exactly that. `answer` is what would be released of it."""
    blocks, meta = answer.content.get("content"), answer.content.get("_meta")
    told: Json = {
        "type": "text",
        "text": "Nothing was changed. This is what would change; to have exactly that changed, send the same call with "
        f"`change` set to `{change}`.",
    }
    shown: dict[str, Json] = {**answer.content, "content": [told, *(blocks if isinstance(blocks, list) else [])]}
    shown["_meta"] = {**(meta if isinstance(meta, dict) else {}), "onbehalf/change": change}
    return Reply(call=answer.call, content=shown, receipt=answer.receipt, denial=answer.denial)


def _continued(content: Mapping[str, Json], cursor: str) -> Mapping[str, Json]:
    """The content with where the next page begins."""
    found, blocks = content.get("structuredContent"), content.get("content")
    if not cursor or not isinstance(found, dict):
        return content
    note: Json = {"type": "text", "text": f"There are more; send the same with `cursor` set to {cursor}"}
    shown: list[Json] = [*(blocks if isinstance(blocks, list) else []), note]
    return {**content, "structuredContent": {**found, "next_cursor": cursor}, "content": shown}


def _told(content: Mapping[str, Json], applied: Applied) -> Mapping[str, Json]:
    """The content with a last block that says what was done to it, where something was."""
    said = [f"`{field}` is given {_AS[mask]}" for field, mask in applied.masks]
    if applied.cut:
        said.append(f"{applied.cut} more rows are not given, because there are more than may be given at once")
    if applied.purposes:
        said.append(f"it may be used for this purpose only: {' or '.join(applied.purposes)}")
    if not said:
        return content
    blocks = content.get("content")
    note: Json = {"type": "text", "text": f"About this answer: {'; '.join(said)}."}
    return {**content, "content": [*(blocks if isinstance(blocks, list) else []), note]}


def denied(deny: Deny, receipt: Receipt) -> Reply:
    """A decided refusal: its class and its remedy."""
    return _refusal(deny.call.id, deny.reason.code, deny.remedy, receipt)


def waiting(call: CallId, approval: Approval, receipt: Receipt, *, url: str, by: str) -> Reply:
    """A call that is done once people approved it: where, by whom, and that it must be sent again then."""
    minutes = max(1, (approval.until - approval.at) // 60)
    message = f"This must be approved by {by}. It is done when the same call is sent again after that."
    remedy = f"open {url} within {minutes} minutes; it must be approved there by {by}; then send the same call again"
    answer = _refusal(call, "approval_required", remedy, receipt, verb="Waiting")
    meta = answer.content["_meta"]
    assert isinstance(meta, dict)  # INVARIANT: _refusal made it
    told: dict[str, Json] = {"url": url, "approvers": [*sorted(approval.approvers)], "until": approval.until}
    content = {**answer.content, "_meta": {**meta, "onbehalf/approval": told}}
    return Reply(
        call=call, content=content, receipt=receipt, denial=answer.denial, waiting=Waiting(url=url, message=message)
    )


def connecting(call: CallId, receipt: Receipt, asked: Waiting) -> Reply:
    """A call that is done once its person connected their account: where, and that it must be sent again then."""
    remedy = f"open {asked.url} and connect the account; then send the same call again" if asked.url else asked.message
    answer = _refusal(call, "connection_needed", remedy, receipt, verb="Waiting" if asked.url else "Denied")
    meta = answer.content["_meta"]
    assert isinstance(meta, dict)  # INVARIANT: _refusal made it
    told: dict[str, Json] = {"onbehalf/connect": {"url": asked.url}} if asked.url else {}
    return Reply(
        call=call, content={**answer.content, "_meta": {**meta, **told}}, receipt=receipt, denial=answer.denial,
        waiting=asked if asked.url else None,
    )  # fmt: skip


def refused(call: CallId, error: OnbehalfError, receipt: Receipt) -> Reply:
    """A refusal before a decision. For arguments the message itself goes back, so that the model can mend them."""
    detail = f"{error.message}; {error.hint}" if error.code in ("arguments_refused", "bound_parameter") else error.hint
    return _refusal(call, error.code, detail, receipt)


def failed(call: CallId, failure: Failed, receipt: Receipt) -> Reply:
    """Allowed and recorded, but not done, or not known to be done."""
    if failure.unknown:
        text = "it is not known whether this was done; do not repeat it, ask a person to look at the record"
    else:
        text = _HOPELESS.get(failure.code, "the system behind this tool did not do it; it may be tried again later")
    return _refusal(call, failure.code, f"{text} ({call})", receipt, verb="Failed")


def _refusal(call: CallId, code: str, remedy: str, receipt: Receipt, *, verb: str = "Denied") -> Reply:
    reason = _CLASSES.get(code, code.replace("_", " "))
    text = f"{verb}: {reason}." + (f" What to do: {remedy.rstrip('.')}." if remedy else "") + f" On record as {call}."
    denial: dict[str, Json] = {"code": code, "call": call, "remedy": remedy}
    content: dict[str, Json] = {
        "content": [{"type": "text", "text": text}],
        "isError": True,
        "_meta": {**_meta(call, receipt), "onbehalf/denial": denial},
    }
    return Reply(call=call, content=content, receipt=receipt, denial=code)


def _meta(call: CallId, receipt: Receipt, applied: Applied = _UNTOUCHED) -> dict[str, Json]:
    meta: dict[str, Json] = {"onbehalf/call": call, "onbehalf/receipt": {"index": receipt.index, "leaf": receipt.leaf}}
    if applied.purposes:
        meta["onbehalf/purposes"] = [*applied.purposes]
    if applied.cut:
        meta["onbehalf/cut"] = applied.cut
    return meta
