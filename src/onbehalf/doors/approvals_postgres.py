"""What people were asked to approve, who said yes, and that it was refused or used: for all gateways on one database.

Each change is one statement: of two calls that use one approval at once, wherever they came in, one does. What an
approval is about is sealed, bound to the row it is in, and goes when the row does. Must not know who may approve
(validate/approval.py).

Trust: as state_postgres.py and approvals_sqlite.py; the gateways share the secret.
"""

from __future__ import annotations

from typing import Any

import orjson

from onbehalf.doors.approvals_sqlite import MOST_OPEN, SEAL
from onbehalf.doors.row_seal import RowSeal, SealBroken
from onbehalf.doors.state_postgres import State, StateDown
from onbehalf.errors import ApprovalsUnavailable, TooManyApprovals
from onbehalf.model import Approval, CallId, Digest, Json, UnixTime, Vote

__all__ = ["PostgresApprovals"]

_READ = """SELECT id, binding, tenant, person, call, approvers, at, until, state, about, ARRAY(
  SELECT vote.at || ' ' || vote.person FROM onbehalf_state.vote WHERE approval = id ORDER BY vote.at, vote.person)
FROM onbehalf_state.approval """
_BOUND = _READ + "WHERE binding = $1 AND state <> 'used' AND until > $2"
_FIND = _READ + "WHERE id = $1 AND state <> 'used' AND until > $2"
_CLEAR = "DELETE FROM onbehalf_state.approval WHERE binding = $1 AND until <= $2"
_ASK = """WITH waiting AS MATERIALIZED (
  SELECT count(*) AS number FROM onbehalf_state.approval
  WHERE tenant = $3 AND person = $4 AND state = 'open' AND until > $7::bigint
), made AS (
  INSERT INTO onbehalf_state.approval (id, binding, tenant, person, call, approvers, at, until, state, about)
  SELECT $1, $2, $3, $4, $5, $6, $7::bigint, $8::bigint, 'open', $9 FROM waiting WHERE number < $10::bigint
  ON CONFLICT (binding) WHERE state <> 'used' DO NOTHING RETURNING 1
)
SELECT EXISTS (SELECT FROM made), number FROM waiting"""
_APPROVE = """INSERT INTO onbehalf_state.vote (approval, person, at)
SELECT id, $2, $3::bigint FROM onbehalf_state.approval WHERE id = $1 AND state = 'open' AND until > $3::bigint FOR SHARE
ON CONFLICT DO NOTHING RETURNING 1"""
_END = """UPDATE onbehalf_state.approval SET state = $3 WHERE id = $1 AND state = 'open' AND until > $2 RETURNING 1"""
_TRIES = 3


class PostgresApprovals:
    """The port Approvals. `secret` is the gateways', of 32 bytes."""

    def __init__(self, state: State, *, secret: bytes) -> None:
        self._state = state
        self._seal = RowSeal(secret, SEAL)

    async def ask(self, new: Approval, about: Json) -> Approval:
        """The one of the same binding that is not over or used; else `new`, kept. Raises TooManyApprovals.

        Of those that ask at the same time each counts what it sees, so that a person may have a few more.
        """
        row = (
            new.id, new.binding, new.tenant, new.person, new.call, ",".join(sorted(new.approvers)), new.at, new.until,
            self._seal.seal(orjson.dumps(about), new.id, new.binding), MOST_OPEN,
        )  # fmt: skip
        waiting = 0
        for _ in range(_TRIES):  # what was there at the insert may be used or over at the look, and the other way
            if found := await self._run(_BOUND, new.binding, new.at):
                return _approval(found[0])
            await self._run(_CLEAR, new.binding, new.at)
            ((made, waiting),) = await self._run(_ASK, *row)
            if made:
                return new
        if waiting >= MOST_OPEN:
            raise TooManyApprovals(
                f"{MOST_OPEN} calls of yours wait for approval already",
                hint="have some of them approved or refused first, or wait until they are over",
            )
        raise _unavailable("others asked for the same and used it, again and again")

    async def find(self, id: str, *, now: UnixTime) -> tuple[Approval, Json] | None:
        """One that is not over or used, with what it is about."""
        found = await self._run(_FIND, id, now)
        if not found:
            return None
        try:
            about: Json = orjson.loads(self._seal.open(found[0][9], id, found[0][1]))
        except (SealBroken, ValueError) as error:
            raise _unavailable("what it is about was changed, or sealed with another key") from error
        return _approval(found[0]), about

    async def approve(self, id: str, vote: Vote) -> bool:
        """Keep a vote; whether it is one more, of one that is not over, used or refused."""
        return bool(await self._run(_APPROVE, id, vote.person, vote.at))

    async def refuse(self, id: str, *, now: UnixTime) -> bool:
        """Refuse it for good; whether that changed anything."""
        return bool(await self._run(_END, id, now, "refused"))

    async def take(self, id: str, *, now: UnixTime) -> bool:
        """Use it; whether it was neither used, refused nor over."""
        return bool(await self._run(_END, id, now, "used"))

    async def _run(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return await self._state.run(text, *values)
        except StateDown as error:
            raise _unavailable(str(error)) from error


def _approval(row: tuple[Any, ...]) -> Approval:
    id, binding, tenant, person, call, approvers, at, until, state, _, votes = row
    cast = (vote.partition(" ") for vote in votes)
    return Approval(
        id=id, binding=Digest(binding), tenant=tenant, person=person, call=CallId(call),
        approvers=frozenset(approvers.split(",")), at=UnixTime(at), until=UnixTime(until), refused=state == "refused",
        votes=tuple(Vote(person=who, at=UnixTime(int(when))) for when, _, who in cast),
    )  # fmt: skip


def _unavailable(why: str) -> ApprovalsUnavailable:
    return ApprovalsUnavailable(f"it cannot be told what was approved: {why}", hint="nothing was done; try again later")
