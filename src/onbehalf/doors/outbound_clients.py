"""Exchanges with servers that are asked now and then, each at a URL of its own: one client a URL, one trust store.

What outbound_http does, for whoever has more than one address to ask. Must not know what is sent, or what an answer
means, or choose a URL: that is the caller's to check.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from onbehalf.doors.outbound_http import HttpClient, Reply, trusting

__all__ = ["HttpClients"]

_KEPT = 32
"""URLs come from documents of others: those beyond are asked over a connection of their own, which is then closed."""


class HttpClients:
    """Used in one event loop, ended by `aclose`. `seconds` is for each exchange."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._tls: ssl.SSLContext | None = None
        self._kept: dict[str, HttpClient] = {}

    @asynccontextmanager
    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncIterator[Reply]:
        """Send one request, once; the answer, from its head on, until the context ends.

        Raises HttpFailed, as may reading the answer, and ValueError for what cannot stand in a request.
        """
        client = self._kept.get(url) or self._client(url)
        if len(self._kept) < _KEPT:
            self._kept[url] = client
        try:
            reply = await client.send(method, headers.items(), body)
            try:
                yield reply
            finally:
                reply.close()
        finally:
            if self._kept.get(url) is not client:
                await client.aclose()

    async def aclose(self) -> None:
        """Close all connections; exchanges under way fail."""
        for client in self._kept.values():
            await client.aclose()

    def _client(self, url: str) -> HttpClient:
        if self._tls is None and url.startswith("https:"):  # read once, and only where it is needed
            self._tls = trusting()
        return HttpClient(url, seconds=self._seconds, tls=self._tls)
