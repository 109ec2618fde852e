"""Hears what the other gateways on the database changed, four times a second, and sweeps what is over.

A look asks for all that was written since the oldest transaction that the look before could not see, so that none is
missed in whatever order they commit. Where looks fail, or the clocks come apart, nothing is heard, and who depends on
having heard refuses (revocations_postgres.py). Must not know what a change means.

Trust: as state_postgres.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from onbehalf.doors.broker_postgres import PostgresBroker
from onbehalf.doors.revocations_postgres import ALL, ENDED, PostgresRevocations
from onbehalf.doors.state_postgres import KEPT_S, SKEW_S, State, StateDown
from onbehalf.errors import ConfigInvalid
from onbehalf.model import UnixTime

__all__ = ["StateWatch"]

_log = logging.getLogger(__name__)
_EVERY_SECONDS = 0.25
_SWEEP_SECONDS = 5.0
_AT_ONCE = 5000
_LOOK = """SELECT pg_snapshot_xmin(pg_current_snapshot())::text, extract(epoch FROM clock_timestamp())::float8,
EXISTS (SELECT FROM onbehalf_state.revocation WHERE changed_in >= $1::text::xid8),
EXISTS (SELECT FROM onbehalf_state.signalled WHERE changed_in >= $1::text::xid8),
ARRAY(SELECT heard || ' ' || name FROM onbehalf_state.stream WHERE heard > 0),
ARRAY(SELECT until || ' ' || family FROM onbehalf_state.granted WHERE ended_in >= $1::text::xid8)"""
_SWEPT = ("proof", "once", "shown", "granted", "assertion", "approval")
_SWEEP = """DELETE FROM onbehalf_state.@TABLE@ WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM onbehalf_state.@TABLE@ WHERE until < extract(epoch FROM clock_timestamp())::bigint - $1::bigint
  LIMIT $2::bigint FOR UPDATE SKIP LOCKED))"""
_SWEEP_SIGNALS = _SWEEP.replace("@TABLE@", "signal").replace("WHERE until <", "WHERE noted AND until <")
_KEPT_SIGNALS = 200_000
"""So many events of a stream are known again. One that is not changes nothing either: it is older than what it did."""
_CUT_SIGNALS = """DELETE FROM onbehalf_state.signal WHERE ctid = ANY (ARRAY(
  SELECT old.ctid FROM onbehalf_state.stream AS of, LATERAL (SELECT ctid FROM onbehalf_state.signal
    WHERE stream = of.name AND noted ORDER BY until DESC OFFSET $1::bigint LIMIT $2::bigint) AS old))"""
_CUT_EVERY = 12


class StateWatch:
    """Made and `begun` on the loop that it serves, ended by `aclose`. `changed` is called when others ended grants."""

    def __init__(
        self, state: State, revocations: PostgresRevocations, broker: PostgresBroker | None, *,
        clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.changed: Callable[[], None] = lambda: None
        self._state, self._revocations, self._broker = state, revocations, broker
        self._clock, self._monotonic = clock, monotonic
        self._since = "0"
        self._swept = 0
        self._one = asyncio.Lock()
        self._problem = ""
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Hear all there is, then go on hearing. Raises ConfigInvalid."""
        try:
            await self.look()
        except StateDown as error:
            raise ConfigInvalid(f"`gateway.state` cannot be used: {error}", hint="look at the database") from error
        self._tasks = [asyncio.create_task(self._looking()), asyncio.create_task(self._sweeping())]

    async def look(self) -> None:
        """Hear what was written before this was called. Raises StateDown."""
        async with self._one:  # what is heard must not be overtaken by what was heard before
            await self._look()

    async def _look(self) -> None:
        asked, before = self._monotonic(), self._clock()
        ((oldest, clock, revoked, signalled, heard, ended),) = await self._state.run(_LOOK, self._since)
        now = self._clock()
        if not before - SKEW_S <= clock <= now + SKEW_S:
            raise StateDown(f"the database's clock and this machine's differ by {abs(clock - now):.0f} s")
        if revoked:
            self._revocations.take(await self._state.run(ALL))
        if signalled:
            self._revocations.take_ended(await self._state.run(ENDED, self._since))
        self._revocations.streams = {name: UnixTime(int(at)) for at, _, name in (each.partition(" ") for each in heard)}
        grants = [(family, int(until)) for until, _, family in (each.partition(" ") for each in ended)]
        self._since = oldest
        self._revocations.heard(asked=asked)
        if self._broker is not None and self._broker.look(grants, now=now):
            self.changed()

    async def sweep(self) -> None:
        """Forget what is over, as much as goes at once. Raises StateDown."""
        for table in _SWEPT:
            await self._state.run(_SWEEP.replace("@TABLE@", table), KEPT_S, _AT_ONCE)
        await self._state.run(_SWEEP_SIGNALS, KEPT_S, _AT_ONCE)
        if self._swept % _CUT_EVERY == 0:
            await self._state.run(_CUT_SIGNALS, _KEPT_SIGNALS, _AT_ONCE)
        self._swept += 1

    async def aclose(self) -> None:
        """Hear nothing more."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _looking(self) -> None:
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                await self.look()
                self._problem = ""
            except StateDown as error:
                if str(error) != self._problem:
                    _log.error("what other gateways changed is not heard: %s", error)
                self._problem = str(error)
            except Exception:  # one odd row must not end the watch: nothing is heard, so calls are refused
                _log.exception("what other gateways changed cannot be read")

    async def _sweeping(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await self.sweep()
            except StateDown as error:
                _log.warning("what is over could not be forgotten: %s", error)
