"""The newest rows of a ledger, of one kind if that is asked for: what is of another kind is not opened.

Trust: as ledger_reader.py.
"""

from __future__ import annotations

import orjson

from onbehalf.doors.ledger_store import View

__all__ = ["newest"]

_ROWS_A_STEP = 512
_ROW = "SELECT idx, entry, (SELECT sealed FROM payload p WHERE p.idx = leaf.idx) FROM leaf"


def newest(view: View, count: int, kind: str) -> list[tuple[int, object, object]]:
    """Index, leaf and sealed payload of the newest `count` of a kind, or of any where it is "", oldest first.

    Of one kind: reads leaves from the newest on until it has so many.
    """
    if not kind:
        return view.execute(f"{_ROW} ORDER BY idx DESC LIMIT ?", (count,)).fetchall()[::-1]
    said, found = orjson.dumps({"kind": kind})[1:-1], list[int]()
    rows = view.walk("SELECT idx, entry FROM leaf ORDER BY idx DESC")
    while len(found) < count and (batch := rows.fetchmany(_ROWS_A_STEP)):
        # nothing else in a leaf can hold these bytes: its texts have no quote that is not escaped
        found += [index for index, entry in batch if isinstance(entry, bytes) and said in entry]
    return [view.execute(f"{_ROW} WHERE idx = ?", (each,)).fetchone() for each in reversed(found[:count])]
