"""Tiles out of a ledger: each is what the leaves say, above level 0 too, and an export is whole and grows."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from doors.test_ledger_sqlite import filled
from onbehalf.doors.ledger_tiles import LedgerTiles, export_log
from onbehalf.errors import Busy, LedgerUnavailable, RecordMissing
from onbehalf.explain import tiles, tree
from onbehalf.explain.tiles import Tile


def made_up(path: Path, size: int) -> list[bytes]:
    """A file with as many leaves as asked for, which only tiles are asked of; their hashes."""
    entries = [b"leaf %d" % number for number in range(size)]
    hashes = [tree.leaf_hash(entry) for entry in entries]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS leaf(idx INTEGER PRIMARY KEY, hash BLOB, entry BLOB)")
        connection.execute("CREATE TABLE IF NOT EXISTS head(size INTEGER, note TEXT)")
        connection.executemany(
            "INSERT OR IGNORE INTO leaf VALUES (?,?,?)", zip(range(size), hashes, entries, strict=True)
        )
        connection.execute("DELETE FROM head")
        connection.execute("INSERT INTO head VALUES (?, ?)", (size, f"note {size}\n"))
        connection.commit()
    return hashes


def test_tiles_of_every_level_are_the_roots_over_the_leaves(tmp_path: Path) -> None:
    hashes = made_up(tmp_path / "log.db", 70_000)
    source = LedgerTiles(tmp_path / "log.db")
    level_1 = [tree.root(hashes[start : start + 256]) for start in range(0, 69_888, 256)]
    assert source.read(Tile(level=0, number=273, width=112)) == b"".join(hashes[69_888:])
    assert source.read(Tile(level=1, number=0)) == b"".join(level_1[:256])
    assert source.read(Tile(level=1, number=1, width=17)) == b"".join(level_1[256:])
    assert source.read(Tile(level=2, number=0, width=1)) == tree.root(hashes[:65_536])
    assert source.read(Tile(level=0, number=1, entries=True)) == tiles.bundle(
        [b"leaf %d" % number for number in range(256, 512)]
    )
    for tile in (Tile(level=0, number=273), Tile(level=1, number=1, width=18), Tile(level=2, number=0, width=2)):
        with pytest.raises(RecordMissing):
            source.read(tile)
    source.close()


def test_what_takes_long_is_done_in_bounded_steps(tmp_path: Path) -> None:
    hashes = made_up(tmp_path / "log.db", 256 * 10)
    source = LedgerTiles(tmp_path / "log.db", step=4)
    tile = Tile(level=1, number=0, width=10)
    for _ in range(2):
        with pytest.raises(Busy):
            source.read(tile)
    assert source.read(tile) == b"".join(tree.root(hashes[start : start + 256]) for start in range(0, 2560, 256))
    source.close()


def test_an_export_holds_every_tile_and_adds_only_what_is_new(tmp_path: Path) -> None:
    made_up(tmp_path / "log.db", 300)
    source, place = LedgerTiles(tmp_path / "log.db"), tmp_path / "out"
    assert export_log(source, place) == 300

    def files() -> set[str]:
        return {each.relative_to(place).as_posix() for each in place.rglob("*") if each.is_file()}

    assert files() == {
        "checkpoint", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/000", "tile/entries/001.p/44",
    }  # fmt: skip
    kept = (place / "tile/0/000").stat().st_mtime_ns
    made_up(tmp_path / "log.db", 600)
    assert export_log(source, place) == 600
    assert (place / "tile/0/000").stat().st_mtime_ns == kept
    assert (place / "checkpoint").read_text() == "note 600\n"
    assert {"tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"} <= files()
    assert (place / "tile/1/000.p/2").read_bytes() == source.read(Tile(level=1, number=0, width=2))
    source.close()


def test_an_export_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    made_up(tmp_path / "log.db", 3)
    (tmp_path / "out").write_text("a file")
    source = LedgerTiles(tmp_path / "log.db")
    with pytest.raises(LedgerUnavailable, match="cannot be written"):
        export_log(source, tmp_path / "out")
    source.close()


def test_a_hole_in_the_leaves_is_said_and_not_skipped(tmp_path: Path) -> None:
    made_up(tmp_path / "log.db", 300)
    with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
        connection.execute("DELETE FROM leaf WHERE idx = 7")
        connection.commit()
    source = LedgerTiles(tmp_path / "log.db")
    for tile in (Tile(level=0, number=0), Tile(level=1, number=0, width=1), Tile(level=0, number=0, entries=True)):
        with pytest.raises(LedgerUnavailable, match="missing"):
            source.read(tile)
    source.close()


def test_tiles_of_a_real_ledger_hash_to_its_signed_head(tmp_path: Path) -> None:
    filled(tmp_path, 20)
    source = LedgerTiles(tmp_path / "log.db")
    size, note = source.checkpoint()
    data = source.read(Tile(level=0, number=0, width=size))
    root = tree.root([data[start : start + 32] for start in range(0, len(data), 32)])
    assert size == 20
    assert note.splitlines()[1:3] == ["20", base64.b64encode(root).decode()]
    with pytest.raises(LedgerUnavailable, match="no ledger"):
        LedgerTiles(tmp_path / "elsewhere.db")
    source.close()
