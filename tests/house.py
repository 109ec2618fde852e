"""The house on in-memory doors, each of which can be made to fail by name. Policies and their engine are real."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.errors import (
    DirectoryUnavailable,
    IssuerUnavailable,
    LedgerUnavailable,
    OnceUnavailable,
    PersonUnknown,
    SignerUnavailable,
    TokenMissing,
    WitnessesUnavailable,
)
from onbehalf.explain.channel import channel_of
from onbehalf.gateway import Gateway, Offer, Standing
from onbehalf.model import (
    AuditEntry,
    Bound,
    Caller,
    CallId,
    CallToken,
    Digest,
    Done,
    Earlier,
    Entity,
    Failed,
    Grant,
    Json,
    Lookup,
    Outcome,
    Person,
    Presented,
    Receipt,
    Rows,
    Tool,
    ToolCall,
    ToolRequest,
    UnixTime,
    Witnessed,
    digest,
)
from onbehalf.model_json import plain
from onbehalf.validate import route
from replacing import replace
from validate.policy_house import BOB, CAROL, DANA, EVIDENCE, NOW, SHAPE, bundle_at, review, user

SCHEMA = """
entity Review { tenant: Tenant, subject: User, author: User, status: String, rating?: Long };
entity Ticket { tenant: Tenant, owner: User };
action readReview appliesTo { principal: User, resource: [Tool, Review], context: Context };
action readTicket, updateTicket appliesTo { principal: User, resource: [Tool, Ticket], context: Context };
"""
POLICIES = """
@id("reviews-call") @doc("Everyone may ask.") @remedy("Log in again.")
permit(principal, action == Action::"readReview", resource is Tool);
@id("manager-read") @doc("A manager reads reviews of reports.") @remedy("Ask their manager.")
permit(principal, action == Action::"readReview", resource is Review)
when { resource.subject has position && principal has position
       && resource.subject.position in principal.position && resource.subject != principal };
