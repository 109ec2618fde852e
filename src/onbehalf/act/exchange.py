"""A person's token exchanged at its own issuer for one that is for an API alone: what is asked for, and what is taken.

RFC 8693, and the on-behalf-of form of Microsoft Entra. The person's token is no part of this: the door that holds it
(doors/issuer_exchange.py) adds it to what is asked. Must not send, keep or log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onbehalf.act.bearer import check_bearer, wanted_of
from onbehalf.config_upstreams import ExchangeSettings
from onbehalf.model import Json, UnixTime

__all__ = [
    "EXCHANGE_GRANT",
    "ON_BEHALF_GRANT",
    "ExchangeRefused",
    "Exchanged",
    "LoginNeeded",
    "asked",
    "denied",
    "taken",
]

EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ON_BEHALF_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a name
_MAX_TOKEN = 16 * 1024
_DEFAULT_S = 60
_INTERACTION = frozenset({
    "interaction_required", "login_required", "consent_required", "account_selection_required",
    "insufficient_user_authentication",
})  # fmt: skip
_INTERACTION_BELOW = frozenset({
    "basic_action", "additional_action", "consent_required", "user_password_expired", "token_expired",
    "protection_policy_required",
})  # fmt: skip
"""What Entra says below `invalid_grant` where the person has to do something."""
_KNOWN = frozenset({
    "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
    "invalid_scope", "invalid_target", "access_denied", "temporarily_unavailable", "server_error",
})  # fmt: skip


class ExchangeRefused(Exception):
    """There is no token to be used. The message is a clause for a person, in our own words."""


class LoginNeeded(ExchangeRefused):
    """The issuer gives none before the person logged in anew, more strongly, or consented."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """A token for the API, and for how many seconds the issuer says it is good."""

    token: str = field(repr=False)
    seconds: int


def asked(rule: ExchangeSettings) -> dict[str, str]:
    """The form of the request, but for the person's token and the proof of who asks (RFC 8693 section 2.1)."""
    fields = {"grant_type": ON_BEHALF_GRANT, "requested_token_use": "on_behalf_of"}
    if rule.grant == "token-exchange":
        fields = {
            "grant_type": EXCHANGE_GRANT, "subject_token_type": _ACCESS_TOKEN, "requested_token_type": _ACCESS_TOKEN
        }  # fmt: skip
    named = {"audience": rule.audience, "resource": rule.resource, "scope": rule.scope}
    return fields | {name: value for name, value in named.items() if value}


def taken(answer: Mapping[str, Json], rule: ExchangeSettings, *, gateway: str, now: UnixTime) -> Exchanged:
    """The token of an answer (RFC 8693 section 2.2.1). `gateway` is this gateway's resource. Checked, in this order:

    1 it is an access token; 2 a bearer's, which `N_A` is not; 3 it can stand in a header;
    4 where scopes were asked for, the answer has no others (Entra's are the API's own to say);
    5 its life, where it is told, is a number of seconds;
    6 it is, as far as it can be read, for the API that was asked for, not for this gateway, and not over (bearer.py).

    A refresh token in the answer is not looked at. Does not check the signature: it is the API's to check. Raises
    ExchangeRefused, BearerUnfit.
    """
    token, kind = answer.get("access_token"), answer.get("token_type")
    issued = answer.get("issued_token_type", _ACCESS_TOKEN if rule.grant == "entra" else None)
    if issued != _ACCESS_TOKEN:  # 1
        raise ExchangeRefused("the issuer did not say that it gave an access token")
    if not isinstance(token, str) or not isinstance(kind, str) or kind.lower() != "bearer":  # 2
        raise ExchangeRefused("the issuer gave no bearer token")
    if not 1 <= len(token) <= _MAX_TOKEN or not (token.isascii() and token.isprintable()) or " " in token:  # 3
        raise ExchangeRefused("the issuer gave a token that cannot stand in a header")
    if rule.grant == "token-exchange" and rule.scope and not _within(answer.get("scope", rule.scope), rule.scope):  # 4
        raise ExchangeRefused("the issuer gave a token of wider scope than was asked for")
    seconds = _seconds(answer.get("expires_in", _DEFAULT_S))  # 5
    ends = check_bearer(token, gateway=gateway, wanted=_wanted(rule), now=now)  # 6
    return Exchanged(token=token, seconds=seconds if ends is None else min(seconds, max(0, ends - now)))


def _wanted(rule: ExchangeSettings) -> frozenset[str]:
    """Who the token may name. An `audience` alone is the issuer's own name for the API, which `aud` need not repeat,
    and Entra names an API in `aud` as the API is set up to be."""
    by_resource = rule.grant == "token-exchange" and rule.resource
    return wanted_of(rule.token_audience, *((rule.resource, rule.audience) if by_resource else ()))


def denied(said: Mapping[str, Json]) -> ExchangeRefused:
    """Why there is no token, by an error of the token endpoint (RFC 6749 section 5.2), in our own words."""
    error, below = said.get("error"), said.get("suberror")
    if not isinstance(error, str):
        return ExchangeRefused("the issuer gave no token for the API")
    if error in _INTERACTION or (error == "invalid_grant" and isinstance(below, str) and below in _INTERACTION_BELOW):
        return LoginNeeded("the issuer wants the person to log in anew, more strongly, or to consent")
    return ExchangeRefused(f"the issuer gave no token for the API: {error if error in _KNOWN else 'an unknown error'}")


def _within(given: Json, most: str) -> bool:
    return isinstance(given, str) and set(given.split(" ")) - {""} <= set(most.split(" "))


def _seconds(life: Json) -> int:
    if isinstance(life, str) and life.isascii() and life.isdigit() and len(life) <= 10:
        return int(life)  # Entra's version 1 endpoint writes it as text
    if not isinstance(life, int) or isinstance(life, bool) or life < 0:
        raise ExchangeRefused("the issuer does not say in seconds how long its token is good")
    return life
