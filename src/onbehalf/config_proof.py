"""How clients prove that a token is theirs: the keys `dpop` and `certificates` of `gateway`, and `proof` of an issuer.

Must not read a secret, or know what a proof is.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from onbehalf.config_directory import Keys, Reference
from onbehalf.errors import ConfigInvalid

__all__ = ["CertificateSettings", "Demand", "DpopSettings", "require_certificates", "require_demand"]

Demand = Literal["optional", "required", "dpop", "mtls"]
_Header = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
_OWN = ("authorization", "dpop", "host", "origin", "accept", "cookie", "connection", "transfer-encoding")


class DpopSettings(Keys, frozen=True):
    """Proofs by DPoP (RFC 9449). `nonce`: they must hold a nonce of this gateway's, so none can be made in advance;
    with `none` one can, for the time to come. A proof is taken within `window_seconds` of when it says it was made,
    before or after.
    """

    nonce: Literal["required", "none"] = "required"
    window_seconds: Annotated[int, Meta(ge=5, le=300)] = 60


class CertificateSettings(Keys, frozen=True):
    """Clients' TLS certificates, as whoever ends TLS writes them into `header`: `rfc9440`, or `pem` with URL escapes.

    It shows in `secret_header` that it is the one: the value that `secret` refers to, of at least 32 characters.
    """

    secret: Reference
    header: _Header = "Client-Cert"
    spelling: Literal["rfc9440", "pem"] = "rfc9440"
    secret_header: _Header = "Client-Cert-Secret"  # noqa: S105  # a header's name, no secret


def require_certificates(settings: CertificateSettings) -> None:
    """Raise ConfigInvalid for headers that mean something else here."""
    names = (settings.header.lower(), settings.secret_header.lower())
    if names[0] == names[1] or any(name in _OWN or name.startswith(("mcp-", "content-")) for name in names):
        raise ConfigInvalid(
            "`certificates` names one header twice, or one that means something else",
            hint="such as `Client-Cert` and `Client-Cert-Secret`",
        )


def require_demand(issuer: str, demand: Demand, *, logs_in: bool, certificates: bool) -> None:
    """Raise ConfigInvalid for what no client of the issuer could meet."""
    if demand == "mtls" and not certificates:
        raise ConfigInvalid(
            f"tokens of `{issuer}` must be bound to certificates, and none are read here",
            hint="set up `certificates` under `gateway`, or `client_certificates` under `gateway.tls`",
        )
    if demand != "optional" and logs_in:
        raise ConfigInvalid(
            f"`{issuer}` has `login` and a `proof`: tokens for the gateway's own pages are bearer tokens",
            hint="leave one of them out",
        )
