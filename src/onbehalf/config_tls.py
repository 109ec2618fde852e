"""TLS that the gateway ends itself: the key `tls` of `gateway`.

Must not read a file, or know what a certificate is.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from onbehalf.config_directory import Keys, Place
from onbehalf.errors import ConfigInvalid

__all__ = ["TlsSettings", "require_tls"]


class TlsSettings(Keys, frozen=True):
    """The public port's own TLS, 1.2 or later. Both files are PEM: `certificate` is the server's own and what leads to
    its authority, `key` is without a passphrase.

    With `client_certificates: optional` clients are asked for one, which must be in `client_authorities` or lead to one
    in it; who has none may connect. It counts for tokens that are bound to it, and for nothing else.
    """

    certificate: Place
    key: Place
    client_certificates: Literal["none", "optional"] = "none"
    client_authorities: Place | UnsetType = UNSET


def require_tls(settings: TlsSettings, *, resource: str, headers: bool) -> None:
    """Raise ConfigInvalid for what contradicts itself. `headers` says that a proxy writes clients' certificates."""
    if not resource.startswith("https://"):
        raise ConfigInvalid(f"`tls` is set and the resource `{resource}` is not https", hint="write the https address")
    asked = settings.client_certificates == "optional"
    if asked and headers:
        raise ConfigInvalid(
            "clients' certificates are read from their connections (`tls`) and from a header (`certificates`)",
            hint="leave `certificates` out where the gateway ends TLS",
        )
    if asked and settings.client_authorities is UNSET:
        raise ConfigInvalid(
            "`client_certificates` is `optional` and there are no `client_authorities`",
            hint="name a PEM file of the clients' authorities, or of their certificates where these are self-signed",
        )
    if not asked and settings.client_authorities is not UNSET:
        raise ConfigInvalid(
            "there are `client_authorities`, and no client is asked for a certificate",
            hint="set `client_certificates: optional`, or leave them out",
        )
