"""The files of the public port's TLS: what is taken, what is refused and why, and whom a certificate is for."""

from __future__ import annotations

import contextlib
import datetime
import os
import ssl
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from doors.tls_house import Authority, Issued, authority, self_signed
from onbehalf import config
from onbehalf.config_tls import TlsSettings
from onbehalf.doors.serve_tls import ServerCertificate, ServerTls
from onbehalf.errors import ConfigInvalid
from onbehalf.model import UnixTime

DAY = 86_400
HEAD = "issuers: [{issuer: 'https://l.example', tenant: acme, proof: optional}]\nupstreams: {}\ngateway: "


@pytest.fixture
def issuer(tmp_path: Path) -> Authority:
    return authority(tmp_path)


def opened(directory: Path, certificate: str, key: str = "", **more: str) -> ServerTls:
    settings = TlsSettings(certificate=certificate, key=key or certificate, **more)  # type: ignore[arg-type]  # strings
    return ServerTls(settings, base=directory, now=UnixTime(int(time.time())))


def refused(directory: Path, certificate: str, key: str = "", **more: str) -> str:
    with pytest.raises(ConfigInvalid) as found:
        opened(directory, certificate, key, **more)
    assert found.value.hint
    return found.value.message


def test_a_certificate_and_its_key_are_read_relative_to_the_configuration(tmp_path: Path, issuer: Authority) -> None:
    issuer.issued("a.example", "*.b.example", "127.0.0.1")
    certificate = opened(tmp_path, "a.example.pem").certificate
    assert certificate.names == {"a.example", "*.b.example", "127.0.0.1"}
    assert certificate.ends - certificate.begins == 2 * DAY


@pytest.mark.parametrize("days", [-2, 2])
def test_a_certificate_that_has_ended_or_is_not_valid_yet_is_refused(
    tmp_path: Path, issuer: Authority, days: int
) -> None:
    issuer.issued("a.example", shift=datetime.timedelta(days=days))
    assert ("has ended" if days < 0 else "not valid yet") in refused(tmp_path, "a.example.pem")


def test_what_is_no_file_no_certificate_no_key_or_another_certificates_key_is_refused_by_its_name(
    tmp_path: Path, issuer: Authority
) -> None:
    issuer.issued("a.example")
    issuer.issued("b.example")
    (tmp_path / "junk.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "empty.pem").write_bytes(b"")
    (tmp_path / "large.pem").write_bytes((tmp_path / "a.example.pem").read_bytes() + b"\n" * 300_000)
    for wrong in ("missing.pem", "junk.pem", "empty.pem", "large.pem", "."):
        assert "no certificate that can be read" in refused(tmp_path, wrong, "a.example.pem")
    for wrong in ("missing.pem", "junk.pem", "empty.pem", "b.example.pem", "."):
        assert "no key for the certificate" in refused(tmp_path, "a.example.pem", wrong)
    assert "key values mismatch" in refused(tmp_path, "a.example.pem", "b.example.pem")


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path, issuer: Authority) -> None:
    path = issuer.issued("a.example").path
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"word")
    )
    (tmp_path / "locked.pem").write_bytes(locked)
    assert "no key for the certificate" in refused(tmp_path, "a.example.pem", "locked.pem")


def test_authorities_that_are_none_are_refused(tmp_path: Path, issuer: Authority) -> None:
    issuer.issued("a.example")
    (tmp_path / "empty.pem").write_bytes(b"")
    for wrong in ("missing.pem", "empty.pem"):
        assert "no certificates to know clients' by" in refused(
            tmp_path, "a.example.pem", client_certificates="optional", client_authorities=wrong
        )


def test_a_renewal_that_is_bad_leaves_what_stood(tmp_path: Path, issuer: Authority) -> None:
    path = issuer.issued("a.example").path
    tls = opened(tmp_path, "a.example.pem")
    before, now = tls.certificate, UnixTime(int(time.time()))
    assert tls.renew(now) is False
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(ConfigInvalid):
        tls.renew(now)
    assert tls.certificate == before
    issuer.issued("a.example", "more.example")
    assert tls.renew(now) is True
    assert tls.certificate.names == {"a.example", "more.example"}


