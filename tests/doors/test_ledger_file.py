"""A ledger's file for whoever writes it: whose it is, how it is synced, what is refused before anything is written."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from onbehalf.doors import ledger_file
from onbehalf.doors.ledger_file import checked, connect, lock_file, signed
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable
from onbehalf.explain import tree
from onbehalf.explain.checkpoint import NoteSigner
from onbehalf.explain.seal import LedgerKeys

ORIGIN = "gateway.example/log"


@pytest.fixture
def keys(tmp_path: Path) -> LedgerKeys:
    return open_ledger_keys(tmp_path / "keys", origin=ORIGIN)


def test_a_new_file_is_its_owners_alone_synced_in_full_and_has_a_head_of_no_leaf(
    tmp_path: Path, keys: LedgerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(sqlite3.Connection):
        """As SQLite that was built not to sync."""

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            super().execute("PRAGMA synchronous = OFF")

    synced: list[Path] = []
    real = sqlite3.connect
    monkeypatch.setattr(ledger_file, "sync_folder", synced.append)
    monkeypatch.setattr(ledger_file.sqlite3, "connect", lambda path, **named: real(path, factory=Careless, **named))
    before = os.umask(0)
    try:
        connection = connect(tmp_path / "log.db", keys)
    finally:
        os.umask(before)
    assert (tmp_path / "log.db").stat().st_mode & 0o777 == 0o600
    pragmas = ("journal_mode", "synchronous", "wal_autocheckpoint")
    assert [connection.execute(f"PRAGMA {each}").fetchone()[0] for each in pragmas] == ["wal", 2, 4000]
    ((size, root, note),) = connection.execute("SELECT size, root, note FROM head").fetchall()
    assert (size, root, note) == (0, tree.root([]), signed(tree.Frontier(), keys)[1])
    assert not connection.in_transaction
    assert checked(connection, keys).frontier.size == 0
    assert synced == [tmp_path]
    connection.execute("UPDATE head SET note = 'kept'")
    connection.close()
    connection = connect(tmp_path / "log.db", keys)
    assert connection.execute("SELECT note FROM head").fetchall() == [("kept",)]
    assert synced == [tmp_path]
    connection.close()


def test_no_handle_is_left_of_a_file_that_was_only_made(tmp_path: Path, keys: LedgerKeys) -> None:
    connect(tmp_path / "log.db", keys).close()
    before = len(os.listdir("/proc/self/fd"))
    connect(tmp_path / "log.db", keys).close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_cannot_be_kept_so_is_refused_and_closed(
    tmp_path: Path, keys: LedgerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []

    class Connection(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> Any:
            if sql == "PRAGMA journal_mode = WAL":
                return super().execute("PRAGMA journal_mode = DELETE")
            return super().execute(sql, *values)

        def close(self) -> None:
            closed.append(True)
            super().close()

    real = sqlite3.connect
    monkeypatch.setattr(ledger_file.sqlite3, "connect", lambda path, **named: real(path, factory=Connection, **named))
    with pytest.raises(LedgerUnavailable, match="cannot be kept in WAL mode"):
        connect(tmp_path / "log.db", keys)
    assert closed == [True]
    assert real(tmp_path / "log.db").execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_former_key_of_the_log_opens_no_ledger(
    tmp_path: Path, keys: LedgerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = connect(tmp_path / "log.db", keys)
    later = NoteSigner(ORIGIN, b"l" * 32).verifier
    monkeypatch.setattr(ledger_file, "followed", lambda view, key: later)
    with pytest.raises(LedgerCorrupt, match="is a former key of this log"):
        checked(connection, keys)
    connection.close()


def test_a_head_is_over_all_leaves_and_says_how_many(keys: LedgerKeys) -> None:
    frontier = tree.Frontier()
    for each in (b"a", b"b", b"c"):
        frontier.append(tree.leaf_hash(each))
    head, note = signed(frontier, keys)
    assert (head.size, head.root, head.origin) == (
        3,
        tree.root([tree.leaf_hash(each) for each in (b"a", b"b", b"c")]),
        ORIGIN,
    )
    assert note.startswith(f"{ORIGIN}\n3\n")


def test_one_process_holds_the_lock(tmp_path: Path) -> None:
    handle = lock_file(tmp_path / "log.db")
    with pytest.raises(LedgerUnavailable, match="another process writes the ledger"):
        lock_file(tmp_path / "log.db")
    os.close(handle)
    os.close(lock_file(tmp_path / "log.db"))
    assert (tmp_path / "log.db.lock").stat().st_mode & 0o777 == 0o600
