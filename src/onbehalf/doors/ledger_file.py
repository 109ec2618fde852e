"""The ledger's file in SQLite, for whoever writes it: its lock, its connection, the check before anything is written.

Also what an entry is in it. Must not write one (ledger_sqlite.py, ledger_handover_sqlite.py).

Trust: as ledger_sqlite.py.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path

from onbehalf.doors.folder_sync import sync_folder
from onbehalf.doors.ledger_followed import followed
from onbehalf.doors.ledger_reader import SCHEMA, Scan, scan
from onbehalf.doors.ledger_store import SqliteView
from onbehalf.doors.ledger_waiting import require_whole
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.leaf import Made, Spelled, make
from onbehalf.explain.seal import NONCE_BYTES, LedgerKeys

__all__ = ["RESTORE", "checked", "connect", "lock_file", "row", "signed"]

RESTORE = "keep the file as evidence; `onbehalf audit verify` lists what does not hold"


def lock_file(path: Path) -> int:
    """The handle of the lock that one writer holds; the kernel frees it when the process ends, however it ends."""
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise LedgerUnavailable(
            f"another process writes the ledger at `{path}`", hint="one gateway a ledger; stop the other one first"
        ) from error
    return handle


def connect(path: Path, keys: LedgerKeys) -> sqlite3.Connection:
    """The file; a new one gets an empty signed head, so that an emptied log cannot pass for a new one."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise LedgerUnavailable(f"`{path}` cannot be kept in WAL mode", hint="use a local file system")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            connection.executescript("BEGIN IMMEDIATE;" + SCHEMA)
            head, note = signed(tree.Frontier(), keys)
            connection.execute("INSERT INTO head VALUES (1, 0, ?, ?)", (head.root, note))
            connection.execute("COMMIT")
            sync_folder(path.parent)
    except BaseException:
        connection.close()
        raise
    return connection


def checked(connection: sqlite3.Connection, keys: LedgerKeys) -> Scan:
    """All leaves, read once. Raises LedgerCorrupt where leaves and signed head disagree, or the key is a former one."""
    view, key = SqliteView(connection), keys.signer.verifier
    if followed(view, key).vkey != key.vkey:
        raise LedgerCorrupt("`log.key` is a former key of this log", hint="restore the one that came after it")
    result, _ = scan(view, key)
    return require_whole(result, hint=RESTORE)


def signed(frontier: tree.Frontier, keys: LedgerKeys) -> tuple[checkpoint.Checkpoint, str]:
    """The head over a tree, and its note."""
    head = checkpoint.Checkpoint(origin=keys.signer.name, size=frontier.size, root=frontier.root())
    return head, checkpoint.write(head, keys.signer)


def row(
    spelled: Spelled, keys: LedgerKeys, *, index: int, place: tuple[str, int] = ("", 0)
) -> tuple[Made, bytes, bytes]:
    """An entry as it stands at `index`, with fresh id and salt: leaf and payload, the leaf's hash, the payload sealed.

    `place` is its channel and its number there.
    """
    fresh = os.urandom(32 + 16 + NONCE_BYTES)
    made = make(spelled, id_=fresh[32:48].hex(), salt=fresh[:32], place=place)
    hash_ = tree.leaf_hash(made.leaf)
    return made, hash_, keys.sealer.seal(made.payload, about=spelled.about, nonce=fresh[48:], index=index, leaf=hash_)
