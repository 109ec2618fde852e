"""What erasing needs of a record, and of its store of people's keys, wherever they are kept.

Questions to the store are SQL that SQLite and PostgreSQL both understand, with `?` for values, over the tables
`key(id, label, wrapped)`, `request(seq, id, kind, state, said, result)` and `hold(number, label)`. Must not decide what
is erased (ledger_erase.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from onbehalf.doors.ledger_store import LedgerStore
from onbehalf.errors import ErasureRefused
from onbehalf.model import AuditEntry, Receipt

__all__ = ["HEADS", "STEP", "Erasable", "KeyStore", "Kind", "Span", "State", "held", "marks", "nothing_left"]

Kind = Literal["erase", "retain", "hold", "lift"]
State = Literal["asked", "destroyed", "done", "refused"]
STEP = 500
"""How many records a retention looks at in one transaction."""
HEADS = (
    "SELECT l.idx, l.entry, substr(p.sealed, 1, 17) FROM leaf l JOIN payload p USING (idx) "
    "WHERE l.idx >= ? AND l.idx < ? ORDER BY l.idx"
)
"""Asks a view for the records of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """How many records, and the first and the last of them; -1 for none."""

    count: int
    first: int
    last: int


class KeyStore(Protocol):
    """The keys of people, and what was asked for of them. Used from any thread.

    All methods raise LedgerUnavailable. What changes is durable, all or nothing, when a method returns.
    """

    where: str
    """For a person."""

    def close(self) -> None:
        """Close what is open; it is opened again when it is needed."""
        ...

    def version(self) -> int:
        """Another value whenever a key was destroyed, or a request changed."""
        ...

    def rows(self, query: str, values: Sequence[bytes] = ()) -> list[tuple[Any, ...]]:
        """What a question gives."""
        ...

    def keep(self, keys: Iterable[tuple[bytes, bytes, bytes]]) -> None:
        """Keep keys, each with its id, its label, and wrapped."""
        ...

    def scrub(self) -> None:
        """Have nothing that was destroyed stand in the store's files, as far as it can."""
        ...

    def ask(self, id_: bytes, kind: Kind, said: bytes, *, hold: Sequence[bytes]) -> int:
        """Keep a request, and hold these labels from now on; its number."""
        ...

    def destroy(
        self, id_: bytes, labels: Sequence[bytes], *, besides: set[bytes], said: Callable[[Sequence[bytes]], bytes]
    ) -> None:
        """Destroy the keys of these labels except those in `besides`, and note for the request what `said` says of
        their ids. Raises ErasureRefused where a hold stands, and where there is no such key."""
        ...

    def destroy_again(self, id_: bytes, kind: Kind, keys: Sequence[bytes], *, result: str) -> bool:
        """Destroy keys that the record says are, whatever is held; whether any lived. Notes the request as done."""
        ...

    def note(self, id_: bytes, state: State, *, said: bytes, result: str, lifts: int = 0) -> None:
        """What became of a request. The hold `lifts` is no more, and its words are overwritten."""
        ...


class Erasable(Protocol):
    """A record of which something can be erased, while others write it."""

    @property
    def store(self) -> LedgerStore:
        """The record as it is now, to be read."""
        ...

    def close(self) -> None: ...

    def apart(self, labels: Sequence[bytes]) -> AbstractAsyncContextManager[set[bytes]]:
        """Until the context ends, new records of these labels have new keys, whose ids are in what this gives, and all
        that has their other keys is committed, or will be refused once those are destroyed. Raises LedgerUnavailable.
        """
        ...

    async def append(self, entry: AuditEntry, *, once: str) -> Receipt:
        """Put an entry on record that is there once, whoever else tries: `once` is 32 hex digits of its own.

        Raises LedgerUnavailable, also where it is there already.
        """
        ...

    def step(self, id_: bytes, chosen: Callable[[Sequence[tuple[Any, ...]]], list[int]]) -> int:
        """One step of a retention, with what it deleted added up, in one transaction: of the next records, as rows
        that `HEADS` gives, `chosen` tells whose payloads go. The index that the next step begins at.

        Raises LedgerUnavailable, also where a hold came between.
        """
        ...

    def deleted(self, id_: bytes) -> Span:
        """What a retention has deleted so far, none of which stands in the record's files, as far as that can be."""
        ...

    def forget(self, id_: bytes) -> None:
        """A retention is over: what it counted is not needed any more."""
        ...


def marks(values: Sequence[object]) -> str:
    """As many question marks."""
    return ",".join("?" * len(values))


def held() -> ErasureRefused:
    """Why nothing is erased."""
    return ErasureRefused("a legal hold stands", hint="`onbehalf audit hold list` lists them")


def nothing_left() -> ErasureRefused:
    """Why nothing is erased."""
    return ErasureRefused("there is nothing of theirs to erase", hint="no key of theirs is left")
