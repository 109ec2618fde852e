"""Opens the record as the settings say: for writing by a gateway, or for reading by commands and `/log/`.

With app.py, build.py and their neighbours, the only files that name concrete doors. What PostgreSQL needs is loaded
only where it is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import UnsetType

from onbehalf.config_ledger import PostgresLedgerSettings
from onbehalf.config_settings import Settings
from onbehalf.doors.clock_system import now
from onbehalf.doors.inbound_log import LogApp
from onbehalf.doors.ledger_erase import Erasing, resurrected
from onbehalf.doors.ledger_erase_sqlite import SqliteErasable
from onbehalf.doors.ledger_handover import Changeable, finish
from onbehalf.doors.ledger_handover_sqlite import SqliteChangeable
from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.ledger_heads_kept import HeadsFile
from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys, read_shared_keys
from onbehalf.doors.ledger_sealing import SubjectSealing
from onbehalf.doors.ledger_signing import HeadSigning, SignedTiles
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.ledger_store import LedgerStore, SqliteStore
from onbehalf.doors.ledger_tiles import LedgerTiles
from onbehalf.doors.secret_reference import resolved
from onbehalf.errors import ConfigInvalid, LedgerCorrupt
from onbehalf.explain.checkpoint import NoteVerifier
from onbehalf.explain.seal import LedgerKeys
from onbehalf.places import Paths

if TYPE_CHECKING:
    from onbehalf.doors.ledger_postgres import PostgresLedger
    from onbehalf.doors.ledger_postgres_handover import PostgresChangeable
    from onbehalf.doors.ledger_postgres_session import Demands
    from onbehalf.doors.ledger_postgres_subjects import Eraser

__all__ = [
    "changeable",
    "erasing_alone",
    "erasing_keys",
    "ledger_dsn",
    "ledger_heads",
    "ledger_store",
    "ledger_where",
    "open_erasing",
    "open_ledger",
    "public_log",
    "reading_heads",
    "reading_keys",
]

_PATIENT_SECONDS = 60.0
"""How long a command that changes the log's keys may hold the head without a word."""


def open_ledger(places: Paths, settings: Settings, *, origin: str) -> tuple[SqliteLedger | PostgresLedger, LedgerKeys]:
    """The record, checked, to be written, and its keys. `origin` is its name. Raises OnbehalfError."""
    asked = settings.gateway.ledger.postgres
    if asked is None:
        finish(SqliteChangeable(places.ledger), places.keys, origin=origin)
        keys = open_ledger_keys(places.keys, origin=origin)
        return SqliteLedger.open(places.ledger, keys=keys, origin=origin, now=now), keys
    from onbehalf.doors.ledger_postgres_subjects import PostgresSubjects

    finish(_postgres_changeable(places, asked, origin, asked.dsn), places.keys, origin=origin)
    people = PostgresSubjects(ledger_dsn(asked, asked.dsn, "dsn", places=places))
    keys = read_shared_keys(places.keys, origin=origin, people=people)  # another replica made the record's
    ledger = _replica(places, asked, keys, places.replica)
    try:
        _require_erased(ledger_store(places, settings, primary=True), _sealing(keys))
    except BaseException:
        ledger.close()
        people.close()
        raise
    return ledger, keys


def changeable(places: Paths, settings: Settings, *, origin: str, login: str) -> Changeable:
    """The record, for a change of its keys. `login` refers to a DSN for one in PostgreSQL. Raises ConfigInvalid."""
    asked = settings.gateway.ledger.postgres
    if asked is None:
        if login:
            raise ConfigInvalid("--login is for a record in PostgreSQL", hint="leave it out")
        return SqliteChangeable(places.ledger)
    if not login:
        raise ConfigInvalid(
            "the keys of a record in PostgreSQL are changed with a login of its own, which no gateway has",
            hint="--login env:NAME or file:PATH names its DSN; docs/replicas.md says how it is made",
        )
    return _postgres_changeable(places, asked, origin, login, what="--login")


def _postgres_changeable(
    places: Paths, asked: PostgresLedgerSettings, origin: str, reference: str, *, what: str = ""
) -> PostgresChangeable:
    """`what` is the option that gave the reference, where a person did, and not the settings for a gateway."""
    from onbehalf.doors.ledger_postgres_handover import PostgresChangeable

    demands = _demands(asked, ledger_dsn(asked, reference, "dsn", places=places, what=what))
    if what:
        demands = replace(demands, insecure_role=True, idle_seconds=_PATIENT_SECONDS)
    return PostgresChangeable(demands, replica=places.replica, origin=origin)


