"""Which DPoP proofs were used, for all gateways on one database.

One statement decides whether a proof is new, for all that come at the same time anywhere. Proofs are kept by the digest
of their key and id; of one key there are at most so many that could still be taken, and of all about so many, counted
now and then. Full means refused: nothing is forgotten early. Must not know what a proof is.

Trust: as state_postgres.py.
"""

from __future__ import annotations

from hashlib import sha256

from onbehalf.doors.proofs_sqlite import MOST, MOST_OF_ONE_KEY
from onbehalf.doors.state_postgres import State, StateDown
from onbehalf.errors import ProofsUnavailable
from onbehalf.model import UnixTime

__all__ = ["PostgresProofs"]

_ADD = """WITH room AS MATERIALIZED (
  SELECT $6::boolean AND count(*) < $5::bigint AS left_over
  FROM (SELECT FROM onbehalf_state.proof WHERE key = $2 AND until > $4::bigint LIMIT $5::bigint) AS own
), made AS (
  INSERT INTO onbehalf_state.proof (name, key, until) SELECT $1, $2, $3::bigint FROM room WHERE left_over
  ON CONFLICT DO NOTHING RETURNING 1
)
SELECT EXISTS (SELECT FROM made), left_over OR EXISTS (SELECT FROM onbehalf_state.proof WHERE name = $1) FROM room"""
_COUNT = "SELECT count(*) FROM (SELECT FROM onbehalf_state.proof WHERE until > $1::bigint LIMIT $2::bigint) AS counted"


class PostgresProofs:
    """Fulfils `issuer_proof.UsedProofs`. Used within one event loop."""

    def __init__(self, state: State, *, most: int = MOST, most_of_one_key: int = MOST_OF_ONE_KEY) -> None:
        self._state = state
        self._most, self._most_of_one_key = most, most_of_one_key
        self._left = 0
        """So many more are taken here before they are counted again."""
        self._counted_at = UnixTime(-1)

    async def add(self, key: str, id_: str, *, now: UnixTime, until: UnixTime) -> bool:
        """Whether a proof by the key of this thumbprint is new; then it is not, from now until `until`.

        Raises ProofsUnavailable where it cannot be kept; the proof may then count as used.
        """
        if until <= now:  # what may be forgotten is not new
            return False
        name = sha256(f"{key}\0{id_}".encode("utf-8", "surrogatepass")).digest()
        try:
            room = await self._room(now)
            ((new, known),) = await self._state.run(_ADD, name, key, until, now, self._most_of_one_key, room)
        except StateDown as error:
            raise ProofsUnavailable(
                f"it cannot be kept that the proof was used: {error}", hint="nothing was done; try again later"
            ) from error
        if not new and not known:
            raise ProofsUnavailable(
                "more proofs are to be remembered than there is room for", hint="wait a minute, then try again"
            )
        self._left -= new
        return bool(new)

    async def _room(self, now: UnixTime) -> bool:
        """Whether there is room for one more, of whatever key."""
        if self._left <= 0 and now != self._counted_at:
            ((count,),) = await self._state.run(_COUNT, now, self._most)
            room = self._most - count
            self._left = max(min(1, room), room // 20)  # other gateways fill it too
            self._counted_at = now if not self._left else UnixTime(-1)
        return self._left > 0
