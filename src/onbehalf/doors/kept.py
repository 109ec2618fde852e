"""Values under secret names for a while, in memory and bounded: logins under way, forms, sessions.

Names are kept as digests only. Must not know what is kept.

Trust: whoever can begin more than there is room for can push out what others began; nothing else of theirs is lost.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Generic, TypeVar

__all__ = ["Kept", "digest_of", "fresh"]

T = TypeVar("T")

_NAME_BYTES = 32


class Kept(Generic[T]):
    """At most `most` values, each for `seconds`; the oldest go when there are more. `monotonic` is in seconds."""

    def __init__(self, seconds: float, monotonic: Callable[[], float], *, most: int = 1000) -> None:
        self._seconds, self._monotonic, self._most = seconds, monotonic, most
        self._values: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    def put(self, name: str, value: T) -> None:
        """Keep a value."""
        self._values[digest_of(name)] = (self._monotonic() + self._seconds, value)
        while len(self._values) > self._most:
            self._values.popitem(last=False)

    def get(self, name: str) -> T | None:
        """The value of a name, if it is still kept."""
        until, value = self._values.get(digest_of(name), (0.0, None))
        return value if until > self._monotonic() else None

    def take(self, name: str) -> T | None:
        """The value of a name, which is not kept any longer."""
        value = self.get(name)
        self._values.pop(digest_of(name), None)
        return value

    def clear(self) -> None:
        """Keep nothing."""
        self._values.clear()


def fresh() -> str:
    """A name that nobody can guess: 43 characters of base64url."""
    return secrets.token_urlsafe(_NAME_BYTES)


def digest_of(name: str) -> bytes:
    """What is kept in place of a name."""
    return sha256(name.encode("utf-8", "replace")).digest()
