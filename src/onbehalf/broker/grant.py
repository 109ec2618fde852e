"""What a person granted a client, and what an access token says of it (RFC 9068).

A grant is a family: one code, and all refresh tokens that follow from it; what is used twice ends all of it. Must not
keep, sign or count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from onbehalf.config import TENANT_CLAIM
from onbehalf.model import Json, UnixTime

__all__ = ["FAMILY_CLAIM", "KIND", "Code", "Granted", "Reused", "access_claims"]

KIND = "at+jwt"
FAMILY_CLAIM = "grant_id"
"""Names the grant in its access tokens, so that these end with it. Says nothing to anybody else."""
_OWN = frozenset(
    {"iss", "sub", "aud", "iat", "exp", "nbf", "jti", "client_id", "scope", "act", "may_act", "cnf", TENANT_CLAIM,
     FAMILY_CLAIM}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """What a person granted. `told` is what the company's login said of them beyond who they are; `tenant` is "" where
    the login has one fixed tenant. Nothing follows from it at or after `until`. `key` is the thumbprint of the key that
    its refresh tokens are bound to, "" for none (RFC 9449 section 5)."""

    family: str
    client: str
    subject: str
    tenant: str
    resource: str
    scope: tuple[str, ...]
    at: UnixTime
    until: UnixTime
    told: Mapping[str, Json] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """An authorization code's conditions (RFC 6749 section 4.1.3, RFC 7636); `key` is the thumbprint of the key that
    must be proven with it, "" for none (RFC 9449 section 10)."""

    granted: Granted
    redirect_uri: str
    challenge: str
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reused:
    """What was shown had been used before, so its grant is over."""

    family: str


def access_claims(
    granted: Granted,
    *,
    issuer: str,
    scope: tuple[str, ...],
    id: str,
    now: UnixTime,
    seconds: int,
    issued_at: UnixTime | None = None,
    key: str = "",
) -> dict[str, Json]:
    """The claims of an access token (RFC 9068 section 2.2). What was told cannot speak for what the broker says.

    `issued_at` is by default now; `key` is the thumbprint of the key that the token is bound to, "" for none.
    """
    told = {name: value for name, value in granted.told.items() if name not in _OWN}
    claims: dict[str, Json] = {
        **told, "iss": issuer, "sub": granted.subject, "aud": granted.resource, "client_id": granted.client,
        "iat": now if issued_at is None else issued_at, "exp": min(now + seconds, max(granted.until, now + 1)),
        "jti": id, "scope": " ".join(scope), FAMILY_CLAIM: granted.family,
    }  # fmt: skip
    if key:  # RFC 9449 section 6.1
        claims["cnf"] = {"jkt": key}
    return {**claims, TENANT_CLAIM: granted.tenant} if granted.tenant else claims
