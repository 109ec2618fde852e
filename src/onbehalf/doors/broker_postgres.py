"""What the sign-in broker keeps, for all gateways on one database: clients that registered, grants, what was used.

Codes and refresh tokens are kept as digests only. One statement decides who is first: of two gateways that are shown
one code or refresh token at once, one takes it, and the other ends the grant (RFC 9700 section 4.14.2). Grants that
another gateway ended are heard of by `look`. Must not know who may have a grant or how a token is signed.

Trust: as state_postgres.py and broker_sqlite.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from onbehalf.broker.grant import Code, Granted, Reused
from onbehalf.broker.refused import BrokerUnavailable
from onbehalf.doors.broker_sqlite import IDLE_S, MOST_CLIENTS, UNUSED_S, digest, granted, too_many
from onbehalf.doors.state_postgres import State, StateDown
from onbehalf.model import Json, UnixTime

__all__ = ["PostgresBroker"]

_GRANT = "granted.family, client, subject, tenant, resource, scope, at, granted.until, told, ended, granted.key"
_REGISTER = """INSERT INTO onbehalf_state.client (id, metadata, at, used)
SELECT $1, $2, $3::bigint, 0 WHERE (SELECT count(*) FROM onbehalf_state.client) < $4::bigint RETURNING 1"""
_FORGET = "DELETE FROM onbehalf_state.client WHERE (used = 0 AND at < $1) OR (used > 0 AND used < $2)"
_CLIENT = "SELECT metadata, used FROM onbehalf_state.client WHERE id = $1"
_USED = "UPDATE onbehalf_state.client SET used = greatest(used, $2::bigint) WHERE id = $1"
_GRANTED = """WITH made AS (
  INSERT INTO onbehalf_state.granted (family, client, subject, tenant, resource, scope, at, until, told, key)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
)
INSERT INTO onbehalf_state.code (digest, family, until, redirect_uri, challenge, key, used)
VALUES ($11, $1, $12, $13, $14, $15, false)"""
_TAKE = f"""UPDATE onbehalf_state.code SET used = true FROM onbehalf_state.granted
WHERE digest = $1 AND NOT used AND granted.family = code.family
RETURNING {_GRANT}, redirect_uri, challenge, code.until, code.key"""  # noqa: S608
_TAKEN = "SELECT family FROM onbehalf_state.code WHERE digest = $1 AND used"
_KEEP = "INSERT INTO onbehalf_state.refresh (digest, family, used) VALUES ($1, $2, false)"
_FIND = f"""SELECT {_GRANT} FROM onbehalf_state.refresh JOIN onbehalf_state.granted USING (family)
WHERE digest = $1"""  # noqa: S608
_ROTATE = """WITH was AS (
  UPDATE onbehalf_state.refresh SET used = true WHERE digest = $1 AND NOT used RETURNING family
)
INSERT INTO onbehalf_state.refresh (digest, family, used) SELECT $2, family, false FROM was RETURNING 1"""
_ROTATED = "SELECT family FROM onbehalf_state.refresh WHERE digest = $1 AND used"
_BIND = "UPDATE onbehalf_state.granted SET key = $2 WHERE family = $1 AND key = ''"
_END = """UPDATE onbehalf_state.granted SET ended = $2, ended_in = pg_current_xact_id()
WHERE family = $1 AND ended = '' RETURNING until"""
_ONCE = "INSERT INTO onbehalf_state.assertion (name, until) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING 1"


class PostgresBroker:
    """The port Store of the broker. Used within one event loop. `ended` are grants that are over before their time, as
    far as was heard, for whoever proves access tokens; each until its time."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.ended: dict[str, int] = {}

    def look(self, ended: Iterable[tuple[str, int]], *, now: float) -> bool:
        """Hear of grants that ended, each with its time; whether one was news."""
        for family in [each for each, until in self.ended.items() if until < now - 3600]:
            del self.ended[family]
        fresh = {family: until for family, until in ended if family not in self.ended and until >= now - 3600}
        self.ended |= fresh
        return bool(fresh)

    async def register(self, id: str, metadata: Mapping[str, Json], *, now: UnixTime) -> None:
        """Keep a client. Raises OauthRefused where there are too many."""
        await self._run(_FORGET, now - UNUSED_S, now - IDLE_S)
        if not await self._run(_REGISTER, id, orjson.dumps(metadata), now, MOST_CLIENTS):
            raise too_many()

    async def client(self, id: str, *, now: UnixTime) -> Mapping[str, Json] | None:
        """The metadata of a client that registered, which is used by this."""
        found = await self._run(_CLIENT, id) if id.isascii() and "\0" not in id else []
        if not found:
            return None
        if found[0][1] < now - 3600:  # often enough to know which are in use
            await self._run(_USED, id, now)
        metadata: Mapping[str, Json] = orjson.loads(found[0][0])
        return metadata

    async def granted(self, code: str, kept: Code, *, until: UnixTime) -> None:
        """Keep a grant and its code, good until then."""
        of = kept.granted
        await self._run(
            _GRANTED, of.family, of.client, of.subject, of.tenant, of.resource, " ".join(of.scope), of.at, of.until,
            orjson.dumps(dict(of.told)), of.key, digest(code), until, kept.redirect_uri, kept.challenge, kept.key,
        )  # fmt: skip

    async def take_code(self, code: str, *, now: UnixTime) -> Code | Reused | None:
        """What a code stands for, once; shown again, it ends its grant. None for one that is unknown or over."""
        taken = await self._run(_TAKE, digest(code))
        if not taken:
            used = await self._run(_TAKEN, digest(code))
            if not used:
                return None
            await self.end(used[0][0], "its code was shown twice")
            return Reused(family=used[0][0])
        redirect_uri, challenge, until, key = taken[0][11:]
        if until <= now or taken[0][9]:
            return None
        return Code(granted=granted(taken[0][:11]), redirect_uri=redirect_uri, challenge=challenge, key=key)

    async def keep_refresh(self, refresh: str, family: str) -> None:
        """Keep the first refresh token of a grant."""
        await self._run(_KEEP, digest(refresh), family)

    async def find_refresh(self, refresh: str, *, now: UnixTime) -> Granted | None:
        """The grant of a refresh token that is good, unused or not. None for one that is unknown or over."""
        found = await self._run(_FIND, digest(refresh))
        return granted(found[0]) if found and not found[0][9] and found[0][7] > now else None

    async def rotate(self, refresh: str, fresh: str) -> bool:
        """Put a fresh refresh token in place of one; whether that was unused. Where not, its grant is over."""
        if await self._run(_ROTATE, digest(refresh), digest(fresh)):
            return True
        for (family,) in await self._run(_ROTATED, digest(refresh)):
            await self.end(family, "a refresh token was shown twice")
        return False

    async def bind(self, family: str, key: str) -> None:
        """From now on the refresh tokens of a grant are of the key of this thumbprint, if they are of none."""
        await self._run(_BIND, family, key)

    async def end(self, family: str, why: str) -> bool:
        """End a grant and all that follows from it; whether it was not over."""
        ended = await self._run(_END, family, why)
        for (until,) in ended:
            self.ended[family] = until
        return bool(ended)

    async def once(self, issuer: str, id: str, *, until: UnixTime, now: UnixTime) -> bool:
        """Whether an assertion is shown for the first time; then it is kept that it was."""
        if until < now:  # what may be forgotten is not new
            return False
        return bool(await self._run(_ONCE, digest(f"{issuer}\0{id}"), until))

    async def _run(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return await self._state.run(text, *values)
        except StateDown as error:
            raise BrokerUnavailable(f"grants cannot be read or kept: {error}", hint="try again later") from error
