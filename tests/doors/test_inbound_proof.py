from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onbehalf import config
from onbehalf.build_proof import certificate_headers
from onbehalf.doors.inbound_proof import CONNECTION_CERTIFICATE, CertificateHeaders, certificate_of, presented
from onbehalf.errors import ConfigInvalid, CredentialsRefused, DpopMissing, OnbehalfError, TokenMalformed, TokenMissing
from onbehalf.model import Presented
from onbehalf.places import paths

SECRET = b"s" * 32
WHERE = CertificateHeaders(header=b"client-cert", secret_header=b"client-cert-secret", secret=SECRET)
CERTIFIED = {b"client-cert": b":AA==:", b"client-cert-secret": SECRET}


def read(headers: Mapping[bytes, bytes], where: CertificateHeaders | None = WHERE) -> Presented:
    return presented(headers, method="POST", certificates=where)


def by(value: bytes, **more: bytes) -> dict[bytes, bytes]:
    return {b"authorization": value, **{name.replace("_", "-").encode(): each for name, each in more.items()}}


def test_a_bearer_token_alone_shows_nothing_besides() -> None:
    for where in (None, WHERE):
        for value in (b"Bearer a.b.c", b"bearer a.b.c", b"BEARER  a.b.c"):
            assert read(by(value), where) == Presented(token="a.b.c")
    assert read(by(b"Bearer a.b.c", dpop=b"x")).shown is None
    assert read({**by(b"Bearer a.b.c"), **CERTIFIED}, None).shown is None, "not read where it is not configured"
    assert read(by(b"Bearer a.b.c", client_cert=b"", client_cert_secret=SECRET)).shown is None, "no certificate"


def test_a_proof_and_a_certificate_are_shown_with_the_method() -> None:
    shown = read({**by(b"DPoP a.b.c", dpop=b"p"), **CERTIFIED}).shown
    assert shown is not None
    assert (shown.dpop, shown.method, shown.proof, shown.certificate) == (True, "POST", "p", ":AA==:")
    beside = read({**by(b"Bearer a.b.c"), **CERTIFIED}).shown
    assert beside is not None
    assert (beside.dpop, beside.proof, beside.certificate) == (False, "", ":AA==:")


@pytest.mark.parametrize("secret", [None, b"", b"s" * 31, b"s" * 33, b"S" * 32, b"\xff" * 32])
def test_a_certificate_without_the_shared_secret_is_refused_under_each_scheme(secret: bytes | None) -> None:
    lines = {b"client-cert": b":AA==:"} | ({} if secret is None else {b"client-cert-secret": secret})
    for each in (by(b"Bearer a.b.c"), by(b"DPoP a.b.c", dpop=b"p")):
        with pytest.raises(CredentialsRefused):
            read({**each, **lines})


@pytest.mark.parametrize(
    "value", [b"", b"Basic YTpi", b"DPoPx a", b"Bearer", b"DPoP", b"Bearer a,b", b"DPoP a b", b"a.b.c"]
)
def test_another_scheme_or_no_token_is_refused(value: bytes) -> None:
    with pytest.raises((TokenMissing, TokenMalformed)):
        read(by(value, dpop=b"p"))


def test_dpop_without_its_header_is_refused() -> None:
    with pytest.raises(DpopMissing):
        read(by(b"DPoP a.b.c"))


@given(st.dictionaries(st.sampled_from([b"authorization", b"dpop", *CERTIFIED]), st.binary(max_size=40)))
def test_whatever_the_headers_are_there_is_a_token_or_a_refusal(headers: dict[bytes, bytes]) -> None:
    try:
        found = read(headers)
    except OnbehalfError:
        return
    assert found.token


def test_no_repr_holds_a_secret_a_proof_or_a_certificate() -> None:
    found = read({**by(b"DPoP the.token.itself", dpop=b"the-proof"), **CERTIFIED})
    for secret in ("the.token.itself", "the-proof", ":AA==:", SECRET.decode()):
        assert secret not in repr(found)
        assert secret not in repr(WHERE)


def test_a_shared_secret_that_is_short_is_refused_at_start(tmp_path: Path) -> None:
    text = (
        'gateway: {resource: "https://g.example/mcp", certificates: {secret: "file:secret"}}\n'
        'issuers: [{issuer: "https://login.example", tenant: acme}]\nupstreams: {}\n'
    )
    settings = config.parse(text)
    places = paths(tmp_path / "onbehalf.yaml", settings)
    for secret, good in (("x" * 31, False), (" " * 40, False), (f"{'x' * 31}\n", False), ("x" * 32, True)):
        (tmp_path / "secret").write_text(secret, encoding="utf-8")
        if good:
            found = certificate_headers(settings, places)
            assert found is not None
            assert found.names == {b"client-cert", b"client-cert-secret"}
        else:
            with pytest.raises(ConfigInvalid):
                certificate_headers(settings, places)


def test_a_connections_certificate_is_the_transports_word_and_no_header_is_read_beside_it() -> None:
    scope = {"extensions": {CONNECTION_CERTIFICATE: {"certificate": ":AA==:"}}}
    assert certificate_of(scope) == ":AA==:"
    for none in ({}, {"extensions": {}}, {"extensions": {"tls": {"certificate": ":AA==:"}}}):
        assert certificate_of(none) == ""
    headers = {**by(b"Bearer a.b.c"), b"client-cert": b":BB==:", CONNECTION_CERTIFICATE.encode(): b":BB==:"}
    shown = presented(headers, method="POST", certificates=None, connection=":AA==:").shown
    assert shown is not None
    assert (shown.dpop, shown.certificate) == (False, ":AA==:")
    assert presented(headers, method="POST", certificates=None).shown is None
    with pytest.raises(CredentialsRefused):
        certificate_of({"extensions": {CONNECTION_CERTIFICATE: {"certificate": f":{'A' * 8192}:"}}})
