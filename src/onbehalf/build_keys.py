"""Which keys are in force, for the record: now, and as last recorded. Must not hold a rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from onbehalf.config import Settings
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.ledger_store import LedgerStore
from onbehalf.doors.signer_file import FileSigner
from onbehalf.doors.upstream_receipts import open_receipts
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable, RecordMissing
from onbehalf.explain.key_set import key_set
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import Json

if TYPE_CHECKING:
    from onbehalf.doors.ledger_postgres import PostgresLedger

__all__ = ["keys_in_force", "keys_on_record"]


def keys_in_force(
    settings: Settings, base: Path, *, keys: LedgerKeys, signer: FileSigner
) -> Callable[[], dict[str, Json]]:
    """What says which keys are in force, whenever it is asked; backends' keys as they are now. Raises ConfigInvalid."""
    receipts: dict[str, dict[str, str]] = {}
    for name, upstream in settings.upstreams.items():
        found = open_receipts(getattr(upstream, "receipt_keys", ""), base=base)
        if found is not None:
            receipts[name] = found.public()
    return lambda: key_set(log=keys.vkeys, calls=signer.keys.states(), receipts=receipts)


def keys_on_record(ledger: SqliteLedger | PostgresLedger, store: LedgerStore, keys: LedgerKeys) -> Json:
    """The keys that were recorded last; None where there are none, or where that can be read no longer."""
    if ledger.keyed < 0:
        return None
    try:
        reader = LedgerReader(store, keys=keys)
        try:
            return reader.record(ledger.keyed).facts.get("key_set")
        finally:
            reader.close()
    except (LedgerCorrupt, LedgerUnavailable, RecordMissing):
        return None
