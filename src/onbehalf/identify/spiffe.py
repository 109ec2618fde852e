"""Workloads by their JWT-SVIDs: SPIFFE IDs in their one spelling, the keys of a trust domain, and the proof.

After the SPIFFE standards SPIFFE-ID, JWT-SVID, and Trust Domain and Bundle. A JWT-SVID has no issuer: who it is of,
its `sub` says, and its trust domain's keys prove it. Must not fetch a bundle or read a clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

from onbehalf.config_services import WorkloadSettings
from onbehalf.errors import AlgorithmRefused, ClaimRefused, ProofMissing, SignatureMismatch, UnknownKey, WrongType
from onbehalf.identify.compact import Peeked
from onbehalf.identify.keys import KeysRefused, PublicKey, strong
from onbehalf.identify.verify import caller_of_workload, check_audience, check_times
from onbehalf.model import Caller, Evidence, Json, UnixTime, digest
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["Bundle", "bundle_of", "check_svid_algorithm", "issuer_of", "trust_domain_of", "verify_svid"]

_MAX_ID = 2048
_ID = re.compile(r"spiffe://(?P<domain>[a-z0-9._-]{1,255})(?P<path>(?:/[A-Za-z0-9._-]+)+)")
_DOTS = frozenset({".", ".."})
_TYPES = frozenset({"", "JWT", "JOSE"})
_MAX_KEYS = 256
_MAX_KID = 255
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_PARAMETERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y")}

Bundle = tuple[int, Mapping[str, PublicKey]]
"""A bundle's sequence number, -1 where it has none, and its keys for JWT-SVIDs by key id."""


def issuer_of(trust_domain: str) -> str:
    """How a trust domain is called where others have an issuer: its own SPIFFE ID."""
    return f"spiffe://{trust_domain}"


def trust_domain_of(claimed: Mapping[str, Json]) -> str:
    """The trust domain that a token's `sub` is of, unproven; "" where that is no workload's SPIFFE ID.

    SPIFFE-ID section 2: lower-case scheme and trust domain, no user, port, query or fragment, nothing
    percent-encoded, no empty, `.` or `..` segment, no slash at the end, 2,048 characters at most. The ID of a trust
    domain itself, without a path, is no workload's (JWT-SVID section 3.1).
    """
    sub = claimed.get("sub")
    if not isinstance(sub, str) or len(sub) > _MAX_ID:
        return ""
    found = _ID.fullmatch(sub)
    if found is None or not _DOTS.isdisjoint(found["path"].split("/")):
        return ""
    return found["domain"]


def bundle_of(document: bytes, *, trust_domain: str) -> Bundle:
    """The keys for JWT-SVIDs in a trust domain's bundle (Trust Domain and Bundle section 4). Raises KeysRefused.

    Left out, as that section demands: keys of another `use` or without one, and what is no fit public key with a
    `kid` that stands once.
    """
    try:
        members = strict_object(document, depth=8)
    except NotStrict as error:
        raise KeysRefused(f"the bundle is refused: {error}") from error
    listed, sequence = members.get("keys"), members.get("spiffe_sequence", -1)
    if not isinstance(listed, list) or len(listed) > _MAX_KEYS:
        raise KeysRefused(f"the bundle is not a list of at most {_MAX_KEYS} keys")
    if not isinstance(sequence, int) or isinstance(sequence, bool):
        raise KeysRefused("the bundle's `spiffe_sequence` is no whole number")
    named = [each for each in listed if isinstance(each, dict) and each.get("use") == "jwt-svid"]
    ids = [each.get("kid") for each in named]
    found: dict[str, PublicKey] = {}
    for each, kid in zip(named, ids, strict=True):
        if isinstance(kid, str) and 1 <= len(kid) <= _MAX_KID and ids.count(kid) == 1:
            key = _key(each, kid, issuer_of(trust_domain))
            if key is not None:
                found[kid] = key
    return sequence, MappingProxyType(found)


