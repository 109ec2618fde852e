"""A directory with a ledger, its load and its judge: what the tests of faults share."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.checker import Log, Seen, judge, judge_recovery, read_log
from faults.recorded import Disk
from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.errors import OnbehalfError
from onbehalf.model import UnixTime

__all__ = ["LOAD", "ORIGIN", "Place", "needs_strace", "quick_place"]

ORIGIN = "gateway.example/log"
LOAD = str(Path(__file__).with_name("load.py"))
needs_strace = pytest.mark.skipif(
    not any(Path(each, "strace").exists() for each in os.get_exec_path()), reason="strace is not installed"
)


def quick_place() -> Path | None:
    """Where files are held in memory, if there is such a place: nothing has to reach a disk for a disk that we make."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else None


@dataclass(frozen=True, slots=True)
class Place:
    """One ledger's directory."""

    directory: Path

    @classmethod
    def at(cls, directory: Path) -> Place:
        directory.mkdir(parents=True, exist_ok=True)
        open_ledger_keys(directory / "keys", origin=ORIGIN)
        return cls(directory.resolve())

    @property
    def database(self) -> Path:
        return self.directory / "log.db"

    @property
    def vkey(self) -> str:
        return (self.directory / "keys" / "log.pub").read_text(encoding="ascii")

    def seen(self) -> Seen:
        return Seen.of(self.directory / "clients", self.directory / "backend", self.directory / "heads")

    def start(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """The load as a process; `before` is the command that runs it, if not Python alone."""
        command = [*(before or (sys.executable,)), LOAD, str(self.directory), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def run(self, *arguments: str, before: tuple[str, ...] = (), code: int | None = None) -> str:
        """The load until it ends; what it printed."""
        process = self.start(*arguments, before=before)
        printed, _ = process.communicate(timeout=100)
        assert code is None or process.returncode == code, (process.returncode, printed)
        return printed

    def killed(self, *arguments: str) -> None:
        """The load until it kills itself at a step."""
        self.run(*arguments, code=-signal.SIGKILL)

    def opened(self) -> SqliteLedger:
        keys = read_ledger_keys(self.directory / "keys", origin=ORIGIN)
        return SqliteLedger.open(self.database, keys=keys, origin=ORIGIN, now=lambda: UnixTime(3))

    def reader(self) -> LedgerReader:
        return LedgerReader(self.database, keys=read_ledger_keys(self.directory / "keys", origin=ORIGIN))

    def restarted(self, *arguments: str) -> list[str]:
        """What does not hold of the file as it lies there, and after the next start, which may be a planted one."""
        before = read_log(self.database)
        found = judge(before, self.seen(), self.vkey)
        if arguments:
            self.run(*arguments, "--calls", "0")
        else:
            self.opened().close()
        after = read_log(self.database)
        return [*found, *judge(after, self.seen(), self.vkey), *judge_recovery(before, after)]

    def after_power_loss(self, disk: Disk) -> list[str]:
        """What does not hold of a ledger that begins with this disk. A disk that is refused holds nothing."""
        with tempfile.TemporaryDirectory(dir=quick_place()) as place:
            other = Place(Path(place))
            (other.directory / "keys").symlink_to(self.directory / "keys")
            disk.put(other.directory)
            seen = Seen()
            for each in disk.told:
                where = (each["call"], each.get("index", -1), each.get("leaf", ""))
                (seen.acked if each["did"] == "ack" else seen.effects).append(where)
            try:
                before = read_log(other.database)
            except sqlite3.OperationalError as error:  # not even its tables: a first start that was broken off
                before = Log(leaves=(), note="")
                if seen.acked or seen.effects:
                    return [f"acknowledged entries are gone: {error}"]
            try:
                other.opened().close()
            except OnbehalfError as error:
                return [f"refused: {error.message}"]
            after = read_log(other.database)
            return [*judge(after, seen, self.vkey), *judge_recovery(before, after)]
