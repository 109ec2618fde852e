"""A copy of the first issuer's metadata, for clients that look for it on the gateway's own host.

Some clients fetch RFC 8414 metadata from the MCP server's host before, or instead of, following RFC 9728. What they
get is what the issuer itself publishes, checked as `issuer_fetch` checks it and never changed. Strangers cause at most
one fetch per `_KEPT_SECONDS`, or per `_AGAIN_SECONDS` while it fails. Must not be asked about another issuer than it
was made for, and must not prove anybody.

Trust: as issuer_fetch. The copy names the issuer's endpoints, not ours: it leads nobody to us who would not go there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from onbehalf.config import IssuerSettings
from onbehalf.doors.issuer_fetch import FetchFailed, IssuerFetcher
from onbehalf.model import Json

__all__ = ["IssuerMetadata"]

_KEPT_SECONDS = 300.0
_AGAIN_SECONDS = 5.0


class IssuerMetadata:
    """What one issuer publishes of itself, at most 300 s old. Used within one event loop, ended by `aclose`."""

    def __init__(
        self, rule: IssuerSettings, fetcher: IssuerFetcher, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._rule = rule
        self._fetcher = fetcher
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._document: Mapping[str, Json] | None = None
        self._until = float("-inf")

    async def document(self) -> Mapping[str, Json] | None:
        """The metadata; None where it cannot be had now, and an older copy is not given instead.

        It has `authorization_endpoint` and `token_endpoint`, https but on loopback, and its `issuer` is the configured
        one (RFC 8414 section 3.3). Its other members are not looked at.
        """
        if self._monotonic() < self._until:
            return self._document
        async with self._lock:
            if self._monotonic() < self._until:  # whoever waited takes what was fetched meanwhile
                return self._document
            self._document = await self._fetched()
            lasts = _AGAIN_SECONDS if self._document is None else _KEPT_SECONDS
            self._until = self._monotonic() + lasts
            return self._document

    async def aclose(self) -> None:
        """Close all connections."""
        await self._fetcher.aclose()

    async def _fetched(self) -> Mapping[str, Json] | None:
        try:
            async with asyncio.timeout(8.0):  # a client gives up after 10 s, and is to be told
                return await self._fetcher.metadata(self._rule, "authorization_endpoint", "token_endpoint")
        except (FetchFailed, TimeoutError):
            return None
