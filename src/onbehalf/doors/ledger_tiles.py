"""The record as tiles, read from the ledger on a connection of its own: nothing is kept, nothing is new per entry.

Hashes above level 0 are made from the leaves' and remembered, 32 bytes for 256 leaves; after a start they are caught up
with in bounded steps. Blocks while it reads, so whoever serves runs it in a thread. Must not decide who may ask.

Trust: nothing here is checked. Whoever reads tiles holds them against a checkpoint, whose signature is the log's.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from onbehalf.doors.folder_sync import sync_folder
from onbehalf.doors.ledger_followed import handovers
from onbehalf.doors.ledger_store import LedgerStore, View, store_of
from onbehalf.errors import Busy, LedgerCorrupt, LedgerUnavailable, RecordMissing
from onbehalf.explain import tiles
from onbehalf.explain.tiles import WIDTH, Tile

__all__ = ["LedgerTiles", "export_log"]

_STEP = 1024
"""Tiles of level 0 that one request may catch up with: 262,144 leaves, some 0.3 s."""


class LedgerTiles:
    """Tiles and the newest checkpoint. Used from any thread, one at a time."""

    def __init__(self, source: Path | LedgerStore, *, step: int = _STEP) -> None:
        """Raises LedgerUnavailable where there is no ledger."""
        self._store = store_of(source)
        self._gate = threading.Lock()
        self._step = step
        self._above: list[bytearray] = []
        """By level from 1 on: the hashes of that level, one after another."""
        with self._reading() as view:
            view.execute("SELECT 1 FROM leaf LIMIT 1")

    def close(self) -> None:
        with self._gate:
            self._store.close()

    def checkpoint(self) -> tuple[int, str]:
        """The newest signed head and its size. Raises LedgerUnavailable."""
        with self._reading() as view:
            row = view.execute("SELECT size, note FROM head").fetchone()
        if row is None:
            raise LedgerUnavailable("the log has no signed head")
        return row[0], row[1]

    def handovers(self) -> str:
        """The changes of the log's key, one a line, each with what both keys signed. Raises LedgerUnavailable."""
        with self._reading() as view:
            return "".join(each.line() for each in handovers(view))

    def read(self, tile: Tile) -> bytes:
        """A tile's bytes. Raises RecordMissing where the log is not that large, Busy where catching up takes longer."""
        with self._reading() as view:
            size = view.execute("SELECT size FROM head").fetchone()
            if size is None or tile.end > size[0]:
                raise RecordMissing(f"the log has no `{tile.path}` yet", hint="ask for its checkpoint first")
            if tile.level == 0:
                column = "entry" if tile.entries else "hash"
                found = _column(view, column, tile.first, tile.width)
                return tiles.bundle(found) if tile.entries else b"".join(found)
            return self._high(view, tile)

    def _high(self, view: View, tile: Tile) -> bytes:
        goal = tile.end // WIDTH  # full tiles of level 0 that it is made of
        have = len(self._above[0]) // 32 if self._above else 0
        for number in range(have, min(goal, have + self._step)):
            self._grow(tiles.subtree(_column(view, "hash", number * WIDTH, WIDTH)))
        if goal > have + self._step:
            raise Busy("the tiles of this log are being made", hint="ask again")
        hashes = self._above[tile.level - 1]
        return bytes(hashes[tile.first * 32 : (tile.first + tile.width) * 32])

    def _grow(self, hash_: bytes) -> None:
        level = 1
        while True:
            if len(self._above) < level:
                self._above.append(bytearray())
            hashes = self._above[level - 1]
            hashes += hash_
            if len(hashes) % (WIDTH * 32):
                return
            last = hashes[-WIDTH * 32 :]
            hash_ = tiles.subtree([bytes(last[start : start + 32]) for start in range(0, len(last), 32)])
            level += 1

    @contextlib.contextmanager
    def _reading(self) -> Iterator[View]:
        with self._gate:
            try:
                with self._store.reading() as view:
                    yield view
            except LedgerCorrupt as error:  # whoever asks here asks for what is public: they may come again
                raise LedgerUnavailable(error.message) from error


def _column(view: View, column: str, first: int, count: int) -> list[bytes]:
    query = f"SELECT {column} FROM leaf WHERE idx >= ? AND idx < ? ORDER BY idx"  # noqa: S608  # of our own words
    found = [row[0] for row in view.execute(query, (first, first + count))]
    if len(found) != count:
        raise LedgerUnavailable(f"leaves are missing between {first} and {first + count}")
    return found


class _Tiles(Protocol):
    """What is written as files."""

    def checkpoint(self) -> tuple[int, str]: ...
    def handovers(self) -> str: ...
    def read(self, tile: Tile) -> bytes: ...


def export_log(source: _Tiles, directory: Path, *, progress: Callable[[int], None] | None = None) -> int:
    """Write the log as static files: tiles and entries first, the checkpoint last. The size of the log.

    Each file is written aside, synced and renamed, so that what stands there is whole; full tiles that stand there
    already are left. Raises LedgerUnavailable.
    """
    size, note = source.checkpoint()
    try:
        for tile in _all(size):
            place = directory / tile.path
            if tile.width < WIDTH or not place.exists():
                _write(place, _patiently(source, tile))
            if progress is not None and tile.entries:
                progress(tile.end)
        if told := source.handovers():
            _write(directory / "handovers", told.encode())
        _write(directory / "checkpoint", note.encode())
    except OSError as error:
        raise LedgerUnavailable(f"`{error.filename}` cannot be written: {error.strerror}") from error
    return size


def _all(size: int) -> Iterator[Tile]:
    level = 0
    while size >> (8 * level):
        for tile in tiles.tiles_of(size, level=level):
            if level == 0:
                yield Tile(level=0, number=tile.number, width=tile.width, entries=True)
            yield tile
        level += 1


def _patiently(source: _Tiles, tile: Tile) -> bytes:
    while True:
        with contextlib.suppress(Busy):  # each time it has come a step further
            return source.read(tile)


def _write(place: Path, data: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    aside = place.with_name(f".{place.name}.new")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(place)
    sync_folder(place.parent)
