"""The directory, in which whoever is stopped is nobody's to act for.

Every call, every list of tools and every approval asks for its person here, and so is refused as soon as the file of
revocations says so: within 50 ms of its being written, or what several gateways share says so
(revocations_postgres.py). Must not write a revocation, or know who may.

Trust: as revocations_sqlite.py. Where it cannot be read, everybody is refused.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from onbehalf.doors.revocations_sqlite import Ended, Revocation
from onbehalf.errors import Blocked, DirectoryUnavailable, LedgerUnavailable, TokenRevoked
from onbehalf.model import Caller, Entity, Json, Person, UnixTime
from onbehalf.ports import Directory

__all__ = ["RevokedPeople", "Stopped"]

_FRESH_SECONDS = 0.05
_TOLERANCE_S = 30
"""By so much an issuer's clock may be ahead of ours, and a token younger than it seems (as identify/verify.py)."""
_log = logging.getLogger(__name__)
_Key = tuple[str, str, str]


class Stopped(Protocol):
    """Who is stopped, as it is kept. All raise sqlite3.Error or OSError where that cannot be told."""

    def version(self) -> tuple[int, int, int]:
        """Another value whenever another process has written; the last two are others where another file is there."""
        ...

    def marks(self) -> tuple[int, ...]:
        """Other values whenever `all` is other than before; quicker than that."""
        ...

    def all(self) -> Sequence[Revocation]: ...
    def ended(self, *, after: int) -> Sequence[Ended]: ...
    def note(self, id_: int, noted: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """Who is blocked, and until when a token must not have been issued."""

    blocked: frozenset[_Key] = frozenset()
    before: Mapping[_Key, UnixTime] = field(default_factory=dict)


class RevokedPeople:
    """The Directory port over another one. Used in one event loop; `note` puts a revocation on record."""

    def __init__(
        self, directory: Directory, revocations: Stopped, *, note: Callable[[str, dict[str, Json]], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`note` raises LedgerUnavailable where it cannot; then it is tried again with the next change or start."""
        self._directory = directory
        self._revocations = revocations
        self._note = note
        self._monotonic = monotonic
        self._fresh_until = 0.0
        self._version: tuple[int, int, int] | None = None
        self._standing = _Standing()
        self._ended: dict[_Key, UnixTime] = {}
        self._seq = 0
        self._marks: tuple[int, ...] = ()

    async def person(self, caller: Caller) -> Person:
        """The caller's own slice, of whom nobody has stopped.

        Raises Blocked, TokenRevoked, and what the directory does. What is unreadable stops everybody:
        DirectoryUnavailable.
        """
        person = await self._directory.person(caller)
        self._renew()
        standing = self._standing
        if standing.blocked or standing.before or self._ended:
            _require(standing, self._ended, caller, person)
        return person

    async def people(self, tenant: str, ids: Iterable[str]) -> Sequence[Entity]:
        """Of others, who are stopped too: rows that name them are others' to see. Raises DirectoryUnavailable."""
        return await self._directory.people(tenant, ids)

    def look(self) -> None:
        """Take over now what was written: every call that begins after this is judged by it. Where it cannot be read,
        every call is refused."""
        self._fresh_until = 0.0
        try:
            self._renew()
        except DirectoryUnavailable as error:
            _log.error("nobody is let in: %s", error.message)

    def _renew(self) -> None:
        now = self._monotonic()
        if now < self._fresh_until:
            return
        try:
            version = self._revocations.version()
            if self._version is None or version[1:] == self._version[1:]:
                if version != self._version:
                    self._take()
                self._version, self._fresh_until = version, now + _FRESH_SECONDS
                return
            problem = "another file is in its place"
        except (sqlite3.Error, OSError) as error:
            problem = str(error)
        raise DirectoryUnavailable(
            f"who is stopped cannot be read: {problem}", hint="nothing was done; tell whoever runs the gateway"
        )

    def _take(self) -> None:
        """Read what changed. Raises sqlite3.Error."""
        for ended in self._revocations.ended(after=self._seq):
            key = (ended.kind, ended.tenant, ended.name)
            self._ended[key] = max(UnixTime(ended.at + _TOLERANCE_S), self._ended.get(key, UnixTime(0)))
            self._seq = ended.seq
        marks = self._revocations.marks()
        if marks != self._marks:
            found = self._revocations.all()
            self._standing = _standing(found)
            self._marks = marks if self._noted(found) else ()

    def _noted(self, found: Sequence[Revocation]) -> bool:
        """Put on record what is not: that somebody was stopped, and that they were let go. Whether all is."""
        whole = True
        for each in found:
            wanted = 1 if each.lifted is None else 2
            facts: dict[str, Json] = {
                "id": each.id, "kind": each.kind, "tenant": each.tenant, "name": each.name, "blocks": each.blocks,
            }  # fmt: skip
            try:
                if each.noted < 1:
                    self._note("revoked", {**facts, "at": each.at, "by": each.by, "reason": each.reason})
                if each.noted < wanted == 2:
                    self._note("revocation_lifted", {**facts, "at": each.lifted, "by": each.lifted_by})
                if each.noted < wanted:
                    self._revocations.note(each.id, wanted)
            except LedgerUnavailable as error:  # who is stopped is stopped; without a record nobody else acts either
                _log.error("revocation %d is not on record: %s", each.id, error.message)
                whole = False
        return whole


def _standing(found: Sequence[Revocation]) -> _Standing:
    before: dict[_Key, UnixTime] = {}
    for each in found:
        key = (each.kind, each.tenant, each.name)
        before[key] = max(UnixTime(each.at + _TOLERANCE_S), before.get(key, UnixTime(0)))
    return _Standing(
        blocked=frozenset((each.kind, each.tenant, each.name) for each in found if each.stops), before=before
    )


def _require(standing: _Standing, ended: Mapping[_Key, UnixTime], caller: Caller, person: Person) -> None:
    """Raises Blocked and TokenRevoked."""
    tenant = caller.tenant
    keys: tuple[_Key, ...] = (
        ("person", tenant, person.own_id),  # of a service this is no person's, who may be called like it
        ("client", tenant, caller.client),
        ("login", tenant, f"{caller.evidence.issuer} {caller.subject}"),
        ("tenant", tenant, ""),
    )
    for key in keys:
        if key in standing.blocked:
            raise Blocked(f"this {key[0]} is stopped", hint="ask whoever runs the gateway; a new login does not help")
    if any(caller.evidence.issued_at <= max(standing.before.get(key, -1), ended.get(key, -1)) for key in keys):
        raise TokenRevoked("the token is from before a revocation", hint="log in again; it can take half a minute")
