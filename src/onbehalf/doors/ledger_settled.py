"""Makes what a ledger's last process left true on the disk before anything is built on it.

Where a sync failed, the kernel may take its pages for written that never reached the disk: they can be read until power
is lost, and no later sync says a word. A process that was killed at that moment leaves them in the write-ahead log, the
next one would read them, write behind them, and after a loss of power SQLite would stop at the hole and everything
behind it would be gone, acknowledged or not. So the log's bytes are written once more, as they are read.

The log's name is made durable here as well: SQLite syncs the folder when it makes the file, and does not look whether
that worked.
"""

from __future__ import annotations

import os
from pathlib import Path

from onbehalf.doors.folder_sync import sync_folder

__all__ = ["settle"]

_STEP = 1 << 20


def settle(database: Path) -> None:
    """Write the write-ahead log beside `database` once more, make it where there is none, and sync it and its name.

    For who holds the ledger's lock. Readers may read meanwhile: no byte changes. Raises OSError.
    """
    handle = os.open(f"{database}-wal", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        place = 0
        while data := os.pread(handle, _STEP, place):
            place += os.pwrite(handle, data, place)
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_folder(database.parent)
