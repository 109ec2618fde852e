"""Opens what must be remembered once: in files of this machine, or in one database for several gateways.

Like build.py, names concrete doors. Must not hold a rule.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from onbehalf.broker.ports import Store
from onbehalf.config import Settings
from onbehalf.config_state import PostgresState
from onbehalf.connecting import Vault
from onbehalf.doors.approvals_sqlite import SqliteApprovals
from onbehalf.doors.broker_sqlite import SqliteBroker
from onbehalf.doors.directory_revoked import Stopped
from onbehalf.doors.issuer_proof import UsedProofs
from onbehalf.doors.once_sqlite import SqliteOnce
from onbehalf.doors.proofs_sqlite import SqliteProofs
from onbehalf.doors.revocations_signalled import SignalStore
from onbehalf.doors.revocations_sqlite import Revocations
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.signals_stream import Signalled
from onbehalf.doors.signals_watch import Working
from onbehalf.doors.vault_sqlite import SqliteVault
from onbehalf.errors import ConfigInvalid
from onbehalf.model import UnixTime
from onbehalf.places import Paths
from onbehalf.ports import Approvals, Changes, Once

if TYPE_CHECKING:
    from onbehalf.doors.revocations_postgres import RevocationTable
    from onbehalf.doors.state_postgres import State

__all__ = ["OnceAndChanges", "Stores", "open_stores", "shared_revocations", "state_dsn"]

_FRESH_SECONDS = 0.05


class OnceAndChanges(Once, Changes, Protocol):
    """Both: what was done, and what was shown."""


class Stores(Protocol):
    """Each is opened by the part of the house that needs it, and closed with the house. All raise ConfigInvalid."""

    def once(self) -> OnceAndChanges: ...
    def proofs(self, now: UnixTime) -> UsedProofs: ...
    def approvals(self, secret: bytes) -> Approvals: ...
    def broker(self) -> Store: ...
    def vault(self, secret: bytes) -> Vault: ...
    def revocations(self) -> Stopped: ...
    def signals(self) -> Signalled: ...
    def in_turn(self, working: Sequence[tuple[str, Working]]) -> Sequence[Working]:
        """What is at work for streams of these names, done by one gateway at a time."""
        ...

    async def begin(self, changed: Callable[[], None]) -> None:
        """Hear what other gateways change; `changed` is called when they ended grants."""
        ...


class _Files:
    """One SQLite file each."""

    def __init__(self, places: Paths, stack: contextlib.AsyncExitStack) -> None:
        self._places, self._stack = places, stack

    def once(self) -> SqliteOnce:
        opened = SqliteOnce.open(self._places.once)
        self._stack.callback(opened.close)
        return opened

    def proofs(self, now: UnixTime) -> SqliteProofs:
        opened = SqliteProofs.open(self._places.proofs, now=now)
        self._stack.callback(opened.close)
        return opened

    def approvals(self, secret: bytes) -> SqliteApprovals:
        opened = SqliteApprovals.open(self._places.approvals, secret=secret)
        self._stack.callback(opened.close)
        return opened

    def broker(self) -> SqliteBroker:
        opened = SqliteBroker.open(self._places.broker)
        self._stack.callback(opened.close)
        return opened

    def vault(self, secret: bytes) -> SqliteVault:
        opened = SqliteVault.open(self._places.vault, secret=secret)
        self._stack.callback(opened.close)
        return opened

    def revocations(self) -> Revocations:
        opened = Revocations.open(self._places.revocations, busy_seconds=_FRESH_SECONDS)
        self._stack.callback(opened.close)
        return opened

    def signals(self) -> SignalStore:
        opened = SignalStore.open(self._places.revocations)
        self._stack.push_async_callback(asyncio.to_thread, opened.close)
        return opened

    def in_turn(self, working: Sequence[tuple[str, Working]]) -> Sequence[Working]:
        """It is always this one's turn."""
        return [each for _, each in working]

    async def begin(self, changed: Callable[[], None]) -> None:
        """Nobody else changes these."""


