"""The public port's TLS: the server's certificate, which can be renewed while it serves, and whom clients' are from.

A certificate is read whole and seen to fit before it takes the place of another. Must not know what a client's
certificate is for, nor read a setting of the environment: SSLKEYLOGFILE would write down every connection's secrets.

Trust: whoever can read the key's file can be this gateway to its clients. Clients' certificates are believed of
whoever is in, or is vouched for by, the file of their authorities.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from msgspec import UNSET

from onbehalf.config_tls import TlsSettings
from onbehalf.errors import ConfigInvalid
from onbehalf.model import UnixTime

__all__ = ["ServerCertificate", "ServerTls"]

_MAX_BYTES = 256 * 1024
_SOON_S = 14 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """What a server's certificate says. `names` are lower-case host names and addresses, a wildcard as `*.example`."""

    begins: UnixTime
    ends: UnixTime
    names: frozenset[str]

    def fits(self, host: str) -> bool:
        """Whether clients take it for `host` (RFC 9525 section 6.3: a wildcard stands for one whole label)."""
        host = host.lower()
        return host in self.names or f"*.{host.partition('.')[2]}" in self.names

    def ends_soon(self, now: UnixTime) -> bool:
        """Within 14 days, or in the last third of a life that is shorter than that allows for."""
        return self.ends - now < min(_SOON_S, (self.ends - self.begins) // 3)


class ServerTls:
    """`context` is for the listening socket, for as long as it listens; `certificate` is what was read last."""

    def __init__(self, settings: TlsSettings, *, base: Path, now: UnixTime) -> None:
        """`base` is the directory of the configuration file. Raises ConfigInvalid."""
        self._settings = settings
        self._base = base
        self.context, self.certificate = self._read(now)
        self._current = self.context
        self.context.sni_callback = self._renewed

    def renew(self, now: UnixTime) -> bool:
        """Read all files again, for connections from now on; whether the certificate is another.

        Raises ConfigInvalid, and what stood before stands. Connections that are open stay as they are.
        """
        before = self.certificate
        self._current, self.certificate = self._read(now)
        return before != self.certificate

    def _renewed(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called in each handshake, before anything is answered, whether the client names a host or not."""
        if self._current is not context:
            connection.context = self._current

    def _read(self, now: UnixTime) -> tuple[ssl.SSLContext, ServerCertificate]:
        path, key = self._base / self._settings.certificate, self._base / self._settings.key
        certificate = _certificate(path)
        if not certificate.begins <= now < certificate.ends:
            raise ConfigInvalid(
                f"the certificate in `{path}` {'has ended' if now >= certificate.ends else 'is not valid yet'}",
                hint="renew it, and see that the clock is right",
            )
        # not `create_default_context`: that would read SSLKEYLOGFILE
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION  # a connection's certificate is read once
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(path, key, password=lambda: "")  # else it would ask at the terminal
        except (OSError, ValueError) as error:
            raise ConfigInvalid(
                f"`{key}` is no key for the certificate in `{path}`: {_why(error)}",
                hint="name its PEM file, without a passphrase, which the gateway's user alone can read",
            ) from error
        if self._settings.client_authorities is not UNSET:
            _ask_clients(context, self._base / self._settings.client_authorities)
        return context, certificate


def _ask_clients(context: ssl.SSLContext, authorities: Path) -> None:
    """Ask clients for a certificate that is in the file, or leads to one in it. Raises ConfigInvalid."""
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what is in the file need not have signed itself
    try:
        context.load_verify_locations(cafile=authorities)
    except (OSError, ValueError) as error:
        raise ConfigInvalid(
            f"`{authorities}` has no certificates to know clients' by: {_why(error)}",
            hint="`client_authorities` is a file of certificates in PEM",
        ) from error


def _certificate(path: Path) -> ServerCertificate:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError(f"it is longer than {_MAX_BYTES} bytes")
        first = x509.load_pem_x509_certificates(data)[0]
        return ServerCertificate(
            begins=UnixTime(int(first.not_valid_before_utc.timestamp())),
            ends=UnixTime(int(first.not_valid_after_utc.timestamp())),
            names=_names(first),
        )
    except (OSError, ValueError, x509.InvalidVersion) as error:
        raise ConfigInvalid(
            f"`{path}` is no certificate that can be read: {_why(error)}",
            hint="`certificate` is PEM: the server's own first, then what leads to its authority",
        ) from error


def _names(certificate: x509.Certificate) -> frozenset[str]:
    """From the subject's alternative names; a common name is none (RFC 9525 section 2)."""
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    hosts = alternative.get_values_for_type(x509.DNSName)
    addresses = alternative.get_values_for_type(x509.IPAddress)
    return frozenset({name.lower() for name in hosts} | {str(address) for address in addresses})


def _why(error: Exception) -> str:
    """In words that hold nothing of a file."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return type(error).__name__
