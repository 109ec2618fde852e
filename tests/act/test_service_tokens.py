"""A service's call token: no backend that knows people only takes it, and none takes it for a person's."""

from __future__ import annotations

from typing import Any

import pytest
from nacl.signing import SigningKey

from act.granted import ARGUMENTS, AUDIENCE, ISSUER, NOW, allowed, receipt
from backend.vectors import signed
from onbehalf.act import claims, grant
from onbehalf.act.further import Further, further_claims
from onbehalf.backend import VerifiedCall, verify_call
from onbehalf.backend.postgres import claim_key, settings
from onbehalf.backend.replay import MemoryReplay
from onbehalf.errors import CallTokenRefused
from onbehalf.model import Grant, Json, canonical, digest
from replacing import replace
from service_house import service, service_caller

KEY = SigningKey(b"\x05" * 32)
SPIFFE = "spiffe://prod.acme.example/agents/export"


def of_service(name: str = "alice") -> Grant:
    """A grant of a service that is called like a person."""
    allow = allowed()
    call = replace(allow.call, person=service(name), caller=service_caller(name))
    return grant(replace(allow, call=call), receipt(), audience=AUDIENCE, now=NOW)


def verified(body: dict[str, Any], *, services: bool = True) -> VerifiedCall:
    token = signed({"typ": "txntoken+jwt", "alg": "EdDSA", "kid": "k"}, body, KEY)
    return verify_call(
        token, keys={"k": bytes(KEY.verify_key)}, issuer=ISSUER, audience=AUDIENCE, tool="update_ticket",
        arguments=ARGUMENTS, now=NOW, replay=MemoryReplay(since=NOW - 100), services=services,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["alice", SPIFFE])
def test_a_service_is_proven_as_one_where_services_are_asked_for_and_has_no_persons_id(name: str) -> None:
    body = claims(of_service(name), issuer=ISSUER)
    assert (body["sub"], body["sub_profile"]) == (f"service:acme/{name}", "service")
    call = verified(body)
    assert (call.kind, call.service, call.person, call.tenant) == ("service", name, "", "acme")
    with pytest.raises(CallTokenRefused, match="people's calls only"):
        verified(body, services=False)


def test_a_persons_token_is_as_it_always_was() -> None:
    body = claims(grant(allowed(), receipt(), audience=AUDIENCE, now=NOW), issuer=ISSUER)
    assert body["sub"] == "acme/alice"
    assert "sub_profile" not in body
    for services in (True, False):
        call = verified(body, services=services)
        assert (call.kind, call.person, call.service) == ("person", "alice", "")


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": "acme/alice"},  # a service without its mark in `sub`, and
        {"sub_profile": None},  # one without its profile, are neither
        {"sub_profile": "person"},
        {"sub_profile": True},
        {"sub": "service:globex/alice"},
        {"sub": "service:acme/"},
        {"sub": "service:acme"},
        {"sub": "service:"},
        {"sub": "Service:acme/alice"},
    ],
)
def test_half_a_service_is_nobody(changes: dict[str, Any]) -> None:
    body = {**claims(of_service(), issuer=ISSUER), **changes}
    body = {name: value for name, value in body.items() if value is not None}
    for services in (True, False):
        with pytest.raises(CallTokenRefused):
            verified(body, services=services)


def test_a_tenant_that_is_called_like_a_service_is_still_its_own() -> None:
    body = claims(grant(allowed(), receipt(), audience=AUDIENCE, now=NOW), issuer=ISSUER)
    context: Any = body["tctx"]
    body = {**body, "sub": "service:acme/alice", "tctx": {**context, "tenant": "service:acme"}}
    call = verified(body)
    assert (call.kind, call.tenant, call.person) == ("person", "service:acme", "alice")


def test_a_token_for_the_next_backend_says_it_as_well() -> None:
    body = claims(of_service(), issuer=ISSUER)
    asked = Further(workload="w", audience=AUDIENCE, tool="update_ticket", arguments=digest(canonical(ARGUMENTS)))
    further: dict[str, Json] = further_claims(body, asked, issuer=ISSUER, receipt=receipt(42), now=NOW)
    assert verified(further).kind == "service"


def test_a_database_is_not_told_that_a_person_acts() -> None:
    call = verified(claims(of_service("alice"), issuer=ISSUER))
    told = dict(zip(("tenant", "person", "client", "call", "tool", "action", "sub"), settings(call), strict=False))
    assert (told["person"], told["sub"]) == ("", "service:acme/alice")
    claim = settings(call, key=claim_key(b"k" * 32), begun=(1, 2))[-1]
    assert f"|{b'service/alice'.hex()}|" in claim
    assert f"|{b'alice'.hex()}|" not in claim