class _Database:
    """One database for all of them."""

    def __init__(self, state: State, dsn: str, stack: contextlib.AsyncExitStack) -> None:
        from onbehalf.doors.broker_postgres import PostgresBroker
        from onbehalf.doors.revocations_postgres import PostgresRevocations
        from onbehalf.doors.state_watch import StateWatch

        self._state, self._dsn, self._stack = state, dsn, stack
        self._broker = PostgresBroker(state)
        self._revocations = PostgresRevocations(state)
        self._watch = StateWatch(state, self._revocations, self._broker)

    def once(self) -> OnceAndChanges:
        from onbehalf.doors.once_postgres import PostgresOnce

        return PostgresOnce(self._state)

    def proofs(self, now: UnixTime) -> UsedProofs:
        from onbehalf.doors.proofs_postgres import PostgresProofs

        return PostgresProofs(self._state)

    def approvals(self, secret: bytes) -> Approvals:
        from onbehalf.doors.approvals_postgres import PostgresApprovals

        return PostgresApprovals(self._state, secret=secret)

    def broker(self) -> Store:
        return self._broker

    def vault(self, secret: bytes) -> Vault:
        from onbehalf.doors.vault_postgres import PostgresVault

        return PostgresVault(self._state, secret=secret)

    def revocations(self) -> Stopped:
        self._stack.push_async_callback(self._revocations.aclose)
        return self._revocations

    def signals(self) -> Signalled:
        from onbehalf.doors.revocations_signalled_postgres import PostgresSignals

        return PostgresSignals(self._state, self._revocations, hear=self._watch.look)

    def in_turn(self, working: Sequence[tuple[str, Working]]) -> Sequence[Working]:
        from onbehalf.doors.signals_turns import InTurn, Turns

        if not working:
            return ()
        turns = Turns(self._dsn, {name for name, _ in working})
        return [turns, *(InTurn(each, turns, name) for name, each in working)]

    async def begin(self, changed: Callable[[], None]) -> None:
        self._watch.changed = changed
        self._stack.push_async_callback(self._watch.aclose)
        await self._watch.begin()


async def open_stores(settings: Settings, places: Paths, stack: contextlib.AsyncExitStack) -> Stores:
    """As the settings say. Raises ConfigInvalid."""
    if settings.gateway.state is None:
        return _Files(places, stack)
    # with it comes a client library, which a gateway without such a database does without
    from onbehalf.doors.state_postgres import State

    rules = settings.gateway.state.postgres
    dsn = state_dsn(rules, base=places.config.resolve().parent)
    state = await State.open(dsn, connections=rules.connections, seconds=rules.timeout_seconds)
    stack.push_async_callback(state.aclose)
    return _Database(state, dsn, stack)


def state_dsn(rules: PostgresState, *, base: Path) -> str:
    """Where the database is, safe to connect to. `base` is onbehalf.yaml's place. Raises ConfigInvalid."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    from onbehalf.doors.upstream_postgres_dsn import safe_dsn

    what = "gateway.state.postgres.dsn"
    text = resolved(rules.dsn, base=base, what=what)
    found = conninfo_to_dict(safe_dsn(text, what=what, insecure_tls=rules.insecure_tls_for_tests))
    found.setdefault("tcp_user_timeout", int(rules.timeout_seconds * 1000))
    # of several hosts the one that takes writes
    return make_conninfo("", **{"target_session_attrs": "read-write", **found})


@contextlib.contextmanager
def shared_revocations(rules: PostgresState, *, base: Path) -> Iterator[RevocationTable]:
    """Who is stopped, for a command. Raises ConfigInvalid, also for what the database does not do."""
    import psycopg

    from onbehalf.doors.revocations_postgres import RevocationTable

    table = RevocationTable.open(state_dsn(rules, base=base))
    try:
        yield table
    except psycopg.Error as error:
        raise ConfigInvalid(
            f"the database of `gateway.state` failed: {error.sqlstate or 'connection lost'}",
            hint="nothing may have been changed; `onbehalf revoke list` says what was",
        ) from error
    finally:
        table.close()
