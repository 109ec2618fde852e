"""What the demo issuer remembers, all in memory and all bounded: clients, logins under way, codes, refresh tokens.

Oldest entries are dropped when a box is full. Must not speak HTTP.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import urlsplit

__all__ = ["Box", "Client", "Code", "Login", "Refresh", "redirect_allowed", "redirect_matches"]

T = TypeVar("T")
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_NEVER = {"javascript", "data", "file", "blob", "vbscript", "about", "ws", "wss", "ftp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A public client that registered itself (RFC 7591)."""

    id: str
    name: str
    redirect_uris: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """An authorization request that waits for a person. `browser` binds it to the browser that began it."""

    client: Client
    redirect_uri: str
    state: str
    challenge: str
    resource: str
    scope: str
    browser: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """An authorization code's meaning. `family` ties it to the refresh tokens that come from it."""

    login: Login
    subject: str
    family: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refresh:
    """A refresh token's meaning."""

    client_id: str
    subject: str
    resource: str
    scope: str
    family: str


class Box(Generic[T]):
    """Values under secret names, at most `size` of them, each for `lifetime_s` seconds; `take` is once only."""

    def __init__(self, *, size: int, lifetime_s: float, clock: Callable[[], float]) -> None:
        self._size, self._lifetime_s, self._clock = size, lifetime_s, clock
        self._values: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def put(self, name: str, value: T) -> None:
        """Keep a value; the oldest goes when the box is full."""
        self._values[name] = (self._clock() + self._lifetime_s, value)
        while len(self._values) > self._size:
            self._values.popitem(last=False)

    def get(self, name: str) -> T | None:
        """The value, if it is still good."""
        until, value = self._values.get(name, (0.0, None))
        return value if until > self._clock() else None

    def take(self, name: str) -> T | None:
        """The value, if it is still good; it is gone afterwards."""
        value = self.get(name)
        self._values.pop(name, None)
        return value


def redirect_allowed(uri: str) -> bool:
    """Whether a client may register this redirect address: https, loopback http, or a private-use scheme (RFC 8252)."""
    if len(uri) > 500 or not re.fullmatch(r"[!-~]+", uri):
        return False
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:
        return False
    if (
        "#" in uri
        or "@" in parts.netloc
        or parts.scheme in _NEVER
        or not re.fullmatch(r"[a-z][a-z0-9.+-]*", parts.scheme)
    ):
        return False
    # What follows goes into a policy header, where a stray `;` or quote would begin a directive of its own.
    if not re.fullmatch(r"[A-Za-z0-9.:\[\]-]*", parts.netloc):
        return False
    if parts.scheme == "https":
        return bool(host)
    return host in _LOOPBACK if parts.scheme == "http" else True


def redirect_matches(registered: str, asked: str) -> bool:
    """Exact, but for the port of a loopback address (RFC 8252 section 7.3)."""
    if registered == asked:
        return True
    if not redirect_allowed(asked):
        return False
    one, two = urlsplit(registered), urlsplit(asked)
    try:
        _ = two.port
    except ValueError:
        return False
    return (
        one.scheme == two.scheme == "http"
        and one.hostname == two.hostname
        and one.hostname in _LOOPBACK
        and (one.path, one.query) == (two.path, two.query)
    )
