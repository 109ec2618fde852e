"""What security events did, for all gateways on one database: each event taken once, whichever of them it came to.

An event, its effects and what is to go on record of it are one statement, durable when `take` returns; events of one
stream are taken one after the other. When it returns it is in force here; the others hear of it as of any revocation
(state_watch.py). What a gateway took and did not put on record before it ended is put there by another one. Must not
know what an event means (validate/signals.py) or who sent it.

Trust: as revocations_postgres.py. A transmitter can add one row for each name it makes up, and is kept to that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from onbehalf.doors.revocations_postgres import PostgresRevocations
from onbehalf.doors.revocations_signalled import StreamTold
from onbehalf.doors.state_postgres import State, StateDown
from onbehalf.errors import SignalsUnavailable
from onbehalf.model import Json, UnixTime
from onbehalf.model_signals import Effect

__all__ = ["PostgresSignals"]

_log = logging.getLogger(__name__)
_CLAIMED_S = 60
"""So long whoever took an event has to put it on record before another one does."""
_TAKE = "SELECT onbehalf_state.take_signal($1, $2, $3::bigint, $4, $5::bigint, $6::jsonb)"
_PENDING = """UPDATE onbehalf_state.signal SET claimed = extract(epoch FROM clock_timestamp())::bigint
WHERE NOT noted AND claimed < extract(epoch FROM clock_timestamp())::bigint - $1::bigint
RETURNING stream, id, facts"""
_NOTED = "UPDATE onbehalf_state.signal SET noted = true, facts = '' WHERE stream = $1 AND id = $2"
_HEARD = """INSERT INTO onbehalf_state.stream AS kept (name, heard, status)
VALUES ($1, $2::bigint, coalesce(nullif($3, ''), 'enabled')) ON CONFLICT (name) DO UPDATE
SET heard = greatest(kept.heard, $2::bigint), status = CASE $3 WHEN '' THEN kept.status ELSE $3 END"""
_ASK = """INSERT INTO onbehalf_state.stream AS kept (name, heard, asked) VALUES ($1, 0, $2)
ON CONFLICT (name) DO UPDATE SET asked = $2"""
_ASKED = "SELECT asked FROM onbehalf_state.stream WHERE name = $1"
_TOLD = "SELECT name, heard, status FROM onbehalf_state.stream WHERE heard > 0"


class PostgresSignals:
    """Fulfils `signals_stream.Signalled`. `hear` takes over what was written. Used in one event loop."""

    def __init__(self, state: State, revocations: PostgresRevocations, *, hear: Callable[[], Awaitable[None]]) -> None:
        self._state = state
        self._revocations = revocations
        self._hear = hear

    async def take(
        self, stream: str, id: str, effects: Sequence[Effect], *, facts: Mapping[str, Json], now: UnixTime,
        until: UnixTime,
    ) -> bool:  # fmt: skip
        """Do what an event comes to, unless it was taken before: then False, and nothing changed.

        `facts` are what `pending` gives until `noted`; after `until` the event need not be known again.
        """
        done = [
            {
                "kind": target.kind, "tenant": target.tenant, "name": target.name, "does": effect.does,
                "what": effect.event.rpartition("/")[2], "at": effect.at,
            }
            for effect in effects for target in effect.targets
        ]  # fmt: skip
        told = orjson.dumps(done).decode()
        ((new,),) = await self._run(_TAKE, stream, id, until, orjson.dumps(facts), now, told)
        return bool(new)

    async def in_force(self) -> None:
        """Take over what was written. Where that cannot be done nobody is let in until it can."""
        try:
            await self._hear()
        except StateDown as error:
            self._revocations.unheard()
            _log.error("nobody is let in: what an event did is not heard: %s", error)

    async def pending(self) -> list[tuple[str, str, dict[str, Json]]]:
        """Stream, id and facts of events that nobody put on record in time; no other gateway is given them too."""
        rows = await self._run(_PENDING, _CLAIMED_S)
        return [(stream, id_, orjson.loads(facts)) for stream, id_, facts in rows]

    async def noted(self, stream: str, id: str) -> None:
        """It is on record."""
        await self._run(_NOTED, stream, id)

    async def heard(self, stream: str, *, now: UnixTime, status: str = "") -> None:
        """Keep when a stream was heard, and what it said of itself if it did."""
        await self._run(_HEARD, stream, now, status)

    async def told(self) -> Mapping[str, StreamTold]:
        """Every stream that was ever heard, by name."""
        rows = await self._run(_TOLD)
        return {name: StreamTold(name=name, heard=UnixTime(heard), status=status) for name, heard, status in rows}

    def last_heard(self, stream: str) -> UnixTime:
        """When any gateway heard it last, as far as that is known here; 0 for never."""
        return self._revocations.streams.get(stream, UnixTime(0))

    async def ask(self, stream: str, state: str) -> None:
        """Keep what the next verification event must say, "" for anything; whichever gateway it comes to."""
        await self._run(_ASK, stream, state)

    async def asked(self, stream: str) -> str:
        """What the next verification event must say; "" for anything."""
        rows = await self._run(_ASKED, stream)
        return str(rows[0][0]) if rows else ""

    async def aclose(self) -> None:
        """The connections are the database's own to end."""
        await asyncio.sleep(0)

    async def _run(self, text: str, *values: object) -> list[tuple[Any, ...]]:  # Any: PostgreSQL's columns
        try:
            return await self._state.run(text, *values)
        except StateDown as error:
            raise SignalsUnavailable(
                f"the event could not be kept: {error}", hint="send it again later: it is taken once at the most"
            ) from error
