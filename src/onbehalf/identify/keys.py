"""What an issuer's key is: public, asymmetric, strong enough, and of one issuer.

Turns a JWK Set (RFC 7517 section 5) into keys by id. A key that is unfit is left out, so that a token signed with it
meets UnknownKey. Must not fetch, keep or choose keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from onbehalf.model import Json
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["ALGORITHM_FAMILIES", "KeysRefused", "PublicKey", "brought_key", "public_keys", "strong"]

ALGORITHM_FAMILIES: Mapping[str, frozenset[str]] = MappingProxyType(
    {"RSA": frozenset({"RS256", "PS256"}), "EC": frozenset({"ES256"}), "OKP": frozenset({"EdDSA", "Ed25519"})}
)
"""Key type to the algorithms it may be used with. `Ed25519` is RFC 9864's name of what `EdDSA` means here."""

_MAX_KEYS = 64
_MAX_KID = 255
_RSA_BITS = range(2048, 8192 + 1)
"""Below 2048 is weak (RFC 7518 section 3.3); above 8192 each check costs an attacker's token too much of our time."""
_RSA_EXPONENT_BITS = 32
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
_MATERIAL: Mapping[str, tuple[str, ...]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_CURVES = {"EC": "P-256", "OKP": "Ed25519"}

# ROCA (CVE-2017-15361): a widespread library built both primes from powers of 65537, so that such a modulus is one of
# them to every small prime, and can be factored. Of other moduli one in 2 to the 28 looks so by chance, or fewer.
_ROCA = {
    prime: frozenset(pow(65537, power, prime) for power in range(prime))
    for prime in range(3, 168)
    if all(prime % divisor for divisor in range(2, prime))
}

_P = 2**255 - 19
_OF_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL = frozenset({0, 1, _P - 1, _OF_ORDER_8, _P - _OF_ORDER_8})
"""The y of Ed25519's eight points of small order: with such a key anybody can sign, and OpenSSL takes it."""

_Material: TypeAlias = RSAKey | ECKey | OKPKey


class KeysRefused(ValueError):
    """The document is not a usable JWK Set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """One verification key of one issuer, and the algorithms it may be used with."""

    issuer: str
    key_id: str
    algorithms: frozenset[str]
    thumbprint: str
    """RFC 7638: the same for the same key only, so that a changed key under an old id is noticed."""
    material: _Material = field(repr=False, compare=False)


def public_keys(document: bytes, *, issuer: str) -> Mapping[str, PublicKey]:
    """The fit keys of a JWK Set, by key id; none, if the issuer withdrew them all. Raises KeysRefused.

    Left out: symmetric keys; private keys (what is published is no secret any more); keys for encryption; without
    `kid`; of other types, curves or sizes; RSA keys of a library whose keys can be factored (ROCA); Ed25519 keys of
    small order or in a second spelling (RFC 8032 section 5.1.3); and every key whose id stands twice, since which is
    meant is a guess.
    """
    try:
        listed = strict_object(document, depth=8).get("keys")
    except NotStrict as error:
        raise KeysRefused(f"the JWK Set is refused: {error}") from error
    if not isinstance(listed, list) or len(listed) > _MAX_KEYS:
        raise KeysRefused(f"the JWK Set is not a list of at most {_MAX_KEYS} keys")
    found: dict[str, PublicKey] = {}
    seen: set[str] = set()
    for jwk in listed:
        if not isinstance(jwk, dict) or not _for_signatures(jwk):
            continue
        key_id = jwk.get("kid")
        if not isinstance(key_id, str) or not 1 <= len(key_id) <= _MAX_KID:
            continue
        if key_id in seen:
            found.pop(key_id, None)
            continue
        seen.add(key_id)
        key = _key(jwk, key_id, issuer)
        if key is not None:
            found[key_id] = key
    return MappingProxyType(found)


def brought_key(jwk: Json) -> PublicKey | None:
    """The key that a proof brings with it (RFC 9449 section 4.2): of nobody yet, and None where it is unfit.

    Unfit is what `public_keys` leaves out, above all a private key: whoever shows one has lost it.
    """
    return _key(jwk, "", "") if isinstance(jwk, dict) and _for_signatures(jwk) else None


def _for_signatures(jwk: Mapping[str, Json]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _key(jwk: Mapping[str, Json], key_id: str, issuer: str) -> PublicKey | None:
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in _MATERIAL or not _PRIVATE_MEMBERS.isdisjoint(jwk):
        return None
    algorithms = _algorithms(jwk, kind)
    material = _material(jwk, kind)
    if material is None or not algorithms:
        return None
    return PublicKey(
        issuer=issuer, key_id=key_id, algorithms=algorithms, thumbprint=material.thumbprint(), material=material
    )


def _algorithms(jwk: Mapping[str, Json], kind: str) -> frozenset[str]:
    family = ALGORITHM_FAMILIES[kind]
    if "alg" not in jwk:
        return family
    named = jwk["alg"]
    if not isinstance(named, str) or named not in family:
        return frozenset()
    return family if kind == "OKP" else frozenset({named})


def _material(jwk: Mapping[str, Json], kind: str) -> _Material | None:
    """The library's key from the bare parameters alone, or None if they are no fit key."""
    bare: dict[str, str | list[str]] = {"kty": kind}
    for name in _MATERIAL[kind]:
        value = jwk.get(name)
        if not isinstance(value, str) or not value or len(value) > 2048:
            return None
        bare[name] = value
    if kind in _CURVES and bare["crv"] != _CURVES[kind]:
        return None
    try:
        if kind == "EC":
            return ECKey.import_key(bare)
        if kind == "OKP":
            okp = OKPKey.import_key(bare)
            return okp if _of_large_order(okp) else None
        rsa = RSAKey.import_key(bare)
    except (JoseError, ValueError, TypeError, OverflowError):
        return None
    return rsa if strong(rsa) else None


def strong(rsa: RSAKey) -> bool:
    """Whether an RSA key is of a size to be used, and was not made in a way by which it can be factored (ROCA)."""
    public, numbers = rsa.public_key, rsa.public_key.public_numbers()
    sized = public.key_size in _RSA_BITS and numbers.e.bit_length() <= _RSA_EXPONENT_BITS
    return sized and not all(numbers.n % prime in powers for prime, powers in _ROCA.items())


def _of_large_order(okp: OKPKey) -> bool:
    y = int.from_bytes(okp.public_key.public_bytes_raw(), "little") & (2**255 - 1)
    return y < _P and y not in _SMALL
