"""The gateway's public keys: given, or fetched from its JWK Set when a call needs them.

Must not judge a token. An unknown key id makes one fetch at most every `RETRY_S`, whoever asks.

Trust: whoever answers at the JWK Set's URL can sign calls for any person; hence https, no redirects, no proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc.jwk import OKPKey

from onbehalf.errors import CallKeysUnavailable, CallTokenRefused, ConfigInvalid
from onbehalf.identify.keys import KeysRefused, public_keys
from onbehalf.model import Json, canonical

__all__ = [
    "CACHE_S",
    "OUTAGE_S",
    "RETRY_S",
    "BlockingKeys",
    "Keys",
    "RemoteKeys",
    "StaticKeys",
    "keys_from",
    "read_keys",
]

CACHE_S = 300.0
"""How long fetched keys are used without asking again, and so how long a withdrawn key is still believed."""
OUTAGE_S = 3600.0
"""How long known keys are believed while the gateway's keys cannot be fetched."""
RETRY_S = 5.0
_TIMEOUT_S = 5.0
_MAX_BYTES = 65_536
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_FETCH_FAILS = (OSError, ValueError, http.client.HTTPException, TimeoutError, CallKeysUnavailable)

Fetch = Callable[[str], bytes]


class Keys(Protocol):
    """Ed25519 public keys of one gateway, by key id."""

    async def find(self, key_id: str) -> bytes:
        """The 32 bytes of a key. Raises CallTokenRefused for an unknown id, CallKeysUnavailable for no answer."""
        ...


class BlockingKeys(Protocol):
    """As `Keys`, for a thread that may wait: what WSGI needs."""

    def find_blocking(self, key_id: str) -> bytes:
        """The 32 bytes of a key. Raises CallTokenRefused for an unknown id, CallKeysUnavailable for no answer."""
        ...


_Given = TypeVar("_Given", bound=Keys | BlockingKeys)


def keys_from(
    *, issuer: str, jwks_url: str, jwks: Mapping[str, Json] | _Given | None, insecure_http_for_tests: bool = False
) -> RemoteKeys | StaticKeys | _Given:
    """Keys of a URL or of a JWK Set, or those that are given as keys. Raises ConfigInvalid for none or two of these."""
    if bool(jwks_url) == (jwks is not None):
        raise ConfigInvalid("expected exactly one of `jwks_url` and `jwks`")
    if jwks is None:
        return RemoteKeys(jwks_url, issuer=issuer, insecure_http_for_tests=insecure_http_for_tests)
    return StaticKeys(read_keys(jwks, issuer=issuer)) if isinstance(jwks, Mapping) else jwks


def read_keys(document: bytes | Mapping[str, Json], *, issuer: str) -> Mapping[str, bytes]:
    """The Ed25519 keys of a JWK Set, by key id. Raises CallKeysUnavailable where there is none."""
    try:
        data = document if isinstance(document, bytes) else canonical(dict(document))
        found = public_keys(data, issuer=issuer)
    except (KeysRefused, ValueError) as error:
        raise CallKeysUnavailable(f"the gateway's keys are refused: {error}") from error
    keys: dict[str, bytes] = {}
    for key_id, key in found.items():
        public = key.material.public_key
        if isinstance(key.material, OKPKey) and isinstance(public, Ed25519PublicKey):
            keys[key_id] = public.public_bytes_raw()
    if not keys:
        raise CallKeysUnavailable("the gateway publishes no Ed25519 key")
    return MappingProxyType(keys)


