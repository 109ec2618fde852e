"""The corridor: the only file that knows the order of the rooms. Read it first.

A call is proven (identify), decided (validate), put on record (explain), done (act), and what comes back
is decided again. Nothing is done that is not recorded first; any error on the way refuses the call.
Must not hold a rule, a format or a door's name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from onbehalf.act import grant
from onbehalf.errors import LedgerUnavailable, OnbehalfError, UnknownTool, ValidateError
from onbehalf.explain import entries, reply
from onbehalf.model import (
    Allow, CallId, Caller, Decision, Deny, Digest, Done, Outcome, Presented, Question, Receipt, Ref, Reply, Tool, ToolCall,
    ToolRequest,
)  # fmt: skip
from onbehalf.ports import Callers, Clock, Directory, Engine, Ids, Ledger, Meter, Signer, Upstream
from onbehalf.validate import decide, questions, route, rows

__all__ = ["Gateway", "Offer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A tool with its prepared argument check."""

    tool: Tool
    check: route.ArgumentCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """The house in walking order. Built by app.py; every part is a port."""

    clock: Clock
    ids: Ids
    callers: Callers
    directory: Directory
    engine: Engine
    ledger: Ledger
    signer: Signer
    upstreams: Mapping[str, Upstream]
    offers: Callable[[], Mapping[str, Offer]]
    meter: Meter
    max_rows: int

    async def who(self, presented: Presented) -> Caller:
        """Who calls, proven. Raises an IdentifyError."""
        return await self.callers.prove(presented, now=self.clock())

    async def tools(self, presented: Presented) -> Sequence[Tool]:
        """The tools that could be allowed to this person, by the same question as a call asks."""
        now = self.clock()
        caller = await self.callers.prove(presented, now=now)
        person = await self.directory.person(caller)
        offered = [offer.tool for _, offer in sorted(self.offers().items()) if offer.tool.exposed]
        return [
            tool
            for tool in offered
            if decide.may(self.engine.judge(questions.about_tool(person, caller, tool, now)))
        ]

    async def call(self, presented: Presented, request: ToolRequest) -> Reply:
        """One tool call, from a presented token to a recorded reply. Raises OnbehalfError where no reply may be given."""
        now = self.clock()
        caller = await self.callers.prove(presented, now=now)
        call_id = CallId(self.ids())
        try:
            call = await self._routed(caller, request, call_id)
        except ValidateError as error:
            return await self._refused(call_id, error, caller, request)
        decision = self._decided(call, questions.about_tool(call.person, caller, call.tool, now))
        if isinstance(decision, Allow) and call.tool.lookup is not None:
            decision = await self._decided_on_resource(call)
        if isinstance(decision, Deny):
            return await self._denied(decision)
        return await self._performed(decision)

    async def _routed(self, caller: Caller, request: ToolRequest, call_id: CallId) -> ToolCall:
        offer = self.offers().get(request.tool)
        if offer is None or not offer.tool.exposed:
            raise UnknownTool("there is no such tool", hint="list the tools and use one of them")
        person = await self.directory.person(caller)
        arrival = route.Arrival(id=call_id, at=self.clock(), caller=caller, person=person)
        return route.route(request, tool=offer.tool, check=offer.check, arrival=arrival)

    def _decided(self, call: ToolCall, question: Question) -> Decision:
        decision = decide.decide(
            call,
            question=question,
            judgement=self.engine.judge(question),
            candidates=lambda: self.engine.candidates(question),
            policy=Digest(self.engine.policy),
        )
        return decision

    async def _decided_on_resource(self, call: ToolCall) -> Decision:
        """Find the one resource the call is about, in the caller's name and on record, and decide on it.

        A resource that is not there is asked about all the same, so that "absent" and "not yours" are one answer.
        """
        assert call.tool.lookup is not None
        offer = self.offers()[call.tool.lookup.tool]
        lookup = route.route_lookup(call, tool=offer.tool, check=offer.check)
        allowed = self._decided(lookup, questions.about_tool(lookup.person, lookup.caller, lookup.tool, lookup.at))
        if isinstance(allowed, Deny):
            return replace(allowed, call=call)
        _, result = await self._sent(allowed, lookup=True)
        if not isinstance(result, Done):
            return self._decided(call, self._about_missing(call))
        assert lookup.tool.rows is not None
        found = rows.extract(lookup.tool.rows, result.content, limit=2).rows
        wanted = f"{call.caller.tenant}/{route.lookup_value(call)}"
        if len(found) != 1 or found[0].ref.id != wanted:
            return self._decided(call, self._about_missing(call))
        people = await self.directory.people(call.caller.tenant, found[0].people)
        return self._decided(
            call, questions.about_row(call.person, call.caller, call.tool, call.at, found[0], people)
        )

    def _about_missing(self, call: ToolCall) -> Question:
        assert call.tool.lookup is not None
        shape = self.offers()[call.tool.lookup.tool].tool.rows
        assert shape is not None
        ref = Ref(type=shape.type, id=f"{call.caller.tenant}/{route.lookup_value(call)}")
        return questions.about_missing(call.person, call.caller, call.tool, call.at, ref)

    async def _sent(self, allow: Allow, *, lookup: bool = False) -> tuple[Receipt, Outcome]:
        """Record the intent, then do it once. A lookup's outcome is recorded here; a call's with its rows."""
        receipt = await self.ledger.append(entries.intent(allow, lookup=lookup))
        call = allow.call
        upstream = self.upstreams[call.tool.upstream]
        token = self.signer.sign(grant(allow, receipt, audience=upstream.audience, now=self.clock()))
        started = time.perf_counter()
        result = await upstream.send(call, token)
        self.meter.acted(
            upstream=call.tool.upstream, outcome=type(result).__name__.lower(), seconds=time.perf_counter() - started
        )
        if lookup:
            self.ledger.follow(entries.outcome(call, receipt, result, None, now=self.clock()))
        return receipt, result

    async def _performed(self, allow: Allow) -> Reply:
        receipt, result = await self._sent(allow)
        call = allow.call
        self.meter.decided(tool=call.tool.name, decision="allow", code="")
        if not isinstance(result, Done):
            self.ledger.follow(entries.outcome(call, receipt, result, None, now=self.clock()))
            return reply.failed(call.id, result, receipt)
        content, released = dict(result.content), None
        if call.tool.rows is not None:
            content, released = await self._released(call, call.tool.rows, result)
        self.ledger.follow(entries.outcome(call, receipt, result, released, now=self.clock()))
        return reply.answered(call.id, content, receipt)
