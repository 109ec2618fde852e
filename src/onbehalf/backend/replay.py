"""Each call token is used once.

Must not know what a token says beyond its id and its end.
"""

from __future__ import annotations

import heapq
import threading
from typing import Protocol

from onbehalf.errors import CallTokenReplayed, ReplayUnknown
from onbehalf.model import UnixTime

__all__ = ["MemoryReplay", "Replay"]


class Replay(Protocol):
    """Remembers used tokens for as long as they could be used again."""

    def use(self, token_id: str, *, issued_at: UnixTime, until: UnixTime, now: UnixTime) -> None:
        """Take note that a token is used now, in one step with looking whether it was.

        Raises CallTokenReplayed where it was, and ReplayUnknown where that cannot be told or noted.
        """
        ...


class MemoryReplay:
    """Used tokens in the memory of one process; full means that no further call is served until old ones end.

    Tokens from before `since`, when this memory began, may have been used by the process before, and are refused.
    Several processes that share one audience need one shared `Replay` instead, or each would accept a token once.
    """

    def __init__(self, *, capacity: int = 100_000, since: UnixTime = UnixTime(0)) -> None:  # noqa: B008  # a number
        self._capacity = capacity
        self._since = since
        self._used: set[str] = set()
        self._ends: list[tuple[int, str]] = []
        self._lock = threading.Lock()

    def use(self, token_id: str, *, issued_at: UnixTime, until: UnixTime, now: UnixTime) -> None:
        """Take note of a token until `until`. Raises CallTokenReplayed, ReplayUnknown."""
        if issued_at < self._since:
            raise ReplayUnknown("the call token is older than the memory of used ones", hint="call again")
        with self._lock:
            while self._ends and self._ends[0][0] < now:
                self._used.discard(heapq.heappop(self._ends)[1])
            if token_id in self._used:
                raise CallTokenReplayed("the call token was used before", hint="call again through the gateway")
            if len(self._used) >= self._capacity:
                raise ReplayUnknown("too many calls at once to remember", hint="give the replay memory more capacity")
            self._used.add(token_id)
            heapq.heappush(self._ends, (until, token_id))
