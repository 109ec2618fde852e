"""People in a file of any size, a line at a time: JSON Lines, or CSV with a header. The cursor is a byte offset.

A JSON line is what validate/people.py calls a record. CSV has the columns of directory_columns.py. Must not hold what
becomes of the lines.

Trust: whoever can write the file decides who is whose manager in its tenant. A line is at most 64 KiB.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from onbehalf.doors.directory_columns import reader
from onbehalf.doors.directory_load import Batch
from onbehalf.errors import DirectoryInvalid, DirectoryUnavailable
from onbehalf.strict_json import NotStrict, strict_json
from onbehalf.validate.people import Record, record

__all__ = ["SOURCE", "FileFeed", "is_feed"]

SOURCE = "file"
_LINE_BYTES = 64 * 1024
_BATCH = 5_000
_DEPTH = 8
_FORMATS: dict[str, Literal["jsonl", "csv"]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


def is_feed(path: Path) -> bool:
    """Whether a file of this name is read by FileFeed."""
    return path.suffix.lower() in _FORMATS


class FileFeed:
    """The Feed of one file. Its end says which format it has: `.jsonl`, `.ndjson` or `.csv`."""

    source = SOURCE

    def __init__(self, path: Path) -> None:
        """Raises DirectoryInvalid for another end, DirectoryUnavailable where there is no such file."""
        self._path = path
        self._format = _FORMATS.get(path.suffix.lower())
        if self._format is None:
            raise DirectoryInvalid(
                f"`{path.name}` is no feed", hint=f"its name must end in {', '.join(f'`{each}`' for each in _FORMATS)}"
            )
        try:
            found = path.stat()
        except OSError as error:
            raise DirectoryUnavailable(
                f"`{path}` cannot be read: {error.strerror}", hint="name another file"
            ) from error
        self.total = found.st_size
        self.mark = f"{self._format}:{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"

    def batches(self, cursor: str, done: int) -> Iterator[Batch]:
        """The lines from an offset on. Raises DirectoryInvalid naming the line, DirectoryUnavailable.

        The cursor is the offset and the number of lines before it.
        """
        offset, _, before = cursor.partition(":")
        try:
            with self._path.open("rb") as file:
                lines = _Lines(file, int(before or 0))
                records = self._json(lines) if self._format == "jsonl" else self._csv(lines)
                if self._format == "csv":
                    next(records, None)  # reads the header, and gives nothing
                if cursor:
                    file.seek(int(offset))
                    lines.number = int(before)
                yield from _batched(records, lines)
        except OSError as error:
            raise DirectoryUnavailable(f"`{self._path}` cannot be read: {error}", hint="run it again") from error

    def _json(self, lines: _Lines) -> Iterator[Record | None]:
        for line in lines:
            if not line.strip():
                continue
            place = f"line {lines.number}"
            try:
                value = strict_json(line, depth=_DEPTH)
            except NotStrict as error:
                raise DirectoryInvalid(f"{place}: {error}", hint="write one JSON object a line") from error
            yield record(value, place)

    def _csv(self, lines: _Lines) -> Iterator[Record | None]:
        # `strict` refuses what the reader would else guess at, such as text after a closing quote
        rows = csv.reader((_decoded(line, lines.number) for line in lines), strict=True)
        try:
            header = next(rows, [])
            read = reader([each.removeprefix("\ufeff").strip() for each in header])
            yield None
            for row in rows:
                if row:
                    yield read(row, f"line {lines.number}")
        except csv.Error as error:
            raise DirectoryInvalid(f"line {lines.number}: {error}", hint="write it as RFC 4180 says") from error


class _Lines:
    """The lines of a file, each bounded, with their number and how far the file has been read."""

    def __init__(self, file: BinaryIO, number: int) -> None:
        self._file = file
        self.number = number

    def __iter__(self) -> Iterator[bytes]:
        while line := self._file.readline(_LINE_BYTES + 1):
            self.number += 1
            if len(line) > _LINE_BYTES:
                raise DirectoryInvalid(
                    f"line {self.number} is longer than {_LINE_BYTES} bytes", hint="one person a line"
                )
            yield line

    @property
    def offset(self) -> int:
        """Behind the last line that was given."""
        return self._file.tell()


def _batched(records: Iterator[Record | None], lines: _Lines) -> Iterator[Batch]:
    held: list[Record] = []
    for each in records:
        if each is not None:
            held.append(each)
        if len(held) >= _BATCH:
            yield Batch(records=held, cursor=f"{lines.offset}:{lines.number}", done=lines.offset)
            held = []
    yield Batch(records=held, cursor=f"{lines.offset}:{lines.number}", done=lines.offset)


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DirectoryInvalid(f"line {number} is not UTF-8", hint="save the file as UTF-8") from error
