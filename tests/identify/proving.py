"""Proofs by DPoP and clients' certificates, good unless a test asks for a flaw."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from functools import cache
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from identify.minting import NOW, RESOURCE, Key, b64, key_for, signed

TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
_counted = iter(range(10**9))


def thumbprint(algorithm: str = "ES256", name: str = "client") -> str:
    """What a token is bound to that this key proves."""
    return str(key_for(algorithm, name).thumbprint())


def ath(token: str) -> str:
    return b64(hashlib.sha256(token.encode()).digest())


def proof(
    *,
    token: str | None = TOKEN,
    algorithm: str = "ES256",
    key: Key | None = None,
    header: dict[str, Any] | None = None,
    **changes: Any,
) -> str:
    """A proof; a claim or header member that is changed to None is left out."""
    used = key or key_for(algorithm, "client")
    head = {"typ": "dpop+jwt", "alg": algorithm, "jwk": used.as_dict(private=False), **(header or {})}
    body = {
        "jti": f"proof-{next(_counted)}", "htm": "POST", "htu": RESOURCE, "iat": int(NOW),
        **({} if token is None else {"ath": ath(token)}), **changes,
    }  # fmt: skip
    parts = ({name: value for name, value in each.items() if value is not None} for each in (head, body))
    encoded = [json.dumps(each).encode() for each in parts]
    return signed(encoded[0], encoded[1], used, algorithm)


@cache
def certificate(name: str = "client") -> bytes:
    """The DER of a certificate that nobody else has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
        .serial_number(1).not_valid_before(day).not_valid_after(day + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return made.public_bytes(Encoding.DER)


def certificate_hash(der: bytes) -> str:
    return b64(hashlib.sha256(der).digest())


def rfc9440(der: bytes) -> str:
    return f":{base64.b64encode(der).decode()}:"


def escaped_pem(der: bytes) -> str:
    """As nginx has it in `$ssl_client_escaped_cert`."""
    return quote(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM), safe="")