@id("own-read") @doc("A person reads their own.") @remedy("Wait until it is final.")
permit(principal, action == Action::"readReview", resource is Review) when { resource.subject == principal };
@id("tickets-call") @doc("Those with a position use tickets.") @remedy("Ask for a position.")
permit(principal, action in [Action::"readTicket", Action::"updateTicket"], resource is Tool)
when { principal has position };
@id("ticket-own") @doc("An owner works on a ticket.") @remedy("Ask its owner.")
permit(principal, action in [Action::"readTicket", Action::"updateTicket"], resource is Ticket)
when { resource.owner == principal };
"""
TICKET = Rows(type="Ticket", at=("ticket",), id="id", tenant="tenant", attributes={"owner": ("owner_id", "User")})
LOGINS = {
    "dana": ("acme", DANA),
    "bob": ("acme", BOB),
    "carol": ("acme", CAROL),
    "erin": ("globex", (user("globex", "erin"),)),
    "gone": ("acme", (user("acme", "gone", position="lead", active=False), *DANA[1:])),
}


def _schema(**properties: Json) -> dict[str, Json]:
    return {"type": "object", "properties": {**properties}, "additionalProperties": False}


def _tool(name: str, action: str, schema: dict[str, Json], **other: object) -> Tool:
    made = Tool(
        name=name, title="", description="", upstream="hr", remote=name, action=action, scopes=frozenset(),
        schema=schema, bound=(), rows=None, lookup=None, writes=False, exposed=True, definition=digest(name.encode()),
    )  # fmt: skip
    return replace(made, **other)  # type: ignore[arg-type]  # a test's shorthand


TOOLS = (
    _tool(
        "reviews_list",
        "readReview",
        _schema(subject_id={"type": "string"}),
        rows=SHAPE,
        bound=(Bound(parameter="tenant_id", source="tenant"),),
    ),
    _tool("tickets_get", "readTicket", _schema(ticket_id={"type": "string"}), rows=TICKET),
    _tool(
        "tickets_update",
        "updateTicket",
        _schema(ticket_id={"type": "string"}, status={"type": "string"}),
        rows=TICKET,
        writes=True,
        scopes=frozenset({"tickets.write"}),
        lookup=Lookup(tool="tickets_get", parameter="ticket_id", argument="ticket_id"),
        once_s=60,
    ),
    _tool(
        "tickets_close",
        "updateTicket",
        _schema(ticket_id={"type": "string"}),
        rows=replace(TICKET, at=("rows",)),
        writes=True,
        preview="checked",
    ),
    _tool(
        "tickets_move",
        "updateTicket",
        _schema(ticket_id={"type": "string"}, change={"type": "string"}),
        rows=replace(TICKET, at=("rows",)),
        writes=True,
        preview="asked",
        once_s=60,
    ),
    _tool("reviews_report", "readReview", _schema()),
    _tool("hidden_tool", "readReview", _schema(), exposed=False),
)


@dataclass(slots=True)
class Doors:
    """All doors at once: what they saw, and what is broken (`broken` holds names of failures)."""

    broken: set[str] = field(default_factory=set)
    entries: list[AuditEntry] = field(default_factory=list)
    sent: list[ToolCall] = field(default_factory=list)
    answer: Callable[[ToolCall], Outcome] | None = None
    counted: list[tuple[str, ...]] = field(default_factory=list)
    number: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    audience: str = "upstream"
    begun: dict[str, Earlier] = field(default_factory=dict)
    changes: dict[str, UnixTime] = field(default_factory=dict)
    tripped: list[str] = field(default_factory=list)
    scopes: frozenset[str] = frozenset({"tickets.write"})

    # clock and ids
    def now(self) -> UnixTime:
        return NOW

    def fresh(self) -> CallId:
        self.number += 1
        return CallId(f"call_{self.number:032x}")

    # once
    async def begin(
        self, key: Digest, call: CallId, arguments: Digest, *, now: UnixTime, until: UnixTime
    ) -> Earlier | None:
        if "once_down" in self.broken:
            raise OnceUnavailable("broken")
        assert until > now
        earlier = self.begun.get(key)
        if earlier is None:
            self.begun[key] = Earlier(call=call, arguments=arguments, at=now, done=False)
        return earlier

    async def done(self, key: Digest, call: CallId) -> None:
        if "once_fails_after" in self.broken:
            raise OnceUnavailable("broken")
        self.begun[key] = replace(self.begun[key], done=True)

    async def forget(self, key: Digest, call: CallId) -> None:
        del self.begun[key]

    # changes
    async def shown(self, change: Digest, *, until: UnixTime) -> None:
        self.changes[change] = until

    async def take(self, change: Digest, *, now: UnixTime) -> bool:
        return self.changes.pop(change, UnixTime(0)) > now

    # callers
    async def prove(self, presented: Presented, *, now: UnixTime) -> Caller:
        if "issuer_down" in self.broken:
            raise IssuerUnavailable("the issuer's keys cannot be had")
        if presented.token not in LOGINS:
            raise TokenMissing("there is no token")
        scopes = frozenset() if "scope_missing" in self.broken else self.scopes
        return Caller(
            subject=presented.token, tenant=LOGINS[presented.token][0], client="chat", actors=(), scopes=scopes,
            evidence=EVIDENCE,
        )  # fmt: skip

    # directory
    async def person(self, caller: Caller) -> Person:
        if "directory_down" in self.broken:
            raise DirectoryUnavailable("the directory cannot be read")
        tenant, entities = LOGINS.get(caller.subject, ("", ()))
        if "person_unknown" in self.broken or tenant != caller.tenant:
            raise PersonUnknown("the directory has no such person")
        active = entities[0].attributes["active"] is True
        return Person(
            ref=entities[0].ref, tenant=caller.tenant, name=caller.subject, active=active, attributes={},
            entities=entities, revision=7,
        )  # fmt: skip

    async def people(self, tenant: str, ids: Iterable[str]) -> Sequence[Entity]:
        if "directory_down_later" in self.broken:
            raise DirectoryUnavailable("the directory cannot be read")
        wanted = set(ids)
        zoe = (user("acme", "zoe"),)
        known = [entities for _, entities in LOGINS.values()] + [zoe]
        found = [each for each in known if each[0].ref.id.split("/") == [tenant, each[0].ref.id.split("/")[1]]]
        return [entity for each in found if each[0].ref.id.split("/")[1] in wanted for entity in each]

    # ledger
    async def append(self, entry: AuditEntry) -> Receipt:
        if "ledger_full" in self.broken:
            raise LedgerUnavailable("no space is left")
        self.entries.append(replace(entry, facts=plain(entry.facts)))
        return self.receipt(len(self.entries) - 1)

    def follow(self, entry: AuditEntry) -> None:
        if "ledger_full_later" in self.broken:
            raise LedgerUnavailable("no space is left")
        self.entries.append(replace(entry, facts=plain(entry.facts)))

    def receipt(self, index: int) -> Receipt:
        audience = self.entries[index].audience
        receipt = Receipt(index=index, leaf=digest(str(index).encode()))
        if not audience:
            return receipt
        number = sum(each.audience == audience for each in self.entries[: index + 1])
        return replace(receipt, channel=channel_of("house", audience), number=number)

    # witnesses
    async def cosigned(self, receipt: Receipt) -> Receipt:
        self.reached.set()
        if "witnesses_hang" in self.broken:
            await asyncio.sleep(3600)
        if "witnesses_down" in self.broken:
            raise WitnessesUnavailable("too few witnesses cosigned")
        if "log_disowned" in self.broken:
            self.broken |= {"ledger_full", "ledger_full_later"}
            raise LedgerUnavailable("a witness saw another history")
        return replace(receipt, witnessed=Witnessed(size=len(self.entries), by=(("w", NOW),)))

    # signer
    def sign(self, grant: Grant) -> CallToken:
        if "signer_gone" in self.broken:
            raise SignerUnavailable("the key cannot be read")
        return CallToken(grant=grant, compact="signed")

    # upstream
    async def send(self, call: ToolCall, token: CallToken) -> Outcome:
        # what the house promises: nothing is sent whose intent is not on record, and the token is for that very record
        intent = self.entries[token.grant.receipt.index]
        assert intent.kind == "intent"
        assert intent.call == call.id
        assert token.grant.allow.call == call
        self.sent.append(call)
        self.reached.set()
        lookup = call.tool.name == "tickets_get"
        if "call_hangs" in self.broken and not lookup:
            await asyncio.sleep(3600)
        if "upstream_raises" in self.broken:
            raise RuntimeError("a door broke its promise")
        if "upstream_fails" in self.broken or ("lookup_fails" in self.broken and lookup):
            return Failed(code="upstream_timeout", message="no answer came in time", unknown=call.tool.writes)
        if self.answer is None:
            return Done(content={"content": [], "structuredContent": {"rows": []}})
        return self.answer(call)

    # meter
    def decided(self, *, tool: str, decision: str, code: str) -> None:
        self.counted.append((tool, decision, code))

    def acted(self, *, upstream: str, outcome: str, seconds: float) -> None:
        self.counted.append((upstream, outcome))

    def refused(self, *, code: str) -> None:
        self.counted.append((code,))


def house(
    directory: Path, *broken: str, max_rows: int = 100, policies: str = POLICIES, mask_key: bytes = b"k" * 32
) -> tuple[Gateway, Doors]:
    """A gateway on in-memory doors, with these failures."""
    doors = Doors(broken=set(broken))
    if "policy_errs" in broken:
        policies += (
            '@id("errs") @doc("d") @remedy("r") forbid(principal, action, resource) '
            "when { 9223372036854775807 + context.now > 0 };"
        )
    engine = CedarEngine.load(bundle_at(directory / "policies", policies, SCHEMA), tools=TOOLS)
    tools = [replace(tool, durability="witnessed") for tool in TOOLS] if "all_witnessed" in broken else TOOLS
    offers = {tool.name: Offer(tool=tool, check=route.prepare(tool.schema), upstream=doors) for tool in tools}
    standing = Standing(engine=engine, offers=offers)
    gateway = Gateway(
        clock=doors.now, ids=doors.fresh, callers=doors, directory=doors, ledger=doors, signer=doors, meter=doors,
        once=doors, changes=doors, standing=lambda: standing, max_rows=max_rows,
        secret=mask_key, trip=doors.tripped.append, witnesses=None if "no_witnesses" in broken else doors,
    )  # fmt: skip
    return gateway, doors


def request(tool: str, **arguments: Json) -> ToolRequest:
    return ToolRequest(tool=tool, arguments=arguments, protocol="2026-07-28", agent="chat/1")


def reviews(*rows: dict[str, Json]) -> Callable[[ToolCall], Outcome]:
    return lambda _: Done(content={"content": [], "structuredContent": {"rows": list(rows)}})


def tickets(**owners: str) -> Callable[[ToolCall], Outcome]:
    """A ticket system of the caller's own tenant that knows these tickets."""

    def answer(call: ToolCall) -> Outcome:
        id_ = orjson.loads(call.arguments).get("ticket_id", "")
        owner = owners.get(id_)
        ticket: Json = {"id": id_, "tenant": call.caller.tenant, "owner_id": owner} if owner else None
        return Done(content={"content": [], "structuredContent": {"ticket": ticket}})

    return answer


__all__ = ["LOGINS", "POLICIES", "TOOLS", "Doors", "house", "request", "review", "reviews", "tickets"]
