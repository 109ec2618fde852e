"""The store of people's keys: an SQLite file of its own beside the ledger, so that its backups can have a shorter life.

A key is found by a label that only whoever has `payload.key` can make, and is wrapped by a key made of it; what was
destroyed keeps its random id and nothing else. Deleted bytes are overwritten (`secure_delete`), and `scrub` empties the
write-ahead log of them. The file is made when the first key is. Must not decide what is erased (ledger_erase.py).

Trust: whoever has this file and `payload.key` can open what is not erased; whoever has an older copy of both, also what
was erased since. Blocks that a file system or a disk keeps aside are beyond it: use an encrypted disk.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from onbehalf.doors.folder_sync import sync_folder
from onbehalf.doors.ledger_erasable import Kind, State, held, marks, nothing_left
from onbehalf.errors import LedgerUnavailable

__all__ = ["SubjectStore", "truncated"]

_BUSY_SECONDS = 10.0
_SCRUB_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE key(id BLOB PRIMARY KEY, label BLOB, wrapped BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX key_label ON key(label) WHERE label IS NOT NULL;
CREATE TABLE request(seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, kind TEXT NOT NULL,
    state TEXT NOT NULL, said BLOB NOT NULL, result TEXT NOT NULL) STRICT;
CREATE TABLE hold(number INTEGER NOT NULL, label BLOB NOT NULL, PRIMARY KEY(number, label)) STRICT;
"""


