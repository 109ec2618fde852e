"""What the corridor needs from the world, as protocols; doors fulfil them.

Every port has one contract suite in tests/ports/ that all its doors run. Must not import a door.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from onbehalf.model import (
    Approval,
    AuditEntry,
    Caller,
    CallId,
    CallToken,
    Candidate,
    Digest,
    Earlier,
    Entity,
    Grant,
    Json,
    Judgement,
    Outcome,
    Person,
    Predicate,
    Presented,
    Question,
    Receipt,
    Reply,
    Tool,
    ToolCall,
    ToolRequest,
    UnixTime,
    Vote,
)  # fmt: skip

__all__ = [
    "Approvals",
    "Callers",
    "Changes",
    "Clock",
    "Directory",
    "Engine",
    "House",
    "Ids",
    "Ledger",
    "Meter",
    "Once",
    "Signer",
    "Upstream",
    "Witnesses",
]


class Clock(Protocol):
    """Now, in whole seconds. Asked once per call, by the corridor."""

    def __call__(self) -> UnixTime: ...


class Ids(Protocol):
    """A fresh call id."""

    def __call__(self) -> str: ...


class Callers(Protocol):
    """Proves who calls, with the issuers' keys at hand and verified tokens kept until they expire."""

    async def prove(self, presented: Presented, *, now: UnixTime) -> Caller:
        """The caller. Raises an IdentifyError."""
        ...


class Directory(Protocol):
    """People, positions and groups. A person outside the asked tenant does not exist."""

    async def person(self, caller: Caller) -> Person:
        """The caller's own slice, by (issuer, subject) within the caller's tenant.

        Raises PersonUnknown, ClaimsUnusable, DirectoryUnavailable.
        """
        ...

    async def people(self, tenant: str, ids: Iterable[str]) -> Sequence[Entity]:
        """User entities of these person ids in this tenant, with their position and group ancestors.

        Unknown ids are left out, so that a policy looking at one errors and denies. Somebody who left must stay in
        the directory with `active` False: once unknown, every row that names them is denied to all.
        Raises DirectoryUnavailable.
        """
        ...


class Engine(Protocol):
    """Answers policy questions, raw. Sync: it computes, it does not wait."""

    @property
    def policy(self) -> str:
        """Digest of the bundle in force."""
        ...

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that some policy demands, or by which a person states a purpose that one demands."""
        ...

    def narrowing(self, tool: Tool, question: Question) -> Predicate:
        """The condition on a scoped tool's rows that lets through what the policies allow the caller of `question`.

        Never raises for what a question holds: where the engine does not answer, no row fits.
        """
        ...

    def exploring(self, tool: Tool, question: Question) -> Mapping[str, Predicate]:
        """As `narrowing`, the condition on each table that an exploring tool may be asked about."""
        ...

    def judge(self, question: Question) -> Judgement:
        """What the engine says. Never raises for what a question holds: errors are in the judgement."""
        ...

    def candidates(self, question: Question) -> tuple[Candidate, ...]:
        """Every policy of the question's action, condition by condition. Slow; for denials only."""
        ...


class Ledger(Protocol):
    """The record. Closed for good once it is not known what is on it: the process must restart and verify."""

    async def append(self, entry: AuditEntry) -> Receipt:
        """Make the entry durable, then say where it is; an intent with an `audience` gets the next number of its
        channel, without a hole over all that the log ever held. Raises LedgerUnavailable."""
        ...

    def follow(self, entry: AuditEntry) -> None:
        """Queue an entry for the next commit without waiting; a crash before it leaves an open intent.

        Raises LedgerUnavailable when the ledger no longer takes entries.
        """
        ...


class Witnesses(Protocol):
    """Others who cosign heads of the record, of whom a quorum must before some calls are sent."""

    async def cosigned(self, receipt: Receipt) -> Receipt:
        """The receipt, once a quorum cosigned a head that has its entry. Bounded in time.

        Raises WitnessesUnavailable where that did not come about, LedgerUnavailable where a witness says that this log
        is no continuation of what it saw: nothing may be done any more.
        """
        ...


class Once(Protocol):
    """Which writing calls were begun and done, so that none is done twice. Each change is durable when it returns."""

    async def begin(
        self, key: Digest, call: CallId, arguments: Digest, *, now: UnixTime, until: UnixTime
    ) -> Earlier | None:
        """Note that `call` is begun and return None, or return the earlier call of that key. Raises OnceUnavailable."""
        ...

    async def done(self, key: Digest, call: CallId) -> None:
        """The call has had its effect. Raises OnceUnavailable."""
        ...

    async def forget(self, key: Digest, call: CallId) -> None:
        """The call had no effect and may be sent again. Raises OnceUnavailable."""
        ...


class Changes(Protocol):
    """Which change sets were shown, each to be made at most once."""

    async def shown(self, change: Digest, *, until: UnixTime) -> None:
        """Note that it was shown and may be made before `until`. Raises OnceUnavailable."""
        ...

    async def take(self, change: Digest, *, now: UnixTime) -> bool:
        """Whether it was shown and not taken since; then it is taken. Raises OnceUnavailable."""
        ...


class Approvals(Protocol):
    """What people were asked to approve, until it is over. Each change is durable when it returns.

    What an approval is about goes in and comes out; at rest it is sealed. All raise ApprovalsUnavailable.
    """

    async def ask(self, new: Approval, about: Json) -> Approval:
        """The one of the same binding that is not over or used; else `new`, kept. Raises TooManyApprovals."""
        ...

    async def find(self, id: str, *, now: UnixTime) -> tuple[Approval, Json] | None:
        """One that is not over or used, with what it is about."""
        ...

    async def approve(self, id: str, vote: Vote) -> bool:
        """Keep a vote; whether it is one more, of one that is not over, used or refused."""
        ...

    async def refuse(self, id: str, *, now: UnixTime) -> bool:
        """Refuse it for good; whether that changed anything."""
        ...

    async def take(self, id: str, *, now: UnixTime) -> bool:
        """Use it; whether it was neither used, refused nor over."""
        ...


class Signer(Protocol):
    """Signs call tokens with the gateway's current key."""

    def sign(self, grant: Grant) -> CallToken:
        """The compact token for a grant. Raises SignerUnavailable."""
        ...


class Upstream(Protocol):
    """A system behind the gateway. Does one call once; a failure is a value."""

    @property
    def audience(self) -> str:
        """Who its call tokens are for."""
        ...

    async def send(self, call: ToolCall, token: CallToken) -> Outcome:
        """Do the call. Bounded in time and size. Never raises for what the upstream does."""
        ...


class Meter(Protocol):
    """Counts. No user ids in labels."""

    def decided(self, *, tool: str, decision: str, code: str) -> None: ...
    def acted(self, *, upstream: str, outcome: str, seconds: float) -> None: ...
    def refused(self, *, code: str) -> None: ...


class House(Protocol):
    """What an inbound door asks of the house. The corridor is it."""

    async def call(self, presented: Presented, request: ToolRequest) -> Reply:
        """One tool call. A denial by policy is a Reply with `denial`; raises OnbehalfError where no reply may be given.

        Cancelled when the client goes away or time runs out: what was sent by then must be on record as not known.
        """
        ...

    async def tools(self, presented: Presented) -> Sequence[Tool]:
        """What could be allowed to this person. Raises OnbehalfError."""
        ...

    async def who(self, presented: Presented) -> Caller:
        """Who calls, proven, and no more. Raises an IdentifyError."""
        ...