class StaticKeys:
    """Keys that were given and never change by themselves."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = dict(keys)

    async def find(self, key_id: str) -> bytes:
        """The key. Raises CallTokenRefused for an unknown id."""
        return _known(self._keys, key_id)

    def find_blocking(self, key_id: str) -> bytes:
        """As `find`."""
        return _known(self._keys, key_id)


class RemoteKeys:
    """Keys of a JWK Set at a URL, fetched when first needed and kept `CACHE_S`.

    One server asks either by `find`, from one event loop, or by `find_blocking`, from any number of threads.
    """

    def __init__(
        self, url: str, *, issuer: str, insecure_http_for_tests: bool = False,
        timer: Callable[[], float] = time.monotonic, fetch: Fetch | None = None,
    ) -> None:  # fmt: skip
        parts = urllib.parse.urlsplit(url)
        plain = parts.scheme == "http" and (parts.hostname in _LOOPBACK or insecure_http_for_tests)
        if not parts.hostname or parts.username is not None or not (parts.scheme == "https" or plain):
            raise ConfigInvalid(
                f"the gateway's keys cannot be fetched from `{url}`", hint="give an https URL; http is for loopback"
            )
        self._url, self._issuer, self._timer = url, issuer, timer
        self._fetch = fetch or fetch_keys
        self._keys: Mapping[str, bytes] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._one = asyncio.Lock()
        self._one_thread = threading.Lock()

    async def find(self, key_id: str) -> bytes:
        """The key. Raises CallTokenRefused for an unknown id, CallKeysUnavailable for no answer."""
        if not self._fresh(key_id):
            async with self._one:
                if not self._fresh(key_id) and self._timer() - self._tried_at >= RETRY_S:
                    await self._refresh()
        return self._believed(key_id)

    def find_blocking(self, key_id: str) -> bytes:
        """As `find`, for threads: one of them fetches, for some seconds, and the others wait for it."""
        if not self._fresh(key_id):
            with self._one_thread:
                if not self._fresh(key_id) and self._timer() - self._tried_at >= RETRY_S:
                    self._tried_at = self._timer()
                    with contextlib.suppress(*_FETCH_FAILS):  # `_believed` says when the known keys are too old
                        self._take(self._fetch(self._url))
        return self._believed(key_id)

    def _believed(self, key_id: str) -> bytes:
        if self._timer() - self._fetched_at > OUTAGE_S:
            raise CallKeysUnavailable("the gateway's keys cannot be fetched", hint=f"look at {self._url}")
        return _known(self._keys, key_id)

    def _fresh(self, key_id: str) -> bool:
        return key_id in self._keys and self._timer() - self._fetched_at <= CACHE_S

    async def _refresh(self) -> None:
        """Fetch once. A failure leaves the known keys, and is told by `find` when these are too old."""
        self._tried_at = self._timer()
        try:
            async with asyncio.timeout(2 * _TIMEOUT_S):
                document = await asyncio.to_thread(self._fetch, self._url)
            self._take(document)
        except _FETCH_FAILS:
            return

    def _take(self, document: bytes) -> None:
        self._keys = read_keys(document, issuer=self._issuer)
        self._fetched_at = self._timer()


def _known(keys: Mapping[str, bytes], key_id: str) -> bytes:
    key = keys.get(key_id)
    if key is None:
        raise CallTokenRefused(
            "the call token's key is not one of the gateway's", hint="is it the gateway whose keys are used here?"
        )
    return key


def fetch_keys(url: str) -> bytes:
    """The body of a 200 answer of at most 64 KiB, without redirects or proxies. Blocks up to some seconds.

    Raises OSError, HTTPException or ValueError.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    connection = (
        http.client.HTTPSConnection(host, parts.port, timeout=_TIMEOUT_S, context=ssl.create_default_context())
        if parts.scheme == "https"
        else http.client.HTTPConnection(host, parts.port, timeout=_TIMEOUT_S)
    )
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Accept": "application/jwk-set+json, application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise ValueError(f"the answer is {answer.status}, not 200")
        return _bounded(answer)
    finally:
        connection.close()


def _bounded(answer: http.client.HTTPResponse) -> bytes:
    ends = time.monotonic() + _TIMEOUT_S
    data = b""
    while chunk := answer.read1(8192):
        data += chunk
        if len(data) > _MAX_BYTES or time.monotonic() > ends:
            raise ValueError(f"the answer is longer than {_MAX_BYTES} bytes or too slow")
    return data
