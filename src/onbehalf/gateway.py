"""The corridor: the only file that knows the order of the rooms. Read it first.

A call is proven (identify), decided (validate), put on record (explain), done (act), and what comes back
is decided again. Nothing is done that is not recorded first; any error on the way refuses the call.
Must not hold a rule, a format or a door's name.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from onbehalf import ports
from onbehalf.act import SHOWN_S, change_set, grant, once
from onbehalf.approving import Approving
from onbehalf.connecting import Connecting
from onbehalf.errors import (
    ApprovalGone,
    ChangeStale,
    OnceUnavailable,
    ResourceUnavailable,
    SignerUnavailable,
    UnknownTool,
    ValidateError,
    WitnessesUnavailable,
)
from onbehalf.explain import entries, reply
from onbehalf.model import (
    Allow,
    Ask,
    AuditEntry,
    Caller,
    CallId,
    Decision,
    Deny,
    Digest,
    Failed,
    Json,
    Outcome,
    Owed,
    Presented,
    Question,
    Receipt,
    Ref,
    Reply,
    Tool,
    ToolCall,
    ToolRequest,
    UnixTime,
)
from onbehalf.model_value import Value
from onbehalf.validate import decide, explore, obligations, paging, questions, route, rows

__all__ = ["Gateway", "Offer", "Standing"]

_NOWHERE = "This needs an approval, which cannot be given here. Have it done where it can be approved."


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A tool with its prepared argument check and the upstream that does it."""

    tool: Tool
    check: route.ArgumentCheck
    upstream: ports.Upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What may change while the house runs, and only as a whole: the policies, and the tools on offer."""

    engine: ports.Engine
    offers: Mapping[str, Offer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The house in walking order. Built by app.py; every part is a port. `standing` is asked once a call.

    `trip` is called with the name of a scoped tool whose statement gave a row that the policies refuse: tables and
    directory, or our two readings of a policy, disagree. By `secret` fields are hashed and change sets are named;
    without one, what is to be hashed is null. Without `approving` nothing can be approved here.
    """

    clock: ports.Clock
    ids: ports.Ids
    callers: ports.Callers
    directory: ports.Directory
    ledger: ports.Ledger
    signer: ports.Signer
    meter: ports.Meter
    once: ports.Once
    changes: ports.Changes
    standing: Callable[[], Standing]
    max_rows: int
    trip: Callable[[str], None]
    secret: bytes = field(default=b"", repr=False)
    approving: Approving | None = None
    connecting: Connecting | None = None
    witnesses: ports.Witnesses | None = None

    async def who(self, presented: Presented) -> Caller:
        """Who calls, proven. Raises an IdentifyError."""
        return await self.callers.prove(presented, now=self.clock())

    async def tools(self, presented: Presented) -> Sequence[Tool]:
        """The tools that could be allowed to this person, by the same question as a call asks."""
        now = self.clock()
        caller = await self.callers.prove(presented, now=now)
        person = await self.directory.person(caller)
        standing = self.standing()
        exposed = [offer.tool for _, offer in sorted(standing.offers.items()) if offer.tool.exposed]
        said = [standing.engine.judge(questions.about_tool(person, caller, tool, now)) for tool in exposed]
        can = self.approving is not None and self.approving.can(caller)
        return [
            tool
            for tool, each in zip(exposed, said, strict=True)
            if decide.offered(each, tool=tool, caller=caller, approvable=can, now=now)
        ]

    async def call(self, presented: Presented, request: ToolRequest) -> Reply:
        """One tool call, from a presented token to a recorded reply. Raises OnbehalfError where none may be given."""
        now = self.clock()
        caller = await self.callers.prove(presented, now=now)
        walk = _Walk(house=self, standing=self.standing())
        call_id, person = CallId(self.ids()), None
        try:
            person = await self.directory.person(caller)
            offer = walk.standing.offers.get(request.tool)
            if offer is None or not offer.tool.exposed:
                raise UnknownTool("there is no such tool", hint="list the tools and use one of them")
            arrival = route.Arrival(id=call_id, at=now, caller=caller, person=person)
            call = route.route(request, tool=offer.tool, check=offer.check, arrival=arrival)
            call = walk.paged(call)
            decision = walk.decided(call, questions.about_tool(person, caller, call.tool, now))
            if not isinstance(decision, Deny) and (waiting := await walk.unconnected(call)) is not None:
                return waiting
            if not isinstance(decision, Deny) and call.tool.lookup is not None:
                decision = await walk.decided_on_resource(call, decision.owed)
            ready = decision if isinstance(decision, Deny) else await walk.readied(decision)
        except ValidateError as error:
            entry = entries.refusal(call_id, error, caller=caller, person=person, request=request, now=self.clock())
            return await self._refused(call_id, error, entry, request)
        if isinstance(ready, Reply):
            if ready.denial:
                self.meter.decided(tool=request.tool, decision="ask", code=ready.denial)
            return ready
        if isinstance(ready, Deny):
            return await self._denied(ready)
        return await walk.performed(ready)

    async def _denied(self, deny: Deny) -> Reply:
        receipt = await self.ledger.append(entries.denial(deny))
        self.meter.decided(tool=deny.call.tool.name, decision="deny", code=deny.reason.code)
        if deny.step_up is not None:
            raise decide.step_up_needed(deny, deny.step_up)  # clients must see it as such
        return reply.denied(deny, receipt)

    async def _refused(self, call_id: CallId, error: ValidateError, entry: AuditEntry, request: ToolRequest) -> Reply:
        """Record a call that could not be decided. A refusal that clients must see as such goes on as an error."""
        receipt = await self.ledger.append(entry)
        known = request.tool if request.tool in self.standing().offers else ""
        self.meter.decided(tool=known, decision="deny", code=error.code)
        if error.protocol:
            error.call = call_id
            raise error
        return reply.refused(call_id, error, receipt)


