"""Services for the tests of rooms and house: callers that are no person, and people who are called like them."""

from __future__ import annotations

from dataclasses import replace

from onbehalf.doors.directory_services import service_of
from onbehalf.model import Caller, CallId, Digest, Person, Tool, ToolCall
from validate.policy_house import EVIDENCE, NOW, caller, tool

__all__ = ["call_of", "service", "service_caller"]


def service_caller(
    name: str = "export", *, tenant: str = "acme", scopes: frozenset[str] = frozenset({"reviews.read"})
) -> Caller:
    """A service's proven caller, whose client is called like the one of people in these tests."""
    return replace(caller(tenant=tenant, scopes=scopes), kind="service", service=name, subject=name, evidence=EVIDENCE)


def service(name: str = "export", *, tenant: str = "acme") -> Person:
    return service_of(service_caller(name, tenant=tenant))


def call_of(who: Person, *, wanted: Tool | None = None) -> ToolCall:
    """A call of this person or service, through one client."""
    kind = who.kind
    by = service_caller(who.name, tenant=who.tenant) if kind == "service" else caller(tenant=who.tenant)
    return ToolCall(
        id=CallId("call_1"), at=NOW, caller=by, person=who, tool=wanted or tool(), arguments=b"{}",
        digest=Digest("sha256:0"), protocol="", agent="",
    )  # fmt: skip
