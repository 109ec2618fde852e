"""Where the keys of a stream's transmitter are: in its SSF metadata, or at an address that the settings name.

All bounds are issuer_fetch.py's, and when keys are fetched issuer_keys.py's. Must not keep keys.

Trust: as issuer_fetch.py; a transmitter's keys are believed about its events only, whoever else they sign for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from onbehalf.config import IssuerSettings
from onbehalf.config_signals import StreamSettings, tenants_of
from onbehalf.doors.issuer_fetch import KEYS_BYTES, FetchFailed, IssuerFetcher
from onbehalf.identify import KeysRefused, PublicKey, public_keys

__all__ = ["StreamFetcher", "rule_of"]


def rule_of(stream: StreamSettings) -> IssuerSettings:
    """The transmitter as an issuer: its metadata is between host and path (SSF 1.0, as RFC 8615)."""
    parts = urlsplit(stream.issuer)
    place = f"{parts.scheme}://{parts.netloc}/.well-known/ssf-configuration{parts.path.rstrip('/')}"
    return IssuerSettings(
        issuer=stream.issuer, tenant=min(tenants_of(stream)), algorithms=stream.algorithms,
        metadata=stream.jwks or stream.metadata or place,
    )  # fmt: skip


class StreamFetcher(IssuerFetcher):
    """Fetches one stream's keys. `jwks` is where they are, "" for where the metadata says."""

    def __init__(self, jwks: str, *, insecure_http: bool = False, seconds: float = 8.0) -> None:
        super().__init__(insecure_http=insecure_http, seconds=seconds)
        self._jwks = jwks
        self._within = seconds

    async def keys(self, rule: IssuerSettings) -> Mapping[str, PublicKey]:
        """The keys that the transmitter publishes now, by id. Raises FetchFailed."""
        if not self._jwks:
            return await super().keys(rule)
        try:
            async with asyncio.timeout(self._within):
                return public_keys(await self._get(self._jwks, KEYS_BYTES, "its JWK Set"), issuer=rule.issuer)
        except TimeoutError as error:
            raise FetchFailed(f"it did not answer within {self._within:g} s") from error
        except KeysRefused as error:
            raise FetchFailed(str(error)) from error
