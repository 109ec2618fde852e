"""A write-ahead log before it is built on: whole, torn or damaged, each told from the others, and written once more."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from onbehalf.doors import ledger_settled
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.ledger_settled import settle
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.errors import LedgerCorrupt
from onbehalf.model import AuditEntry, UnixTime

FRAME = 24 + 4096


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger's file and its write-ahead log as a kill leaves them: eight commits and the one that made it."""
    directory = tmp_path_factory.mktemp("written")
    keys = open_ledger_keys(directory / "keys", origin="gateway.example/log")
    ledger = SqliteLedger.open(directory / "log.db", keys=keys, origin=keys.signer.name, now=lambda: UnixTime(1))

    async def write() -> None:
        for number in range(8):
            await ledger.append(AuditEntry(kind="start", call="", at=UnixTime(number), facts={}))

    asyncio.run(write())
    (directory / "kept").mkdir()
    for name in ("log.db", "log.db-wal"):
        shutil.copyfile(directory / name, directory / "kept" / name)
    ledger.close()
    return directory / "kept"


def log_of(written: Path) -> bytes:
    return (written / "log.db-wal").read_bytes()


def commits(log: bytes) -> list[int]:
    """Where each commit's last frame begins."""
    return [start for start in range(32, len(log), FRAME) if log[start + 4 : start + 8] != bytes(4)]


def settled(tmp_path: Path, log: bytes) -> bytes:
    (tmp_path / "log.db-wal").write_bytes(log)
    settle(tmp_path / "log.db")
    return (tmp_path / "log.db-wal").read_bytes()


def flipped(log: bytes, place: int) -> bytes:
    return log[:place] + bytes([log[place] ^ 4]) + log[place + 1 :]


def test_a_whole_log_stays_as_it_is_and_is_what_sqlite_reads(written: Path, tmp_path: Path) -> None:
    log = log_of(written)
    assert len(commits(log)) == 9
    assert settled(tmp_path, log) == log
    shutil.copyfile(written / "log.db", tmp_path / "log.db")
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        assert connection.execute("SELECT count(*) FROM leaf").fetchone() == (8,)
        assert connection.execute("PRAGMA wal_checkpoint").fetchone()[1] == (len(log) - 32) // FRAME


def test_where_there_is_none_an_empty_one_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    settle(tmp_path / "log.db")
    assert (tmp_path / "log.db-wal").read_bytes() == b""
    assert (tmp_path / "log.db-wal").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("log", [b"", b"7", bytes(31), bytes(32)])
def test_a_log_that_was_only_just_made_is_begun_anew(tmp_path: Path, log: bytes) -> None:
    assert settled(tmp_path, log) == b""


def test_no_file_is_left_open(written: Path, tmp_path: Path) -> None:
    log, before = log_of(written), len(os.listdir("/proc/self/fd"))
    settled(tmp_path, log)
    with pytest.raises(LedgerCorrupt):
        settled(tmp_path, flipped(log, 9))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_head_alone_is_kept(written: Path, tmp_path: Path) -> None:
    log = log_of(written)[:32]
    assert settled(tmp_path, log) == log


@pytest.mark.parametrize("place", range(32))
def test_each_changed_byte_of_the_head_is_refused_and_nothing_is_written(
    written: Path, tmp_path: Path, place: int
) -> None:
    log = flipped(log_of(written), place)
    with pytest.raises(LedgerCorrupt, match="head of the write-ahead log"):
        settled(tmp_path, log)
    assert log_of(tmp_path) == log


def test_a_head_of_zeros_before_frames_is_refused(written: Path, tmp_path: Path) -> None:
    with pytest.raises(LedgerCorrupt):
        settled(tmp_path, bytes(32) + log_of(written)[32:])


def headed(page: int) -> bytes:
    """The head of a log of pages of this size, with its checksum."""
    words = (0x377F0683, 3_007_000, page, 1, 7, 7)
    total = (0, 0)
    for one, two in zip(words[::2], words[1::2], strict=True):
        first = total[0] + one + total[1] & 0xFFFFFFFF
        total = (first, total[1] + two + first & 0xFFFFFFFF)
    return struct.pack(">8I", *words, *total)


@pytest.mark.parametrize("page", [0, 256, 511, 514, 1000, 65_535, 65_537, 131_072])
def test_a_head_with_a_page_size_that_there_is_not_is_refused(tmp_path: Path, page: int) -> None:
    frame = struct.pack(">6I", 1, 1, 7, 7, 0, 0) + bytes(page)
    for log in (headed(page), headed(page) + frame):
        with pytest.raises(LedgerCorrupt, match="head of the write-ahead log"):
            settled(tmp_path, log)


@pytest.mark.parametrize("page", [512, 4096, 65_536])
def test_a_head_with_a_page_size_that_there_is_is_kept(tmp_path: Path, page: int) -> None:
    assert settled(tmp_path, headed(page)) == headed(page)


