"""Opens the record as the settings say: for writing by a gateway, or for reading by commands and `/log/`.

With app.py, build.py and their neighbours, the only files that name concrete doors. What PostgreSQL needs is loaded
only where it is used.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UnsetType

from onbehalf.config_ledger import PostgresLedgerSettings
from onbehalf.config_settings import Settings
from onbehalf.doors.clock_system import now
from onbehalf.doors.inbound_log import LogApp
from onbehalf.doors.ledger_erase import Erasing
from onbehalf.doors.ledger_handover import finish
from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys, read_shared_keys
from onbehalf.doors.ledger_signing import HeadSigning, SignedTiles
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.ledger_store import LedgerStore, SqliteStore
from onbehalf.doors.ledger_tiles import LedgerTiles
from onbehalf.doors.secret_reference import resolved
from onbehalf.explain.seal import LedgerKeys
from onbehalf.places import Paths

if TYPE_CHECKING:
    from onbehalf.doors.ledger_postgres import PostgresLedger

__all__ = ["ledger_dsn", "ledger_store", "ledger_where", "open_erasing", "open_ledger", "public_log", "reading_keys"]


def open_ledger(places: Paths, settings: Settings, *, origin: str) -> tuple[SqliteLedger | PostgresLedger, LedgerKeys]:
    """The record, checked, to be written, and its keys. `origin` is its name. Raises OnbehalfError."""
    asked = settings.gateway.ledger.postgres
    if asked is None:
        finish(places.ledger, places.keys, origin=origin)
        keys = open_ledger_keys(places.keys, origin=origin)
        return SqliteLedger.open(places.ledger, keys=keys, origin=origin, now=now), keys
    from onbehalf.doors.ledger_postgres import Patience, PostgresLedger
    from onbehalf.doors.ledger_postgres_session import Demands

    demands = Demands(
        dsn=ledger_dsn(asked, asked.dsn, "dsn", places=places),
        insecure_durability=asked.insecure_durability_for_tests,
        insecure_role=asked.insecure_role_for_tests,
    )
    keys = read_shared_keys(places.keys, origin=origin)  # none are made here: another replica's are the record's
    patience = Patience(gone=asked.gone_seconds)
    return PostgresLedger.open(demands, keys=keys, replica=places.replica, now=now, patience=patience), keys


def open_erasing(
    places: Paths, stack: contextlib.AsyncExitStack, ledger: SqliteLedger | PostgresLedger
) -> Erasing | None:
    """What erases by person; None for a record in PostgreSQL, which has no keys of people."""
    if not isinstance(ledger, SqliteLedger):
        return None
    erasing = Erasing(ledger, places.ledger, now=now)
    stack.callback(erasing.close)
    return erasing


def reading_keys(places: Paths, settings: Settings, *, origin: str) -> LedgerKeys:
    """What the record's payloads are opened with. Raises ConfigInvalid."""
    if settings.gateway.ledger.postgres is None:
        return read_ledger_keys(places.keys, origin=origin)
    return read_shared_keys(places.keys, origin=origin)


def ledger_store(places: Paths, settings: Settings) -> LedgerStore:
    """The record, to be read. Raises ConfigInvalid."""
    asked = settings.gateway.ledger.postgres
    if asked is None:
        return SqliteStore(places.ledger)
    from onbehalf.doors.ledger_postgres_store import PostgresStore

    if isinstance(asked.reader, UnsetType):
        return PostgresStore(ledger_dsn(asked, asked.dsn, "dsn", places=places))
    return PostgresStore(ledger_dsn(asked, asked.reader, "reader", places=places))


def ledger_where(places: Paths, settings: Settings) -> str:
    """Where the record is, for a person."""
    return str(places.ledger) if settings.gateway.ledger.postgres is None else "in PostgreSQL"


def ledger_dsn(asked: PostgresLedgerSettings, reference: str, key: str, *, places: Paths) -> str:
    """What a reference refers to, as a DSN that is safe to use. Raises ConfigInvalid."""
    from onbehalf.doors.upstream_postgres_dsn import safe_dsn

    what = f"gateway.ledger.postgres.{key}"
    base: Path = places.config.resolve().parent
    return safe_dsn(resolved(reference, base=base, what=what), what=what, insecure_tls=asked.insecure_tls_for_tests)


def public_log(
    places: Paths, settings: Settings, stack: contextlib.AsyncExitStack, signing: HeadSigning | None
) -> LogApp | None:
    """The log at `/log/`, where the settings show it; its checkpoint with the second signature, where there is one."""
    public = settings.gateway.public_log
    if public == "none":
        return None
    tiles = LedgerTiles(ledger_store(places, settings))
    stack.callback(tiles.close)
    return LogApp(SignedTiles(tiles, signing) if signing is not None else tiles, public=public)
