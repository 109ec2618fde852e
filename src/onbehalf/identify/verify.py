"""The one place where a `Caller` is made.

Signature first, then the claims it covers. Claims that an issuer told when it was asked about a token (introspected.py)
come in at `caller_of`, under the same rules. Must not fetch keys, read a clock, or check scopes and people: room 2
does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onbehalf.config import IssuerSettings
from onbehalf.errors import (
    AlgorithmRefused,
    ClaimRefused,
    ProofMissing,
    SignatureMismatch,
    TokenExpired,
    TokenNotYetValid,
    UnknownIssuer,
    UnknownKey,
    WrongAudience,
    WrongType,
)
from onbehalf.identify.compact import Peeked
from onbehalf.identify.keys import PublicKey
from onbehalf.identify.proof import binding, require_demanded
from onbehalf.identify.services import SPIFFE, is_service, service_name
from onbehalf.identify.signature import SIGNATURES, signed_by
from onbehalf.identify.tenant import tenant_of
from onbehalf.model import Caller, Digest, Evidence, Json, UnixTime, canonical, digest

__all__ = [
    "INTROSPECTION", "TOLERANCE_S", "Vouched", "caller_of", "caller_of_workload", "check_algorithm", "check_audience",
    "check_signature", "check_signed", "check_times", "check_type", "media", "text_of", "time_of", "verify",
]  # fmt: skip

TOLERANCE_S = 30
INTROSPECTION = "introspection"
"""In place of an algorithm: the issuer was asked about the token."""
_MAX_NAME = 255
_MAX_AUDIENCES = 32
_MAX_ACTORS = 8
_MAX_SCOPES = 256
_LAST_TIME = 2**53 - 1
_SCOPE_CHARACTERS = frozenset(map(chr, range(0x21, 0x7F))) - {'"', "\\"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vouched:
    """By what claims are proven: the key and algorithm, or in place of one how else; and of which token they are."""

    key: str
    algorithm: str
    token: Digest


def verify(
    peeked: Peeked, *, rule: IssuerSettings, key: PublicKey, audience: str, now: UnixTime,
    kept: frozenset[str] = frozenset(), bound: bool = False,
) -> Caller:  # fmt: skip
    """Prove who calls, from one access token.

    `key` was found by the token's issuer and key id; `audience` is this gateway's resource identifier; `now` is in
    whole seconds; `kept` names claims that the directory is to know. With `bound` a token that is bound to a key is
    taken, and whoever asks must see the proof that `evidence.proof` names before the caller counts: it is not seen
    here. Checked, in this order:
    1 the algorithm is one of the issuer's, and of the key's (RFC 8725 section 3.1);
    2 key, rule and token are of the same issuer, compared exactly, and key id (RFC 8725 section 3.8);
    3 the signature (RFC 7515 section 5.2); 4 `typ` (RFC 8725 section 3.11); 5-9 the claims (`caller_of`).

    Raises an IdentifyError.
    """
    check_algorithm(peeked, rule)  # 1
    check_signed(peeked, key, issuer=rule.issuer)  # 2, 3
    check_type(peeked, rule)  # 4
    vouched = Vouched(key=key.key_id, algorithm=peeked.algorithm, token=digest(peeked.token))
    return caller_of(peeked.claimed, rule=rule, vouched=vouched, audience=audience, now=now, kept=kept, bound=bound)


def caller_of(
    claims: Mapping[str, Json], *, rule: IssuerSettings, vouched: Vouched, audience: str, now: UnixTime,
    kept: frozenset[str] = frozenset(), bound: bool = False,
) -> Caller:  # fmt: skip
    """The caller of claims that are proven to be the issuer's. Checked, in this order:

    5 `aud` (RFC 9068 section 4); 6 `exp`, `iat`, `nbf` with 30 s of tolerance;
    7 what `cnf` binds it to, and that the issuer's tokens may be so (RFC 7800);
    8 `sub`, the client, the actors and the scopes have their shape, and it is a person's or, where the issuer's
    settings say how that is told, a service's; 9 the tenant is the issuer's own.

    Does not check that the claims are proven, that scopes suffice, that the person exists, or what kept claims hold:
    room 2 does the last three. Raises an IdentifyError.
    """
    check_audience(claims, audience)  # 5
    issued_at, expires_at = check_times(claims, now)  # 6
    bound_by, thumbprint = binding(claims)  # 7
    if bound_by != "bearer" and not bound:
        raise ProofMissing("the token is bound to a key, and no proof is taken here", hint="use a bearer token")
    require_demanded(bound_by, rule)
    client = text_of(claims, rule.client_claim)  # 8
    alone = is_service(claims, rule, client, asked=vouched.algorithm == INTROSPECTION)
    subject = client if alone and "sub" not in claims else text_of(claims, "sub")
    if not alone and subject.lower().startswith(SPIFFE):
        raise ClaimRefused("`sub` names a workload, and so is no person", hint="send its JWT-SVID")
    actors, scopes = _actors(claims, rule.issuer), _scopes(claims, rule.scope_claim)
    tenant = tenant_of(claims, rule)  # 9
    evidence = Evidence(
        issuer=rule.issuer, key=vouched.key, algorithm=vouched.algorithm, token=vouched.token,
        issued_at=issued_at, expires_at=expires_at, acr=text_of(claims, "acr") if "acr" in claims else "",
        auth_time=time_of(claims, "auth_time") if "auth_time" in claims else None, proof=bound_by,
        thumbprint=thumbprint,
    )  # fmt: skip
    return Caller(
        subject=subject, tenant=tenant, client=client, actors=actors, scopes=scopes, evidence=evidence,
        claims=_kept(claims, kept), kind="service" if alone else "person",
        service=service_name(rule, client) if alone else "",
    )  # fmt: skip


def caller_of_workload(id_: str, *, tenant: str, scopes: frozenset[str], evidence: Evidence) -> Caller:
    """The caller of a workload that spiffe.py has proven, by its SPIFFE ID: service, subject and client in one."""
    return Caller(
        kind="service", service=id_, subject=id_, tenant=tenant, client=id_, actors=(), scopes=scopes,
        evidence=evidence,
    )  # fmt: skip


def check_algorithm(peeked: Peeked, rule: IssuerSettings) -> None:
    """Raise AlgorithmRefused unless the issuer may use the token's algorithm. Needs no key, so it can come early."""
    if peeked.algorithm not in rule.algorithms or peeked.algorithm not in SIGNATURES:
        raise AlgorithmRefused(
            "the token's algorithm is not one of " + ", ".join(f"`{name}`" for name in rule.algorithms),
            hint="list it under `algorithms` of this issuer, if the issuer does sign with it",
        )


