"""Lines in a file, forced to the disk, or on the standard output.

A file's last line may be torn by a crash: it is cut off before more is written, for its record is sent again.
Must not read the record.

Trust: whoever can write the file can change lines; each JSON line's leaf hash shows it, a missing one its index.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

from onbehalf.doors.folder_sync import sync_folder
from onbehalf.errors import SinkUnavailable
from onbehalf.explain.views_batch import Batch, Form, lines

__all__ = ["FileLines", "StreamLines"]

_STEP = 64 * 1024


class FileLines:
    """One file that gives way to a new one at `rotate_bytes`: it is renamed to its own name and the index of the next
    record. Of those the newest `keep` stay, 0 is all of them."""

    def __init__(self, path: Path, form: Form, *, rotate_bytes: int, keep: int) -> None:
        self._path, self._form, self._most, self._keep = path, form, rotate_bytes, keep
        self._handle = -1
        self._new = False

    def deliver(self, batch: Batch) -> None:
        """Append and force to the disk. Raises SinkUnavailable; what was written of the batch is cut off then."""
        data = b"".join(line + b"\n" for line in lines(batch, self._form))
        try:
            size = self._opened()
            if size and size + len(data) > self._most:
                self._rotate(batch.first)
                size = self._opened()
            try:
                self._write(data)
            except OSError:
                os.ftruncate(self._handle, size)
                raise
        except OSError as error:
            self.close()
            raise SinkUnavailable(f"`{self._path}` cannot be written: {error.strerror}") from error

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _opened(self) -> int:
        """The size of the file, made and its torn end cut off where it was not open."""
        if self._handle < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._new = not self._path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._handle = os.open(self._path, flags, 0o600)
            whole = _whole(self._handle)
            if whole != os.fstat(self._handle).st_size:
                os.ftruncate(self._handle, whole)
        return os.fstat(self._handle).st_size

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._handle, rest) :]
        os.fsync(self._handle)
        if self._new:
            sync_folder(self._path.parent)
            self._new = False

    def _rotate(self, next_: int) -> None:
        self.close()
        self._path.rename(self._path.with_name(f"{self._path.name}.{next_:020}"))
        sync_folder(self._path.parent)
        pattern = re.compile(re.escape(self._path.name) + r"\.[0-9]{20}")
        old = sorted(each for each in self._path.parent.iterdir() if pattern.fullmatch(each.name))
        for each in old[: -self._keep] if self._keep else []:
            each.unlink()


class StreamLines:
    """Lines on a stream, pushed out after each batch. Whoever reads it keeps them."""

    def __init__(self, stream: BinaryIO, form: Form) -> None:
        self._stream, self._form = stream, form

    def deliver(self, batch: Batch) -> None:
        """Raises SinkUnavailable where nobody reads any more."""
        try:
            self._stream.write(b"".join(line + b"\n" for line in lines(batch, self._form)))
            self._stream.flush()
        except OSError as error:
            raise SinkUnavailable(f"the standard output cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """The stream is the process's own."""


def _whole(handle: int) -> int:
    """How many bytes of a file end in a line's end."""
    end = os.fstat(handle).st_size
    while end:
        start = max(0, end - _STEP)
        found = os.pread(handle, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
