"""Which clients there are: configured ones, ones that registered (RFC 7591), and ones that publish their metadata.

Must not fetch (broker_fetch.py), keep (broker_sqlite.py, broker_postgres.py) or judge metadata (broker/client.py).

Trust: a published client is whoever serves its URL; of a registered one nothing is known but what it said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import orjson

from onbehalf.broker.client import Client, from_metadata, is_published_id
from onbehalf.broker.ports import Store
from onbehalf.broker.refused import OauthRefused
from onbehalf.model import UnixTime
from onbehalf.strict_json import NotStrict, strict_object

if TYPE_CHECKING:
    from onbehalf.doors.broker_fetch import DocumentFetcher

__all__ = ["KnownClients"]

_DEPTH = 8


class KnownClients:
    """Fulfils `broker.ports.Clients`. `hosts` are those whose clients are taken; empty for all."""

    def __init__(
        self, configured: Sequence[Client], store: Store, fetcher: DocumentFetcher, *, hosts: frozenset[str],
        clock: Callable[[], UnixTime],
    ) -> None:  # fmt: skip
        self._configured: Mapping[str, Client] = {client.id: client for client in configured}
        self._store = store
        self._fetcher = fetcher
        self._hosts = hosts
        self._clock = clock

    async def find(self, id: str) -> Client:
        """The client of that id. Raises OauthRefused for one that is not known, cannot be fetched, or is unsound."""
        if configured := self._configured.get(id):
            return configured
        if is_published_id(id):
            return await self._published(id)
        metadata = await self._store.client(id, now=self._clock()) if 1 <= len(id) <= 255 else None
        if metadata is None:
            raise OauthRefused(
                "invalid_client", "the client is not known here", status=401,
                hint="remove the connection in your AI client and add it again",
            )  # fmt: skip
        return from_metadata(metadata, id=id, origin="registered")

    async def keys(self, client: Client) -> bytes:
        """A client's JWK Set, as it published it. Raises OauthRefused."""
        if client.keys:
            return orjson.dumps(client.keys)
        if not client.keys_at:
            raise OauthRefused("invalid_client", "the client has no keys", status=401)
        return await self._fetcher.document(client.keys_at)

    async def _published(self, id: str) -> Client:
        if self._hosts and urlsplit(id).netloc not in self._hosts:
            raise OauthRefused(
                "unauthorized_client", "clients of this host are not taken here",
                hint="an administrator can allow it in `client_hosts`",
            )  # fmt: skip
        try:
            document = strict_object(await self._fetcher.document(id), depth=_DEPTH)
        except NotStrict as error:
            raise OauthRefused("invalid_client", f"what the client publishes is refused: {error}") from error
        if document.get("client_id") != id:
            raise OauthRefused("invalid_client", "what the client publishes is of another client")
        if "client_secret" in document:
            raise OauthRefused("invalid_client", "what the client publishes holds a secret")
        return from_metadata(document, id=id, origin="published")
