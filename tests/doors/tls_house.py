"""A certificate authority of a company's own, servers with its certificates, and a trust store that holds it."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Authority:
    """`store` is a PEM file to trust it by."""

    directory: Path
    store: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def server(self, *names: str, ended: bool = False) -> ssl.SSLContext:
        """What a server of these names needs; with `ended`, its certificate is of yesterday."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issued(*names, shift=-2 * _DAY if ended else datetime.timedelta()).path)
        return context

    def issued(self, *names: str, client: bool = False, shift: datetime.timedelta = datetime.timedelta()) -> Issued:
        """A certificate for these names, for two days around now, or around another time by `shift`."""
        key = ec.generate_private_key(ec.SECP256R1())
        use = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        made = (
            _builder(_name(names[0]), self.certificate.subject, key, datetime.datetime.now(datetime.UTC) + shift)
            .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return _issued(self.directory / f"{names[0].replace('*', 'any')}.pem", made, key)


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate and its key, in one PEM file."""

    path: Path
    der: bytes


def self_signed(directory: Path, name: str) -> Issued:
    """A certificate that nobody else has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = _builder(_name(name), _name(name), key, datetime.datetime.now(datetime.UTC)).sign(key, hashes.SHA256())
    return _issued(directory / f"{name}.pem", made, key)


def authority(directory: Path, name: str = "authority") -> Authority:
    """A new one, known to nobody yet."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        _builder(_name(name), _name(name), key, datetime.datetime.now(datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    store = directory / f"{name}.pem"
    store.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return Authority(directory=directory, store=store, key=key, certificate=made)


@asynccontextmanager
async def answering(context: ssl.SSLContext, answer: bytes, seen: list[bytes]) -> AsyncIterator[int]:
    """A server on a loopback port that gives every request this answer; `seen` is what was asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _issued(path: Path, made: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + _pem(key))
    return Issued(path=path, der=made.public_bytes(serialization.Encoding.DER))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(issuer).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY).not_valid_after(now + _DAY)
    )  # fmt: skip


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
