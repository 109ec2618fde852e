"""The numbers of sendings, channel by channel: each upstream's are without a hole.

A channel is one log and one upstream, named by 16 hex digits of a hash. Must not know what was sent, or to whom.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from onbehalf.verifier.leaves import Leaf, Run

__all__ = ["Channel", "Channels", "channel_of"]

_MAX_CHANNELS = 10_000
_DOMAIN = "onbehalf/channel/v1/"


def channel_of(origin: str, audience: str) -> str:
    """The channel of the upstream `audience` in the log `origin`."""
    return hashlib.sha256(f"{_DOMAIN}{origin}\0{audience}".encode("utf-8", "replace")).hexdigest()[:16]


@dataclass(slots=True)
class Channel:
    """What the leaves of the range say of one channel: its first and last number, and whether one was missing."""

    first: int
    last: int
    holes: int = 0


@dataclass(slots=True)
class Channels:
    """All channels of a range that begins at leaf `start`. `uncounted` are intents from before there were numbers."""

    start: int
    all: dict[str, Channel] = field(default_factory=dict)
    uncounted: int = 0

    def take(self, leaf: Leaf) -> str:
        """Take note of the next intent. What is wrong with its number, "" where nothing is."""
        if not leaf.channel:
            self.uncounted += 1
            return ""
        known = self.all.get(leaf.channel)
        if known is None:
            if len(self.all) >= _MAX_CHANNELS:
                return "there are more channels than any log has"
            expected = 1 if self.start == 0 else leaf.number
            known = self.all[leaf.channel] = Channel(first=leaf.number, last=expected - 1)
        expected, known.last = known.last + 1, leaf.number
        if leaf.number == expected:
            return ""
        known.holes += 1
        return f"it has number {leaf.number} of channel {leaf.channel}, where {expected} is next"

    def fits(self, run: Run) -> bool:
        """Whether a run's numbers, which have no hole within it, go on where those before it ended."""
        for channel, (first, _) in run.channels.items():
            known = self.all.get(channel)
            if first != (known.last + 1 if known is not None else 1 if self.start == 0 else first):
                return False
        return not run.channels or len(self.all.keys() | run.channels.keys()) <= _MAX_CHANNELS

    def run(self, run: Run) -> None:
        """A run that fits."""
        for channel, (first, last) in run.channels.items():
            self.all.setdefault(channel, Channel(first=first, last=last)).last = last
        self.uncounted += run.uncounted
