"""What is fetched over https is fetched from whom the trust store vouches for, and from nobody else."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from doors.tls_house import Authority, answering, authority
from onbehalf.doors import upstream_openapi_document
from onbehalf.doors.upstream_openapi_document import document_bytes
from onbehalf.errors import ConfigInvalid

DOCUMENT = json.dumps({"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {}}).encode()
DIGEST = "sha256:" + hashlib.sha256(DOCUMENT).hexdigest()
URL = "https://api.test/v1/openapi.json"
Contexts = Callable[[Authority, Authority], ssl.SSLContext]


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    made = authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.store))
    return made


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def fetched(
    monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext, reply: bytes, url: str = URL
) -> tuple[bytes | str, list[bytes]]:
    """The document, or why there is none, and what the server was asked. The name resolves to loopback here only."""
    seen: list[bytes] = []
    async with answering(context, reply, seen) as port:

        async def resolved(_: str, *, private: bool, seconds: float) -> tuple[str, str, int]:
            assert (private, seconds > 0) == (False, True)
            return "api.test", "127.0.0.1", port

        monkeypatch.setattr(upstream_openapi_document, "pinned", resolved)
        try:
            return await document_bytes(url, base=Path("/"), hosts=("api.test",), digest=DIGEST), seen
        except ConfigInvalid as error:
            return error.message, seen


def test_a_document_is_fetched_over_https_and_is_the_pinned_one(
    known: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, seen = asyncio.run(fetched(monkeypatch, known.server("api.test"), answer(DOCUMENT)))
    assert data == DOCUMENT
    [asked] = seen
    assert asked.startswith(b"GET /v1/openapi.json HTTP/1.1\r\n")
    assert b"host: api.test\r\n" in asked.lower()
    assert b"authorization" not in asked.lower()


def test_another_document_than_the_pinned_one_is_refused(known: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    said, _ = asyncio.run(fetched(monkeypatch, known.server("api.test"), answer(DOCUMENT + b" ")))
    assert "not as pinned" in str(said)


@pytest.mark.parametrize(
    "context",
    [
        lambda _, foreign: foreign.server("api.test"),
        lambda known, _: known.server("other.test"),
        lambda known, _: known.server("api.test", ended=True),
    ],
    ids=["of an unknown authority", "for another name", "that has ended"],
)
def test_a_server_with_a_certificate_is_not_asked(
    known: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: Contexts
) -> None:
    made = context(known, authority(tmp_path, "foreign"))
    said, seen = asyncio.run(fetched(monkeypatch, made, answer(DOCUMENT)))
    assert said == "the document cannot be fetched"
    assert seen == []


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (answer(b"", "location: https://api.test/else", status="302 Found"), "HTTP status 302"),
        (answer(DOCUMENT, status="404 Not Found"), "HTTP status 404"),
        (answer(DOCUMENT, "content-encoding: gzip"), "packed"),
        (answer(b" " * (4 * 2**20 + 1)), "larger than"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{", "cannot be fetched"),
    ],
    ids=["redirect", "absent", "packed", "too large", "cut off"],
)
def test_an_answer_that_is_no_document_is_refused(
    known: Authority, monkeypatch: pytest.MonkeyPatch, reply: bytes, says: str
) -> None:
    said, seen = asyncio.run(fetched(monkeypatch, known.server("api.test"), reply))
    assert says in str(said)
    assert len(seen) == 1
