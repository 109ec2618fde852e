"""Who calls, from what an issuer answers when it is asked about a token (RFC 7662, RFC 9701).

An answer is the issuer's by TLS, or by its signature; its claims are then under the same rules as those of a signed
token. Must not ask, keep an answer or read a clock: the door `issuer_introspection` does.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from onbehalf.config import IssuerSettings
from onbehalf.errors import AnswerRefused, ClaimRefused, TokenInactive, TokenMalformed, TokenTooLarge, UnknownIssuer
from onbehalf.identify.compact import Peeked
from onbehalf.identify.keys import PublicKey
from onbehalf.identify.verify import (
    INTROSPECTION,
    TOLERANCE_S,
    Vouched,
    caller_of,
    check_algorithm,
    check_signed,
    media,
    time_of,
)
from onbehalf.model import Caller, Json, Presented, UnixTime, digest
from onbehalf.strict_json import NotStrict, strict_object

__all__ = [
    "ANSWER_TYPE", "MAX_OPAQUE_BYTES", "is_opaque", "opaque_text", "read_answer", "verify_answer",
    "verify_introspected",
]  # fmt: skip

ANSWER_TYPE = "token-introspection+jwt"
MAX_OPAQUE_BYTES = 4096
_DEPTH = 16
_OLDEST_S = 60
"""A signed answer to a question that was asked just now was made just now."""
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def is_opaque(presented: Presented) -> bool:
    """Whether a token says nothing by itself. What begins like a JWS or JWE is never opaque, however broken the rest:
    it is of the issuer that it names, and of nobody whom it could be shown to."""
    head, dot, _ = presented.token.partition(".")
    return bool(head) and not (dot and (head.startswith("eyJ") or _is_header(head)))


def _is_header(head: str) -> bool:
    try:
        return bool(strict_object(base64.urlsafe_b64decode(head[:4096] + "=" * (-len(head) % 4)), depth=_DEPTH))
    except (NotStrict, ValueError):
        return False


def opaque_text(presented: Presented) -> str:
    """The token, fit to be asked about: at most 4,096 characters of RFC 6750's `b64token`.

    Raises TokenTooLarge, TokenMalformed.
    """
    text = presented.token
    if len(text) > MAX_OPAQUE_BYTES:
        raise TokenTooLarge(f"a token that is no JWT is longer than {MAX_OPAQUE_BYTES} bytes")
    if _B64TOKEN.fullmatch(text) is None:
        raise TokenMalformed("the token is not one b64token", hint="send the access token as the issuer gave it")
    return text


def read_answer(body: bytes) -> Mapping[str, Json]:
    """The members of an answer in plain JSON (RFC 7662 section 2.2). Raises AnswerRefused."""
    try:
        return strict_object(body, depth=_DEPTH)
    except NotStrict as error:
        raise AnswerRefused(f"the issuer's answer about the token is refused: {error}") from error


def verify_answer(
    peeked: Peeked, *, rule: IssuerSettings, key: PublicKey, client: str, now: UnixTime
) -> Mapping[str, Json]:
    """The members of an answer that the issuer signed for this gateway, its `client`. Checked, in this order:

    1 algorithm, key, issuer, signature, as for access tokens; 2 `typ` is `token-introspection+jwt`: nothing else that
    the issuer signs is an answer, and no answer an access token (RFC 9701 section 8.1); 3 `aud` is the client alone;
    4 `iat` is at most 60 s before and 30 s after now; 5 `token_introspection` is an object (RFC 9701 section 5).

    Does not check which token it is about: RFC 9701 has no such member, so that it is an answer to this question is for
    TLS to say. Raises an IdentifyError.
    """
    check_algorithm(peeked, rule)  # 1
    check_signed(peeked, key, issuer=rule.issuer)
    if media(peeked.type) != ANSWER_TYPE:  # 2
        raise AnswerRefused(f"what the issuer answered is no `{ANSWER_TYPE}` (RFC 9701)")
    claims = peeked.claimed
    if claims.get("aud") not in (client, [client]):  # 3
        raise AnswerRefused("what the issuer answered is for another client", hint="check `client_id`")
    issued_at = time_of(claims, "iat")  # 4
    if not now - _OLDEST_S <= issued_at <= now + TOLERANCE_S:
        raise AnswerRefused("what the issuer answered was not made now", hint="check the clocks")
    told = claims.get("token_introspection")  # 5
    if not isinstance(told, dict):
        raise AnswerRefused("what the issuer answered has no `token_introspection` (RFC 9701 section 5)")
    return told


def verify_introspected(
    answer: Mapping[str, Json], *, token: str, rule: IssuerSettings, key: str, audience: str, now: UnixTime,
    kept: frozenset[str] = frozenset(), bound: bool = False,
) -> Caller:  # fmt: skip
    """Prove who calls, from an answer about `token`. `key` is the one that signed it, "" where TLS alone vouches;
    `bound` is as in `verify`.

    Checked, in this order: `active` is true; `iss`, where it is told, is the issuer exactly; `token_type`, where it is
    told, is Bearer, or DPoP with `cnf`; then the claims as of a signed token (`caller_of`). `aud`, `exp` and `iat` must
    be told, which RFC 7662 leaves open: without them nobody knows for whom the token is, until when, and whether it was
    issued before somebody was stopped. Raises an IdentifyError.
    """
    active = answer.get("active")
    if not isinstance(active, bool):
        raise AnswerRefused("the issuer does not say whether the token is active (RFC 7662 section 2.2)")
    if not active:
        raise TokenInactive("the issuer says that the token is not active", hint="log in again")
    if answer.get("iss", rule.issuer) != rule.issuer:
        raise UnknownIssuer(f"the token is not from `{rule.issuer}`")
    kind = answer.get("token_type", "Bearer")
    if not isinstance(kind, str) or kind.lower() not in ("bearer", *(["dpop"] if "cnf" in answer else [])):
        raise ClaimRefused("`token_type` is not Bearer", hint="send the access token, and as a bearer token")
    vouched = Vouched(key=key, algorithm=INTROSPECTION, token=digest(token.encode("ascii")))
    return caller_of(answer, rule=rule, vouched=vouched, audience=audience, now=now, kept=kept, bound=bound)