def _key(jwk: Mapping[str, Json], kid: str, issuer: str) -> PublicKey | None:
    kind = jwk.get("kty")
    if kind not in ("RSA", "EC") or not _PRIVATE.isdisjoint(jwk):
        return None
    bare: dict[str, str | list[str]] = {"kty": str(kind)}
    for name in _PARAMETERS[str(kind)]:
        value = jwk.get(name)
        if not isinstance(value, str) or not value or len(value) > 2048:
            return None
        bare[name] = value
    algorithms = _RSA if kind == "RSA" else frozenset(filter(None, (_CURVES.get(str(bare.get("crv"))),)))
    if "alg" in jwk:
        algorithms &= {str(jwk["alg"])}
    if not algorithms:  # an unknown curve ends here, before the library is asked for it
        return None
    try:
        material = RSAKey.import_key(bare) if kind == "RSA" else ECKey.import_key(bare)
    except (JoseError, ValueError, TypeError, OverflowError):
        return None
    if isinstance(material, RSAKey) and not strong(material):
        return None
    return PublicKey(
        issuer=issuer, key_id=kid, algorithms=algorithms, thumbprint=material.thumbprint(), material=material
    )


def check_svid_algorithm(peeked: Peeked, workload: WorkloadSettings) -> None:
    """Raise AlgorithmRefused unless the trust domain may use the token's algorithm. Needs no key."""
    if peeked.algorithm not in workload.algorithms:
        raise AlgorithmRefused("the JWT-SVID's algorithm is not one of its trust domain's", hint="list it, if it is")


def verify_svid(
    peeked: Peeked, *, workload: WorkloadSettings, key: PublicKey, audience: str, now: UnixTime
) -> Caller:  # fmt: skip
    """Prove which workload calls, from one JWT-SVID. Checked, in this order:

    1 the algorithm is one of the trust domain's, and of the key's (JWT-SVID section 2.1); 2 the key is of this trust
    domain and the very one that is named: `kid`, which the standard leaves open, must be there; 3 the signature;
    4 `typ` is absent, `JWT` or `JOSE` (section 2.3); 5 `sub` is a workload's SPIFFE ID of this trust domain
    (section 3.1); 6 `aud` names this gateway (section 3.2); 7 `exp` and, which the standard leaves open, `iat`, with
    30 s of tolerance; 8 no `cnf`.

    Does not check `iss`, which means nothing in a JWT-SVID, or that it was not used before: until it ends, whoever has
    it is the workload. Raises an IdentifyError.
    """
    check_svid_algorithm(peeked, workload)  # 1
    if peeked.algorithm not in key.algorithms:
        raise AlgorithmRefused(f"the key is not for `{peeked.algorithm}`", hint="RFC 8725 section 3.1")
    if key.key_id != peeked.key_id or key.issuer != issuer_of(workload.trust_domain):  # 2
        raise UnknownKey("the key is not the one that the JWT-SVID names")
    _check_signature(peeked, key)  # 3
    if peeked.type not in _TYPES:  # 4
        raise WrongType("the token's `typ` is not one of a JWT-SVID", hint="JWT-SVID section 2.3")
    claims = peeked.claimed
    if trust_domain_of(claims) != workload.trust_domain:  # 5
        raise ClaimRefused(f"`sub` is not the SPIFFE ID of a workload of `{workload.trust_domain}`")
    check_audience(claims, audience)  # 6
    issued_at, expires_at = check_times(claims, now)  # 7
    if "cnf" in claims:  # 8
        raise ProofMissing("the JWT-SVID is bound to a key, and a proof of it is not taken here")
    id_ = str(claims["sub"])
    evidence = Evidence(
        issuer=key.issuer, key=key.key_id, algorithm=peeked.algorithm, token=digest(peeked.token),
        issued_at=issued_at, expires_at=expires_at,
    )  # fmt: skip
    return caller_of_workload(id_, tenant=workload.tenant, scopes=frozenset(workload.scopes), evidence=evidence)


def _check_signature(peeked: Peeked, key: PublicKey) -> None:
    algorithm = JWSRegistry.algorithms[peeked.algorithm]
    try:
        algorithm.check_key(key.material)
        good = algorithm.verify(peeked.signing_input, peeked.signature, key.material)
    except (JoseError, ValueError, TypeError) as error:
        raise SignatureMismatch("the signature cannot be checked with the key") from error
    if good is not True:
        raise SignatureMismatch("the signature does not fit", hint="the token was altered, or signed with another key")
