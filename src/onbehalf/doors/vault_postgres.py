"""People's own logins at upstreams, for all gateways on one database: one for each tenant, person and upstream, sealed.

Bound to whose it is: what is moved to another row does not open. Of gateways that would renew one login at the same
time, one may. Must not know what a token is good for or when it is renewed.

Trust: as state_postgres.py and vault_sqlite.py. What is deleted may stay in the server's files and backups, sealed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from onbehalf.connecting import Account, Owner
from onbehalf.doors.row_seal import RowSeal, SealBroken
from onbehalf.doors.state_postgres import State, StateDown
from onbehalf.doors.vault_sqlite import SEAL, whose
from onbehalf.errors import VaultUnavailable
from onbehalf.model import UnixTime

__all__ = ["PostgresVault"]

_WHOSE = "tenant = $1 AND person = $2 AND upstream = $3"
_FIND = f"SELECT sealed FROM onbehalf_state.account WHERE {_WHOSE}"  # noqa: S608
_DROP = f"DELETE FROM onbehalf_state.account WHERE {_WHOSE} RETURNING 1"  # noqa: S608
_RENEWING = f"UPDATE onbehalf_state.account SET renewing = $5 WHERE {_WHOSE} AND renewing <= $4 RETURNING 1"  # noqa: S608
_KEEP = """INSERT INTO onbehalf_state.account (tenant, person, upstream, sealed) VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant, person, upstream) DO UPDATE SET sealed = excluded.sealed, renewing = 0"""


class PostgresVault:
    """The port Vault. `secret` is the gateways', of 32 bytes."""

    def __init__(self, state: State, *, secret: bytes) -> None:
        self._state = state
        self._seal = RowSeal(secret, SEAL)

    async def find(self, owner: Owner) -> Account | None:
        """A person's login at an upstream. Raises VaultUnavailable."""
        found = await self._run(_FIND, *whose(owner))
        if not found:
            return None
        try:
            return msgspec.json.decode(self._seal.open(found[0][0], *whose(owner)), type=Account)
        except (SealBroken, ValueError) as error:
            raise _unavailable("one was changed, or sealed with another key") from error

    async def keep(self, owner: Owner, account: Account) -> None:
        """Keep it in place of what there was; it is renewed no longer. Raises VaultUnavailable."""
        sealed = self._seal.seal(msgspec.json.encode(account), *whose(owner))
        await self._run(_KEEP, *whose(owner), sealed)

    async def renewing(self, owner: Owner, *, now: UnixTime, until: UnixTime) -> bool:
        """Whether nobody renews it; then nobody else may until it is kept, or `until`. Raises VaultUnavailable."""
        return bool(await self._run(_RENEWING, *whose(owner), now, until))

    async def drop(self, owner: Owner) -> bool:
        """Forget it; whether there was one. Raises VaultUnavailable."""
        return bool(await self._run(_DROP, *whose(owner)))

    async def _run(self, text: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return await self._state.run(text, *values)
        except StateDown as error:
            raise _unavailable(str(error)) from error


def _unavailable(why: str) -> VaultUnavailable:
    return VaultUnavailable(
        f"people's logins at upstreams cannot be read or kept: {why}", hint="nothing was done; try again later"
    )
