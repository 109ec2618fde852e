"""The record in a file of SQLite, for a change of its keys: held as a gateway holds it, so that none runs meanwhile.

Must not know the order of a change (ledger_handover.py).

Trust: as ledger_sqlite.py.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from onbehalf.doors.ledger_file import checked, connect, lock_file
from onbehalf.doors.ledger_followed import TABLE, handovers
from onbehalf.doors.ledger_handover import Change
from onbehalf.doors.ledger_reader import Scan
from onbehalf.doors.ledger_settled import settle
from onbehalf.doors.ledger_store import SqliteStore
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, LedgerUnavailable
from onbehalf.explain.handover import Handover
from onbehalf.explain.seal import LedgerKeys

__all__ = ["SqliteChangeable"]


class _Held:
    """The file, whose lock is held."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._connection: sqlite3.Connection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def handovers(self) -> tuple[Handover, ...]:
        if not self._ledger.exists():
            return ()
        with SqliteStore(self._ledger).reading() as view:
            return handovers(view)

    def settle(self) -> None:
        """What is in the file was settled when it was locked."""

    def checked(self, keys: LedgerKeys) -> Scan:
        self._connection = connect(self._ledger, keys)
        return checked(self._connection, keys)

    def commit(self, change: Change) -> None:
        assert self._connection is not None  # INVARIANT: what is committed was made of what was checked
        index, told = change.told.index, change.told.line().rstrip("\n")
        row = (index, change.hash, change.leaf, change.sealed, change.root, change.note)
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute(TABLE)
        self._connection.execute("INSERT INTO entering VALUES (?,?,?,?,?,?)", row)
        self._connection.execute("INSERT INTO handover VALUES (?, ?)", (index, told))
        self._connection.execute("COMMIT")


class SqliteChangeable:
    """The file `ledger`."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger

    @contextmanager
    def alone(self) -> Iterator[_Held]:
        """Nobody else writes the file meanwhile, and all that it says is on disk."""
        ledger = self._ledger
        if not ledger.exists():
            raise ConfigInvalid(
                f"there is no record at `{ledger}` yet", hint="its key is made with it, by `onbehalf serve`"
            )
        try:
            lock = lock_file(ledger)
        except OSError as error:
            raise LedgerUnavailable(f"`{ledger}` cannot be locked: {error.strerror}") from error
        try:
            settle(ledger)
            with closing(_Held(ledger)) as held:
                yield held
        except (sqlite3.DatabaseError, OSError) as error:
            raise LedgerCorrupt(f"the ledger at `{ledger}` cannot be written: {error}") from error
        finally:
            os.close(lock)

    @contextmanager
    def seen(self) -> Iterator[_Held]:
        if not self._ledger.exists():
            yield _Held(self._ledger)
            return
        with self.alone() as held:
            yield held
