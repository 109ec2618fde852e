"""Who may approve what: rules over an approval, its votes and the people of the directory.

`self` is the person whose call it is, in a browser, where the model is not. `manager` is somebody whose position stands
above that person's: the same position does not, and without a position nobody is above. `two-person` is two different
people, of whom one is a manager and the other another manager or the person. All must be active in the person's own
tenant when they vote, and still when the call is done. Values in, values out; must not know pages or logins.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping, Sequence

from onbehalf.model import Approval, Approver, Ask, Digest, Entity, Json, Ref, canonical

__all__ = ["binding", "in_words", "may_vote", "met"]

_WORDS: Mapping[Approver, str] = {
    "self": "yourself, in a browser",
    "manager": "somebody above you",
    "two-person": "two people, one of them above you and the other perhaps you",
}


def binding(ask: Ask, changed: str, *, key: bytes) -> Digest:
    """What exactly an approval is of: a call with the same binding is the one that was approved.

    Another tenant, person, client, tool, definition, argument, policy, demand or change is another. `changed` is the
    upstream's digest over what would change, "" where it cannot try; both are told apart. The directory's revision is
    no part of it, for the call and who approved it are decided again. Made with a secret: it stands in a database, and
    is over values that can be guessed.
    """
    call = ask.call
    bound: dict[str, Json] = {
        "tenant": call.caller.tenant, "person": call.person.known_as, "client": call.caller.client,
        "issuer": call.caller.evidence.issuer, "tool": call.tool.name, "definition": call.tool.definition,
        "arguments": call.digest, "policy": ask.policy, "approvers": [*sorted(ask.approvers)],
        "changed": changed or None,
    }  # fmt: skip
    return Digest("sha256:" + hmac.new(key, b"onbehalf/approval/v1\0" + canonical(bound), "sha256").hexdigest())


def may_vote(approval: Approval, voter: str, entities: Sequence[Entity]) -> bool:
    """Whether this person may say yes or no to it. `voter` is an id within the approval's tenant; `entities` are the
    User entities of both people with all that they are in."""
    people = _People(approval.tenant, entities)
    if not people.active(voter) or not people.active(approval.person):
        return False
    own = voter == approval.person
    above = people.above(voter, approval.person)
    wanted = approval.approvers
    return (own and not wanted.isdisjoint({"self", "two-person"})) or (
        above and not wanted.isdisjoint({"manager", "two-person"})
    )


def met(approval: Approval, entities: Sequence[Entity]) -> bool:
    """Whether everybody who must has approved it. Votes of those who may not vote now do not count."""
    if approval.refused or not approval.approvers:
        return False
    people = _People(approval.tenant, entities)
    votes = {vote.person for vote in approval.votes if may_vote(approval, vote.person, entities)}
    managers = {voter for voter in votes if people.above(voter, approval.person)}
    holds: Mapping[Approver, bool] = {
        "self": approval.person in votes,
        "manager": bool(managers),
        "two-person": bool(managers) and len(votes) >= 2,
    }
    return all(holds[each] for each in approval.approvers)


def in_words(approvers: Iterable[Approver]) -> str:
    """Who must approve, told to the person whose call it is."""
    return "; and by ".join(_WORDS[each] for each in sorted(approvers))


class _People:
    """Who is active and who stands above whom in one tenant, from entities."""

    def __init__(self, tenant: str, entities: Sequence[Entity]) -> None:
        self._tenant = tenant
        self._known = {each.ref: each for each in entities}

    def active(self, person: str) -> bool:
        found = self._user(person)
        return found is not None and found.attributes.get("active") is True

    def above(self, one: str, other: str) -> bool:
        """Whether `one`'s position is a proper ancestor of `other`'s."""
        high, low = self._position(one), self._position(other)
        return one != other and high is not None and low is not None and high != low and high in self._ancestors(low)

    def _user(self, person: str) -> Entity | None:
        found = self._known.get(Ref(type="User", id=f"{self._tenant}/{person}"))
        own = Ref(type="Tenant", id=self._tenant)
        return found if found is not None and found.attributes.get("tenant") == own else None

    def _position(self, person: str) -> Ref | None:
        found = self._user(person)
        position = found.attributes.get("position") if found is not None else None
        return position if isinstance(position, Ref) else None

    def _ancestors(self, position: Ref) -> set[Ref]:
        seen: set[Ref] = set()
        todo = [position]
        while todo:
            entity = self._known.get(todo.pop())
            for parent in entity.parents if entity is not None else ():
                if parent not in seen and parent.type == "Position":
                    seen.add(parent)
                    todo.append(parent)
        return seen
