"""A record as a CloudEvents 1.0.2 event in the JSON format: its document is `data`, and attributes repeat some of it.

Must not hold how events are sent, one by one or in batches.
"""

from __future__ import annotations

from datetime import UTC, datetime

from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.views import View, document, read_document
from onbehalf.explain.views_said import one_line, said
from onbehalf.model import Json

__all__ = ["cloudevent", "read_cloudevent"]

_MOST = 200


def cloudevent(view: View) -> dict[str, Json]:
    """The event. `source` is the log, `id` the record's own id, so that one sent twice is known again.

    `sequence` is the index with leading zeros: as text it sorts as the number does (CloudEvents' extension of that
    name). Attributes hold no control characters (section 3.1): what a client wrote is shown there as one line.
    """
    flat = said(view)
    event: dict[str, Json] = {
        "specversion": "1.0",
        "id": view.leaf.id,
        "source": f"//{view.log}",
        "type": f"onbehalf.{view.leaf.kind}.v1",
        "time": datetime.fromtimestamp(view.leaf.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "datacontenttype": "application/json",
        "sequence": f"{view.index:020}",
        "onbehalfleaf": view.hash,
        "data": document(view),
    }
    extra = {"subject": flat.tool or flat.command, "onbehalfcall": flat.call, "onbehalfclient": flat.client}
    return event | {name: one_line(value, _MOST) for name, value in extra.items() if value}


def read_cloudevent(event: Json) -> View:
    """The view of an event. Raises LedgerCorrupt, also where an attribute says otherwise than the record in it."""
    found = read_document(event.get("data") if isinstance(event, dict) else None)
    if cloudevent(found) != event:
        raise LedgerCorrupt("the event's attributes are not those of its record")
    return found
