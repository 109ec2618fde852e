"""Documents that clients publish about themselves, fetched from addresses that anybody may have chosen (SSRF).

https only; a name is looked up once, every address it has must be public, and the connection goes to one of those: what
it means a moment later does not matter. No redirects, cookies or proxies, nothing unpacked; bounded in size and time,
and few at once. Must not know what a document says.

Trust: whoever holds a host name, and a certificate for it, says what is there.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import urlsplit

from pyreqwest.exceptions import PyreqwestError

from onbehalf.broker.refused import OauthRefused
from onbehalf.doors.outbound import plain_client
from onbehalf.doors.outbound_address import AddressRefused, is_loopback_name, pinned

__all__ = ["DocumentFetcher"]

_BYTES = 64 * 1024
_SECONDS = 5.0
_AT_ONCE = 8
_KEPT = 1000
_AGE_S = (60.0, 86_400.0, 600.0)
"""A document is kept for as long as its server says: at least, at most, and where it does not say."""


class DocumentFetcher:
    """Fetches and keeps documents by URL. Used within one event loop, ended by `aclose`."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._kept: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._under_way: dict[str, asyncio.Task[bytes]] = {}

    async def document(self, url: str) -> bytes:
        """What is at an https URL, fetched now or lately. Raises OauthRefused."""
        until, kept = self._kept.get(url, (0.0, b""))
        if until > self._monotonic():
            return kept
        if url not in self._under_way:
            if len(self._under_way) >= _AT_ONCE:
                raise OauthRefused("temporarily_unavailable", "too many clients are looked up at once", status=503)
            task = asyncio.create_task(self._fetched(url))
            self._under_way[url] = task
            task.add_done_callback(lambda done: self._over(url, done))
        return await asyncio.shield(self._under_way[url])

    async def aclose(self) -> None:
        """End what is under way."""
        tasks = [*self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, url: str, task: asyncio.Task[bytes]) -> None:
        self._under_way.pop(url, None)
        if not task.cancelled():
            task.exception()  # has been told to whoever waited; nobody may be waiting any more

    async def _fetched(self, url: str) -> bytes:
        try:
            async with asyncio.timeout(_SECONDS):
                document, age = await self._get(url)
        except (TimeoutError, AddressRefused, PyreqwestError, ValueError) as error:
            raise _refused(f"what the client publishes cannot be fetched ({type(error).__name__})") from error
        self._kept[url] = (self._monotonic() + age, document)
        self._kept.move_to_end(url)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return document

    async def _get(self, url: str) -> tuple[bytes, float]:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or is_loopback_name(parts.hostname):
            raise _refused("what a client publishes is at a public https address")
        host, address, port = await pinned(url, private=False, seconds=_SECONDS)
        builder = plain_client(seconds=_SECONDS, connect_seconds=_SECONDS).https_only(True).resolve(host, address, port)
        async with (
            builder.build() as client,
            client.get(url).header("accept", "application/json").build_streamed() as response,
        ):
            if response.status != 200 or response.get_header("content-encoding") not in (None, "identity"):
                raise _refused(f"what the client publishes was answered with HTTP status {response.status}")
            data = b""
            while (chunk := await response.body_reader.read_chunk()) is not None:
                data += bytes(chunk)
                if len(data) > _BYTES:
                    raise _refused(f"what the client publishes is larger than {_BYTES} bytes")
            return data, _age(response.get_header("cache-control") or "")


def _age(cache_control: str) -> float:
    least, most, default = _AGE_S
    words = [word.strip().lower() for word in cache_control.split(",")]
    if "no-store" in words or "no-cache" in words:
        return least
    stated = next((word.partition("=")[2] for word in words if word.startswith("max-age=")), "")
    return min(max(float(stated), least), most) if stated.isdigit() and len(stated) < 12 else default


def _refused(message: str) -> OauthRefused:
    return OauthRefused("invalid_client", message, hint="tell whoever looks after the client")
