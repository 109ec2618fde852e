"""The side corridor: how people approve what a call waits for. Read gateway.py first.

A call that needs an approval asks for it here and ends; people look at it and say yes or no, on record; and when the
same call comes again it finds the approval and uses it up. Who may say what is decided anew each time. Must not hold a
rule (validate/approval.py), a page or a login.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from onbehalf.errors import ApprovalUnknown
from onbehalf.explain import entries, reply
from onbehalf.model import Allow, Approval, Ask, Caller, Deny, Json, Person, Reply, UnixTime, Vote
from onbehalf.ports import Approvals, Clock, Directory, Ledger
from onbehalf.validate import approval, decide

__all__ = ["Approving", "Look"]

_REFUSED = "Somebody who was asked refused this. Talk to them; do not send it again as it is."


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one person sees of an approval: what it is about, and what is still open for them.

    `state` is `open`, `approved` (and not yet used) or `refused`. `mine` says whether it is their own call, and `name`
    what they are called.
    """

    approval: Approval
    about: Json = field(repr=False)
    state: str
    voted: bool
    mine: bool
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approving:
    """Asks for approvals and takes them. `url` is the pages' address, ending before the id; `fresh` gives an id.

    `issuers` are those where people can log in to these pages.
    """

    clock: Clock
    fresh: Callable[[], str]
    approvals: Approvals
    directory: Directory
    ledger: Ledger
    url: str
    issuers: frozenset[str]
    lifetime_s: int
    secret: bytes = field(repr=False)

    def can(self, caller: Caller) -> bool:
        """Whether those who this person shares a login with could approve anything. For a service nobody can: whose
        manager would it be, and who is it itself in a browser."""
        return caller.kind == "person" and caller.evidence.issuer in self.issuers

    async def asked(self, ask: Ask, *, changed: str = "", shown: Json = None) -> Allow | Deny | Reply:
        """What became of it: allowed, refused, or people are still to say. `changed` is the upstream's digest over what
        would change, and `shown` what the person would be shown of it."""
        call = ask.call
        new = Approval(
            id=self.fresh(), binding=approval.binding(ask, changed, key=self.secret), tenant=call.caller.tenant,
            person=call.person.own_id, call=call.id, approvers=ask.approvers, at=call.at,
            until=UnixTime(call.at + self.lifetime_s),
        )  # fmt: skip
        kept = await self.approvals.ask(new, entries.about(ask, shown))
        if kept.refused:
            return decide.unapproved(ask, code="approval_refused", remedy=_REFUSED)
        if await self._met(kept):
            return decide.approved(ask, kept)
        receipt = await self.ledger.append(entries.asked(ask, kept))
        by = approval.in_words(kept.approvers)
        return reply.waiting(call.id, kept, receipt, url=f"{self.url}{kept.id}", by=by)

    async def take(self, allow: Allow) -> bool:
        """Use up the approval of what is allowed; whether it could still be used."""
        assert allow.approval is not None
        return await self.approvals.take(allow.approval.id, now=self.clock())

    async def look(self, caller: Caller, id: str) -> Look:
        """What a person who may vote sees. Raises ApprovalUnknown, PersonUnknown and what ports raise."""
        found, about, person = await self._theirs(caller, id)
        voter = person.own_id
        state = "refused" if found.refused else "approved" if await self._met(found) else "open"
        return Look(
            approval=found, about=about, state=state, voted=any(vote.person == voter for vote in found.votes),
            mine=voter == found.person, name=person.name,
        )  # fmt: skip

    async def vote(self, caller: Caller, id: str, *, approves: bool) -> None:
        """Say yes or no, on record first. A second yes changes nothing; a no is for good.

        Raises ApprovalUnknown, PersonUnknown and what ports raise.
        """
        found, _, person = await self._theirs(caller, id)
        voter = person.own_id
        now = self.clock()
        if found.refused or (approves and any(vote.person == voter for vote in found.votes)):
            return
        await self.ledger.append(entries.approval(found, caller, voter, approves=approves, now=now))
        if approves:
            await self.approvals.approve(id, Vote(person=voter, at=now))
        else:
            await self.approvals.refuse(id, now=now)

    async def _theirs(self, caller: Caller, id: str) -> tuple[Approval, Json, Person]:
        """The approval, what it is about, and who this person is, of somebody who may vote."""
        person = await self.directory.person(caller)
        kept = await self.approvals.find(id, now=self.clock())
        voter = person.own_id
        if person.kind == "person" and kept is not None and kept[0].tenant == caller.tenant == person.tenant:
            entities = await self.directory.people(caller.tenant, {voter, kept[0].person})
            if approval.may_vote(kept[0], voter, entities):
                return (*kept, person)
        raise ApprovalUnknown(
            "there is nothing here for you to approve",
            hint="it may be over, used, or another person's to approve; ask whoever sent you here",
        )

    async def _met(self, kept: Approval) -> bool:
        if not kept.votes:
            return False
        people = {kept.person, *(vote.person for vote in kept.votes)}
        return approval.met(kept, await self.directory.people(kept.tenant, people))
