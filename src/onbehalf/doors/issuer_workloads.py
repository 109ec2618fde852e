"""Trust domains whose workloads call with JWT-SVIDs: their bundles, fetched or read, and who is asked for.

When a bundle is fetched again and how long it is believed is issuer_keys.py's, as for issuers. Must not check a claim
itself (`identify.spiffe` does).

Trust: whoever can write a bundle's file, or answers at its URL by the certificates of the web, can be every workload of
its trust domain, and nobody of another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onbehalf.config import IssuerSettings, WorkloadSettings
from onbehalf.doors.issuer_fetch import KEYS_BYTES, FetchFailed, IssuerFetcher
from onbehalf.doors.issuer_keys import IssuerKeys
from onbehalf.errors import ConfigInvalid
from onbehalf.identify import (
    KeysRefused,
    Peeked,
    PublicKey,
    bundle_of,
    check_svid_algorithm,
    check_tenants,
    issuer_of,
    trust_domain_of,
    verify_svid,
)
from onbehalf.model import Caller, UnixTime

__all__ = ["Workloads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Domain:
    settings: WorkloadSettings
    keys: IssuerKeys


class Workloads:
    """The configured trust domains. Made anywhere, used within one event loop; the fetcher is closed by whoever gave
    it, the keys by `keys`."""

    def __init__(
        self, workloads: Sequence[WorkloadSettings], fetcher: IssuerFetcher, *, base: Path, resource: str,
        monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        """`base` is the configuration's directory, where bundles are looked for by relative paths. Raises
        ConfigInvalid."""
        self._resource = resource
        self._domains: dict[str, _Domain] = {}
        for each in workloads:
            if each.trust_domain in self._domains:
                raise ConfigInvalid(f"the trust domain `{each.trust_domain}` stands twice")
            rule = IssuerSettings(
                issuer=issuer_of(each.trust_domain), tenant=each.tenant, outage_seconds=each.outage_seconds
            )
            check_tenants(rule)
            source = _Bundles(each, fetcher, base)
            keys = IssuerKeys(rule, source, monotonic=monotonic)
            self._domains[each.trust_domain] = _Domain(settings=each, keys=keys)

    def __bool__(self) -> bool:
        return bool(self._domains)

    @property
    def keys(self) -> Sequence[IssuerKeys]:
        """The keys of all trust domains."""
        return [each.keys for each in self._domains.values()]

    def has(self, peeked: Peeked) -> bool:
        """Whether a token says that it is of a workload of one of these trust domains. Nothing of it is proven."""
        return bool(self._domains) and trust_domain_of(peeked.claimed) in self._domains

    async def prove(self, peeked: Peeked, *, now: UnixTime) -> tuple[Caller, PublicKey, IssuerKeys]:
        """The workload that calls, and by which key. Raises an IdentifyError."""
        domain = self._domains[trust_domain_of(peeked.claimed)]
        check_svid_algorithm(peeked, domain.settings)  # before the key: what cannot be accepted causes no fetch
        key = await domain.keys.find(peeked.key_id)
        caller = verify_svid(peeked, workload=domain.settings, key=key, audience=self._resource, now=now)
        return caller, key, domain.keys


class _Bundles:
    """Where one trust domain's bundle comes from."""

    def __init__(self, settings: WorkloadSettings, fetcher: IssuerFetcher, base: Path) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._base = base
        self._sequence = -1
        if settings.bundle_url:
            fetcher.check_url(settings.bundle_url)

    async def keys(self, rule: IssuerSettings) -> Mapping[str, PublicKey]:
        """The keys for JWT-SVIDs that the bundle has now. Raises FetchFailed."""
        settings = self._settings
        if settings.bundle_url:
            document = await self._fetcher.document(settings.bundle_url, KEYS_BYTES, "its bundle")
        else:
            document = await asyncio.to_thread(_read, self._base / settings.bundle_file)
        try:
            sequence, found = bundle_of(document, trust_domain=settings.trust_domain)
        except KeysRefused as error:
            raise FetchFailed(str(error)) from error
        if sequence < self._sequence:  # an old bundle put back would bring withdrawn keys back
            raise FetchFailed(f"its bundle has the sequence {sequence}, after {self._sequence}")
        self._sequence = sequence
        return found


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            document = file.read(KEYS_BYTES + 1)
    except OSError as error:
        raise FetchFailed(f"its bundle `{path.name}` cannot be read: {error.strerror}") from error
    if len(document) > KEYS_BYTES:
        raise FetchFailed(f"its bundle `{path.name}` is larger than {KEYS_BYTES} bytes")
    return document