class _Walk(Value, frozen=True, kw_only=True):
    """One call on its way through the house, under the policies and tools that stood when it came in."""

    house: Gateway
    standing: Standing

    def paged(self, call: ToolCall) -> ToolCall:
        """The call for the page it asks for. Raises CursorInvalid."""
        policy = Digest(self.standing.engine.policy)
        return route.paged(call, paging.opened(call, key=self.house.secret, policy=policy)) if call.page else call

    def decided(self, call: ToolCall, question: Question, besides: Sequence[Owed] = ()) -> Decision:
        """What the policies say to one question about this call, of which they demand something `besides`."""
        engine = self.standing.engine
        return decide.decide(
            call,
            question=question,
            judgement=decide.owing(engine.judge(question), besides),
            candidates=lambda: engine.candidates(question),
            policy=Digest(engine.policy),
        )

    async def decided_on_resource(self, call: ToolCall, besides: Sequence[Owed]) -> Decision:
        """Find the one resource the call is about, in the caller's name and on record, and decide on it.

        A resource that is not there, or may not be looked up, is asked about all the same, so that "absent" and
        "not yours" are one answer. Raises ResourceUnavailable where it could not be looked up at all.
        """
        assert call.tool.lookup is not None
        offer = self.standing.offers[call.tool.lookup.tool]
        shape = offer.tool.rows
        assert shape is not None  # app.py builds no lookup by a tool without rows
        lookup = route.route_lookup(call, tool=offer.tool, check=offer.check)
        missing = Ref(type=shape.type, id=f"{call.caller.tenant}/{route.lookup_value(call)}")
        allowed = self.decided(lookup, questions.about_tool(lookup.person, lookup.caller, lookup.tool, lookup.at))
        if not isinstance(allowed, Deny):
            receipt, result = await self._sent(decide.looked_up(allowed), purpose="lookup")
            self._close(lookup, receipt, result)
            if isinstance(result, Failed):
                raise ResourceUnavailable(
                    "the resource could not be looked up", hint="nothing was done; try again later"
                )
            found = rows.extract(shape, result.content, limit=2).rows
            if len(found) == 1 and found[0].ref == missing:
                people = await self.house.directory.people(call.caller.tenant, found[0].people)
                asked = questions.about_row(call.person, call.caller, call.tool, call.at, found[0], people)
                return self.decided(call, asked, besides)
        return self.decided(call, questions.about_missing(call.person, call.caller, call.tool, call.at, missing))

    async def unconnected(self, call: ToolCall) -> Reply | None:
        """What to tell a person who has to connect their account at the upstream first."""
        connecting = self.house.connecting
        waiting = None if connecting is None else await connecting.needed(call)
        if waiting is None:
            return None
        receipt = await self.house.ledger.append(entries.unconnected(call))
        self.house.meter.decided(tool=call.tool.name, decision="ask", code="connection_needed")
        return reply.connecting(call.id, receipt, waiting)

    async def readied(self, decision: Allow | Ask) -> Allow | Deny | Reply:
        """What comes before doing it: for a writing call that it is the first of its kind, where its upstream can try
        it first, that every row it would change may be changed, and that people approved what they must."""
        tries = decision.call.tool.preview != "none"
        ready = await self._previewed(decision) if tries else await self._approved(decision)
        if isinstance(ready, Allow):
            await self._begun(ready)
        return ready

    async def _approved(self, decision: Allow | Ask, changed: str = "", shown: Json = None) -> Allow | Deny | Reply:
        """What may be done once it is approved: whether it is, or how it can be."""
        if isinstance(decision, Allow):
            return decision
        approving = self.house.approving
        if approving is None or not approving.can(decision.call.caller):
            return decide.unapproved(decision, code="approval_required", remedy=_NOWHERE)
        return await approving.asked(decision, changed=changed, shown=shown)

    async def _previewed(self, decision: Allow | Ask) -> Allow | Deny | Reply:
        """Have it tried and taken back. Then it may be done if exactly the same comes of it, and where the client must
        ask for a change set that it was shown, only if it does; people who must approve are shown it instead of the
        client. Raises ChangeStale."""
        call, shape, house = decision.call, decision.call.tool.rows, self.house
        allow = decide.tried(decision)
        receipt, result = await self._sent(allow, purpose="preview")
        if isinstance(result, Failed):
            self._close(call, receipt, result)
            return reply.failed(call.id, result, receipt)
        found = rows.extract(shape, result.content, limit=house.max_rows) if shape else None
        kept = await self._permitted(allow, found.rows, asking=True) if found else obligations.of_call(allow)
        self._close(call, receipt, result, found, kept)
        if found and len(kept.allowed) != found.returned:  # one that may not be changed spoils the whole change
            return await self._refused_row(decision, found, kept)
        content = rows.release(shape, result.content, kept.rows) if shape else result.content
        change = change_set(allow, result.digest, key=house.secret)
        ready = decide.asking(decision, kept.approvers)
        if isinstance(ready, Allow) and call.tool.preview == "asked" and call.change != change:
            if call.change:
                raise ChangeStale("this is not what would change now", hint="call again without `change` and look")
            await house.changes.shown(change, until=UnixTime(call.at + SHOWN_S))
            return reply.previewed(reply.answered(call.id, content, receipt, kept.applied), change)
        ready = decide.as_tried(ready, result.digest)
        return await self._approved(ready, result.digest, content.get("structuredContent"))

    async def _refused_row(self, of: Allow | Ask, found: rows.Extracted, kept: obligations.Kept) -> Deny:
        """The denial of a row that would change and may not; of no row in particular where it cannot be read."""
        call = of.call
        for row in found.rows:
            if row not in kept.allowed:
                people = await self.house.directory.people(call.caller.tenant, row.people)
                asked = questions.about_row(call.person, call.caller, call.tool, call.at, row, people)
                decision = self.decided(call, asked, of.owed)
                if isinstance(decision, Deny):
                    return decision
        raise ResourceUnavailable("what would change cannot be read", hint="nothing was done; tell who runs the tool")

    async def _begun(self, allow: Allow) -> None:
        """Use up what it may be done by once, and note that a writing call is begun.

        Raises ChangeStale, ApprovalGone, and Repeated or KeyReused where the same was begun before.
        """
        call, house, kept = allow.call, self.house, once.kept_s(allow.call)
        shown = call.tool.preview == "asked" and allow.approval is None
        if shown and not await house.changes.take(Digest(call.change), now=house.clock()):
            raise ChangeStale("this change was not shown, or made already", hint="call again without `change` and look")
        if kept:
            until = UnixTime(call.at + kept)
            earlier = await house.once.begin(once.known_by(call), call.id, call.digest, now=call.at, until=until)
            if earlier is not None:
                raise once.repeated(call, earlier)
        if allow.approval is None or (house.approving is not None and await house.approving.take(allow)):
            return
        if kept:
            await house.once.forget(once.known_by(call), call.id)
        raise ApprovalGone("the approval is over, or was used by another call", hint="send it again to ask anew")

    async def performed(self, allow: Allow) -> Reply:
        """Do what is allowed, once, and release of what comes back only the rows that are allowed."""
        receipt, result = await self._sent(allow)
        call, shape = allow.call, allow.call.tool.rows
        await self._ended(call, result)
        self.house.meter.decided(tool=call.tool.name, decision="allow", code="")
        if isinstance(result, Failed):
            self._close(call, receipt, result)
            return reply.failed(call.id, result, receipt)
        if shape is None:
            self._close(call, receipt, result)
            return reply.answered(call.id, result.content, receipt, obligations.of_call(allow).applied)
        content, end = paging.cut(call, result.content)
        found = rows.extract(shape, content, limit=self.house.max_rows)
        kept = obligations.NOTHING_KEPT
        try:
            if found.returned <= self.house.max_rows:
                kept = await self._permitted(allow, found.rows)
        finally:  # done is done: whatever went wrong with its rows, the outcome belongs on record
            self._close(call, receipt, result, found, kept)
        if found.returned > self.house.max_rows:
            return reply.failed(call.id, rows.too_many(call.tool), receipt)
        if call.tool.scoped and kept.permitted != found.returned:
            self.house.trip(call.tool.name)
        end = None if kept.applied.cut else end  # the most that may be had is not to be had again by turning pages
        cursor = paging.sealed(call, end, key=self.house.secret, policy=allow.policy)
        return reply.answered(call.id, rows.release(shape, content, kept.rows), receipt, kept.applied, cursor)

    async def _permitted(self, allow: Allow, found: Sequence[rows.Row], *, asking: bool = False) -> obligations.Kept:
        """The rows this person may have, each decided by itself, as far and in the form that they may go on."""
        call = allow.call
        named = {person for row in found for person in row.people}
        people = questions.by_person(await self.house.directory.people(call.caller.tenant, named))
        judge = self.standing.engine.judge
        about = (call.person, call.caller, call.tool, call.at)
        said = [judge(question) for question in questions.about_rows(*about, found, people)]
        if not all(judgement.validated for judgement in said):
            # one row that does not fit the schema spoils what all are asked over: ask about each by itself
            said = [judge(questions.about_row(*about, row, people)) for row in found]
        permitted = [(row, each.owed) for row, each in zip(found, said, strict=True) if decide.may(each)]
        return obligations.keep(allow, permitted, key=self.house.secret, asking=asking)

    def _narrowed(self, allow: Allow) -> Allow:
        """The call with the policies' own condition on its rows: what may not be seen is not even asked for."""
        call, engine = allow.call, self.standing.engine
        asked = questions.about_tool(call.person, call.caller, call.tool, call.at)
        if call.tool.explores is not None:
            return decide.narrowed(allow, explore.statement(call, engine.exploring(call.tool, asked)))
        return decide.narrowed(allow, engine.narrowing(call.tool, asked))

    async def _sent(self, allow: Allow, *, purpose: str = "") -> tuple[Receipt, Outcome]:
        """Do it once. The caller of this closes the intent, which is the last one, with its outcome.

        What was refused before any of it was done, or only reads, is sent once more where that is worth it, as a
        sending of its own: a call token is good once, and who keeps a record of calls has one row for each number.
        """
        if allow.call.tool.scoped or allow.call.tool.explores is not None:
            allow = self._narrowed(allow)
        receipt, result = await self._sent_once(allow, purpose)
        if not isinstance(result, Failed) or result.again_s is None:
            return receipt, result
        self._close(allow.call, receipt, result)
        await asyncio.sleep(result.again_s)
        return await self._sent_once(allow, purpose, after=receipt)

    async def _sent_once(self, allow: Allow, purpose: str, *, after: Receipt | None = None) -> tuple[Receipt, Outcome]:
        """Record the intent, then send it.

        Whatever breaks on the way, even being cancelled, the outcome is on record as failed or not known.
        """
        house, call = self.house, allow.call
        upstream = self.standing.offers[call.tool.name].upstream
        entry = entries.intent(allow, audience=upstream.audience, purpose=purpose, after=after)
        receipt = await house.ledger.append(entry)
        started = time.perf_counter()
        result: Outcome = once.interrupted(call, sent=False)
        try:
            if call.tool.durability == "witnessed" and house.witnesses is not None:
                receipt = await house.witnesses.cosigned(receipt)
            token = house.signer.sign(grant(allow, receipt, audience=upstream.audience, now=house.clock()))
            result = once.interrupted(call, sent=True)
            result = await upstream.send(call, token)
        except (SignerUnavailable, WitnessesUnavailable) as error:
            result = Failed(code=error.code, message=error.message, unknown=False)
        except BaseException:
            self._close(call, receipt, result)
            raise
        spent = time.perf_counter() - started
        house.meter.acted(upstream=call.tool.upstream, outcome=type(result).__name__.lower(), seconds=spent)
        return receipt, result

    async def _ended(self, call: ToolCall, result: Outcome) -> None:
        """Say of a begun call that it is done, or had no effect; else it goes on being known as begun."""
        if once.kept_s(call) == 0:
            return
        effect = once.had_effect(result)
        if effect is None:
            return
        with contextlib.suppress(OnceUnavailable):  # it then stays known as begun, and so is not done twice
            await (self.house.once.done if effect else self.house.once.forget)(once.known_by(call), call.id)

    def _close(
        self, call: ToolCall, receipt: Receipt, result: Outcome, found: rows.Extracted | None = None,
        kept: obligations.Kept = obligations.NOTHING_KEPT,
    ) -> None:  # fmt: skip
        released = None
        if found:
            refs = [row.ref for row in kept.rows]
            released = entries.Released(
                returned=found.returned, ids=[ref.id for ref in refs], types=frozenset(ref.type for ref in refs),
                people=rows.about(kept.rows), applied=kept.applied,
            )  # fmt: skip
        self.house.ledger.follow(entries.outcome(call, receipt, result, released, now=self.house.clock()))
