"""Which token of an issuer is a program's own: only as its settings say, and never by accident."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from identify.minting import ISSUER, NOW, RESOURCE, RULE, claims, mint, prove
from onbehalf.config import ServicesSettings, TenantClaim
from onbehalf.errors import ClaimRefused, TenantRefused
from onbehalf.identify import verify_introspected
from onbehalf.model import Caller, UnixTime

BY_SUB = ServicesSettings(told_by="sub")
NO_SUB = ServicesSettings(told_by="no_sub")
BY_CLAIM = ServicesSettings(told_by="claim", claim="gty", value="client-credentials")


def rule(services: ServicesSettings | None, **changes: Any) -> Any:
    return msgspec.structs.replace(RULE, services=services, **changes)


def asked(services: ServicesSettings | None, **changes: Any) -> Caller:
    answer = claims(**{"active": True, "client_id": "export", **changes})
    return verify_introspected(answer, token="t", rule=rule(services), key="", audience=RESOURCE, now=UnixTime(NOW))


def test_without_settings_a_programs_token_is_what_it_always_was() -> None:
    caller = prove(mint(claims(sub="export", client_id="export", gty="client-credentials")), rule=rule(None))
    assert (caller.kind, caller.service, caller.subject) == ("person", "", "export")
    with pytest.raises(ClaimRefused):
        prove(mint(claims(sub=None, client_id="export")), rule=rule(None))
    with pytest.raises(ClaimRefused):
        asked(None, sub=None)


def test_a_token_whose_subject_is_its_client_is_a_services() -> None:
    caller = prove(mint(claims(sub="export", client_id="export")), rule=rule(BY_SUB))
    assert (caller.kind, caller.service, caller.subject, caller.client) == ("service", "export", "export", "export")
    assert (caller.tenant, caller.evidence.issuer) == ("acme", ISSUER)
    assert prove(mint(claims(sub="export", azp="export")), rule=rule(BY_SUB, client_claim="azp")).kind == "service"


@pytest.mark.parametrize("changes", [{}, {"sub": "export"}, {"sub": "Claude"}, {"sub": "claude "}, {"kind": "service"}])
def test_a_persons_token_is_not_whatever_it_says_besides(changes: dict[str, Any]) -> None:
    body = claims(**{"gty": "password", "service": "export", "roles": ["service"], **changes})
    for services in (BY_SUB, NO_SUB, BY_CLAIM):
        caller = prove(mint(body), rule=rule(services))
        assert (caller.kind, caller.service) == ("person", "")


@pytest.mark.parametrize("value", ["client-credentials ", "Client-Credentials", ["client-credentials"], True, {}, 1])
def test_the_claim_is_exactly_its_value(value: Any) -> None:
    assert prove(mint(claims(gty=value)), rule=rule(BY_CLAIM)).kind == "person"
    good = prove(mint(claims(gty="client-credentials", sub="export@clients", client_id="export")), rule=rule(BY_CLAIM))
    assert (good.kind, good.service, good.subject) == ("service", "export", "export@clients")


def test_no_subject_tells_of_a_service_only_in_what_the_issuer_answers() -> None:
    caller = asked(NO_SUB, sub=None)
    assert (caller.kind, caller.service, caller.subject) == ("service", "export", "export")
    assert asked(NO_SUB).kind == "person"
    with pytest.raises(ClaimRefused):
        prove(mint(claims(sub=None)), rule=rule(NO_SUB))
    for other in (BY_SUB, BY_CLAIM):
        with pytest.raises(ClaimRefused):
            asked(other, sub=None)
    with pytest.raises(ClaimRefused):
        asked(NO_SUB, sub="")


def test_a_service_is_called_by_the_issuers_prefix_and_never_like_a_workload() -> None:
    prefixed = ServicesSettings(told_by="sub", prefix="login:")
    assert prove(mint(claims(sub="export", client_id="export")), rule=rule(prefixed)).service == "login:export"
    for name in ("spiffe://prod.acme.example/a", "SPIFFE://x/a", "spiffe:x"):
        with pytest.raises(ClaimRefused):
            prove(mint(claims(sub=name, client_id=name)), rule=rule(BY_SUB))


@pytest.mark.parametrize("sub", ["spiffe://prod.acme.example/a", "SPIFFE://prod.acme.example/a", "spiffe:a"])
def test_a_workloads_id_is_no_persons_subject(sub: str) -> None:
    with pytest.raises(ClaimRefused):
        prove(mint(claims(sub=sub)))


def test_a_service_is_of_the_issuers_own_tenants_only() -> None:
    tenants = TenantClaim(claim="org", allowed=("acme",))
    body = claims(sub="export", client_id="export", org="globex")
    with pytest.raises(TenantRefused):
        prove(mint(body), rule=rule(BY_SUB, tenant=tenants))
