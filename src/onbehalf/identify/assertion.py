"""Assertions at the token endpoint: a client that proves who it is, and an issuer that says who a client acts for.

`private_key_jwt` (RFC 7523 section 3, OpenID Connect Core section 9) and the identity assertion JWT authorization grant
(ID-JAG, draft-ietf-oauth-identity-assertion-authz-grant section 4). Signature first, then claims. That each `jti` is
taken once is for whoever keeps them. Must not fetch keys or read a clock.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from onbehalf.config import IssuerSettings
from onbehalf.errors import ClaimRefused, ProofMissing, TokenExpired, WrongAudience, WrongType
from onbehalf.identify.compact import Peeked
from onbehalf.identify.keys import PublicKey
from onbehalf.identify.proof import binding
from onbehalf.identify.tenant import tenant_of
from onbehalf.identify.verify import TOLERANCE_S, check_algorithm, check_signed, check_times, text_of
from onbehalf.model import Json, UnixTime

__all__ = ["ID_JAG", "MAX_LIFE_S", "Asserted", "Once", "verify_client_assertion", "verify_id_jag"]

ID_JAG = "oauth-id-jag+jwt"
MAX_LIFE_S = 600
"""Assertions that live longer are refused: until then each has to be remembered."""
_CLIENT_TYPES = ("", "jwt", "client-authentication+jwt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """What makes an assertion one of a kind, and until when it has to be remembered."""

    issuer: str
    id: str
    until: UnixTime


@dataclass(frozen=True, slots=True, kw_only=True)
class Asserted:
    """For whom a client may act, as an issuer asserts. `scope` is None where the issuer leaves it to us."""

    subject: str
    tenant: str
    scope: str | None
    once: Once
    told: Mapping[str, Json]


def verify_client_assertion(
    peeked: Peeked, *, client: str, key: PublicKey, audiences: Collection[str], now: UnixTime
) -> Once:
    """Prove that a client holds its key. `key` is one of the client's own, `audiences` are this server's names.

    Checked: signature by that key; `typ`; `iss` and `sub` are the client; `aud` is one name of ours and nothing else;
    times, of at most 600 s; `jti` is there. Raises an IdentifyError.
    """
    check_signed(peeked, key, issuer=client)
    if peeked.type.lower() not in _CLIENT_TYPES:
        raise WrongType("the assertion is not a client's", hint="RFC 7523 section 3")
    claims = peeked.claimed
    if claims.get("sub") != client:
        raise ClaimRefused("`sub` of a client's assertion is the client (RFC 7523 section 3)")
    _check_audience(claims, audiences)
    return _once(claims, peeked.claimed_issuer, now)


def verify_id_jag(
    peeked: Peeked, *, rule: IssuerSettings, key: PublicKey, audience: str, resource: str, client: str,
    kept: frozenset[str], now: UnixTime, holds: str = "",
) -> Asserted:  # fmt: skip
    """Prove for whom a client may act. `audience` is this server's issuer identifier, `client` is authenticated;
    `holds` is the thumbprint of the key that it proved to hold, "" for none.

    Checked: algorithm, key, issuer and signature; `typ` is `oauth-id-jag+jwt`; `aud` is this server alone; `resource`
    is ours, and must be there; `client_id` is the client; times; `jti`; `cnf` is that key; subject and tenant.
    An assertion that says `sub` only at `aud_sub` is refused. Raises an IdentifyError.
    """
    check_algorithm(peeked, rule)
    check_signed(peeked, key, issuer=rule.issuer)
    claims = peeked.claimed
    if peeked.type.lower().removeprefix("application/") != ID_JAG:
        raise WrongType(f"the assertion's `typ` is not `{ID_JAG}`", hint="an ID token or access token is no assertion")
    _check_audience(claims, (audience,))
    if claims.get("resource") not in (resource, [resource]):
        raise WrongAudience(f"the assertion's `resource` is not `{resource}`")
    if text_of(claims, "client_id") != client:
        raise ClaimRefused("the assertion was given to another client")
    proof, thumbprint = binding(claims)
    if proof != "bearer" and (proof != "dpop" or not hmac.compare_digest(thumbprint, holds)):
        raise ProofMissing("the assertion is bound to another key than the client proved, by DPoP, to hold")
    scope = claims.get("scope")
    if scope is not None and not isinstance(scope, str):
        raise ClaimRefused("`scope` is not a string (RFC 8693 section 4.2)")
    told = {name: claims[name] for name in ("auth_time", "acr", "amr", *sorted(kept)) if name in claims}
    return Asserted(
        subject=text_of(claims, "sub"), tenant=tenant_of(claims, rule), scope=scope,
        once=_once(claims, rule.issuer, now), told=told,
    )  # fmt: skip


def _check_audience(claims: Mapping[str, Json], audiences: Collection[str]) -> None:
    found = claims.get("aud")
    named = found[0] if isinstance(found, list) and len(found) == 1 else found
    if not isinstance(named, str) or named not in audiences:
        raise WrongAudience("the assertion is not for this server alone")


def _once(claims: Mapping[str, Json], issuer: str, now: UnixTime) -> Once:
    issued_at, expires_at = check_times({"iat": now, **claims}, now)  # RFC 7523: `iat` may be left out
    if expires_at - issued_at > MAX_LIFE_S or expires_at > now + MAX_LIFE_S + TOLERANCE_S:
        raise TokenExpired(f"the assertion lives longer than {MAX_LIFE_S} s", hint="make one for each request")
    return Once(issuer=issuer, id=text_of(claims, "jti"), until=UnixTime(expires_at + TOLERANCE_S))
