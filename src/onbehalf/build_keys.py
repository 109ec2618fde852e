"""Which keys are in force, for the record: now, and as last recorded; and the keys of security events. Must not hold a
rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from onbehalf.config import Settings
from onbehalf.config_sinks import PushSink
from onbehalf.doors.key_file import KeyFile
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.ledger_store import LedgerStore
from onbehalf.doors.signer_events import make_event_keys
from onbehalf.doors.signer_file import FileSigner
from onbehalf.doors.upstream_receipts import open_receipts
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable, RecordMissing
from onbehalf.explain.key_set import key_set
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import Json, UnixTime
from onbehalf.places import Paths, trust_domain

if TYPE_CHECKING:
    from onbehalf.doors.ledger_postgres import PostgresLedger

__all__ = ["event_documents", "event_keys", "keys_in_force", "keys_on_record"]

_EVENTS = "/.well-known/ssf-configuration"
_EVENT_JWKS = "/.well-known/events-jwks.json"


def event_keys(settings: Settings, places: Paths, now: UnixTime) -> KeyFile | None:
    """The keys that sign Security Event Tokens, made if there are none; None where no sink is pushed any.

    Raises SignerUnavailable.
    """
    if not any(isinstance(sink, PushSink) for sink in settings.sinks.values()):
        return None
    return make_event_keys(places.keys, now)


def event_documents(settings: Settings, keys: KeyFile | None) -> dict[str, Callable[[], dict[str, Json]]]:
    """What receivers of these tokens look for, by path: the transmitter's metadata (SSF 1.0 section 7) and its keys."""
    if keys is None:
        return {}
    resource = urlsplit(settings.gateway.resource)
    told: dict[str, Json] = {
        "spec_version": "1_0", "issuer": trust_domain(settings),
        "jwks_uri": f"{resource.scheme}://{resource.netloc}{_EVENT_JWKS}",
        "delivery_methods_supported": ["urn:ietf:rfc:8935"],
    }  # fmt: skip
    return {_EVENTS: lambda: told, _EVENT_JWKS: keys.jwks}


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