def test_the_environment_cannot_have_the_secrets_of_connections_written_down(
    tmp_path: Path, issuer: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.issued("a.example")
    monkeypatch.setenv("SSLKEYLOGFILE", os.fspath(tmp_path / "secrets"))
    assert opened(tmp_path, "a.example.pem").context.keylog_filename is None


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """The version that the two agree on. Raises ssl.SSLError where they do not."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True))
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0].version()


def showing(shown: Issued | None) -> ssl.SSLContext:
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    if shown is not None:
        client.load_cert_chain(shown.path)
    return client


def test_clients_show_a_certificate_of_a_known_authority_that_is_for_clients_and_has_not_ended_or_none(
    tmp_path: Path, issuer: Authority
) -> None:
    issuer.issued("a.example")
    server = opened(
        tmp_path, "a.example.pem", client_certificates="optional", client_authorities=issuer.store.name
    ).context
    assert shake(server, showing(None))
    assert shake(server, showing(issuer.issued("good", client=True)))
    for wrong, why in (
        (issuer.issued("ended", client=True, shift=datetime.timedelta(days=-2)), "has expired"),
        (issuer.issued("server"), "unsuitable certificate purpose"),
        (self_signed(tmp_path, "self"), "self-signed"),
    ):
        with pytest.raises(ssl.SSLError, match=why):
            shake(server, showing(wrong))


def test_whom_clients_certificates_are_from_is_read_again_too(tmp_path: Path, issuer: Authority) -> None:
    issuer.issued("a.example")
    before, after = self_signed(tmp_path, "before"), self_signed(tmp_path, "after")
    known = tmp_path / "known.pem"
    known.write_bytes(before.path.read_bytes())
    tls = opened(tmp_path, "a.example.pem", client_certificates="optional", client_authorities="known.pem")
    for good, bad in ((before, after), (after, before)):
        known.write_bytes(good.path.read_bytes())
        tls.renew(UnixTime(int(time.time())))
        assert shake(tls.context, showing(good))
        with pytest.raises(ssl.SSLError, match="self-signed"):
            shake(tls.context, showing(bad))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_client_of_tls_1_1_is_refused_for_its_version_and_for_nothing_else(tmp_path: Path, issuer: Authority) -> None:
    issuer.issued("a.example")
    client, server = showing(None), opened(tmp_path, "a.example.pem").context
    for each in (client, server):
        each.set_ciphers("ALL:@SECLEVEL=0")
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        shake(server, client)
    server.minimum_version = ssl.TLSVersion.TLSv1_1
    assert shake(server, client) == "TLSv1.1"


@pytest.mark.parametrize(
    ("host", "fits"),
    [("a.example", True), ("A.Example", True), ("x.b.example", True), ("127.0.0.1", True), ("::1", True),
     ("b.example", False), ("x.y.b.example", False), ("aa.example", False), ("example", False), ("", False)],
)  # fmt: skip
def test_a_certificate_fits_the_hosts_that_it_names(host: str, fits: bool) -> None:
    names = frozenset({"a.example", "*.b.example", "127.0.0.1", "::1"})
    assert ServerCertificate(begins=UnixTime(0), ends=UnixTime(1), names=names).fits(host) is fits


def test_a_certificate_ends_soon_within_14_days_or_a_third_of_a_short_life() -> None:
    year = ServerCertificate(begins=UnixTime(0), ends=UnixTime(365 * DAY), names=frozenset())
    assert not year.ends_soon(UnixTime(351 * DAY))
    assert year.ends_soon(UnixTime(351 * DAY + 1))
    week = ServerCertificate(begins=UnixTime(0), ends=UnixTime(6 * DAY), names=frozenset())
    assert not week.ends_soon(UnixTime(4 * DAY))
    assert week.ends_soon(UnixTime(4 * DAY + 1))


def test_a_self_signed_certificate_serves_as_any_other(tmp_path: Path) -> None:
    self_signed(tmp_path, "own")
    assert opened(tmp_path, "own.pem").certificate.names == frozenset()


FILES = "certificate: c.pem, key: k.pem"


@pytest.mark.parametrize(
    ("gateway", "wrong"),
    [
        ("{resource: 'http://g.example/mcp', tls: {%s}}", "is not https"),
        ("{resource: 'http://127.0.0.1/mcp', tls: {%s}}", "is not https"),
        ("{resource: 'https://g.example/mcp', tls: {%s, client_certificates: optional}}", "no `client_authorities`"),
        ("{resource: 'https://g.example/mcp', tls: {%s, client_authorities: a.pem}}", "no client is asked"),
        ("{resource: 'https://g.example/mcp', certificates: {secret: 'env:S'}, tls: {%s,"
         " client_certificates: optional, client_authorities: a.pem}}", "from their connections"),
        ("{resource: 'https://g.example/mcp', tls: {%s, unknown: 1}}", "known keys are `certificate`"),
        ("{resource: 'https://g.example/mcp', tls: {%s, client_certificates: required}}", "invalid enum value"),
    ],
)  # fmt: skip
def test_settings_that_contradict_themselves_are_refused(gateway: str, wrong: str) -> None:
    with pytest.raises(ConfigInvalid, match=wrong):
        config.parse(HEAD + gateway.replace("%s", FILES))


def test_an_issuer_can_demand_certificates_where_connections_show_them() -> None:
    asked = "client_certificates: optional, client_authorities: a.pem"
    head = HEAD.replace("optional", "mtls")
    settings = config.parse(f"{head}{{resource: 'https://g.example/mcp', tls: {{{FILES}, {asked}}}}}")
    assert settings.gateway.tls is not None
    with pytest.raises(ConfigInvalid, match="none are read here"):
        config.parse(f"{head}{{resource: 'https://g.example/mcp', tls: {{{FILES}}}}}")
