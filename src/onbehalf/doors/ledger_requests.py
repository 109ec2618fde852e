"""What people ask to be erased of the record, and the legal holds against it, in the store of people's keys.

A command writes a request, whoever writes the ledger carries it out and takes note of that (ledger_erase.py). Names and
reasons are sealed; what a request was about is overwritten once keys are destroyed. A hold counts from the moment it is
asked for until its lifting is on record, and keys are destroyed in the transaction that saw no hold.

Trust: as ledger_subjects.py says. Whoever can write the store can withdraw holds; the record tells of them too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from onbehalf.doors.ledger_erasable import KeyStore, Kind, State, marks
from onbehalf.errors import LedgerCorrupt
from onbehalf.explain.erasure import Erasure
from onbehalf.explain.seal import NONCE_BYTES, Wrapping
from onbehalf.model import Json, UnixTime

__all__ = ["Hold", "Kind", "Request", "Requests", "erasures", "keys_of", "under_way"]

_ID_BYTES = 16
_OWN_COPY = "put back its last backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Something that was asked for. `said` is empty once it is done; `result` tells what it came to."""

    number: int
    id: str
    kind: Kind
    state: State
    said: Mapping[str, Json] = field(repr=False)
    result: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A legal hold: nothing about `whom` is erased while it stands."""

    number: int
    whom: str
    reason: str
    by: str
    at: UnixTime


class Requests:
    """The requests in one store. All methods raise LedgerUnavailable, and LedgerCorrupt for what was changed in it."""

    def __init__(self, store: KeyStore, wrapping: Wrapping) -> None:
        self._store, self._wrapping = store, wrapping

    def ask(self, kind: Kind, said: Mapping[str, Json], *, hold: Sequence[bytes] = ()) -> Request:
        """Ask for something; durable when this returns. With `hold` these labels are held from now on."""
        id_ = os.urandom(_ID_BYTES)
        number = self._store.ask(id_, kind, self._closed(id_, said), hold=hold)
        return Request(number=number, id=id_.hex(), kind=kind, state="asked", said=said, result={})

    def pending(self) -> tuple[Request, ...]:
        """What is not done, in the order in which it was asked for."""
        return self._select("WHERE state IN ('asked', 'destroyed') ORDER BY seq")

    def find(self, id_: str) -> Request:
        """One request."""
        return self._select("WHERE id = ?", bytes.fromhex(id_))[0]

    def holds(self) -> tuple[Hold, ...]:
        """All legal holds that stand."""
        found = self._select("WHERE seq IN (SELECT number FROM hold) ORDER BY seq")
        return tuple(
            Hold(
                number=each.number, whom=str(each.said.get("whom")), reason=str(each.said.get("reason")),
                by=str(each.said.get("by")), at=UnixTime(_whole(each.said.get("at"))),
            )
            for each in found
        )  # fmt: skip

    def any_hold(self) -> bool:
        """Whether any hold stands."""
        return bool(self._store.rows("SELECT 1 FROM hold LIMIT 1"))

    def held(self, labels: Sequence[bytes]) -> bool:
        """Whether a hold stands on one of these labels."""
        return bool(self._store.rows(f"SELECT 1 FROM hold WHERE label IN ({marks(labels)}) LIMIT 1", labels))  # noqa: S608

    def held_keys(self) -> frozenset[bytes]:
        """The ids of all living keys on which a hold stands."""
        found = self._store.rows("SELECT id FROM key WHERE label IN (SELECT label FROM hold)")
        return frozenset(row[0] for row in found)

    def keys(self, labels: Sequence[bytes]) -> frozenset[bytes]:
        """The ids of all living keys of these labels."""
        return keys_of(self._store, labels)

    def destroyed(self, request: Request, *, besides: set[bytes]) -> Request:
        """Destroy the keys of the labels that an erasure is about, except those in `besides`, and say so, all or
        nothing. Raises ErasureRefused where a hold stands, and where there is no such key."""
        labels = [bytes.fromhex(str(each)) for each in _list(request.said.get("labels"))]
        words = {name: value for name, value in request.said.items() if name != "labels"}
        told: dict[str, Json] = {}

        def said(ids: Sequence[bytes]) -> bytes:
            told.update({**words, "keys": [each.hex() for each in ids]})
            return self._closed(bytes.fromhex(request.id), told)

        self._store.destroy(bytes.fromhex(request.id), labels, besides=besides, said=said)
        return replace(request, state="destroyed", said=told)

    def destroy_again(self, of: Erasure) -> bool:
        """Destroy what an erasure on record did, where an older copy of the store was put back; whether it was."""
        keys = [bytes.fromhex(each) for each in sorted(of.keys)]
        result = orjson.dumps(_result(of)).decode()
        return self._store.destroy_again(
            bytes.fromhex(of.id), "retain" if of.before else "erase", keys, result=result
        )  # fmt: skip

    def done(self, request: Request, result: Mapping[str, Json], *, lifts: int = 0) -> None:
        """It is on record. Words are overwritten, except those of a hold that stands; the hold `lifts` is no more."""
        self._note(request, "done", request.said if request.kind == "hold" else {}, result, lifts=lifts)

    def erased(self, request: Request, erasure: Erasure) -> None:
        """An erasure is on record."""
        self.done(request, _result(erasure))

    def refused(self, request: Request, why: str) -> None:
        """It is not carried out."""
        self._note(request, "refused", {}, {"why": why})

    def _note(
        self, request: Request, state: State, said: Mapping[str, Json], result: Mapping[str, Json], *, lifts: int = 0
    ) -> None:
        id_ = bytes.fromhex(request.id)
        words = self._closed(id_, said) if said else b""
        self._store.note(id_, state, said=words, result=orjson.dumps(dict(result)).decode(), lifts=lifts)

    def _select(self, where: str, *values: bytes) -> tuple[Request, ...]:
        query = f"SELECT seq, id, kind, state, said, result FROM request {where}"  # noqa: S608  # our own words
        rows = self._store.rows(query, values)
        try:
            return tuple(
                Request(
                    number=number, id=id_.hex(), kind=kind, state=state, result=orjson.loads(result or "{}"),
                    said=orjson.loads(self._wrapping.open_note(said, of=id_)) if said else {},
                )
                for number, id_, kind, state, said, result in rows
            )  # fmt: skip
        except ValueError as error:
            raise LedgerCorrupt(f"requests cannot be read from {self._store.where}", hint=_OWN_COPY) from error

    def _closed(self, id_: bytes, said: Mapping[str, Json]) -> bytes:
        return self._wrapping.close_note(orjson.dumps(dict(said)), of=id_, nonce=os.urandom(NONCE_BYTES))


def erasures(store: KeyStore) -> tuple[Erasure, ...]:
    """What was erased, in the order of its leaves. Raises LedgerUnavailable."""
    rows = store.rows("SELECT result FROM request WHERE kind IN ('erase', 'retain') AND state = 'done'")
    try:
        found = [orjson.loads(row[0]) for row in rows]
        made = [Erasure(**{**each, "keys": frozenset(each["keys"]), "at": UnixTime(each["at"])}) for each in found]
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerCorrupt(f"what was erased cannot be read from {store.where}", hint=_OWN_COPY) from error
    return tuple(sorted(made, key=lambda each: each.leaf))


def under_way(store: KeyStore) -> bool:
    """Whether something is asked to be erased, and not yet on record. Raises LedgerUnavailable."""
    query = "SELECT 1 FROM request WHERE kind IN ('erase', 'retain') AND state IN ('asked', 'destroyed') LIMIT 1"
    return bool(store.rows(query))


def keys_of(store: KeyStore, labels: Sequence[bytes]) -> frozenset[bytes]:
    """The ids of all living keys of these labels. Raises LedgerUnavailable."""
    return frozenset(row[0] for row in store.rows(f"SELECT id FROM key WHERE label IN ({marks(labels)})", labels))  # noqa: S608


def _result(of: Erasure) -> dict[str, Json]:
    return {
        "id": of.id, "leaf": of.leaf, "at": of.at, "keys": [*sorted(of.keys)], "before": of.before, "count": of.count,
        "first": of.first, "last": of.last,
    }  # fmt: skip


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list) else ()


def _whole(value: Json) -> int:
    return value if isinstance(value, int) else 0
