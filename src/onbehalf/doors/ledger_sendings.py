"""What the record says was sent, upstream by upstream, with what came of each: one side of a comparison.

Reads while a gateway writes, in one snapshot. Must not compare (explain/reconcile.py).

Trust: as ledger_reader.py; each payload is checked against its leaf when it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_store import View
from onbehalf.errors import ConfigInvalid, LedgerCorrupt
from onbehalf.explain import tree
from onbehalf.explain.leaf import Leaf, open_payload, read
from onbehalf.explain.reconcile import Sending, end_of
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import Json, UnixTime

__all__ = ["Place", "Sent", "denied", "holds", "sent"]

Place = tuple[str, int]
"""Where a range begins or ends: (`index`, a leaf's index) or (`time`, seconds since 1970)."""
_ROW = "SELECT l.idx, l.entry, p.sealed FROM leaf l LEFT JOIN payload p USING (idx)"
_MAX = 1_000_000


@dataclass(slots=True, kw_only=True)
class Sent:
    """The intents of leaves `start` to `end`, not included, of a log of `size`, by channel in the order of the log.
    `uncounted` is how many have no number: they are from before there were any."""

    start: int
    end: int
    size: int
    first_at: int | None = None
    last_at: int | None = None
    uncounted: int = 0
    channels: dict[str, list[Sending]] = field(default_factory=dict)


def sent(reader: LedgerReader, start: Place, end: Place | None) -> Sent:
    """Raises ConfigInvalid for a range that is none or too large, LedgerCorrupt where a record does not hold."""
    if reader.keys is None:
        raise ConfigInvalid("payloads cannot be opened without the gateway's keys")
    with reader.snapshot() as view:
        size = int(view.execute("SELECT size FROM head").fetchone()[0])
        made = Sent(start=_index(view, start, size), end=_index(view, end, size), size=size)
        if not made.start <= made.end <= size:
            raise ConfigInvalid(
                f"there are no leaves {made.start} to {made.end}: the log has {size}", hint="ask for others"
            )
        intents: dict[int, Sending] = {}
        waiting: set[int] = set()
        for index, entry, sealed in view.walk(f"{_ROW} WHERE l.idx >= ? ORDER BY l.idx", (made.start,)):
            if index >= made.end and not waiting:
                break
            _take(made, intents, waiting, index, (read(entry), *_opened(reader.keys, index, entry, sealed)))
    for sending in intents.values():
        made.channels.setdefault(sending.channel, []).append(sending)
    return made


def _take(
    made: Sent, intents: dict[int, Sending], waiting: set[int], index: int, record: tuple[Leaf, str, dict[str, Json]]
) -> None:
    leaf, hash_, facts = record
    if index < made.end:
        made.first_at = leaf.at if made.first_at is None else made.first_at
        made.last_at = leaf.at
    if leaf.kind == "intent" and index < made.end:
        made.uncounted += not leaf.ch
        if leaf.ch:
            intents[index] = _sending(index, leaf, hash_, facts)
            waiting.add(index)
        if len(intents) > _MAX:
            raise ConfigInvalid(f"more than {_MAX} calls were sent in that span", hint="compare a shorter one")
    elif leaf.kind in ("outcome", "unknown") and leaf.of in waiting:
        waiting.discard(leaf.of)
        answer = facts.get("answer_digest") or facts.get("result_digest")
        intents[leaf.of] = replace(
            intents[leaf.of], end=end_of(leaf.kind, facts.get("outcome")), receipt="backend_receipt" in leaf.facts,
            answer=answer if isinstance(answer, str) else "",
        )  # fmt: skip


def _sending(index: int, leaf: Leaf, hash_: str, facts: dict[str, Json]) -> Sending:
    tool, arguments = facts.get("tool"), facts.get("arguments_digest")
    remote = tool.get("remote") if isinstance(tool, dict) else None
    return Sending(
        index=index, leaf=hash_, call=leaf.call, channel=leaf.ch, number=leaf.n, at=UnixTime(leaf.at),
        tool=remote if isinstance(remote, str) else "", arguments=arguments if isinstance(arguments, str) else "",
    )  # fmt: skip


def _opened(keys: LedgerKeys, index: int, entry: bytes, sealed: bytes | None) -> tuple[str, dict[str, Json]]:
    """The leaf's hash, and its facts where they are needed and not erased."""
    hash_, leaf = tree.leaf_hash(entry), read(entry)
    if sealed is None or leaf.kind not in ("intent", "outcome", "unknown"):
        return f"sha256:{hash_.hex()}", {}
    try:
        payload = keys.sealer.open(sealed, index=index, leaf=hash_)
        return f"sha256:{hash_.hex()}", {} if payload is None else open_payload(leaf, payload)
    except LedgerCorrupt as error:
        raise LedgerCorrupt(f"record {index} is damaged: {error.message}", hint=error.hint) from error


def _index(view: View, place: Place | None, size: int) -> int:
    """Of a time, the first leaf of then or later."""
    if place is None:
        return size
    if place[0] == "index":
        return place[1]
    found = view.execute(f"SELECT min(idx) FROM leaf WHERE {view.at} >= ?", (place[1],)).fetchone()[0]  # noqa: S608
    return size if found is None else int(found)


def holds(reader: LedgerReader, indices: Iterable[int]) -> set[int]:
    """Which of these the log has by now."""
    with reader.snapshot() as view:
        size = int(view.execute("SELECT size FROM head").fetchone()[0])
    return {each for each in indices if 0 <= each < size}


def denied(reader: LedgerReader, calls: Iterable[str]) -> set[str]:
    """Which of these calls the record refused."""
    found: set[str] = set()
    with reader.snapshot() as view:
        for call in set(calls):
            rows = view.execute(f"SELECT entry FROM leaf WHERE {view.call} = ?", (call,)).fetchall()  # noqa: S608
            if any(read(row[0]).kind == "denial" for row in rows):
                found.add(call)
    return found
