"""Whom a token would prove, for `onbehalf check --as` and `--as-service`: one is made, and proven as any other.

It is signed with a key made for the moment, which nothing else believes. Must not hold a rule of its own: what a token
proves is `identify`'s to say.
"""

from __future__ import annotations

import msgspec
import orjson
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey

from onbehalf.config import IssuerSettings, Settings, WorkloadSettings
from onbehalf.doors.clock_system import now
from onbehalf.errors import ConfigInvalid
from onbehalf.identify import bundle_of, peek, public_keys, verify, verify_introspected, verify_svid
from onbehalf.model import Caller, Json, Presented, UnixTime

__all__ = ["person_caller", "service_caller", "tenants_of"]

_KID = "check"
_SPIFFE = "spiffe://"


def tenants_of(issuer: IssuerSettings) -> frozenset[str]:
    """Whom an issuer may speak for."""
    return frozenset({issuer.tenant} if isinstance(issuer.tenant, str) else issuer.tenant.allowed)


def person_caller(
    rule: IssuerSettings, subject: str, *, tenant: str, client: str, scopes: frozenset[str], audience: str
) -> Caller:
    """Whom a token of this person would prove. Raises an IdentifyError where none could hold this client or scopes."""
    at = now()
    claims = {**_claims(rule, tenant, client, scopes, audience, at), "sub": subject}
    return _signed(rule, claims, audience, at)


def service_caller(
    name: str, *, tenant: str, scopes: frozenset[str] | None, asked: frozenset[str], settings: Settings
) -> Caller:
    """Whom a token of the service called `name` would prove: with `scopes`, or where those are None with all that are
    `asked`, of an issuer; with those of its trust domain as a workload. Raises ConfigInvalid, an IdentifyError."""
    audience = settings.gateway.resource
    if name.startswith(_SPIFFE):
        if scopes is not None:
            raise ConfigInvalid("a JWT-SVID has no scopes", hint="leave `--scope` out; `workloads` says its `scopes`")
        return _workload(name, _trust_domain(name, tenant, settings), audience)
    rule, client = _issuer(name, tenant, settings)
    at, services = now(), rule.services
    assert services is not None  # INVARIANT: _issuer looks among those that have services
    claims = _claims(rule, tenant, client, asked if scopes is None else scopes, audience, at)
    if services.told_by == "no_sub":
        answer = {**claims, "active": True}
        return verify_introspected(answer, token=_KID, rule=rule, key="", audience=audience, now=at)
    if services.told_by == "claim":
        claims = {**claims, services.claim: services.value}
    return _signed(rule, {"sub": client, **claims}, audience, at)


def _issuer(name: str, tenant: str, settings: Settings) -> tuple[IssuerSettings, str]:
    """The issuer whose tokens would name this service, and the client it is there. Raises ConfigInvalid."""
    able = [each for each in settings.issuers if each.services is not None and tenant in tenants_of(each)]
    for rule in able:
        prefix = rule.services.prefix if rule.services is not None else ""
        if name.startswith(prefix) and name != prefix:
            return rule, name.removeprefix(prefix)
    if able:
        begin = ", ".join(f"`{each.services.prefix}`" for each in able if each.services is not None)
        raise ConfigInvalid(f"no service of `{tenant}` is called `{name[:80]}`: their names begin with {begin}")
    raise ConfigInvalid(
        f"no issuer of the tenant `{tenant}` has services, so no token is of one",
        hint="say under `services` of its issuer how its tokens tell of programs; a workload is named by its SPIFFE ID",
    )


def _trust_domain(name: str, tenant: str, settings: Settings) -> WorkloadSettings:
    domain = name.removeprefix(_SPIFFE).partition("/")[0]
    for each in settings.workloads:
        if (each.trust_domain, each.tenant) == (domain, tenant):
            return each
    raise ConfigInvalid(
        f"`{domain[:80]}` is no trust domain of the tenant `{tenant}`",
        hint="list it under `workloads`, for this tenant",
    )


def _claims(
    rule: IssuerSettings, tenant: str, client: str, scopes: frozenset[str], audience: str, at: UnixTime
) -> dict[str, Json]:
    claims: dict[str, Json] = {
        "iss": rule.issuer, "aud": audience, "iat": at, "exp": at + 60, rule.client_claim: client,
        rule.scope_claim: " ".join(sorted(scopes)),
    }  # fmt: skip
    if not isinstance(rule.tenant, str):
        claims[rule.tenant.claim] = tenant
    return claims


def _signed(rule: IssuerSettings, claims: dict[str, Json], audience: str, at: UnixTime) -> Caller:
    key = OKPKey.generate_key("Ed25519", {"kid": _KID})
    header = {"typ": rule.token_types[0], "alg": "Ed25519", "kid": _KID}
    token = jws.serialize_compact(header, orjson.dumps(claims), key, algorithms=["Ed25519"])
    keys = public_keys(orjson.dumps({"keys": [key.as_dict(private=False)]}), issuer=rule.issuer)
    own = msgspec.structs.replace(rule, algorithms=("Ed25519",))
    return verify(peek(Presented(token=token)), rule=own, key=keys[_KID], audience=audience, now=at)


def _workload(name: str, workload: WorkloadSettings, audience: str) -> Caller:
    at, key = now(), ECKey.generate_key("P-256", {"kid": _KID})
    claims = {"sub": name, "aud": [audience], "iat": at, "exp": at + 60}
    token = jws.serialize_compact({"alg": "ES256", "kid": _KID}, orjson.dumps(claims), key, algorithms=["ES256"])
    bundle = orjson.dumps({"keys": [{**key.as_dict(private=False), "use": "jwt-svid"}]})
    _, keys = bundle_of(bundle, trust_domain=workload.trust_domain)
    own = msgspec.structs.replace(workload, algorithms=("ES256",))
    peeked = peek(Presented(token=token), nameless=True)
    return verify_svid(peeked, workload=own, key=keys[_KID], audience=audience, now=at)
