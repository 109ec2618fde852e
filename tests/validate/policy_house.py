"""One small company for the policy tests: dana leads bob and carol, dana is in hr, erin is in another tenant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onbehalf.model import (
    Caller,
    CallId,
    Digest,
    Entity,
    Evidence,
    Json,
    Person,
    Ref,
    Rows,
    Tool,
    ToolCall,
    UnixTime,
    digest,
)  # fmt: skip

NOW = UnixTime(1_800_000_000)
SHAPE = Rows(
    type="Review",
    at=("rows",),
    id="id",
    tenant="tenant",
    attributes={
        "subject": ("subject_id", "User"),
        "author": ("author_id", "User"),
        "status": ("status", "String"),
        "rating": ("rating", "Long"),
    },
)
SCHEMA = """
entity Review { tenant: Tenant, subject: User, author: User, status: String, rating?: Long };
action "reading";
action "reviews.list" in ["reading"] appliesTo { principal: User, resource: [Tool, Review], context: Context };
action "other" appliesTo { principal: User, resource: [Tool], context: Context };
"""
POLICIES = """
@id("reviews-call") @doc("Everyone may ask.") @remedy("Log in again.")
permit(principal, action == Action::"reviews.list", resource is Tool) when { context.scopes.contains("reviews.read") };

@id("manager-read") @doc("A manager reads reviews of reports.") @remedy("Ask their manager.")
permit(principal, action in Action::"reading", resource is Review)
when { resource.subject has position && principal has position
       && resource.subject.position in principal.position && resource.subject != principal };

@id("hr-read") @doc("HR reads final reviews.") @remedy("Ask HR.")
permit(principal in Group::"acme/hr", action == Action::"reviews.list", resource is Review)
when { resource.status == "final" && resource has rating && resource.rating > 0 }
unless { resource.author == principal || !(resource.subject != principal) };

@id("other-call") @doc("Elsewhere.") @remedy("Never shown here.")
permit(principal, action == Action::"other", resource is Tool);
"""
EVIDENCE = Evidence(
    issuer="https://issuer.test",
    key="k",
    algorithm="ES256",
    token=digest(b""),
    issued_at=NOW,
    expires_at=UnixTime(NOW + 60),
)


def bundle_at(directory: Path, policies: str = POLICIES, schema: str = SCHEMA) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "a.cedar").write_text(policies, encoding="utf-8")
    (directory / "a.cedarschema").write_text(schema, encoding="utf-8")
    return directory


def tool(name: str = "reviews_list", action: str = "reviews.list", shape: Rows | None = SHAPE) -> Tool:
    return Tool(
        name=name, title="", description="", upstream="hr", remote=name, action=action, scopes=frozenset(), schema={},
        bound=(), rows=shape, lookup=None, writes=False, exposed=True, definition=digest(b""),
    )  # fmt: skip


def user(tenant: str, name: str, *, position: str = "", groups: tuple[str, ...] = (), active: bool = True) -> Entity:
    attributes: dict[str, Json | Ref] = {"tenant": Ref(type="Tenant", id=tenant), "name": name, "active": active}
    if position:
        attributes["position"] = Ref(type="Position", id=f"{tenant}/{position}")
    parents = tuple(Ref(type="Group", id=f"{tenant}/{group}") for group in groups)
    return Entity(ref=Ref(type="User", id=f"{tenant}/{name}"), attributes=attributes, parents=parents)


def place(type_: str, tenant: str, name: str, *parents: str) -> Entity:
    above = tuple(Ref(type=type_, id=f"{tenant}/{parent}") for parent in parents)
    return Entity(
        ref=Ref(type=type_, id=f"{tenant}/{name}"), attributes={"tenant": Ref(type="Tenant", id=tenant)}, parents=above
    )


LEAD = place("Position", "acme", "lead")
IC, IC2 = place("Position", "acme", "ic", "lead"), place("Position", "acme", "ic2", "lead")
HR = place("Group", "acme", "hr")
DANA = (user("acme", "dana", position="lead", groups=("hr",)), LEAD, HR)
BOB = (user("acme", "bob", position="ic"), IC, LEAD)
CAROL = (user("acme", "carol", position="ic2"), IC2, LEAD)
ZOE = (user("acme", "zoe"),)
PEOPLE: Mapping[str, tuple[Entity, ...]] = {entities[0].ref.id: entities for entities in (DANA, BOB, CAROL, ZOE)}


def person(entities: tuple[Entity, ...], *, tenant: str = "acme") -> Person:
    return Person(
        ref=entities[0].ref, tenant=tenant, name="", active=True, attributes={}, entities=entities, revision=7
    )


def caller(*, tenant: str = "acme", scopes: frozenset[str] = frozenset({"reviews.read"})) -> Caller:
    return Caller(subject="s", tenant=tenant, client="chat", actors=(), scopes=scopes, evidence=EVIDENCE)


def tool_call(
    who: Person, *, wanted: Tool | None = None, scopes: frozenset[str] = frozenset({"reviews.read"})
) -> ToolCall:
    return ToolCall(
        id=CallId("call_1"), at=NOW, caller=caller(tenant=who.tenant, scopes=scopes), person=who, tool=wanted or tool(),
        arguments=b"{}", digest=Digest("sha256:0"), protocol="", agent="",
    )  # fmt: skip


def review(id_: str = "1", *, tenant: str = "acme", subject: str = "bob", **other: Json) -> dict[str, Json]:
    row: dict[str, Json] = {
        "id": id_, "tenant": tenant, "subject_id": subject, "author_id": "zoe", "status": "final", "rating": 4,
    }  # fmt: skip
    return row | other
