"""The words that several rooms share, as frozen values.

Presented (nothing proven) -> Caller -> ToolCall -> Allow | Ask | Deny -> Receipt -> Grant -> CallToken ->
Outcome. Each proven type is made in one file of one room: `Caller` in identify/verify.py, `ToolCall`
in validate/route.py, `Allow`, `Ask` and `Deny` in validate/decide.py, `Grant` in act/grant.py. The words for who calls
are in model_callers.py, those for tools in model_tools.py, those for JSON in model_json.py, and all are had from here.
Must not hold behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from msgspec.structs import astuple

from onbehalf.model_callers import Caller, Evidence, Kind, Presented, Proof, Shown
from onbehalf.model_json import CallId, Canonical, Digest, Json, UnixTime, canonical, digest
from onbehalf.model_tools import Bound, DryRun, Entity, Explored, Explores, Lookup, Pages, Preview, Ref, Rows, Tool
from onbehalf.model_value import Value

__all__ = [
    "Allow", "Applied", "Approval", "Approver", "Ask", "Asked", "AuditEntry", "Bound", "CallId", "CallToken", "Caller",
    "Candidate", "Canonical", "Conjunct", "Decision", "Deny", "Digest", "Done", "DryRun", "Entity", "Evidence",
    "Explored", "Explores", "Failed", "Grant", "Json", "Judgement", "Kind", "Lookup", "Obligations", "Outcome", "Owed",
    "Page", "Pages", "Person", "Presented", "Preview", "Proof", "Question", "Reason", "Receipt", "Ref", "Reply", "Rows",
    "Shown", "Tool",
    "ToolCall", "ToolRequest", "UnixTime", "Vote", "Waiting", "Witnessed", "canonical", "digest",
]  # fmt: skip

# --- calls ---------------------------------------------------------------------------------


class ToolRequest(Value, frozen=True, kw_only=True):
    """What a client asks for: a tool by name and arguments, both as sent. Nothing in it is proven."""

    hidden = frozenset({"arguments", "seen"})

    tool: str
    arguments: Mapping[str, Json]
    protocol: str
    agent: str
    once: str = ""
    """An idempotency key of the client's, "" for none."""
    seen: str = ""
    """A checkpoint of the record that the client was given before, "" for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A caller's own slice of the directory at one revision: the User and all it is in.

    `entities` holds the User, its Tenant, Position and Group entities with all their ancestors. After `fresh_until` it
    is too old for calls that write; None is never. A service is a slice as well, of a Service and its Tenant, and no
    person: `kind` tells.
    """

    ref: Ref
    tenant: str
    name: str
    active: bool
    attributes: Mapping[str, Json]
    entities: tuple[Entity, ...]
    revision: int
    fresh_until: UnixTime | None = None
    spellings: dict[str, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What of it was spelled for the record already. INVARIANT: only what follows from the fields above, so that one
    Person is spelled once, and what is made of it by `replace` anew."""

    @property
    def kind(self) -> Kind:
        """Whether it is a person: a User, and nothing else, is one."""
        return "person" if self.ref.type == "User" else "service"

    @property
    def own_id(self) -> str:
        """The id within the tenant. No person's has a slash, so that no service is called like a person."""
        own = self.ref.id.removeprefix(f"{self.tenant}/")
        return own if self.ref.type == "User" else f"service/{own}"

    @property
    def known_as(self) -> str:
        """By what everything is kept that is theirs alone."""
        return f"{self.tenant}/{self.own_id}"


class Predicate(Value, frozen=True, kw_only=True):
    """A condition on the rows under the alias `scoped`, in the SQL of one database, with its bound values."""

    hidden = frozenset({"parameters"})

    sql: str
    parameters: Mapping[str, Json]


class Page(Value, frozen=True, kw_only=True):
    """A page that is asked for: `size` rows after what `cursor` says, "" for the first. `tail` is what follows the
    rows' alias `paged` in a statement."""

    hidden = frozenset({"cursor"})

    size: int
    cursor: str
    tail: Predicate | None = None


class ToolCall(Value, frozen=True, kw_only=True):
    """A tool call by a proven caller, its arguments checked and bound parameters set.

    `arguments` is canonical JSON (RFC 8785) of what the upstream will get; `digest` is over it. `once` is the client's
    idempotency key, and `change` the change set that it was shown and wants; "" for none. A `dry` call is tried and
    taken back, or only asked about (`Tool.dry_run`); one with `expected` is done only if exactly that comes of it (a
    `Done.digest`), as far as its upstream can tell. `where` narrows
    a scoped tool's rows, and is the whole statement of one that explores; `page` is the part of the answer that is
    asked for.
    """

    hidden = frozenset({"arguments"})

    id: CallId
    at: UnixTime
    caller: Caller
    person: Person
    tool: Tool
    arguments: bytes
    digest: Digest
    protocol: str
    agent: str
    once: str = ""
    change: str = ""
    dry: bool = False
    expected: str = ""
    where: Predicate | None = None
    page: Page | None = None


# --- validate ------------------------------------------------------------------------------


class Question(Value, frozen=True, kw_only=True):
    """One question to a policy engine, with all the entities it may look at."""

    principal: Ref
    action: str
    resource: Ref
    context: Mapping[str, Json | Ref]
    entities: tuple[Entity, ...]


Every: TypeAlias = Literal["every"]
Mask: TypeAlias = Literal["last4", "hash", "null"]
Approver: TypeAlias = Literal["self", "manager", "two-person"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Obligations:
    """What permits demand of what they let through; as it stands here, nothing.

    `columns` are the only fields of a row that may go on, `masks` says how fields go on, `max_rows` is the most rows of
    one answer, `purposes` what it may be used for, `approve` who must have approved it, all of them. `scopes` are what
    the token must have, all of them, `acr` one of which the login was, at most `max_age` seconds ago.
    """

    columns: frozenset[str] | Every = "every"
    masks: frozenset[tuple[str, Mask]] = frozenset()
    max_rows: int | Every = "every"
    purposes: frozenset[str] | Every = "every"
    approve: frozenset[Approver] = frozenset()
    scopes: frozenset[str] = frozenset()
    acr: frozenset[str] | Every = "every"
    max_age: int | Every = "every"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUp:
    """What a token must show for a call that is permitted otherwise, whole: scopes, one `acr`, a login that recent."""

    scopes: frozenset[str]
    acr: tuple[str, ...] = ()
    max_age: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """What one policy demands of what it permits."""

    policy: str
    obligations: Obligations


class Judgement(Value, frozen=True, kw_only=True):
    """What an engine said, raw; `owed` is what the permits that say yes demand. Only validate/decide.py may turn this
    into a Decision. `engine` is the engine's name and version."""

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[str, ...]
    validated: bool
    owed: tuple[Owed, ...] = ()
    engine: str = ""


class Asked(Value, frozen=True, kw_only=True):
    """What an engine was asked for one decision, in order, and what it said to the last of it.

    The first question is about the tool; where the call is about one resource, the second is about that.
    """

    questions: tuple[Question, ...]
    said: Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Conjunct:
    """One condition of one policy and whether it held; None means it could not be evaluated."""

    text: str
    holds: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A policy that could have spoken on a question, taken apart condition by condition."""

    policy: str
    effect: Literal["permit", "forbid"]
    doc: str
    remedy: str
    conjuncts: tuple[Conjunct, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why: a stable `code`, a sentence for a person, and the policy where one spoke."""

    code: str
    text: str
    policy: str = ""


class _Decided(Value, frozen=True, kw_only=True):
    """What was decided of a call. Its last field, `asked`, is how, and neither shown nor compared."""

    hidden = frozenset({"asked"})

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return astuple(self)[:-1] == astuple(other)[:-1]

    def __hash__(self) -> int:
        return hash(astuple(self)[:-1])


class Allow(_Decided, frozen=True, kw_only=True):
    """The call may be done on `resource`, by `policies` of the bundle `policy` at directory `revision`.

    `owed` is what these policies demand, all of which can be met. Where an approval was among it, `approval` is the
    one that was given.
    """

    call: ToolCall
    resource: Ref
    policies: tuple[str, ...]
    policy: Digest
    revision: int
    owed: tuple[Owed, ...] = ()
    approval: Approval | None = None
    asked: Asked | None = None


class Ask(_Decided, frozen=True, kw_only=True):
    """The call may be done, as an Allow would say, once all of `approvers` have approved it."""

    call: ToolCall
    resource: Ref
    policies: tuple[str, ...]
    policy: Digest
    revision: int
    owed: tuple[Owed, ...]
    approvers: frozenset[Approver]
    asked: Asked | None = None


class Deny(_Decided, frozen=True, kw_only=True):
    """The call may not be done. `reason.code` and `remedy` go to the model; `candidates` to people only. `step_up` is
    what would change that."""

    call: ToolCall
    resource: Ref
    reason: Reason
    remedy: str
    candidates: tuple[Candidate, ...]
    policy: Digest
    revision: int
    step_up: StepUp | None = None
    asked: Asked | None = None


Decision: TypeAlias = Allow | Ask | Deny


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """That a person approved. `person` is an id within the approval's tenant."""

    person: str
    at: UnixTime


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What people were asked to approve, and who did. `id` is unguessable and proves nothing by itself.

    `binding` says what exactly it is of (validate/approval.py): `person`, an id within `tenant`, asked for it by
    `call`. It can be given and used before `until`. Once `refused` it stays so.
    """

    id: str
    binding: Digest
    tenant: str
    person: str
    call: CallId
    approvers: frozenset[Approver]
    at: UnixTime
    until: UnixTime
    refused: bool = False
    votes: tuple[Vote, ...] = ()


class Applied(Value, frozen=True, kw_only=True):
    """What was done to an answer, on the demand of policies, before it was released.

    `rows` pairs a policy's demand with how many released rows it shaped. `cut` rows were permitted and are beyond the
    most that may be released. `purposes` are what the answer may be used for: none where no policy speaks of it.
    `masks` are the fields that did not go on as they are.
    """

    rows: tuple[tuple[Owed, int], ...] = ()
    cut: int = 0
    purposes: tuple[str, ...] = ()
    masks: tuple[tuple[str, Mask], ...] = ()


# --- explain -------------------------------------------------------------------------------


class AuditEntry(Value, frozen=True, kw_only=True):
    """One thing to put on the record, before it is salted and sealed.

    `kind` is `intent`, `outcome`, `denial`, `unknown`, or an event of the house such as `start`,
    `policy_change`, `key_change`. `call` ties records of one call; it is "" for events of the house.
    Every member of `facts` gets a commitment of its own in the leaf; the values are sealed apart, with a key of whom
    they are `about`: a person or service as `Person.known_as`, a login of nobody known, or "" for nobody.
    `audience` is the upstream that an intent is to be sent to: the leaf gets the next number of its channel.
    """

    hidden = frozenset({"facts", "about"})

    kind: str
    call: str
    at: UnixTime
    facts: Mapping[str, Json | Canonical]
    audience: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """A head of `size` leaves that a quorum of witnesses cosigned: each by its name, when, in seconds since 1970."""

    size: int
    by: tuple[tuple[str, int], ...]


class Receipt(Value, frozen=True, kw_only=True):
    """Proof that an entry is durable: its place in the log and its leaf hash (RFC 6962 section 2.1).

    Of an intent, `channel` is the one of its upstream and `number` its place there, from 1 and without a hole.
    `witnessed` says by whom, where a quorum cosigned a head that has it.
    """

    index: int
    leaf: Digest
    channel: str = ""
    number: int = 0
    witnessed: Witnessed | None = None


# --- act -----------------------------------------------------------------------------------


class Grant(Value, frozen=True, kw_only=True):
    """The right to do one allowed, recorded call once, at one audience, until `expires_at`."""

    allow: Allow
    receipt: Receipt
    audience: str
    issued_at: UnixTime
    expires_at: UnixTime


class CallToken(Value, frozen=True, kw_only=True):
    """A signed Transaction Token for one grant (header `Txn-Token`)."""

    hidden = frozenset({"compact"})

    grant: Grant
    compact: str


class Done(Value, frozen=True, kw_only=True):
    """The upstream answered. `rows` is the mapped part where the tool has a mapping; `content` the whole
    result as MCP members (`content`, `structuredContent`, `isError`). `digest` is over what changed, from an upstream
    that can try a call first; `receipt` what the backend itself signed about it, proven, or ""; `answer` the digest
    of the bytes that it answered, where those are not `content`."""

    hidden = frozenset({"content"})

    content: Mapping[str, Json]
    digest: str = ""
    receipt: str = ""
    answer: str = ""


class Failed(Value, frozen=True, kw_only=True):
    """The upstream did not do it, or we cannot know (`unknown` True: the effect may have happened).

    With `again_s` it was refused unread, or only reads, and is worth another sending, with a record and token of its
    own, after so many seconds.
    """

    code: str
    message: str
    unknown: bool
    again_s: float | None = None


Outcome: TypeAlias = Done | Failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A call that the same effect was asked for by, at `at`. Not `done`: its outcome is not known, or not yet."""

    call: CallId
    arguments: Digest
    at: UnixTime
    done: bool


class Reply(Value, frozen=True, kw_only=True):
    """What goes back to the client for one call: MCP tool-result members, and where it is on record.

    `denial` is the stable code of a refusal, "" for a call that was done. `waiting` says what it waits for.
    """

    hidden = frozenset({"content"})

    call: CallId
    content: Mapping[str, Json]
    receipt: Receipt
    denial: str
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A page where people say whether a call may be done, and what to tell whoever reads it there."""

    url: str
    message: str
