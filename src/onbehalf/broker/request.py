"""What a client asks for at the authorization endpoint, read in the one meaning it may have.

PKCE with S256 is never optional (RFC 9700 section 2.1.1), the resource is this gateway's and no other (RFC 8707), and
scopes are those that its tools have. Must not know who asks or keep what was asked.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from onbehalf.base64url import s256
from onbehalf.broker.refused import OauthRefused

__all__ = ["Authorization", "authorization", "pkce_fits", "scope_within"]

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_MAX_STATE = 2048
_MAX_SCOPE = 4096
_VISIBLE = re.compile(r"[\x20-\x7e]*")
_PASSED = re.compile(r"[\x20-\x7e]{1,255}")
_PROMPTS = frozenset({"login", "consent", "select_account"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """One authorization request, sound. `scope` is what will be granted of what was asked, in the gateway's order.

    `login` is what the company's login is asked beyond its own: `max_age`, `acr_values`, `prompt`, `login_hint`.
    """

    client: str
    redirect_uri: str
    state: str = field(repr=False)
    challenge: str
    resource: str
    scope: tuple[str, ...]
    key: str = ""
    """The thumbprint of the key that the code will be shown with (`dpop_jkt`, RFC 9449 section 10), "" for none."""
    login: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def authorization(
    asked: Mapping[str, str], *, redirect_uri: str, resource: str, scopes: Collection[str]
) -> Authorization:
    """The request, whose client and redirect address are known to be good already.

    `scopes` are all that there are. Checked, in this order: 1 `state` fits into an answer; 2 no request object (RFC
    9101); 3 response type and mode; 4 PKCE; 5 the resource, by default the one there is; 6 scopes, where those that
    are not known are left out (RFC 6749 section 3.3); 7 what is passed on; 8 `dpop_jkt` is a thumbprint. Raises
    OauthRefused, which the client may be told.
    """
    state = asked.get("state", "")
    if len(state) > _MAX_STATE or not _VISIBLE.fullmatch(state):  # 1
        raise OauthRefused("invalid_request", f"`state` is not at most {_MAX_STATE} printable ASCII characters")
    if "request" in asked or "request_uri" in asked:  # 2
        raise OauthRefused("request_not_supported", "send the parameters themselves, not a request object")
    if asked.get("response_type") != "code":  # 3
        raise OauthRefused("unsupported_response_type", "`response_type` must be `code`")
    if asked.get("response_mode", "query") != "query":
        raise OauthRefused("invalid_request", "`response_mode` must be `query`")
    challenge = asked.get("code_challenge", "")
    if asked.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):  # 4
        raise OauthRefused("invalid_request", "PKCE with `S256` is needed (RFC 7636)")
    if asked.get("resource", resource) != resource:  # 5
        raise OauthRefused("invalid_target", f"`resource` must be `{resource}` (RFC 8707)")
    key = asked.get("dpop_jkt", "")
    if "dpop_jkt" in asked and not _CHALLENGE.fullmatch(key):  # 8: SHA-256 in base64url, as the challenge
        raise OauthRefused("invalid_request", "`dpop_jkt` is not a SHA-256 thumbprint (RFC 9449 section 10)")
    return Authorization(
        client=asked.get("client_id", ""), redirect_uri=redirect_uri, state=state, challenge=challenge,
        resource=resource, scope=_granted(asked.get("scope", ""), scopes), login=_login(asked), key=key,
    )  # fmt: skip


def scope_within(asked: str, granted: Collection[str]) -> tuple[str, ...]:
    """What is asked of what was granted; all of it where nothing is asked. Raises OauthRefused for more (RFC 6749
    section 6)."""
    wanted = set(asked.split(" ")) - {"", "offline_access"}
    if not wanted <= set(granted):
        raise OauthRefused("invalid_scope", "a scope was not granted before")
    return tuple(scope for scope in granted if scope in wanted or not wanted)


def pkce_fits(verifier: str, challenge: str) -> bool:
    """Whether a code verifier is the one of an S256 challenge (RFC 7636 section 4.6)."""
    if not _VERIFIER.fullmatch(verifier):
        return False
    return hmac.compare_digest(s256(verifier.encode()).encode(), challenge.encode())


def _granted(asked: str, scopes: Collection[str]) -> tuple[str, ...]:
    if len(asked) > _MAX_SCOPE:
        raise OauthRefused("invalid_scope", "`scope` is too long")
    wanted = set(asked.split(" ")) - {"", "offline_access"}
    granted = tuple(sorted(scope for scope in scopes if scope in wanted or not wanted))
    if wanted and not granted:
        raise OauthRefused("invalid_scope", "none of the scopes is known here")
    return granted


def _login(asked: Mapping[str, str]) -> Mapping[str, str]:
    passed = {name: asked[name] for name in ("max_age", "acr_values", "login_hint", "prompt") if asked.get(name)}
    if not all(map(_PASSED.fullmatch, passed.values())) or not passed.get("max_age", "0").isdigit():
        raise OauthRefused("invalid_request", "a parameter about the login is not of its form")
    prompts = set(passed.pop("prompt", "").split(" ")) - {""}
    if "none" in prompts:
        raise OauthRefused("interaction_required", "a person is always asked here")
    if not prompts <= _PROMPTS:
        raise OauthRefused("invalid_request", "`prompt` is not one that is known")
    forced = sorted(prompts - {"consent"})  # consent is asked each time as it is
    return MappingProxyType({**passed, **({"prompt": " ".join(forced)} if forced else {})})
