"""How the gateway proves to an endpoint of an issuer which client it is: by a secret, or by a key of its own.

`client_secret_basic`, `client_secret_post` (RFC 6749 section 2.3.1) and `private_key_jwt` (RFC 7523 section 2.2, OpenID
Connect Core section 9). Must not send anything or know what is asked for.

Trust: whoever reads the secret or key can ask the issuer as this gateway.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from msgspec import UnsetType

from onbehalf.base64url import base64url
from onbehalf.doors.issuer_fetch import basic
from onbehalf.doors.secret_reference import resolved
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json, UnixTime
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["ClientKey", "TokenClient", "open_client"]

_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFE_S = 60
_DEPTH = 4
_MIN_RSA_BITS = 2048
_PEM_KEY = re.compile(r"-----BEGIN ((?:RSA |EC )?PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)
_PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_ALGORITHMS = {"RSA": ("PS256", "RS256"), "EC": ("ES256",)}
"""By the kind of key; the first is what an issuer gets unless the JWK's `alg` says another of them."""

_Key = RSAKey | ECKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """A private key, the algorithm it signs with, and the members of the header by which an issuer finds its half."""

    key: _Key = field(repr=False)
    algorithm: str
    named: dict[str, str]

    @classmethod
    def read(cls, text: str, *, what: str) -> ClientKey:
        """From PEM (the key, and the certificate that is registered, if one is) or a private JWK. `what` is the key of
        the configuration. Raises ConfigInvalid, which holds nothing of the text."""
        try:
            key, algorithm, named = _jwk(text) if text.startswith("{") else _pem(text)
        except (JoseError, NotStrict, ValueError, TypeError, AttributeError, KeyError):
            # The cause is left out: a parser's message may quote the key.
            raise ConfigInvalid(
                f"what `{what}` refers to is no private key that can be used",
                hint="a PEM or JWK of RSA with 2048 bits or more or of P-256, without a password",
            ) from None
        return cls(key=key, algorithm=algorithm, named=named)

    def assertion(self, client: str, audience: str, now: UnixTime) -> str:
        """A client assertion for a minute, once."""
        header = {"alg": self.algorithm, "typ": "JWT", **self.named}
        claims: dict[str, Json] = {
            "iss": client, "sub": client, "aud": audience, "jti": secrets.token_urlsafe(32),
            "iat": now, "nbf": now, "exp": now + _LIFE_S,
        }  # fmt: skip
        return jwt.encode(header, claims, self.key, algorithms=[self.algorithm])


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClient:
    """The gateway as a client of one issuer, by a `key` or a `secret`, which stands in the form where `posted`."""

    id: str
    secret: str = field(default="", repr=False)
    key: ClientKey | None = None
    posted: bool = False

    @property
    def method(self) -> str:
        """As metadata names it (RFC 8414 section 2)."""
        if self.key is not None:
            return "private_key_jwt"
        return "client_secret_post" if self.posted else "client_secret_basic"

    def proof(self, endpoint: str, now: UnixTime) -> tuple[dict[str, str], dict[str, str]]:
        """What to add to the form, and to the headers, of one request to `endpoint`."""
        if self.key is not None:
            # The audience is the very place it is sent to, so that nobody there could show it anywhere else.
            signed = self.key.assertion(self.id, endpoint, now)
            return {"client_id": self.id, "client_assertion_type": _TYPE, "client_assertion": signed}, {}
        if self.posted:
            return {"client_id": self.id, "client_secret": self.secret}, {}
        return {}, {"authorization": basic(self.id, self.secret)}


def open_client(
    id: str, *, secret: str | UnsetType, key: str | UnsetType, base: Path, what: str, posted: bool = False
) -> TokenClient:
    """The gateway as the client `id`, by the one of a secret and a key that is referred to. `base` is where references
    start, `what` the section of the configuration. Raises ConfigInvalid."""
    if not isinstance(key, UnsetType):
        text = resolved(key, base=base, what=f"{what}.client_key")
        return TokenClient(id=id, key=ClientKey.read(text, what=f"{what}.client_key"))
    assert not isinstance(secret, UnsetType)  # INVARIANT: config.py sees that there is one of the two
    return TokenClient(id=id, secret=resolved(secret, base=base, what=f"{what}.client_secret"), posted=posted)


def _jwk(text: str) -> tuple[_Key, str, dict[str, str]]:
    members = strict_object(text.encode(), depth=_DEPTH)
    given = json.loads(text)
    made: _Key = RSAKey.import_key(given) if members["kty"] == "RSA" else ECKey.import_key(given)
    named = {name: str(members[name]) for name in ("kid", "x5t#S256") if members.get(name)}
    return made, _sound(made, str(members.get("alg", ""))), named


def _pem(text: str) -> tuple[_Key, str, dict[str, str]]:
    found = _PEM_KEY.search(text)
    if found is None:
        raise ValueError("no key")
    made = _imported(found[0])
    named: dict[str, str] = {}
    if certificate := _PEM_CERTIFICATE.search(text):
        mark = x509.load_pem_x509_certificate(certificate[0].encode()).fingerprint(SHA256())
        named["x5t#S256"] = base64url(mark)
    return made, _sound(made, ""), named


def _imported(text: str) -> _Key:
    try:
        return RSAKey.import_key(text)
    except (JoseError, ValueError, TypeError, AttributeError):
        return ECKey.import_key(text)


def _sound(key: _Key, wanted: str) -> str:
    """The algorithm to sign with. Raises ValueError for a key that is too weak or is not private."""
    if not key.is_private or (isinstance(key, ECKey) and key.curve_name != "P-256"):
        raise ValueError("not a private key of a curve that is used here")
    if isinstance(key, RSAKey) and key.private_key is not None and key.private_key.key_size < _MIN_RSA_BITS:
        raise ValueError("too short")
    able = _ALGORITHMS[key.key_type]
    if wanted and wanted not in able:
        raise ValueError("an algorithm that is not used here")
    return wanted or able[0]