def open_erasing(
    places: Paths, stack: contextlib.AsyncExitStack, ledger: SqliteLedger | PostgresLedger
) -> Erasing | None:
    """What erases while the gateway runs; None for a record in PostgreSQL, where only commands may."""
    sealing = _sealing(ledger.keys)
    if not isinstance(ledger, SqliteLedger):
        stack.callback(sealing.close)
        return None
    erasing = Erasing(SqliteErasable(ledger, places.ledger, sealing), sealing, now=now)
    stack.callback(erasing.close)
    return erasing


def erasing_keys(places: Paths, settings: Settings, *, origin: str) -> SubjectSealing:
    """What a command that erases looks with, and asks. Raises ConfigInvalid."""
    asked = settings.gateway.ledger.postgres
    if asked is None:
        return _sealing(read_ledger_keys(places.keys, origin=origin))
    return _sealing(_eraser_keys(places, asked, origin)[0])


@contextlib.asynccontextmanager
async def erasing_alone(places: Paths, settings: Settings, *, origin: str) -> AsyncIterator[Erasing]:
    """What erases for a command: in a file while no gateway runs, in PostgreSQL beside those that do.

    Raises LedgerUnavailable while another process is at it, ConfigInvalid.
    """
    asked = settings.gateway.ledger.postgres
    if asked is None:
        keys = read_ledger_keys(places.keys, origin=origin)
        ledger = SqliteLedger.open(places.ledger, keys=keys, origin=origin, now=now)
        erasing = Erasing(SqliteErasable(ledger, places.ledger, _sealing(keys)), _sealing(keys), now=now)
        try:
            yield erasing
        finally:
            ledger.close()
        erasing.close()
        return
    from onbehalf.doors.ledger_postgres_erase import PostgresErasable
    from onbehalf.doors.ledger_postgres_store import PostgresStore

    keys, eraser = _eraser_keys(places, asked, origin)
    store = PostgresStore(ledger_dsn(asked, asked.dsn, "dsn", places=places))
    erasable = PostgresErasable(store, eraser, writing=lambda: _replica(places, asked, keys, places.eraser))
    erasing = Erasing(erasable, _sealing(keys), now=now)
    try:
        eraser.alone()
        yield erasing
    finally:
        erasing.close()


def _replica(places: Paths, asked: PostgresLedgerSettings, keys: LedgerKeys, replica: Path) -> PostgresLedger:
    """The record in PostgreSQL, checked, to be written as the replica of that file."""
    from onbehalf.doors.ledger_postgres import Patience, PostgresLedger

    demands = _demands(asked, ledger_dsn(asked, asked.dsn, "dsn", places=places))
    patience = Patience(gone=asked.gone_seconds)
    return PostgresLedger.open(demands, keys=keys, replica=replica, now=now, patience=patience)


def _demands(asked: PostgresLedgerSettings, dsn: str) -> Demands:
    from onbehalf.doors.ledger_postgres_session import Demands

    return Demands(
        dsn=dsn, insecure_durability=asked.insecure_durability_for_tests, insecure_role=asked.insecure_role_for_tests
    )  # fmt: skip


def _eraser_keys(places: Paths, asked: PostgresLedgerSettings, origin: str) -> tuple[LedgerKeys, Eraser]:
    from onbehalf.doors.ledger_postgres_subjects import Eraser, PostgresSubjects

    if isinstance(asked.eraser, UnsetType):
        raise ConfigInvalid(
            "`gateway.ledger.postgres.eraser` is missing: what erases is a login of its own, which no gateway has",
            hint="docs/replicas.md says how it is made, and who may do what",
        )
    eraser = Eraser(ledger_dsn(asked, asked.eraser, "eraser", places=places))
    people = PostgresSubjects(ledger_dsn(asked, asked.dsn, "dsn", places=places), eraser=eraser)
    return read_shared_keys(places.keys, origin=origin, people=people), eraser


def _require_erased(store: LedgerStore, sealing: SubjectSealing) -> None:
    """See that no key lives that the record says was destroyed. Raises LedgerCorrupt."""
    try:
        back = next(resurrected(store, sealing), None)
    finally:
        store.close()
    if back is not None:
        raise LedgerCorrupt(
            f"record {back.leaf} says that something was erased, and the store of people's keys does not: "
            "an older copy of it was put back",
            hint="`onbehalf audit erase --pending` destroys those keys again: docs/retention.md",
        )


