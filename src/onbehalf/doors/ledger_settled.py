"""Makes what a ledger's last process left true on the disk, and sure that it is whole, before anything is built on it.

Where a sync failed, the kernel may take its pages for written that never reached the disk: they can be read until power
is lost, and no later sync says a word. A process that was killed at that moment leaves them in the write-ahead log, the
next one would read them, write behind them, and after a loss of power SQLite would stop at the hole and everything
behind it would be gone, acknowledged or not. So the log's bytes are written once more, as they are read. The log's name
is made durable here as well: SQLite syncs the folder when it makes the file, and does not look whether that worked.

SQLite takes the first frame whose checksum is wrong for the end of the log, as after a loss of power it is: that one
commit was not synced, and nobody was told of it. But a commit is synced before the next one is begun. Where frames
stand behind a whole commit that does not hold, a byte was changed, and going on would drop what was acknowledged. What
is torn is cut off, so that it never stands behind a commit of the next process.

Trust: a changed byte in the very last commit looks like a loss of power; whoever was told of its entries can show them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from onbehalf.doors.folder_sync import sync_folder
from onbehalf.errors import LedgerCorrupt

__all__ = ["settle"]

_STEP = 1 << 20
_HEADER, _FRAME_HEADER = 32, 24
_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}
_HINT = (
    "keep the files as evidence, and restore both from a backup; a witness or a kept checkpoint says what is missing"
)

_Sum = tuple[int, int]


def settle(database: Path) -> None:
    """Write the write-ahead log beside `database` once more, make it where there is none, and sync it and its name.

    For who holds the ledger's lock. Readers may read meanwhile: no byte of a commit changes. Raises OSError, and
    LedgerCorrupt where the log is damaged and not only torn.
    """
    handle = os.open(f"{database}-wal", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end, place = _whole(handle), 0
        if end < os.fstat(handle).st_size:
            os.ftruncate(handle, end)
        while data := os.pread(handle, _STEP, place):
            place += os.pwrite(handle, data, place)
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_folder(database.parent)


def _whole(handle: int) -> int:
    """Where the last whole commit of the log ends (SQLite's file format, section 4). Raises LedgerCorrupt."""
    header = os.pread(handle, _HEADER, 0)
    size = os.fstat(handle).st_size
    if size < _HEADER or (size == _HEADER and not any(header)):
        return 0  # made, and power was lost before it was written
    magic, _, page, _, salt_1, salt_2, *expected = struct.unpack(">8I", header)
    order = _MAGIC.get(magic, "")
    total = _sum(header[:24], (0, 0), order) if order else (0, 0)
    if not order or [*total] != expected or not 512 <= page <= 65_536 or page & (page - 1):
        raise LedgerCorrupt("the head of the write-ahead log does not have its checksum", hint=_HINT)
    end, broken, over = _HEADER, False, False
    for number, frame in enumerate(_frames(handle, page)):
        _, pages, *salts, sum_1, sum_2 = struct.unpack_from(">6I", frame)
        if salts != [salt_1, salt_2]:
            continue  # of an earlier time, or changed: then the sum of the next one, which is carried on, is wrong
        if over:
            raise LedgerCorrupt(f"the write-ahead log is damaged before its frame {number}", hint=_HINT)
        if not broken:
            total = _sum(frame[_FRAME_HEADER:], _sum(frame[:8], total, order), order)
            broken = total != (sum_1, sum_2)
        if pages and not broken:
            end = _HEADER + (number + 1) * len(frame)
        over = bool(pages and broken)
    return end


def _frames(handle: int, page: int) -> Iterator[bytes]:
    place = _HEADER
    while len(frame := os.pread(handle, _FRAME_HEADER + page, place)) == _FRAME_HEADER + page:
        yield frame
        place += len(frame)


def _sum(data: bytes, before: _Sum, order: str) -> _Sum:
    """SQLite's checksum over whole pairs of 32-bit words, carried on."""
    one, two = before
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word, next_word in zip(words, words, strict=True):
        one = one + word + two & 0xFFFFFFFF
        two = two + next_word + one & 0xFFFFFFFF
    return one, two
