"""The sendings to one upstream, numbered without a hole: what makes a missing one visible from both ends.

A channel is one log and one upstream, named in leaves by 16 hex digits of a hash: who knows log and upstream can tell
which it is, and nobody reads the upstream's name from it. Must not store, or say when a number is given out.
"""

from __future__ import annotations

import re
from hashlib import sha256

__all__ = ["CHANNEL", "Numbers", "channel_of"]

CHANNEL = re.compile(r"[0-9a-f]{16}")
_DOMAIN = "onbehalf/channel/v1/"


def channel_of(origin: str, audience: str) -> str:
    """The channel of the upstream `audience`, as its call tokens name it, in the log `origin`."""
    return sha256(f"{_DOMAIN}{origin}\0{audience}".encode()).hexdigest()[:16]


class Numbers:
    """The last number of each channel of one log. `next` looks; `gave` takes note, once the number cannot be lost."""

    def __init__(self, origin: str, last: dict[str, int]) -> None:
        self._origin = origin
        self._last = last
        self._names: dict[str, str] = {}

    def next(self, audience: str) -> tuple[str, int]:
        """The channel of an upstream and the next number there, from 1; ("", 0) for what is sent nowhere."""
        if not audience:
            return "", 0
        channel = self._names.get(audience)
        if channel is None:
            channel = self._names[audience] = channel_of(self._origin, audience)
        return channel, self._last.get(channel, 0) + 1

    def gave(self, channel: str, number: int) -> None:
        """That number stands in a leaf, whatever comes of it."""
        if channel:
            self._last[channel] = number

    def last(self, audience: str) -> int:
        """The last number given to sendings to an upstream, 0 where there was none."""
        return self.next(audience)[1] - 1 if audience else 0
