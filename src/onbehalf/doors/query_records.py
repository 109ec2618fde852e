"""The record as a table: the flat words of each record, from the ledger as it is now, or from Parquet files.

Each payload is checked against its leaf when it is opened; whether the leaves are those that were signed for is for
`audit verify` to say. Needs the extra `audit`. Must not answer a question (query_duckdb.py).

Trust: the ledger as ledger_reader.py says. Parquet files are believed as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onbehalf.doors.ledger_store import LedgerStore, store_of
from onbehalf.doors.sink_parquet import needed, schema, table
from onbehalf.doors.sink_source import opened_facts
from onbehalf.errors import QueryFailed
from onbehalf.explain.leaf import read
from onbehalf.explain.seal import LedgerKeys
from onbehalf.explain.views import View, view
from onbehalf.model import Json

__all__ = ["Span", "from_ledger", "from_parquet"]

_CHUNK = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From when on and until before when, in whole seconds; at most `most` records."""

    since: int = 0
    until: int = 2**53
    most: int = 1_000_000


def from_ledger(
    source: Path | LedgerStore, keys: LedgerKeys, span: Span, progress: Callable[[int], None] = lambda _: None
) -> Iterator[Any]:
    """Arrow tables of all records of the span, payloads opened. No transaction is held between two of them.

    Raises QueryFailed for too many, LedgerCorrupt where a record does not hold.
    """
    needed()
    first, found, store = 0, 0, store_of(source)
    with store.reading() as log:
        row = log.execute("SELECT size FROM head").fetchone()
    size = row[0] if row else 0
    while first < size:
        views = _views(store, keys, span, first, min(first + _CHUNK, size))
        first += _CHUNK
        found += len(views)
        if found > span.most:
            raise QueryFailed(
                f"there are more than {span.most} records in that time",
                hint="ask about less with --since and --until, or of a Parquet sink with --parquet",
            )
        progress(found)
        if views:
            yield table(views)


def _views(store: LedgerStore, keys: LedgerKeys, span: Span, first: int, end: int) -> list[View]:
    row = "SELECT idx, entry, (SELECT sealed FROM payload p WHERE p.idx = leaf.idx) FROM leaf WHERE "
    found: list[View] = []
    intents: dict[int, dict[str, Json] | None] = {}
    with store.reading() as log:
        for index, entry, sealed in log.execute(f"{row} idx >= ? AND idx < ? ORDER BY idx", (first, end)).fetchall():
            leaf = read(entry)
            if not span.since <= leaf.at < span.until:
                continue
            facts = opened_facts(keys, index, entry, sealed)
            if leaf.kind == "intent":
                intents[index] = facts
            if leaf.of >= 0 and leaf.of not in intents:
                of = log.execute(f"{row} idx = ?", (leaf.of,)).fetchone()
                intents[leaf.of] = opened_facts(keys, *of) if of else None
            intent = intents.get(leaf.of)
            found.append(view(leaf, facts, log=keys.signer.name, index=index, payload=True, intent=intent))
    return found


def from_parquet(directory: Path, span: Span) -> Any:
    """What a Parquet sink wrote, to be read piece by piece. Raises QueryFailed where there is nothing of the kind."""
    needed()
    import pyarrow as pa
    from pyarrow import dataset

    files = sorted(str(path) for path in directory.glob("day=*/*.parquet"))
    if not files:
        raise QueryFailed(f"there are no Parquet files in `{directory}`", hint="name the directory of a parquet sink")
    try:
        found = dataset.dataset(files, schema=schema(), format="parquet")
        since, until = (_moment(each) for each in (span.since, span.until))
        at = dataset.field("time")
        return found.filter((at >= since) & (at < until))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise QueryFailed(f"the Parquet files cannot be read: {type(error).__name__}") from error


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(min(seconds, 253_402_300_799), UTC).replace(tzinfo=None)