@pytest.mark.parametrize("offset", [0, 2, 20, 24, 27, 28, 4000, FRAME - 1])
def test_a_changed_byte_in_any_frame_before_the_last_commit_is_refused(
    written: Path, tmp_path: Path, offset: int
) -> None:
    log = log_of(written)
    for start in range(32, commits(log)[-2] + 1, FRAME):
        with pytest.raises(LedgerCorrupt, match="damaged before its frame"):
            settled(tmp_path, flipped(log, start + offset))


@pytest.mark.parametrize("offset", [0, 9, 13, 20, 24, 4000])
def test_a_changed_byte_in_the_last_commit_is_a_torn_end_and_is_cut_off(
    written: Path, tmp_path: Path, offset: int
) -> None:
    log = log_of(written)
    for start in range(commits(log)[-2] + FRAME, len(log), FRAME):
        assert settled(tmp_path, flipped(log, start + offset)) == log[: commits(log)[-2] + FRAME]


def test_a_log_cut_anywhere_in_its_last_commit_ends_with_the_commit_before(written: Path, tmp_path: Path) -> None:
    log = log_of(written)
    end = commits(log)[-2] + FRAME
    for cut in range(end, len(log), 1500):
        assert settled(tmp_path, log[:cut]) == log[:end]


def test_frames_of_an_earlier_time_behind_the_end_are_no_damage(written: Path, tmp_path: Path) -> None:
    """SQLite writes over the log from its beginning, with other salts, and leaves what stood behind."""
    log = log_of(written)
    old = b"".join(
        log[start : start + 8] + b"\0\0\0\1" + log[start + 12 : start + FRAME] for start in range(32, len(log), FRAME)
    )
    assert settled(tmp_path, log + old) == log


def test_what_is_torn_twice_is_never_taken_for_damage(written: Path, tmp_path: Path) -> None:
    """The rest of a torn commit must not stand behind the next process's: it would look like a damaged one."""
    log = log_of(written)
    begun = commits(log)[-3] + FRAME
    once = settled(tmp_path, flipped(log[: commits(log)[-2] + FRAME], begun + 100))
    assert once == log[:begun]


def test_what_cannot_be_synced_is_an_error(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    synced: list[int] = []

    def failing(handle: int) -> None:
        synced.append(handle)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ledger_settled.os, "fsync", failing)
    with pytest.raises(OSError, match="Input/output"):
        settled(tmp_path, log_of(written))
    assert synced


@pytest.mark.parametrize("step", [10_000, ledger_settled._STEP])
def test_every_byte_is_written_once_more_in_pieces_and_synced_with_its_name(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    done: list[object] = []
    write, sync = os.pwrite, os.fsync
    monkeypatch.setattr(ledger_settled, "_STEP", step)

    def writing(handle: int, data: bytes, place: int) -> int:
        done.append((place, data))
        return write(handle, data[:7000], place)  # a short write is no end

    def syncing(handle: int) -> None:
        done.append("sync")
        sync(handle)

    monkeypatch.setattr(ledger_settled.os, "pwrite", writing)
    monkeypatch.setattr(ledger_settled.os, "fsync", syncing)
    monkeypatch.setattr(ledger_settled, "sync_folder", lambda folder: done.append(folder))
    log = log_of(written)
    assert settled(tmp_path, log) == log
    pieces = [each for each in done if isinstance(each, tuple)]
    assert b"".join(data[:7000] for _, data in pieces) == log
    assert [place for place, _ in pieces] == list(range(0, len(log), 7000))
    assert done[-2:] == ["sync", tmp_path]


def test_a_log_in_the_other_byte_order_is_read_as_well(written: Path, tmp_path: Path) -> None:
    """SQLite sums in the byte order of the machine that made the file, and says in its magic number which."""
    log = log_of(written)
    other = struct.pack(">I", struct.unpack(">I", log[:4])[0] ^ 1)
    with pytest.raises(LedgerCorrupt):
        settled(tmp_path, other + log[4:])
    head = other + log[4:24]
    order = "<" if other[-1] == 0x82 else ">"
    total = _summed(head, (0, 0), order)
    made = head + struct.pack(">2I", *total)
    for start in range(32, len(log), FRAME):
        frame = log[start : start + FRAME]
        total = _summed(frame[24:], _summed(frame[:8], total, order), order)
        made += frame[:16] + struct.pack(">2I", *total) + frame[24:]
    assert settled(tmp_path, made) == made


def _summed(data: bytes, total: tuple[int, int], order: str) -> tuple[int, int]:
    """The checksum as SQLite's page on the file format has it."""
    s0, s1 = total
    for place in range(0, len(data), 8):
        x0, x1 = struct.unpack_from(f"{order}2I", data, place)
        s0 = (s0 + x0 + s1) % 2**32
        s1 = (s1 + x1 + s0) % 2**32
    return s0, s1
