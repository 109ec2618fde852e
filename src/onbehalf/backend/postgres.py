"""A backend's own PostgreSQL told who acts, for one transaction: what row level security asks there.

Two strengths. Plain settings (`onbehalf.tenant`, `onbehalf.person`, …) help against a forgotten WHERE: any SQL of the
same transaction could set others. With a `key`, a claim is signed that the database checks by itself, and that SQL put
in by somebody cannot make. Must not decide, connect, or hold a policy of anybody's.

Trust: whoever holds the key, or is superuser of the database, can be anybody there.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, LiteralString

import msgspec

from onbehalf.backend.verify import VerifiedCall
from onbehalf.errors import ConfigInvalid
from onbehalf.validate.wall import claims_sql, key_sql
from onbehalf.validate.wall_claim import ClaimKey, claim_key, signed_claim

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

__all__ = [
    "BEGIN_SQL", "SET_SQL", "ClaimKey", "acting", "acting_async", "claim_key", "claims_sql", "key_sql", "settings",
]  # fmt: skip

_NAMES = ("tenant", "person", "client", "call", "tool", "action", "sub", "claims")
SET_SQL: LiteralString = (
    "SELECT set_config('onbehalf.tenant', %s, true), set_config('onbehalf.person', %s, true),"
    " set_config('onbehalf.client', %s, true), set_config('onbehalf.call', %s, true),"
    " set_config('onbehalf.tool', %s, true), set_config('onbehalf.action', %s, true),"
    " set_config('onbehalf.sub', %s, true), set_config('onbehalf.claims', %s, true),"
    " set_config('onbehalf.claim', %s, true)"
)
"""Sets all of them until the transaction ends (the `true`), never for the session. Its values are `settings(…)`'s."""
BEGIN_SQL: LiteralString = "SELECT pg_backend_pid(), (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint"
"""What a signed claim is bound to, asked within the transaction that it is for."""
_MAX_SECONDS = 3600.0


def settings(
    call: VerifiedCall, *, key: ClaimKey | None = None, begun: tuple[int, int] | None = None, seconds: float = 60.0
) -> list[str]:
    """The values of `SET_SQL`, in its order: for a driver or framework of one's own.

    `begun` is the one row of `BEGIN_SQL`, needed with a `key`; the claim is over `seconds` after the transaction's
    beginning. Without a `key` the claim is "", which the database takes for none. Raises ConfigInvalid.
    """
    claim = ""
    if key is not None:
        if begun is None or not 0 < seconds <= _MAX_SECONDS:
            raise ConfigInvalid("a signed claim needs the row of `BEGIN_SQL`, and an end within the hour")
        pid, started = begun
        expires = started + int(seconds * 1_000_000)
        claim = signed_claim(
            key, tenant=call.tenant, principal=_principal(call), pid=pid, started=started, expires=expires
        )
    members: Mapping[str, Any] = MappingProxyType(msgspec.to_builtins(call))
    told = {
        **{name: str(members[name]) for name in _NAMES if name in members},
        "sub": f"service:{call.tenant}/{call.service}" if call.kind == "service" else f"{call.tenant}/{call.person}",
        "claims": json.dumps(dict(members), ensure_ascii=False),
    }
    return [*(told[name] for name in _NAMES), claim]


def _principal(call: VerifiedCall) -> str:
    """Who acts, as the gateway's own claims say it: of a service what no person is called, as none has a slash."""
    return f"service/{call.service}" if call.kind == "service" else call.person


@contextmanager
def acting(
    connection: Connection[Any], call: VerifiedCall, *, key: ClaimKey | None = None, seconds: float = 60.0
) -> Iterator[Connection[Any]]:
    """One transaction in which the database knows who acts; committed at the end, or rolled back by an error.

    `connection` is psycopg's and in no transaction: settings made in one that goes on would stay until its end, and
    so reach beyond this call. Raises ConfigInvalid where it is in one, and what psycopg raises.
    """
    _require_idle(connection)
    with connection.transaction():
        begun = None
        if key is not None:
            begun = connection.execute(BEGIN_SQL).fetchone()
        connection.execute(SET_SQL, settings(call, key=key, begun=_pair(begun), seconds=seconds))
        yield connection


@asynccontextmanager
async def acting_async(
    connection: AsyncConnection[Any], call: VerifiedCall, *, key: ClaimKey | None = None, seconds: float = 60.0
) -> AsyncIterator[AsyncConnection[Any]]:
    """As `acting`, on an asynchronous connection."""
    _require_idle(connection)
    async with connection.transaction():
        begun = None
        if key is not None:
            begun = await (await connection.execute(BEGIN_SQL)).fetchone()
        await connection.execute(SET_SQL, settings(call, key=key, begun=_pair(begun), seconds=seconds))
        yield connection


def _pair(row: Any) -> tuple[int, int] | None:
    """The row of BEGIN_SQL, whatever the connection's row factory makes of rows."""
    if row is None:
        return None
    pid, started = row.values() if isinstance(row, Mapping) else row
    return int(pid), int(started)


def _require_idle(connection: Connection[Any] | AsyncConnection[Any]) -> None:
    if connection.info.transaction_status != 0:  # PQTRANS_IDLE, libpq's number
        raise ConfigInvalid(
            "the connection is in a transaction already", hint="commit it, or use autocommit, before who acts is set"
        )
