"""Who logged in, proven from the ID token that the company's OpenID provider gave for a login that was begun here.

OpenID Connect Core 1.0 section 3.1.3.7, with the strictness of access tokens: signature first, then claims. Must not
fetch keys, read a clock or know the browser.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from onbehalf.config import IssuerSettings
from onbehalf.errors import ClaimRefused, TokenExpired, WrongAudience, WrongType
from onbehalf.identify.compact import Peeked
from onbehalf.identify.keys import PublicKey
from onbehalf.identify.tenant import tenant_of
from onbehalf.identify.verify import TOLERANCE_S, check_algorithm, check_signed, check_times, text_of, time_of
from onbehalf.model import Json, UnixTime

__all__ = ["LoggedIn", "verify_id_token"]

_TYPES = ("", "jwt")
_ABOUT_THE_LOGIN = ("auth_time", "acr", "amr")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """A person, proven by their login. `told` holds the claims asked for, and what is said of the login itself."""

    subject: str
    tenant: str
    told: Mapping[str, Json] = field(repr=False)


def verify_id_token(
    peeked: Peeked, *, rule: IssuerSettings, key: PublicKey, client: str, nonce: str, now: UnixTime,
    subject_claim: str = "sub", kept: frozenset[str] = frozenset(), max_age: int | None = None,
) -> LoggedIn:  # fmt: skip
    """Prove who logged in. `client` is this gateway's client id there, `nonce` the one of this login.

    Checked, in this order: 1 algorithm, key, issuer, signature, as for access tokens; 2 `typ` is absent or `JWT`: an
    access token or logout token of the same issuer is no login (RFC 8725 section 3.11); 3 `aud` is the client, and
    `azp` where it is given or `aud` has others; 4 times; 5 `nonce`; 6 `auth_time` where a largest age was asked;
    7 subject and tenant. Does not check `at_hash`: no access token of this login is used. Raises an IdentifyError.
    """
    check_algorithm(peeked, rule)  # 1
    check_signed(peeked, key, issuer=rule.issuer)
    claims = peeked.claimed
    if peeked.type.lower() not in _TYPES:  # 2
        raise WrongType("the token is not an ID token", hint="OpenID Connect Core section 2")
    _check_audience(claims, client)  # 3
    check_times(claims, now)  # 4
    given = claims.get("nonce")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode("utf-8", "replace"), nonce.encode()):  # 5
        raise ClaimRefused("the ID token's `nonce` is not of this login", hint="log in anew")
    if max_age is not None and time_of(claims, "auth_time") + max_age + TOLERANCE_S < now:  # 6
        raise TokenExpired("the login is older than was asked for", hint="log in anew")
    told = {name: claims[name] for name in (*_ABOUT_THE_LOGIN, *sorted(kept)) if name in claims}
    return LoggedIn(subject=text_of(claims, subject_claim), tenant=tenant_of(claims, rule), told=told)  # 7


def _check_audience(claims: Mapping[str, Json], client: str) -> None:
    found = claims.get("aud")
    named = [found] if isinstance(found, str) else found
    party = claims.get("azp", client if named == [client] else None)
    if not isinstance(named, list) or client not in named or party != client:
        raise WrongAudience("the ID token is for another client", hint="check `client_id` of the login")