class SubjectStore:
    """The KeyStore in a file. One connection reads and one writes, each used by one thread at a time; both are opened
    when needed."""

    def __init__(self, path: Path) -> None:
        self.path, self.where = path, f"`{path}`"
        self._reading: sqlite3.Connection | None = None
        self._writing: sqlite3.Connection | None = None
        self._read_lock, self._write_lock = threading.Lock(), threading.Lock()

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        with self._read_lock, self._write_lock:
            for each in (self._reading, self._writing):
                if each is not None:
                    each.close()
            self._reading = self._writing = None

    def rows(self, query: str, values: Sequence[bytes] = ()) -> list[tuple[Any, ...]]:
        """What a question gives; nothing where there is no file yet. Raises LedgerUnavailable."""
        with self._read_lock:
            try:
                if self._reading is None:
                    if not self.path.exists():
                        return []
                    uri = f"{self.path.absolute().as_uri()}?mode=ro"
                    self._reading = sqlite3.connect(
                        uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
                    )
                return self._reading.execute(query, values).fetchall()
            except (sqlite3.Error, OSError) as error:
                raise _unusable(self.path, error) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, on disk when the context ends, none of it where it raises. Raises LedgerUnavailable."""
        with self._write_lock:
            try:
                if self._writing is None:
                    self._writing = _connected(self.path)
                self._writing.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writing
                    self._writing.execute("COMMIT")
                finally:
                    if self._writing.in_transaction:
                        self._writing.execute("ROLLBACK")
            except (sqlite3.Error, OSError) as error:
                raise _unusable(self.path, error) from error

    def version(self) -> int:
        """Another value whenever anything was written; 0 where there is no file yet."""
        found = self.rows("PRAGMA data_version")
        return int(found[0][0]) if found else 0

    def keep(self, keys: Iterable[tuple[bytes, bytes, bytes]]) -> None:
        """Make keys durable, each with its id, its label, and wrapped. Raises LedgerUnavailable."""
        with self.writing() as connection:
            connection.executemany("INSERT INTO key(id, label, wrapped) VALUES (?, ?, ?)", keys)

    def scrub(self) -> None:
        """Have nothing that was overwritten stand in the write-ahead log either. Raises LedgerUnavailable."""
        try:
            with closing(_connected(self.path)) as connection:  # its own, so that keys can be kept meanwhile
                truncated(connection, self.path)
        except (sqlite3.Error, OSError) as error:
            raise _unusable(self.path, error) from error

    def ask(self, id_: bytes, kind: Kind, said: bytes, *, hold: Sequence[bytes]) -> int:
        with self.writing() as connection:
            query = "INSERT INTO request(id, kind, state, said, result) VALUES (?, ?, 'asked', ?, '') RETURNING seq"
            number = int(connection.execute(query, (id_, kind, said)).fetchall()[0][0])
            connection.executemany("INSERT INTO hold(number, label) VALUES (?, ?)", [(number, each) for each in hold])
        return number

    def destroy(
        self, id_: bytes, labels: Sequence[bytes], *, besides: set[bytes], said: Callable[[Sequence[bytes]], bytes]
    ) -> None:
        with self.writing() as connection:
            of = f"WHERE label IN ({marks(labels)})"
            if connection.execute(f"SELECT 1 FROM hold {of} LIMIT 1", labels).fetchone():  # noqa: S608
                raise held()
            found = connection.execute(f"SELECT id FROM key {of}", labels)  # noqa: S608
            ids = sorted({bytes(row[0]) for row in found} - besides)
            if not ids:
                raise nothing_left()
            _destroyed(connection, ids)
            connection.execute("UPDATE request SET state = 'destroyed', said = ? WHERE id = ?", (said(ids), id_))

    def destroy_again(self, id_: bytes, kind: Kind, keys: Sequence[bytes], *, result: str) -> bool:
        with self.writing() as connection:
            living = [
                each for each in keys
                if connection.execute("SELECT 1 FROM key WHERE id = ? AND wrapped <> x''", (each,)).fetchone()
            ]  # fmt: skip
            _destroyed(connection, living)
            connection.execute(
                "INSERT INTO request(id, kind, state, said, result) VALUES (?, ?, 'done', x'', ?) "
                "ON CONFLICT (id) DO UPDATE SET state = 'done', said = x'', result = excluded.result",
                (id_, kind, result),
            )
        return bool(living)

    def note(self, id_: bytes, state: State, *, said: bytes, result: str, lifts: int = 0) -> None:
        with self.writing() as connection:
            query = "UPDATE request SET state = ?, said = ?, result = ? WHERE id = ?"
            connection.execute(query, (state, said, result, id_))
            if lifts:
                connection.execute("DELETE FROM hold WHERE number = ?", (lifts,))
                connection.execute("UPDATE request SET said = x'' WHERE seq = ?", (lifts,))


def _destroyed(connection: sqlite3.Connection, ids: Sequence[bytes]) -> None:
    """Overwrite keys, within the caller's transaction: first with as many zeros, so that the bytes are where they
    were; then take away what they are found by."""
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        where = f"WHERE id IN ({marks(some)})"
        connection.execute(f"UPDATE key SET wrapped = zeroblob(length(wrapped)) {where}", some)  # noqa: S608
        connection.execute(f"UPDATE key SET wrapped = x'', label = NULL {where}", some)  # noqa: S608


def truncated(connection: sqlite3.Connection, path: Path) -> None:
    """Fold the write-ahead log into its file, and empty it. Raises LedgerUnavailable while somebody reads for long."""
    until = time.monotonic() + _SCRUB_SECONDS
    connection.execute("PRAGMA busy_timeout = 50")  # while it waits for readers nobody else can write
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] != 0:
            if time.monotonic() > until:
                raise LedgerUnavailable(
                    f"`{path}` is being read, and so what was erased still stands in its write-ahead log",
                    hint="end what reads it (an export, a check, a backup); it is tried again",
                )
            time.sleep(0.2)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
    log = path.with_name(path.name + "-wal")
    with suppress(FileNotFoundError):
        handle = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _connected(path: Path) -> sqlite3.Connection:
    if not path.exists():
        _make(path)
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
    try:
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise LedgerUnavailable(f"`{path}` cannot be kept in WAL mode", hint="use a local file system")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _make(path: Path) -> None:
    """Make the file, with its tables or not at all: whoever reads it meanwhile finds none, or all of it."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.close(os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(aside, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript("BEGIN;" + _SCHEMA + "COMMIT;")
        with suppress(FileExistsError):  # another process was first: its file stands
            os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def _unusable(path: Path, error: Exception) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"the keys of people at `{path}` cannot be used: {error}", hint="run it as the gateway's user; mend the disk"
    )
