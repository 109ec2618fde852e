"""Bounds on what an issuer may answer: size, time, redirects, packing, shape."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from doors.issuer_house import KEYS, METADATA, OPENID, Issuer, issuing
from identify.minting import jwks, public
from onbehalf.config import IssuerSettings
from onbehalf.doors.issuer_fetch import FetchFailed, IssuerFetcher


def fetched(change: Callable[[Issuer], None], *, seconds: float = 8.0) -> tuple[set[str], str, Issuer]:
    """The key ids had from an issuer after a change to it, or why there are none."""

    async def run(issuer: Issuer) -> tuple[set[str], str]:
        fetcher = IssuerFetcher(seconds=seconds)
        try:
            return set(await fetcher.keys(issuer.rule())), ""
        except FetchFailed as error:
            return set(), str(error)
        finally:
            await fetcher.aclose()

    with issuing() as issuer:
        change(issuer)
        return *asyncio.run(run(issuer)), issuer


def padded(document: bytes, size: int) -> bytes:
    return document + b" " * (size - len(document))


def test_a_key_set_of_256_kib_is_read_and_one_byte_more_refused() -> None:
    def of(size: int) -> Callable[[Issuer], None]:
        return lambda at: at.answers.update({KEYS: (200, {}, padded(jwks(public("ES256")), size))})

    assert fetched(of(256 * 1024))[0] == {"ES256"}
    assert "larger than" in fetched(of(256 * 1024 + 1))[1]


def test_metadata_of_64_kib_is_read_and_one_byte_more_refused() -> None:
    def of(size: int) -> Callable[[Issuer], None]:
        return lambda at: at.answers.update({METADATA: (200, {}, padded(at.answers[METADATA][2], size))})

    assert fetched(of(64 * 1024))[0] == {"ES256"}
    assert "larger than" in fetched(of(64 * 1024 + 1))[1]


def test_a_body_longer_than_the_bound_is_refused_without_a_declared_length() -> None:
    def change(at: Issuer) -> None:
        at.answers[KEYS] = (200, {"content-length": ""}, b" " * (300 * 1024))

    assert "larger than" in fetched(change)[1]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", [METADATA, KEYS])
def test_a_redirect_is_not_followed(path: str, status: int) -> None:
    def change(at: Issuer) -> None:
        at.answers["/moved"] = at.answers[path]
        at.answers[path] = (status, {"location": f"{at.url}/moved"}, b"")

    found, reason, issuer = fetched(change)
    assert not found
    assert str(status) in reason
    assert not issuer.asked["/moved"]


@pytest.mark.parametrize("path", [METADATA, KEYS])
def test_a_packed_answer_is_refused(path: str) -> None:
    def change(at: Issuer) -> None:
        at.answers[path] = (200, {"content-encoding": "gzip"}, at.answers[path][2])

    assert "packed" in fetched(change)[1]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"issuer": "a", "issuer": "b"}', b'{"keys": 1}', b"[" * 9999]
)
@pytest.mark.parametrize("path", [METADATA, KEYS])
def test_an_answer_that_is_no_strict_document_is_refused(path: str, body: bytes) -> None:
    assert not fetched(lambda at: at.answers.update({path: (200, {}, body)}))[0]


@pytest.mark.parametrize("status", [204, 206, 400, 401, 404, 500, 503])
def test_a_status_other_than_200_is_refused(status: int) -> None:
    def change(at: Issuer) -> None:
        at.answers[KEYS] = (status, {}, at.answers[KEYS][2])

    assert str(status) in fetched(change)[1]


def test_a_slow_issuer_is_given_up_in_time() -> None:
    began = time.monotonic()
    reason = fetched(lambda at: setattr(at, "pause", 2.0), seconds=0.2)[1]
    assert "did not answer within 0.2 s" in reason
    assert time.monotonic() - began < 1.5


def test_an_issuer_that_trickles_is_given_up_in_time() -> None:
    async def run() -> str:
        async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            try:
                for _ in range(200):
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.05)
            except OSError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(trickle, "127.0.0.1", 0)
        fetcher = IssuerFetcher(seconds=0.3)
        try:
            with pytest.raises(FetchFailed) as failed:
                await fetcher.keys(Issuer(server.sockets[0].getsockname()[1]).rule())
        finally:
            await fetcher.aclose()
            server.close()
        return str(failed.value)

    assert "did not answer within 0.3 s" in asyncio.run(run())


def test_metadata_that_cannot_be_used_at_one_place_is_looked_for_at_the_next() -> None:
    def change(at: Issuer) -> None:
        at.answers[OPENID] = at.answers[METADATA]
        at.json(METADATA, {"issuer": "https://login.globex.example", "jwks_uri": at.url + KEYS})

    assert fetched(change)[0] == {"ES256"}


@pytest.mark.parametrize("other", ["https://login.globex.example", None, "", 7])
def test_metadata_of_another_issuer_is_refused(other: object) -> None:
    reason = fetched(lambda at: at.json(METADATA, {"issuer": other, "jwks_uri": at.url + KEYS}))[1]
    assert "another issuer" in reason


@pytest.mark.parametrize(
    "uri",
    [
        None, "", 7, "http://keys.example/jwks", "ftp://127.0.0.1/k", "file:///etc/passwd", "//127.0.0.1/k", "/k",
        "https://", "https://user@127.0.0.1/k", "https://a b/", "https://a.example:99999/", "https://[::1/k",
        "http://127.0.0.1.evil.example/k", "http://127.0.0.1\\@evil.example/k", "HTTP://keys.example/k",
        "https://a.example/#k", "https://a.example/" + "x" * 2048,
    ],
)  # fmt: skip
def test_a_jwks_uri_that_is_no_https_url_is_refused(uri: object) -> None:
    assert "no https `jwks_uri`" in fetched(lambda at: at.json(METADATA, {"issuer": at.url, "jwks_uri": uri}))[1]


def test_metadata_over_https_may_not_lead_to_keys_over_http() -> None:
    rule = IssuerSettings(issuer="https://a.example", tenant="a")
    document = b'{"issuer": "https://a.example", "jwks_uri": "http://127.0.0.1/k"}'
    with pytest.raises(FetchFailed, match="from https to http"):
        IssuerFetcher()._checked(document, "https://a.example/.well-known/openid-configuration", rule, ("jwks_uri",))
