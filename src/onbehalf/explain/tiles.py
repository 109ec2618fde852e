"""The log as C2SP tlog-tiles: how a tile is called, which leaves it covers, and its bytes. A pure function of leaves.

Hashes and leaves in, bytes out. Must not know where leaves are kept (a door) or who may ask for them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from onbehalf.explain import tree
from onbehalf.explain.leaf import MAX_LEAF_BYTES

__all__ = ["WIDTH", "Tile", "bundle", "parse", "subtree", "tiles_of"]

WIDTH = 256
_HEIGHT = 8
_MAX_LEVEL = 7
"""Level 8 would need 2**64 leaves; the specification's limit is 63, and such tiles cannot exist here."""
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<number>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One tile, or one bundle of entries where `entries`. `width` is how many hashes or entries it has, 1 to 256."""

    level: int
    number: int
    width: int = WIDTH
    entries: bool = False

    @property
    def first(self) -> int:
        """Of the tile's hashes, the first one's place in its level."""
        return self.number * WIDTH

    @property
    def span(self) -> int:
        """How many leaves one of its hashes covers."""
        return int(WIDTH**self.level)

    @property
    def end(self) -> int:
        """The size from which on a log has this tile."""
        return (self.first + self.width) * self.span

    @property
    def path(self) -> str:
        """Below the log's prefix, such as `tile/1/x001/067.p/3`."""
        digits = str(self.number)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[start : start + 3] for start in range(0, len(digits), 3)]
        number = "/".join([*(f"x{each}" for each in groups[:-1]), groups[-1]])
        partial = f".p/{self.width}" if self.width < WIDTH else ""
        return f"tile/{'entries' if self.entries else self.level}/{number}{partial}"


def parse(path: str) -> Tile | None:
    """The tile that a path below the prefix names in its one spelling; None for any other path."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    entries = found["level"] == "entries"
    tile = Tile(
        level=0 if entries else int(found["level"]), entries=entries, width=int(found["width"] or WIDTH),
        number=int(found["number"].replace("x", "").replace("/", "")),
    )  # fmt: skip
    return tile if tile.level <= _MAX_LEVEL and tile.path == path else None


def subtree(hashes: Sequence[bytes]) -> bytes:
    """The hash over a full tile's 256 hashes: one hash of the tile above."""
    if len(hashes) != WIDTH:
        raise ValueError(f"a full tile has {WIDTH} hashes, not {len(hashes)}")
    return tree.root(hashes)


def bundle(leaves: Sequence[bytes]) -> bytes:
    """Entries as tlog-tiles bundles them: each with its length before it, as a big-endian uint16."""
    if any(len(each) > MAX_LEAF_BYTES for each in leaves):
        raise ValueError(f"a leaf is at most {MAX_LEAF_BYTES} bytes")
    return b"".join(len(each).to_bytes(2, "big") + each for each in leaves)


def tiles_of(size: int, *, level: int, since: int = 0) -> list[Tile]:
    """The tiles of one level that a log of `size` has and one of `since` had not, the partial one last."""
    full, rest = divmod(size >> (_HEIGHT * level), WIDTH)
    had_full, had_rest = divmod(since >> (_HEIGHT * level), WIDTH)
    found = [Tile(level=level, number=number) for number in range(had_full, full)]
    if rest and (full, rest) != (had_full, had_rest):
        found.append(Tile(level=level, number=full, width=rest))
    return found