def check_signed(peeked: Peeked, key: PublicKey, *, issuer: str) -> None:
    """Raise an IdentifyError unless a key of this issuer, and the very one that is named, signed the token."""
    if peeked.algorithm not in key.algorithms:
        raise AlgorithmRefused(f"the key is not for `{peeked.algorithm}`", hint="RFC 8725 section 3.1")
    if peeked.claimed_issuer != issuer or key.issuer != issuer:
        raise UnknownIssuer(f"the token is not from `{issuer}`")
    if key.key_id != peeked.key_id:
        raise UnknownKey("the key is not the one that the token names")
    check_signature(peeked.signing_input, peeked.signature, key, algorithm=peeked.algorithm)


def check_signature(signing_input: bytes, signature: bytes, key: PublicKey, *, algorithm: str) -> None:
    """Raise an IdentifyError unless this key signed this, by an algorithm that both allow."""
    if algorithm not in key.algorithms or algorithm not in SIGNATURES:
        raise AlgorithmRefused(f"the key is not for `{algorithm[:20]}`", hint="RFC 8725 section 3.1")
    if not signed_by(key.material.public_key, algorithm, said=signing_input, signature=signature):
        raise SignatureMismatch("the signature does not fit", hint="the token was altered, or signed with another key")


def check_type(peeked: Peeked, rule: IssuerSettings) -> None:
    """Raise WrongType unless the token says that it is an access token of the issuer's kind."""
    if peeked.type in rule.token_types and peeked.type:  # as with most: spelled as it is configured
        return
    if not peeked.type or media(peeked.type) not in map(media, rule.token_types):
        raise WrongType(
            "the token's `typ` is not one of " + ", ".join(f"`{name}`" for name in rule.token_types),
            hint="send an access token, not an id token (RFC 9068 section 2.1)",
        )


