"""Parquet: the flat words of each record and its JSON line, in files partitioned by UTC day.

A file is named by the records it may hold, written beside its place, forced to the disk and renamed. After a crash,
files of records that are sent again are removed first, so that each record stands there once. Needs the extra `audit`.
Must not read the record or ask questions.

Trust: whoever can write the directory can change files; the JSON line in each row has the leaf's hash.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onbehalf.errors import ConfigInvalid, SinkUnavailable
from onbehalf.explain.views import View, json_line
from onbehalf.explain.views_batch import Batch
from onbehalf.explain.views_said import columns, said

__all__ = ["Parquet", "needed", "schema", "table"]

_FILE = re.compile(r"(?P<first>[0-9]{20})-[0-9]{20}\.parquet")


class Parquet:
    """One directory. `next_` is the index of the first record that is not known to be delivered."""

    def __init__(self, directory: Path, *, next_: int) -> None:
        """Removes what an earlier run wrote of records that come again. Raises ConfigInvalid without the extra."""
        needed()
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for path in directory.glob("day=*/*"):
                named = _FILE.fullmatch(path.name)
                if path.name.endswith(".new") or (named and int(named["first"]) >= next_):
                    path.unlink()
        except OSError as error:
            raise SinkUnavailable(f"`{directory}` cannot be written: {error.strerror}") from error

    def deliver(self, batch: Batch) -> None:
        """One file a day of the batch. Raises SinkUnavailable; a file that is there already is written anew."""
        days: dict[str, list[View]] = {}
        for view in batch.views:
            day = datetime.fromtimestamp(view.leaf.at, UTC).strftime("%Y-%m-%d")
            days.setdefault(day, []).append(view)
        try:
            for day, views in days.items():
                self._write(self._directory / f"day={day}", batch, views)
        except OSError as error:
            raise SinkUnavailable(f"`{self._directory}` cannot be written: {error}") from error

    def close(self) -> None:
        """Nothing is held between batches."""

    def _write(self, directory: Path, batch: Batch, views: list[View]) -> None:
        from pyarrow import parquet

        directory.mkdir(exist_ok=True)
        path = directory / f"{batch.first:020}-{batch.end:020}.parquet"
        beside = path.with_suffix(".new")
        meta = {"onbehalf.log": batch.log, "onbehalf.first": str(batch.first), "onbehalf.end": str(batch.end)}
        rows = table(views).replace_schema_metadata({**meta, "onbehalf.checkpoint": batch.checkpoint})
        parquet.write_table(rows, beside, compression="zstd")
        for place in (beside, directory):
            if place is directory:
                beside.rename(path)
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def needed() -> None:
    """Raises ConfigInvalid where the extra is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401  # only whether it is there
    except ModuleNotFoundError as error:
        raise ConfigInvalid(
            f"`{error.name}` is not installed", hint="pip install 'onbehalf-gateway[gateway,audit]'"
        ) from error


def schema() -> Any:
    """The columns: the flat words, the time as a timestamp, and the whole record as its JSON line."""
    import pyarrow as pa

    kinds = {
        "time": pa.timestamp("us"),
        "int": pa.int64(),
        "bool": pa.bool_(),
        "bool | None": pa.bool_(),
        "tuple[str, ...]": pa.list_(pa.string()),
    }
    flat = [pa.field(name, kinds.get(name, kinds.get(kind, pa.string()))) for name, kind in columns().items()]
    return pa.schema([*flat, pa.field("record", pa.string())])


def table(views: Iterable[View]) -> Any:
    """Views as an Arrow table; an unknown number is null. `time` is in UTC."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for view in views:
        flat = said(view)
        row: dict[str, Any] = {name: getattr(flat, name) for name in columns() if name not in ("time", "intent")}
        row |= {"time": datetime.fromtimestamp(flat.at, UTC).replace(tzinfo=None), "intent": flat.of}
        row |= {name: None for name in ("intent", "returned", "released") if row[name] < 0}
        row["record"] = json_line(view).decode()
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=schema())
