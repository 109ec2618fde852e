"""What the gateway asserts of a person to another domain's authorization server, so that its API knows them.

An identity assertion JWT authorization grant (ID-JAG, draft-ietf-oauth-identity-assertion-authz-grant; identity
chaining across domains): of people, never of services; for one authorization server, one resource, one client, a
minute, once. Made for a call that is granted, and from nothing but what is proven. Must not sign or send.
"""

from __future__ import annotations

from onbehalf.model import Json, ToolCall, UnixTime

__all__ = ["ASSERTION_KIND", "ASSERTION_LIFE_S", "asserted"]

ASSERTION_KIND = "oauth-id-jag+jwt"
ASSERTION_LIFE_S = 60


def asserted(
    call: ToolCall, *, issuer: str, audience: str, resource: str, client: str, scope: str, id: str, now: UnixTime
) -> dict[str, Json]:
    """The claims. `sub` is the person as call tokens name them, `act` the client that they act through, `audience` the
    other domain's authorization server, `client` this gateway's id there."""
    evidence = call.caller.evidence
    claims: dict[str, Json] = {
        "iss": issuer, "sub": call.person.ref.id, "aud": audience, "client_id": client, "resource": resource,
        "jti": id, "iat": now, "exp": now + ASSERTION_LIFE_S, "tenant": call.person.tenant, "txn": call.id,
        "act": {"sub": call.caller.client},
    }  # fmt: skip
    if scope:
        claims["scope"] = scope
    if evidence.acr:
        claims["acr"] = evidence.acr
    if evidence.auth_time is not None:
        claims["auth_time"] = evidence.auth_time
    return claims