def media(name: str) -> str:
    """The one spelling of a media type in `typ`."""
    # Media types compare without case, and `application/` may be left out (RFC 7515 section 4.1.9).
    return name.lower().removeprefix("application/")


def check_audience(claims: Mapping[str, Json], audience: str) -> None:
    """Raise ClaimRefused or WrongAudience unless `aud` names this gateway."""
    found = claims.get("aud")
    named = [found] if isinstance(found, str) else found
    if not isinstance(named, list) or len(named) > _MAX_AUDIENCES or not all(isinstance(item, str) for item in named):
        raise ClaimRefused(f"`aud` is not a string or a list of at most {_MAX_AUDIENCES} strings")
    if not audience or audience not in named:
        raise WrongAudience(
            f"the token is not for `{audience}`",
            hint="ask the issuer for a token with this gateway as resource (RFC 8707 section 2)",
        )


def check_times(claims: Mapping[str, Json], now: UnixTime) -> tuple[UnixTime, UnixTime]:
    """`iat` and `exp`. Tolerance is for clocks that disagree, and works in favour of the token only."""
    issued_at, expires_at = time_of(claims, "iat"), time_of(claims, "exp")
    if expires_at <= issued_at:
        raise ClaimRefused("`exp` is not after `iat`")
    if now >= expires_at + TOLERANCE_S:
        raise TokenExpired("the token has expired", hint="refresh it, or log in again")
    begins = max(issued_at, time_of(claims, "nbf")) if "nbf" in claims else issued_at
    if begins > now + TOLERANCE_S:
        raise TokenNotYetValid("the token is not valid yet", hint="check the clocks of the issuer and of this gateway")
    return issued_at, expires_at


def time_of(claims: Mapping[str, Json], name: str) -> UnixTime:
    """A claim that is a time. Raises ClaimRefused."""
    value = claims.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LAST_TIME:
        raise ClaimRefused(f"`{name}` is missing or not whole seconds since 1970")
    return UnixTime(value)


def text_of(claims: Mapping[str, Json], name: str) -> str:
    """A claim that is a name. Raises ClaimRefused."""
    value = claims.get(name)
    # `isprintable` refuses control and format characters: no two names look alike by an invisible one.
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_NAME or not value.isprintable() or not value.strip():
        raise ClaimRefused(f"`{name}` is missing or not a string of 1 to {_MAX_NAME} printable characters")
    return value


def _actors(claims: Mapping[str, Json], issuer: str) -> tuple[str, ...]:
    """The `act` chain, nearest first (RFC 8693 section 4.1): of the token's issuer, as a bare name tells no other."""
    actors: list[str] = []
    inner = claims
    while "act" in inner:
        actor = inner["act"]
        if not isinstance(actor, dict) or len(actors) == _MAX_ACTORS:
            raise ClaimRefused(f"`act` is not a chain of at most {_MAX_ACTORS} objects")
        if actor.get("iss", issuer) != issuer:
            raise ClaimRefused("an actor in `act` is of another issuer than the token")
        actors.append(text_of(actor, "sub"))
        inner = actor
    return tuple(actors)


def _kept(claims: Mapping[str, Json], names: frozenset[str]) -> bytes:
    try:
        return canonical({name: claims[name] for name in names if name in claims}) if names else b""
    except ValueError as error:
        raise ClaimRefused("a claim that the directory is to know has no canonical form (RFC 8785)") from error


def _scopes(claims: Mapping[str, Json], name: str) -> frozenset[str]:
    """The scopes; none if the claim is absent (RFC 9068 section 2.2.3), and never all.

    A list is taken only from a claim that the issuer's settings name: RFC 8693 section 4.2 makes `scope` a text.
    """
    value = claims.get(name, "")
    words = value.split(" ") if isinstance(value, str) else value if name != "scope" else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ClaimRefused(f"`{name}` is not a string of words with blanks between (RFC 8693 section 4.2)")
    scopes = frozenset(str(word) for word in words if word)
    if len(scopes) > _MAX_SCOPES or not all(map(_SCOPE_CHARACTERS.issuperset, scopes)):
        raise ClaimRefused(f"`{name}` is not at most {_MAX_SCOPES} words of RFC 6749's characters")
    return scopes
