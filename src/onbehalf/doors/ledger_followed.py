"""The changes of a log's own key, as its ledger keeps them, and the keys that they lead to.

A table of its own, made by the first change: `handover(idx, told)`. Must not change a key (ledger_handover.py).

Trust: a row is believed only as far as both keys signed it (explain/handover.py). Without its row a change cannot be
followed; the check of the whole log says so.
"""

from __future__ import annotations

from onbehalf.doors.ledger_store import SqliteView, View
from onbehalf.explain.checkpoint import NoteVerifier
from onbehalf.explain.handover import Handover, follow, parse

__all__ = ["TABLE", "followed", "handovers"]

TABLE = "CREATE TABLE IF NOT EXISTS handover(idx INTEGER PRIMARY KEY, told TEXT NOT NULL) STRICT"
_MOST = 1000


def handovers(view: View) -> tuple[Handover, ...]:
    """All changes, oldest first; none in a store that has none. Raises LedgerCorrupt."""
    if not isinstance(view, SqliteView):
        return ()
    if view.execute("SELECT 1 FROM sqlite_master WHERE name = 'handover'").fetchone() is None:
        return ()
    rows = view.execute("SELECT told FROM handover ORDER BY idx LIMIT ?", (_MOST,)).fetchall()
    return tuple(parse(str(told)) for (told,) in rows)


def followed(view: View, key: NoteVerifier) -> NoteVerifier:
    """The key in force, with those before it, given any key of the log. Raises LedgerCorrupt."""
    return follow(key, handovers(view))
