"""The changes of a log's own key, as its ledger keeps them, and the keys that they lead to.

A table of its own, `handover(idx, told)`, in SQLite made by the first change. Must not change a key
(ledger_handover.py).

Trust: a row is believed only as far as both keys signed it (explain/handover.py). Without its row a change cannot be
followed; the check of the whole log says so.
"""

from __future__ import annotations

from onbehalf.doors.ledger_store import View
from onbehalf.errors import ConfigInvalid
from onbehalf.explain.checkpoint import NoteVerifier
from onbehalf.explain.handover import Handover, follow, keys_named, parse
from onbehalf.explain.seal import LedgerKeys

__all__ = ["TABLE", "followed", "handovers", "require_newest"]

TABLE = "CREATE TABLE IF NOT EXISTS handover(idx INTEGER PRIMARY KEY, told TEXT NOT NULL) STRICT"
_MOST = 1000


def handovers(view: View) -> tuple[Handover, ...]:
    """All changes, oldest first; none in a store that has none. Raises LedgerCorrupt."""
    if not view.has("handover"):
        return ()
    rows = view.execute("SELECT told FROM handover ORDER BY idx LIMIT ?", (_MOST,)).fetchall()
    return tuple(parse(str(told)) for (told,) in rows)


def followed(view: View, key: NoteVerifier) -> NoteVerifier:
    """The key in force, with those before it, given any key of the log. Raises LedgerCorrupt."""
    return follow(key, handovers(view))


def require_newest(view: View, keys: LedgerKeys) -> None:
    """See that no other keys came after these, in a record that several machines write. Raises ConfigInvalid."""
    changes, key = handovers(view), keys.signer.verifier
    if not changes:
        return
    if follow(key, changes).vkey != key.vkey:
        raise ConfigInvalid(
            f"`log.key` is a former key of this log: leaf {changes[-1].index} says that its keys were changed",
            hint="copy `log.key`, `log-ml-dsa.key` and `log.pub` from `data/keys` of a gateway that has the new ones; "
            "where `log.key.next` is, run `onbehalf serve` or `onbehalf keys rotate-log`: docs/replicas.md",
        )
    _, after = keys_named(changes[-1])
    if len(after) > 1 and not set(keys.vkeys) <= set(after):
        raise ConfigInvalid(
            f"`log-ml-dsa.key` is not the one that came with `log.key` at leaf {changes[-1].index}",
            hint="copy `log-ml-dsa.key` and `log.pub` from `data/keys` of a gateway that runs: docs/replicas.md",
        )
