"""Looks at a server from outside, as a client would that knows only its URL: bounded requests, nothing followed.

Redirects are told and not followed, nothing is unpacked, no cookie is kept. A URL that another document names is asked
for only where `followable` says so. Must not judge what came back.

Trust: whoever answers may lie; an answer is only what was said, never proof of who said it beyond TLS.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.request import RequestBuilder

from onbehalf.doors.outbound import plain_client
from onbehalf.model import Json
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["Answer", "Looker", "followable", "is_loopback", "is_public"]

_DEPTH = 24
_MAX_URL = 2048
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back from one request. `problem` is a clause where nothing usable did, else ""; `status` is then 0.

    `headers` are by lower-case name, of those asked for only; `body` is the JSON object, {} where it is none.
    """

    url: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Json] = field(default_factory=dict)
    seconds: float = 0.0
    problem: str = ""


class _TooLarge(Exception):
    """More came than is read."""


class Looker:
    """Asks one server after another. `seconds` is for each request, `max_bytes` for each answer."""

    def __init__(self, *, seconds: float = 10.0, max_bytes: int = 1 << 20) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._client = plain_client(seconds=seconds, connect_seconds=seconds).build()

    async def get(self, url: str) -> Answer:
        """GET, for JSON. Raises nothing for what a server does."""
        return await self._asked(url, None, {"accept": "application/json"})

    async def post(self, url: str, message: Mapping[str, Json], headers: Mapping[str, str]) -> Answer:
        """POST of a JSON object. Raises nothing for what a server does."""
        return await self._asked(url, orjson.dumps(message), {"content-type": "application/json", **headers})

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def _asked(self, url: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                request = self._client.get(url) if body is None else self._client.post(url).body_bytes(body)
                for name, value in headers.items():
                    request = request.header(name, value)
                answer = await self._read(url, request)
        except TimeoutError:
            return Answer(url=url, seconds=self._seconds, problem=f"it did not answer within {self._seconds:g} s")
        except _TooLarge:
            return Answer(url=url, problem=f"its answer is larger than {self._max_bytes} bytes")
        except (PyreqwestError, ValueError) as error:
            return Answer(url=url, problem=f"it cannot be reached ({type(error).__name__})")
        status, said, content = answer
        try:
            found = strict_object(content, depth=_DEPTH)
        except NotStrict:
            found = {}
        return Answer(url=url, status=status, headers=said, body=found, seconds=time.monotonic() - began)

    async def _read(self, url: str, request: RequestBuilder) -> tuple[int, dict[str, str], bytes]:
        async with request.build_streamed() as response:
            parts, size = [], 0
            while (chunk := await response.body_reader.read_chunk()) is not None:
                size += len(chunk)
                if size > self._max_bytes:
                    raise _TooLarge
                parts.append(bytes(chunk))
            told = ("www-authenticate", "content-type", "location", "access-control-allow-origin")
            said = {name: value for name in told if (value := response.get_header(name)) is not None}
            return response.status, said, b"".join(parts)


def followable(url: object, *, seen_at: str) -> bool:
    """Whether a URL that the document at `seen_at` names may be asked for: https, or loopback http from there only.

    A document that came from elsewhere must not lead this machine to its own services, nor from TLS to none. Names are
    not resolved here: a company's issuer may well have a private address, and TLS says that it is the one named.
    """
    if not isinstance(url, str) or len(url) > _MAX_URL or _VISIBLE.fullmatch(url) is None:
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if not parts.hostname or "@" in parts.netloc or "#" in url or "\\" in url:
        return False
    if is_loopback(url):
        return is_loopback(seen_at)
    return parts.scheme == "https" and (is_loopback(seen_at) or not _literal(parts.hostname))


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine by name or address, without asking DNS."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host.lower() in _LOOPBACK or (_literal(host) and ipaddress.ip_address(host).is_loopback)


async def is_public(url: str) -> bool | None:
    """Whether every address of a URL's host is one that the internet reaches; None where it has no address."""
    host = urlsplit(url).hostname or ""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    return all(ipaddress.ip_address(str(each[4][0]).partition("%")[0]).is_global for each in found)


def _literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
