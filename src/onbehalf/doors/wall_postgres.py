"""The wall of a PostgreSQL database from the gateway's side: it says who asks, and looks whether the wall stands.

Every connection is looked at when it is made, and each transaction gets a claim of its own. Must not build the wall
(validate/wall.py), nor run a tool's statement.

Trust: the database's catalogue says whether the wall stands; whoever is superuser there can lie, and needs no lie.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from psycopg import AsyncConnection, Error
from psycopg.rows import TupleRow

from onbehalf.validate.wall_claim import CLAIM_SETTING, ClaimKey, signed_claim
from onbehalf.validate.wall_standing import STANDING_SQL, UNIQUE_SQL, Standing

__all__ = ["BEGIN_SQL", "SETTINGS_SQL", "TAG", "Wall", "WallDown"]

_MAX_TOLD = 5
_PROBE_TENANT = "onbehalf probe"
_LOOK_SECONDS = 5

BEGIN_SQL = "SELECT pg_backend_pid(), (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint"
"""What a claim is bound to, asked within the transaction that it is for."""

SETTINGS_SQL = (
    f"SELECT set_config('{CLAIM_SETTING}', $1, true), set_config('statement_timeout', $2, true), "
    "set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO', true), "
    "set_config('IntervalStyle', 'iso_8601', true), set_config('row_security', 'on', true), "
    "set_config('application_name', $3, true)"
)
"""What holds for one transaction and no longer. A claim of "" is none. The application name says to the server's own
log which call it is (`TAG` and the id of its call token)."""
TAG = "onbehalf/"


class WallDown(Exception):
    """The wall does not stand, or cannot be looked at. The message is a clause for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wall:
    """What must stand around the tables of one database, seen as one role of the gateway."""

    standing: Standing
    key: ClaimKey = field(repr=False)

    def claim(self, *, tenant: str, principal: str, pid: int, started: int, seconds: float) -> str:
        """For one transaction, and not longer than `seconds` from its start."""
        expires = started + int(seconds * 1_000_000)
        return signed_claim(self.key, tenant=tenant, principal=principal, pid=pid, started=started, expires=expires)

    async def look(self, connection: AsyncConnection[TupleRow]) -> None:
        """Whether the wall stands, and believes our key. The connection is in no transaction. Raises WallDown."""
        try:
            await connection.execute("BEGIN READ ONLY")
            await connection.execute(SETTINGS_SQL, ["", f"{_LOOK_SECONDS}s", "onbehalf"])
            await connection.execute("SELECT set_config('search_path', 'pg_catalog, pg_temp', true)")
            holes = await (await connection.execute(STANDING_SQL, self.standing.values)).fetchall()
            if not holes:
                await self._probe(connection)
            await connection.execute("ROLLBACK")
        except Error as error:
            raise WallDown(f"whether the wall stands cannot be told ({error.sqlstate or 'no connection'})") from error
        if holes:
            told = "; ".join(str(hole[0]) for hole in holes[:_MAX_TOLD])
            more = f"; and {len(holes) - _MAX_TOLD} more" if len(holes) > _MAX_TOLD else ""
            raise WallDown(f"the wall does not stand: {told}{more}")

    async def warnings(self, connection: AsyncConnection[TupleRow]) -> tuple[str, ...]:
        """What a standing wall still lets through: unique keys that span tenants. Raises psycopg.Error."""
        found = await (await connection.execute(UNIQUE_SQL, self.standing.values[:1])).fetchall()
        return tuple(str(row[0]) for row in found)

    async def _probe(self, connection: AsyncConnection[TupleRow]) -> None:
        row = await (await connection.execute(BEGIN_SQL)).fetchone()
        assert row is not None
        claim = self.claim(tenant=_PROBE_TENANT, principal="", pid=row[0], started=row[1], seconds=_LOOK_SECONDS)
        for shown, expected in ((claim, _PROBE_TENANT), (claim[:-1] + ("0" if claim[-1] != "0" else "1"), None)):
            await connection.execute(SETTINGS_SQL, [shown, f"{_LOOK_SECONDS}s", "onbehalf"])
            told = await (await connection.execute("SELECT onbehalf.tenant()")).fetchone()
            if told is None or told[0] != expected:
                raise WallDown(
                    "the database does not know the gateway's key"
                    if expected
                    else "the database believes a claim that nobody signed"
                )
