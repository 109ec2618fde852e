"""The log's second signature, with ML-DSA-44, under some heads: once a minute, at the end, and where one is shown.

It takes some 0.4 ms, too long for every commit; a head that has it vouches for all leaves before. Kept, so that one
head has one such line, whichever gateway of a shared record signed it. Must not know who else signs heads.

Trust: as the ledger's. A head without this line is signed with Ed25519 alone.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from onbehalf.doors.ledger_heads import OWN, LedgerHeads
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable, OnbehalfError
from onbehalf.explain.checkpoint import Head
from onbehalf.explain.cosignature import HeadSigner, cosigned
from onbehalf.explain.tiles import Tile
from onbehalf.model import UnixTime

__all__ = ["OWN", "HeadSigning", "SignedTiles"]

_EVERY_S = 60.0
_SHOWN_S = 1.0
_log = logging.getLogger(__name__)


class HeadSigning:
    """Signs heads of one ledger. `line` and `newest` block."""

    def __init__(self, heads: LedgerHeads, signer: HeadSigner, *, clock: Callable[[], UnixTime]) -> None:
        self._heads = heads
        self._signer = signer
        self._clock = clock
        self._signed = -1

    @property
    def heads(self) -> LedgerHeads:
        """The heads that it signs."""
        return self._heads

    def line(self, head: Head) -> str:
        """The log's line under a head: the kept one, or a new one, kept if that can be. Raises LedgerUnavailable."""
        kept = self._kept(head)
        if kept:
            return kept
        at = self._clock()
        made = self._signer.line(head.checkpoint, at=at)
        try:
            self._heads.keep(head, {OWN: (at, made)})
            return self._kept(head) or made  # another gateway may have been first, and its line stands
        except LedgerUnavailable as error:  # a signature all the same; the head may get another one later
            _log.warning("the second signature of a head is not kept: %s", error.message)
        return made

    def _kept(self, head: Head) -> str:
        """The kept line, if it is by this key: what is kept is not believed."""
        try:
            line = self._heads.cosignatures(head).get(OWN, "")
            found = cosigned(head.note + line, self._signer.cosigner, head.checkpoint)
        except LedgerCorrupt:
            return ""
        return found[1] if found is not None else ""

    def newest(self) -> str:
        """The newest head with its second line. Raises LedgerUnavailable, LedgerCorrupt."""
        head = self._heads.newest()
        made = head.note + self.line(head)
        self._signed = head.size
        return made

    def last(self, note: str) -> None:
        """Sign the head that was the last one when the ledger was closed. What fails is said in the log."""
        try:
            self.line(Head(checkpoint=self._heads.signed(note), note=note))
        except OnbehalfError as error:
            _log.error("the last head has no second signature: %s", error.message)

    async def run(self) -> None:
        """Sign the newest head once a minute where it is another, until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(_EVERY_S)

    async def once(self) -> None:
        """Sign the newest head, if that was not done. What fails is tried again with the next one."""
        try:
            await asyncio.to_thread(self._sign_newest)
        except OnbehalfError as error:
            _log.error("the newest head has no second signature: %s", error.message)

    def _sign_newest(self) -> None:
        if self._heads.newest().size != self._signed:
            self.newest()


class _Tiles(Protocol):
    def checkpoint(self) -> tuple[int, str]: ...
    def handovers(self) -> str: ...
    def read(self, tile: Tile) -> bytes: ...


class SignedTiles:
    """Tiles whose checkpoint has the second line, and changes once a second at most. Used from any thread."""

    def __init__(self, tiles: _Tiles, signing: HeadSigning, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tiles = tiles
        self._signing = signing
        self._clock = clock
        self._gate = threading.Lock()
        self._shown: tuple[float, int, str] | None = None

    def checkpoint(self) -> tuple[int, str]:
        """The newest head, or one that is less than a second old, with its size. Raises LedgerUnavailable."""
        with self._gate:
            now = self._clock()
            if self._shown is None or now - self._shown[0] >= _SHOWN_S:
                note = self._signing.newest()
                self._shown = (now, int(note.split("\n", 2)[1]), note)
            return self._shown[1:]

    def handovers(self) -> str:
        """As the tiles themselves."""
        return self._tiles.handovers()

    def read(self, tile: Tile) -> bytes:
        """As the tiles themselves."""
        return self._tiles.read(tile)
