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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from onbehalf.doors.ledger_requests import erasures, under_way
from onbehalf.doors.ledger_subjects import SubjectStore
from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.erasure import Erasure
from onbehalf.explain.seal import KEY_ID_BYTES, NONCE_BYTES, Sealer, SubjectSealer, Wrapping, key_id

__all__ = ["SubjectSealing"]

K = TypeVar("K")
_REMEMBERED = 10_000
_LOOK_SECONDS = 0.25
"""How long a process that reads may go on opening with a key that another one destroyed."""


class SubjectSealing:
    """The Sealing port over a store of people's keys. Used from any thread."""

    def __init__(self, sealer: Sealer, wrapping: Wrapping, store: SubjectStore) -> None:
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
        sealer = self._sealing.get(about) or self._found(about)
        return sealer.seal(payload, nonce=nonce, index=index, leaf=leaf)

    def settle(self) -> None:
        if not self._pending:
            return
        with self._lock:
            pending, self._pending = self._pending, []
        self.store.keep(pending)

    def open(self, sealed: bytes, *, index: int, leaf: bytes) -> bytes | None:
        id_ = key_id(sealed)
        if not id_:
            return self._sealer.open(sealed, index=index, leaf=leaf)
        self._look()
        sealer = self._opening.get(id_)
        if sealer is None:
            wrapped = self.store.wrapped(id_)
            if wrapped == b"" or any(id_.hex() in each.keys for each in self.erasures()):
                return None
            if wrapped is None:
                raise LedgerCorrupt(
                    f"its key {id_.hex()} is not in `{self.store.path}`", hint="put back that file's last backup"
                )
            sealer = self.wrapping.unwrap(id_, wrapped)
            _remember(self._opening, id_, sealer)
        return sealer.open(sealed, index=index, leaf=leaf)

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

    def _found(self, about: str) -> SubjectSealer:
        with self._lock:
            label = self.wrapping.label(about)
            row = None if label in self._renewing else self.store.living(label)
            if row is not None:
                sealer = self.wrapping.unwrap(*row)
            else:
                fresh = os.urandom(KEY_ID_BYTES + 32 + NONCE_BYTES)
                id_, key, nonce = fresh[:KEY_ID_BYTES], fresh[KEY_ID_BYTES:-NONCE_BYTES], fresh[-NONCE_BYTES:]
                sealer = SubjectSealer(id_, key)
                self._pending.append((id_, label, self.wrapping.wrap(id_, key, nonce=nonce)))
                if label in self._renewing:
                    self._renewing[label].add(id_)
            _remember(self._sealing, about, sealer)
            return sealer

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
