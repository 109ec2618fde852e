"""By what a writing call is known when it is sent again: same person, client, tool and effect, another call id.

Clients repeat calls after a lost answer, and models repeat themselves. A call is known by the idempotency key that its
client gave, else by its arguments, for a while. Must not remember calls: a door does.
"""

from __future__ import annotations

from onbehalf.errors import KeyReused, OnbehalfError, Repeated
from onbehalf.model import Digest, Done, Earlier, Failed, Json, Outcome, ToolCall, canonical, digest

__all__ = ["GIVEN_S", "had_effect", "interrupted", "kept_s", "known_by", "repeated"]

GIVEN_S = 86_400
"""How long a given key stands for its call, in seconds."""


def kept_s(call: ToolCall) -> int:
    """How long this call is known again, in seconds; 0 for a call that may be sent as often as one likes."""
    if not call.tool.writes or (call.tool.preview == "asked" and not call.change):
        return 0
    return GIVEN_S if call.once else call.tool.once_s


def known_by(call: ToolCall) -> Digest:
    """What the same effect asked for again has in common, and no other call has.

    A given key counts within one tenant, person, client and tool; `repeated` sees whether the arguments are still the
    same. The definition is part of it: a changed tool does something else.
    """
    tool, caller = call.tool, call.caller
    effect: dict[str, Json] = {"given": call.once} if call.once else {"arguments": call.digest}
    who: dict[str, Json] = {"tenant": caller.tenant, "person": call.person.known_as, "client": caller.client}
    return digest(canonical({**who, "tool": tool.name, "definition": tool.definition, "effect": effect}))


def repeated(call: ToolCall, earlier: Earlier) -> OnbehalfError:
    """Why a call is not done again: Repeated, or KeyReused where its key stood for other arguments."""
    if earlier.arguments != call.digest:
        return KeyReused("this idempotency key was used with other arguments", hint="use a new key for another effect")
    if earlier.done:
        return Repeated(
            f"the same was done before, by {earlier.call}",
            hint=f"it was done before as {earlier.call} and is not done twice; to do it once more on purpose, wait or "
            "send another idempotency key",
        )
    return Repeated(
        f"the same was begun before, by {earlier.call}, whose outcome is not known",
        hint=f"it was begun before as {earlier.call}; do not repeat it, ask a person to look at the record",
    )


def interrupted(call: ToolCall, *, sent: bool) -> Failed:
    """What is known of a call that is broken off now, before or after it may have been sent."""
    if not sent:
        return Failed(code="not_sent", message="the call was broken off before anything was sent", unknown=False)
    return Failed(code="interrupted", message="the call was broken off", unknown=call.tool.writes)


def had_effect(result: Outcome) -> bool | None:
    """Whether a call had its effect; None where that is not known."""
    if isinstance(result, Done):
        return not result.content.get("isError")
    assert isinstance(result, Failed)
    return None if result.unknown else False
