"""One issuer's keys as they are kept: when they are fetched again, and how long they are believed.

Keys are fetched anew after four minutes, while calls go on with the old ones, and at once for an unknown key id, at
most every 30 s. While the issuer cannot be reached, the old keys are believed for `outage_seconds` more. At most one
fetch per issuer is under way. Must not know tokens beyond their key id.

Trust: a withdrawn key is still believed until the next fetch, and by whoever can keep us from the issuer until the
outage bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from math import inf
from types import MappingProxyType
from typing import Protocol

from onbehalf.config import IssuerSettings
from onbehalf.doors.issuer_fetch import FetchFailed
from onbehalf.errors import IssuerUnavailable, UnknownKey
from onbehalf.identify import PublicKey

__all__ = ["FRESH_S", "UNKNOWN_KEY_S", "IssuerKeys", "KeySource"]

FRESH_S = 240.0
"""After this, keys are fetched again."""
UNKNOWN_KEY_S = 30.0
"""At most one fetch in this time is caused by tokens with unknown key ids: anybody can make these up."""
_RETRY_S = 30.0
_RETRY_EMPTY_S = 5.0
"""Nothing can be proven without keys, so then they are asked for more often."""
_IDLE_S = 300.0
"""If no fetch ended for so long, calls wait for one: only an outage is a reason to believe old keys."""

_log = logging.getLogger(__name__)


class KeySource(Protocol):
    """Where an issuer's keys come from."""

    async def keys(self, rule: IssuerSettings) -> Mapping[str, PublicKey]:
        """The keys that the issuer publishes now, by id. Raises FetchFailed."""
        ...


class IssuerKeys:
    """The keys of the issuer of `rule`. All times are of `monotonic`, in seconds."""

    def __init__(self, rule: IssuerSettings, source: KeySource, *, monotonic: Callable[[], float]) -> None:
        self.rule = rule
        self.by_id: Mapping[str, PublicKey] = MappingProxyType({})
        """INVARIANT: a key that stayed the same stays the same object, so that identity tells whether it did."""
        self.fresh_until = -inf
        self._source = source
        self._monotonic = monotonic
        self._usable_until = -inf
        self._tried_at = -inf
        self._answered_at = -inf
        self._unknown_at = -inf
        self._flight: asyncio.Task[None] | None = None
        self._failure = "its keys were not fetched yet"

    async def current(self) -> None:
        """Have `by_id` fit to be believed now, or raise IssuerUnavailable."""
        now = self._monotonic()
        if now < self.fresh_until:
            return
        idle = now - self._answered_at >= _IDLE_S
        self.nudge()
        if (idle or not self._usable(now)) and self._flight is not None:
            await asyncio.shield(self._flight)
        if not self._usable(self._monotonic()):
            raise IssuerUnavailable(
                f"the keys of issuer `{self.rule.issuer}` cannot be had", hint="try again soon; the gateway does, too"
            )

    async def find(self, key_id: str) -> PublicKey:
        """The issuer's key of this id. Raises UnknownKey, IssuerUnavailable."""
        await self.current()
        if key_id not in self.by_id:
            await self._look_for_new()
        found = self.by_id.get(key_id)
        if found is None:
            raise UnknownKey(
                f"the issuer `{self.rule.issuer}` has no such key",
                hint=f"after a change of keys, try again in {UNKNOWN_KEY_S:g} s, or get a new token",
            )
        return found

    async def refresh(self) -> None:
        """Fetch now, or wait for the fetch under way. Never raises for what the issuer does."""
        await asyncio.shield(self._flight or self._start())

    def nudge(self) -> None:
        """Start a fetch if one is due. Needs a running event loop; does not wait."""
        now = self._monotonic()
        pause = _RETRY_S if self._usable(now) else _RETRY_EMPTY_S
        if self._flight is None and now >= self.fresh_until and now - self._tried_at >= pause:
            self._start()

    def problem(self) -> str:
        """Why nothing of this issuer can be proven now; "" if it can."""
        return "" if self._usable(self._monotonic()) else f"issuer `{self.rule.issuer}`: {self._failure}"

    async def aclose(self) -> None:
        """End a fetch under way."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    def _usable(self, now: float) -> bool:
        return bool(self.by_id) and now < self._usable_until

    async def _look_for_new(self) -> None:
        now = self._monotonic()
        if self._flight is None:
            if now - self._unknown_at < UNKNOWN_KEY_S:
                return
            self._unknown_at = now
        await self.refresh()

    def _start(self) -> asyncio.Task[None]:
        self._tried_at = self._monotonic()
        self._flight = asyncio.create_task(self._fetch(self._tried_at))
        return self._flight

    async def _fetch(self, began: float) -> None:
        try:
            found = await self._source.keys(self.rule)
        except FetchFailed as error:
            self._failure = str(error)
            _log.warning("the keys of issuer `%s` cannot be fetched: %s", self.rule.issuer, error)
        except Exception as error:  # what nobody foresaw of one issuer must not stop the others
            self._failure = f"its keys cannot be read: {type(error).__name__}"
            _log.exception("the keys of issuer `%s` cannot be read", self.rule.issuer)
        else:
            self._take(found, began)
        finally:
            self._answered_at = self._monotonic()
            self._flight = None

    def _take(self, found: Mapping[str, PublicKey], began: float) -> None:
        """Empty is an answer, too: the issuer withdrew all its keys, and none may be believed any more."""
        old = self.by_id
        self.by_id = MappingProxyType({i: old[i] if old.get(i) == key else key for i, key in found.items()})
        self._failure = "its keys are too old" if found else "it publishes no key that can be used here"
        self.fresh_until = began + FRESH_S if found else -inf
        self._usable_until = began + FRESH_S + self.rule.outage_seconds
