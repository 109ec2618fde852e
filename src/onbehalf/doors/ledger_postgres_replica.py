"""Which replica of a shared ledger this data folder's last run was, in a file that one process holds at a time.

So a gateway that starts again knows that its last run has ended, and need not wait to see it. Must not connect.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import msgspec

from onbehalf.doors.folder_sync import sync_folder
from onbehalf.errors import LedgerUnavailable

__all__ = ["Replica"]

_MAX_BYTES = 4096


class _Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    log: str
    replica: int


class Replica:
    """The file, held. `earlier` is the number of the last run with this log, 0 where there is none."""

    def __init__(self, path: Path, handle: int, *, log: str, earlier: int) -> None:
        """Only for `hold`."""
        self._path, self._handle, self._log = path, handle, log
        self.earlier = earlier
        self.name = socket.gethostname()

    @classmethod
    def hold(cls, path: Path, *, log: str) -> Replica:
        """Hold the file `path`, made where there is none. Raises LedgerUnavailable."""
        try:
            handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerUnavailable(f"`{path}` cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            said = path.read_bytes()[:_MAX_BYTES] if path.exists() else b""
        except OSError as error:
            os.close(handle)
            raise LedgerUnavailable(
                f"another process uses `{path.parent}`", hint="each replica has a `data` folder of its own"
            ) from error
        try:
            run = msgspec.json.decode(said, type=_Run) if said else _Run(log=log, replica=0)
        except msgspec.DecodeError:  # what it held is found by the other replicas, or by this one after a while
            run = _Run(log=log, replica=0)
        return cls(path, handle, log=log, earlier=run.replica if run.log == log else 0)

    def become(self, number: int) -> None:
        """Say durably which replica this run is. Raises LedgerUnavailable."""
        beside = self._path.with_suffix(".new")
        try:
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(_Run(log=self._log, replica=number)))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            raise LedgerUnavailable(f"`{self._path}` cannot be written: {error.strerror}") from error

    def close(self) -> None:
        os.close(self._handle)
