"""Which writing calls were begun and done, and which change sets were shown, for all gateways on one database.

One statement decides: of two gateways that begin one key, or take one change set, at the same time, one does. Must not
know what a key is made of (act/once.py).

Trust: as state_postgres.py; nobody reads what was asked, only digests.
"""

from __future__ import annotations

from typing import Any

from onbehalf.doors.state_postgres import State, StateDown
from onbehalf.errors import OnceUnavailable
from onbehalf.model import CallId, Digest, Earlier, UnixTime

__all__ = ["PostgresOnce"]

_BEGIN = """INSERT INTO onbehalf_state.once AS kept (key, call, arguments, at, until, done)
VALUES ($1, $2, $3, $4, $5, false)
ON CONFLICT (key) DO UPDATE SET call = $2, arguments = $3, at = $4, until = $5, done = false WHERE kept.until <= $4
RETURNING 1"""
_EARLIER = "SELECT call, arguments, at, done FROM onbehalf_state.once WHERE key = $1"
_DONE = "UPDATE onbehalf_state.once SET done = true WHERE key = $1 AND call = $2"
_FORGET = "DELETE FROM onbehalf_state.once WHERE key = $1 AND call = $2"
_SHOWN = """INSERT INTO onbehalf_state.shown (change, until) VALUES ($1, $2)
ON CONFLICT (change) DO UPDATE SET until = excluded.until"""
_TAKE = "DELETE FROM onbehalf_state.shown WHERE change = $1 RETURNING until"


class PostgresOnce:
    """The Once and Changes ports."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def begin(
        self, key: Digest, call: CallId, arguments: Digest, *, now: UnixTime, until: UnixTime
    ) -> Earlier | None:
        """Make it durable that `call` is begun, and return None; or the earlier call of that key, with nothing changed.

        Raises OnceUnavailable, and then nothing may be sent.
        """
        if await self._run(_BEGIN, key, call, arguments, now, until):
            return None
        found = await self._run(_EARLIER, key)
        if not found:  # forgotten between the two: whoever asks again is first
            raise _unavailable("another call of the same ended just now")
        was, asked, at, done = found[0]
        return Earlier(call=CallId(was), arguments=Digest(asked), at=UnixTime(at), done=done)

    async def done(self, key: Digest, call: CallId) -> None:
        """The call has had its effect. Raises OnceUnavailable; the row then goes on saying begun."""
        await self._run(_DONE, key, call)

    async def forget(self, key: Digest, call: CallId) -> None:
        """The call had no effect and may be sent again. Raises OnceUnavailable."""
        await self._run(_FORGET, key, call)

    async def shown(self, change: Digest, *, until: UnixTime) -> None:
        """Make it durable that a change set was shown and may be made before `until`. Raises OnceUnavailable."""
        await self._run(_SHOWN, change, until)

    async def take(self, change: Digest, *, now: UnixTime) -> bool:
        """Whether it was shown, is not too old, and nobody took it; then it is taken. Raises OnceUnavailable."""
        found = await self._run(_TAKE, change)
        return bool(found) and found[0][0] > now

    async def _run(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return await self._state.run(text, *values)
        except StateDown as error:
            raise _unavailable(str(error)) from error


def _unavailable(why: str) -> OnceUnavailable:
    return OnceUnavailable(
        f"it cannot be told whether this was done before: {why}", hint="nothing was done; try again later"
    )
