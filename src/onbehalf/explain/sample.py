"""Which calls of a range are opened for an auditor, where only some are: chosen by a seed, not by anybody.

Every record that begins a call has a rank, SHA-256 of seed and index; the lowest ranks are the sample. The seed is a
word of the auditor's, said once the records are fixed by a head that they hold; the head of the bundle has no part in
it, as whoever writes the log could add records until a sample pleases. Without a word it comes of the head and its
cosignatures: a witness makes trying slow, and nothing more. The verifier chooses anew, and is written apart. Must not
open anything.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from hashlib import sha256

__all__ = ["LEADING", "MOST", "drawn", "seed"]

MOST = 10_000
LEADING = ("intent", "denial", "asked")
"""The kinds of records that begin a call."""
_DOMAIN = b"onbehalf/sample/v1\0"


def seed(note: bytes, said: str) -> bytes:
    """32 bytes of what the auditor said; of the file `checkpoint`, with its cosignatures, where that is nothing."""
    return sha256(_DOMAIN + (b"word\0" + said.encode() if said else b"head\0" + note)).digest()


def drawn(seed: bytes, calls: Iterable[tuple[int, str]], count: int) -> list[tuple[int, str]]:
    """Of records by index, each with its call, the `count` of lowest rank; all of them where there are fewer.

    Holds no more than these in memory.
    """
    return heapq.nsmallest(count, calls, key=lambda each: sha256(seed + each[0].to_bytes(8, "big")).digest())
