"""A served gateway that ends TLS itself, and clients with certificates and tokens that are bound to them (RFC 8705)."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from company import Company, company, onbehalf, said, wait_for
from doors.tls_house import Authority, Issued, authority, self_signed
from identify.proving import certificate_hash, escaped_pem, rfc9440
from proving_client import body_of, headers_of

TLS = """  limits: {call_seconds: 8}
  tls:
    {certificate: 127.0.0.1.pem, key: 127.0.0.1.pem, client_certificates: optional, client_authorities: clients.pem}"""


@dataclass(frozen=True, kw_only=True)
class House:
    """`known` and `other` are of an authority that the gateway knows, `own` is self-signed and known by itself."""

    at: Company
    process: subprocess.Popen[str]
    servers: Authority
    known: Issued
    other: Issued
    own: Issued
    foreign: Issued
    unsigned: Issued

    def context(self, shown: Issued | None = None) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.load_verify_locations(self.servers.store)
        if shown is not None:
            made.load_cert_chain(shown.path)
        return made

    def token(self, bound: Issued) -> str:
        return self.at.token(cnf={"x5t#S256": certificate_hash(bound.der)})

    def send(self, token: str, shown: Issued | None = None, body: Any = None, **more: str) -> httpx2.Response:
        asked = body or body_of()
        headers = headers_of(asked["method"], name=asked["params"].get("name", ""))
        headers |= {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): each for name, each in more.items()}}
        with httpx2.Client(verify=self.context(shown), trust_env=False, timeout=20) as client:
            return client.post(f"{self.at.gateway}/mcp", json=asked, headers=headers)

    def connected(self, context: ssl.SSLContext, **more: Any) -> ssl.SSLSocket:
        port = int(self.at.gateway.rpartition(":")[2])
        return context.wrap_socket(
            socket.create_connection(("127.0.0.1", port), 10), server_hostname="127.0.0.1", **more
        )

    def asked(self, connection: ssl.SSLSocket, token: str) -> int:
        """The status that one `GET` on this connection is answered with: 405 once the token is proven."""
        host = self.at.gateway.removeprefix("https://")
        head = f"GET /mcp HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
        connection.sendall(head.encode())
        return int(connection.recv(4096).split(b" ")[1])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with company(tmp_path_factory.mktemp("tls")) as made:
        made.edit("  limits: {call_seconds: 8}", TLS)
        made.edit(f'"{made.gateway}/mcp"', f'"{made.gateway.replace("http:", "https:")}/mcp"')
        made.gateway = made.gateway.replace("http:", "https:")
        servers, clients = authority(made.directory, "servers"), authority(made.directory, "known-clients")
        servers.issued("127.0.0.1")
        own = self_signed(made.directory, "own")
        text = clients.store.read_text() + x509.load_der_x509_certificate(own.der).public_bytes(Encoding.PEM).decode()
        (made.directory / "clients.pem").write_text(text)
        with made.serving() as process:
            yield House(
                at=made, process=process, servers=servers, own=own,
                known=clients.issued("known", client=True), other=clients.issued("other", client=True),
                foreign=authority(made.directory, "strangers").issued("foreign", client=True),
                unsigned=self_signed(made.directory, "unsigned"),
            )  # fmt: skip


def code(answer: httpx2.Response) -> str:
    return str(answer.json()["error"]["data"]["onbehalf/denial"]["code"])


def tools(answer: httpx2.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {tool["name"] for tool in answer.json()["result"]["tools"]}


def test_a_bearer_token_is_taken_over_tls_with_a_certificate_and_without(house: House) -> None:
    for shown in (None, house.known, house.own):
        assert tools(house.send(house.at.token(), shown)) == {"notes_list", "desk_read", "desk_write"}


def test_a_token_bound_to_a_certificate_is_taken_on_a_connection_with_it_and_on_no_other(house: House) -> None:
    for bound, wrong in ((house.known, house.other), (house.own, house.known)):
        token = house.token(bound)
        for _ in range(2):  # the second time from what is kept
            assert tools(house.send(token, bound))
            for refused in (house.send(token), house.send(token, wrong)):
                assert (refused.status_code, code(refused)) == (401, "proof_missing")


def test_a_header_that_claims_a_certificate_is_none(house: House) -> None:
    token = house.token(house.known)
    claims = ({"Client_Cert": rfc9440(house.known.der)}, {"Client_Cert": escaped_pem(house.known.der)},
              {"X_Client_Cert": escaped_pem(house.known.der)}, {"Forwarded": "proto=https"},
              {"onbehalf.certificate": rfc9440(house.known.der)})  # fmt: skip
    for claim in claims:
        for shown in (None, house.other):
            assert code(house.send(token, shown, **claim)) == "proof_missing"
        assert tools(house.send(token, house.known, **claim)), "a header takes nothing away either"


@pytest.mark.parametrize("who", ["foreign", "unsigned"])
def test_a_certificate_that_no_known_authority_vouches_for_ends_the_connection(house: House, who: str) -> None:
    shown = getattr(house, who)
    with pytest.raises(httpx2.TransportError):
        house.send(house.token(shown), shown)
    with pytest.raises(httpx2.TransportError):
        house.send(house.at.token(), shown)


def test_each_request_of_a_connection_is_held_to_the_one_certificate_of_it(house: House) -> None:
    with house.connected(house.context(house.known)) as connection:
        for bound, status in ((house.known, 405), (house.other, 401), (house.known, 405), (house.own, 401)):
            assert house.asked(connection, house.token(bound)) == status
    with house.connected(house.context(house.other)) as connection:
        assert house.asked(connection, house.token(house.known)) == 401


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_has_the_certificate_of_its_handshake(house: House, version: ssl.TLSVersion) -> None:
    context = house.context(house.known)
    context.minimum_version = context.maximum_version = version
    with house.connected(context) as first:
        assert house.asked(first, house.token(house.known)) == 405
        session = first.session
    with house.connected(context, session=session) as again:
        assert again.session_reused
        assert house.asked(again, house.token(house.known)) == 405
        assert house.asked(again, house.token(house.other)) == 401


def test_a_call_on_record_says_which_certificate_it_was(house: House) -> None:
    asked = body_of("tools/call", name="desk_read", arguments={})
    call = house.send(house.token(house.known), house.known, asked).json()["result"]["_meta"]["onbehalf/call"]
    told = " ".join(said("explain", call, "--config", house.at.config).out.split())
    assert f"it holds the certificate {certificate_hash(house.known.der)}." in told


def test_the_metadata_says_that_bound_tokens_are_taken(house: House) -> None:
    address = f"{house.at.gateway}/.well-known/oauth-protected-resource"
    metadata = httpx2.get(address, verify=house.context(), trust_env=False).json()
    assert metadata["resource"] == f"{house.at.gateway}/mcp"
    assert metadata["tls_client_certificate_bound_access_tokens"] is True


# --- the port --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_nothing_older_than_tls_1_2_is_spoken(house: House) -> None:
    old = house.context()
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        house.connected(old)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        new = house.context()
        new.minimum_version = new.maximum_version = version
        with house.connected(new) as connection:
            assert house.asked(connection, house.at.token()) == 405


def test_plain_http_is_not_answered_on_that_port_and_the_admin_port_is_plain(house: House) -> None:
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"{house.at.gateway.replace('https:', 'http:')}/healthz", trust_env=False, timeout=5)
    assert house.at.get("/healthz").json()["status"] == "ok"
    assert "Traceback" not in house.at.served_log()


def test_check_says_for_whom_the_certificate_is_and_until_when(house: House) -> None:
    told = " ".join(said("check", "--config", house.at.config).out.split())
    assert "tls: its certificate is for 127.0.0.1, until" in told


def test_a_renewed_certificate_is_shown_after_sighup_and_a_bad_one_is_not_taken(house: House) -> None:
    def served() -> bytes:
        with house.connected(house.context()) as connection:
            return connection.getpeercert(binary_form=True) or b""

    with house.connected(house.context(house.known)) as kept:
        before = served()
        renewed = house.servers.issued("127.0.0.1", "gateway.example")
        house.process.send_signal(signal.SIGHUP)
        wait_for(lambda: served() == renewed.der, what="the renewed certificate", said=house.at.served_log)
        assert before != renewed.der
        assert house.asked(kept, house.token(house.known)) == 405, "an open connection goes on"
    token = house.token(house.known)
    assert tools(house.send(token, house.known)), "clients are known by the renewed context too"
    assert code(house.send(token, house.other)) == "proof_missing"
    renewed.path.write_text("nothing")
    house.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "the old certificate stays in force" in house.at.served_log(), what="a word in the log")
    assert served() == renewed.der
    told = said("check", "--config", house.at.config)
    assert (told.code, "no certificate that can be read" in " ".join(told.out.split())) == (1, True)
    house.servers.issued("gateway.example").path.rename(renewed.path)
    told = said("check", "--config", house.at.config)
    assert "for gateway.example, and clients connect to 127.0.0.1" in " ".join(told.out.split())


def test_a_gateway_with_wrong_files_does_not_start_and_says_which(tmp_path: Path) -> None:
    with company(tmp_path, desk=False) as made:
        made.edit("  limits: {call_seconds: 8}", "  tls: {certificate: c.pem, key: c.pem}")
        made.edit(f'"{made.gateway}/mcp"', f'"{made.gateway.replace("http:", "https:")}/mcp"')
        ended = onbehalf("serve", "--config", made.config)
        assert "c.pem` is no certificate that can be read: no such file" in ended.stderr
        assert "(config_invalid)" in ended.stderr
        assert ended.returncode
