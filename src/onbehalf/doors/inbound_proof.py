"""What one request shows: its token and scheme, a DPoP proof, and the client's certificate: as the proxy wrote it down,
or as it is on the connection where TLS ends here, and never from both.

A certificate's header is read where the configuration names it, and then counts only together with the secret that the
proxy shares: without, the request is refused, whatever its token. Must not judge a proof or a certificate.

Trust: whoever knows the shared secret can name any client's certificate; a connection's is the
transport's word; all else is the client's own.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from onbehalf.errors import CredentialsRefused, DpopMissing, TokenMalformed, TokenMissing
from onbehalf.identify import MAX_CERTIFICATE_BYTES
from onbehalf.model import Presented, Shown

__all__ = ["CONNECTION_CERTIFICATE", "MIN_SECRET", "CertificateHeaders", "certificate_of", "presented"]

CONNECTION_CERTIFICATE = "onbehalf.certificate"
"""The extension of a request, of ASGI, that the transport writes and no client can."""
MIN_SECRET = 32
_TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")  # b64token, RFC 6750 section 2.1; as RFC 9449 section 7.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateHeaders:
    """Where the proxy writes clients' certificates, and what shows that it was the proxy. Names are lower-case."""

    header: bytes
    secret_header: bytes
    secret: bytes = field(repr=False)

    @property
    def names(self) -> frozenset[bytes]:
        return frozenset({self.header, self.secret_header})

    def read(self, headers: Mapping[bytes, bytes]) -> str:
        """The certificate as it is spelled, "" for none. Raises CredentialsRefused for one that is not the proxy's."""
        certificate = headers.get(self.header)
        if not certificate:
            return ""
        shown = sha256(headers.get(self.secret_header, b"")).digest()
        if not hmac.compare_digest(shown, sha256(self.secret).digest()):
            raise CredentialsRefused(
                "a client's certificate stands in a header, and not by the proxy's hand",
                hint="only what ends TLS may set it, with the secret that it shares with this gateway",
            )
        return _bounded(certificate.decode("latin-1"))


def certificate_of(scope: Mapping[str, Any]) -> str:
    """The certificate of the request's connection, spelled as in RFC 9440, "" for none. Raises CredentialsRefused."""
    found = scope.get("extensions", {}).get(CONNECTION_CERTIFICATE)
    return _bounded(found["certificate"]) if found is not None else ""


def _bounded(certificate: str) -> str:
    if len(certificate) > MAX_CERTIFICATE_BYTES:
        raise CredentialsRefused("the client's certificate is too long", hint=f"{MAX_CERTIFICATE_BYTES} at most")
    return certificate


def presented(
    headers: Mapping[bytes, bytes], *, method: str, certificates: CertificateHeaders | None, connection: str = ""
) -> Presented:
    """What a request shows, unproven. `connection` is the certificate of its connection, where `certificates` is None.

    Raises TokenMissing, TokenMalformed, DpopMissing, CredentialsRefused.
    """
    raw = headers.get(b"authorization")
    if raw is None:
        raise TokenMissing(
            "no Authorization header", hint="log in at the authorization server and send its access token"
        )
    scheme, _, token = raw.partition(b" ")
    scheme = scheme.lower()
    if scheme not in (b"bearer", b"dpop"):
        raise TokenMissing(
            "the Authorization scheme is neither Bearer nor DPoP", hint="send `Authorization: Bearer <access token>`"
        )
    token = token.strip(b" ")
    if _TOKEN.fullmatch(token) is None:
        raise TokenMalformed("the access token is not one b64token", hint="send the access token as the issuer gave it")
    text = token.decode("ascii")
    if scheme == b"bearer" and certificates is None and not connection:
        return Presented(token=text)
    certificate = certificates.read(headers) if certificates is not None else connection
    if scheme == b"bearer":
        beside = Shown(dpop=False, method=method, certificate=certificate) if certificate else None
        return Presented(token=text, shown=beside)
    proof = headers.get(b"dpop")
    if proof is None:
        raise DpopMissing("the scheme is DPoP and there is no proof", hint="send one in the header `DPoP`")
    return Presented(
        token=text, shown=Shown(dpop=True, method=method, proof=proof.decode("latin-1"), certificate=certificate)
    )
