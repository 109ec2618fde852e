"""Seals and opens the payloads of one ledger: what is about somebody with a key of theirs, the rest with the ledger's.

Keys are remembered, so that a call of somebody who called before costs no look at the store; a new key is made in
memory, and is durable before anything that was sealed with it is. Must not erase anything (ledger_erase.py).

Trust: keys that are remembered are in this process's memory; what was destroyed is forgotten, but memory that Python
and OpenSSL gave back is not overwritten.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from onbehalf.doors.ledger_erasable import KeyStore, marks
from onbehalf.doors.ledger_requests import erasures, under_way
from onbehalf.errors import LedgerCorrupt, LedgerUnavailable
from onbehalf.explain.erasure import Erasure
from onbehalf.explain.seal import KEY_ID_BYTES, NONCE_BYTES, Sealer, SubjectSealer, Wrapping, key_id

__all__ = ["SubjectSealing"]

K = TypeVar("K")
_REMEMBERED = 10_000
_AT_ONCE = 500
_LOOK_SECONDS = 0.25
"""How long a process that reads may go on opening with a key that another one destroyed."""


class SubjectSealing:
    """The Sealing port over a store of people's keys. Used from any thread."""

    def __init__(self, sealer: Sealer, wrapping: Wrapping, store: KeyStore) -> None:
        self.wrapping, self.store = wrapping, store
        self._sealer = sealer
        self._lock = threading.Lock()
        self._sealing: dict[str, SubjectSealer] = {}
        self._opening: dict[bytes, SubjectSealer] = {}
        self._pending: list[tuple[bytes, bytes, bytes]] = []
        self._renewing: dict[bytes, set[bytes]] = {}
        self._erasures: tuple[Erasure, ...] | None = None
        self._looked, self._version = 0.0, -1

    def seal(self, payload: bytes, *, about: str, nonce: bytes, index: int, leaf: bytes) -> bytes:
        if not about:
            return self._sealer.seal(payload, nonce=nonce, index=index, leaf=leaf)
        sealer = self._sealing.get(about)
        if sealer is None:
            sealer = self._found([about])[about]
        return sealer.seal(payload, nonce=nonce, index=index, leaf=leaf)

    def settle(self) -> None:
        if not self._pending:
            return
        with self._lock:
            pending, self._pending = self._pending, []
        try:
            self.store.keep(pending)
        except LedgerUnavailable:  # what is remembered may be sealed with at the next try
            with self._lock:
                self._pending = [*pending, *self._pending]
            raise

    def open(self, sealed: bytes, *, index: int, leaf: bytes) -> bytes | None:
        id_ = key_id(sealed)
        if not id_:
            return self._sealer.open(sealed, index=index, leaf=leaf)
        self._look()
        sealer = self._opening.get(id_)
        if sealer is None:
            found = self.store.rows("SELECT wrapped FROM key WHERE id = ?", (id_,))
            wrapped = found[0][0] if found else None
            if wrapped == b"" or any(id_.hex() in each.keys for each in self.erasures()):
                return None
            if wrapped is None:
                raise LedgerCorrupt(
                    f"its key {id_.hex()} is not in {self.store.where}", hint="put back its last backup"
                )
            sealer = self.wrapping.unwrap(id_, wrapped)
            _remember(self._opening, id_, sealer)
        return sealer.open(sealed, index=index, leaf=leaf)

    def ready(self, people: Iterable[str]) -> None:
        missing = [each for each in dict.fromkeys(people) if each and each not in self._sealing]
        for start in range(0, len(missing), _AT_ONCE):
            self._found(missing[start : start + _AT_ONCE])
        self.settle()

    def forget(self) -> None:
        with self._lock:
            self._sealing.clear()

    def erasures(self) -> Sequence[Erasure]:
        self._look()
        if self._erasures is None:
            self._erasures = erasures(self.store)
        return self._erasures

    def under_way(self) -> bool:
        return under_way(self.store)

    @contextmanager
    def renewed(self, labels: Sequence[bytes]) -> Iterator[set[bytes]]:
        """Until the context ends, what is sealed for these labels is sealed with new keys, whose ids are in what this
        gives; keys that were theirs before are looked for again only after it."""
        fresh: set[bytes] = set()
        with self._lock:
            self._renewing |= dict.fromkeys(labels, fresh)
            self._sealing.clear()
        going_on = False
        try:
            yield fresh
        except asyncio.CancelledError:
            going_on = True  # in a thread that nobody waits for: keys of before are not to be used again
            raise
        finally:
            with self._lock:
                for each in labels if not going_on else ():
                    self._renewing.pop(each, None)
                self._opening.clear()
                self._erasures = None

    def close(self) -> None:
        """Forget all keys and close their store; it is opened again when it is needed."""
        with self._lock:
            self._sealing.clear()
            self._opening.clear()
        self.store.close()

    def _found(self, people: Sequence[str]) -> dict[str, SubjectSealer]:
        """A key for each: one of theirs, or else a new one, which is yet to be kept."""
        found: dict[str, SubjectSealer] = {}
        with self._lock:
            labels = {self.wrapping.label(each): each for each in people}
            known = [each for each in labels if each not in self._renewing]
            query = f"SELECT label, id, wrapped FROM key WHERE label IN ({marks(known)})"  # noqa: S608
            living = {label: (id_, wrapped) for label, id_, wrapped in self.store.rows(query, known)} if known else {}
            for label, about in labels.items():
                found[about] = self.wrapping.unwrap(*living[label]) if label in living else self._new(label)
                _remember(self._sealing, about, found[about])
        return found

    def _new(self, label: bytes) -> SubjectSealer:
        fresh = os.urandom(KEY_ID_BYTES + 32 + NONCE_BYTES)
        id_, key, nonce = fresh[:KEY_ID_BYTES], fresh[KEY_ID_BYTES:-NONCE_BYTES], fresh[-NONCE_BYTES:]
        self._pending.append((id_, label, self.wrapping.wrap(id_, key, nonce=nonce)))
        if label in self._renewing:
            self._renewing[label].add(id_)
        return SubjectSealer(id_, key)

    def _look(self) -> None:
        """Forget what was opened with, where another process has written since."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        version, self._looked = self.store.version(), now
        if version != self._version:
            self._version, self._erasures = version, None
            self._opening.clear()


def _remember(kept: dict[K, SubjectSealer], name: K, sealer: SubjectSealer) -> None:
    if len(kept) >= _REMEMBERED:
        kept.pop(next(iter(kept)), None)
    kept[name] = sealer