def _sealing(keys: LedgerKeys) -> SubjectSealing:
    assert isinstance(keys.sealer, SubjectSealing)  # INVARIANT: ledger_keys.py makes no other
    return keys.sealer


def reading_keys(places: Paths, settings: Settings, *, origin: str) -> LedgerKeys:
    """What the record's payloads are opened with. Raises ConfigInvalid."""
    asked = settings.gateway.ledger.postgres
    if asked is None:
        return read_ledger_keys(places.keys, origin=origin)
    from onbehalf.doors.ledger_postgres_subjects import PostgresSubjects

    return read_shared_keys(places.keys, origin=origin, people=PostgresSubjects(_reader(places, asked)))


def ledger_store(places: Paths, settings: Settings, *, primary: bool = False) -> LedgerStore:
    """The record, to be read, where it is written with `primary`. Raises ConfigInvalid."""
    asked = settings.gateway.ledger.postgres
    if asked is None:
        return SqliteStore(places.ledger)
    from onbehalf.doors.ledger_postgres_store import PostgresStore

    if primary:
        return PostgresStore(ledger_dsn(asked, asked.dsn, "dsn", places=places), primary=True)
    return PostgresStore(_reader(places, asked))


def _reader(places: Paths, asked: PostgresLedgerSettings) -> str:
    if isinstance(asked.reader, UnsetType):
        return ledger_dsn(asked, asked.dsn, "dsn", places=places)
    return ledger_dsn(asked, asked.reader, "reader", places=places)


def ledger_heads(places: Paths, settings: Settings, verifier: NoteVerifier) -> LedgerHeads:
    """The heads of the record where it is written: a standby that is behind would look like a log that was put back.

    Raises ConfigInvalid, LedgerUnavailable, LedgerCorrupt.
    """
    asked, kept = settings.gateway.ledger.postgres, HeadsFile(places.heads)
    if asked is None:
        return LedgerHeads(places.ledger, kept, verifier=verifier)
    from onbehalf.doors.ledger_postgres_heads import SharedHeads

    shared = SharedHeads(ledger_dsn(asked, asked.dsn, "dsn", places=places), kept)
    return LedgerHeads(ledger_store(places, settings, primary=True), shared, verifier=verifier)


def reading_heads(places: Paths, settings: Settings, verifier: NoteVerifier) -> LedgerHeads:
    """The same for a command, which keeps none where it has a login to read with. Raises as `ledger_heads`."""
    asked = settings.gateway.ledger.postgres
    if asked is None or isinstance(asked.reader, UnsetType):
        return ledger_heads(places, settings, verifier)
    from onbehalf.doors.ledger_postgres_heads import SharedHeads

    return LedgerHeads(ledger_store(places, settings), SharedHeads(_reader(places, asked), None), verifier=verifier)


def ledger_where(places: Paths, settings: Settings) -> str:
    """Where the record is, for a person."""
    return str(places.ledger) if settings.gateway.ledger.postgres is None else "in PostgreSQL"


def ledger_dsn(asked: PostgresLedgerSettings, reference: str, key: str, *, places: Paths, what: str = "") -> str:
    """What a reference refers to, as a DSN that is safe to use. `what` names it, if not the settings. Raises
    ConfigInvalid."""
    from onbehalf.doors.upstream_postgres_dsn import safe_dsn

    what = what or f"gateway.ledger.postgres.{key}"
    base: Path = places.config.resolve().parent
    return safe_dsn(resolved(reference, base=base, what=what), what=what, insecure_tls=asked.insecure_tls_for_tests)


def public_log(
    places: Paths, settings: Settings, stack: contextlib.AsyncExitStack, signing: HeadSigning | None
) -> LogApp | None:
    """The log at `/log/`, where the settings show it; its checkpoint with the second signature, where there is one."""
    public = settings.gateway.public_log
    if public == "none":
        return None
    # a checkpoint is signed where the record is written, and its tiles must not be behind it
    tiles = LedgerTiles(ledger_store(places, settings, primary=signing is not None))
    stack.callback(tiles.close)
    return LogApp(SignedTiles(tiles, signing) if signing is not None else tiles, public=public)
