"""The directory, with tenants whose people are who their own access tokens say.

A token that was not seen yet is taken over before its call is decided, so that the call is decided by what is in the
directory, like every other. Of two tokens of a person the one that was issued later counts, whichever comes later.
Must not know which claim means what (validate/claims_people.py) or how a person is written (directory_claims_write.py).

Trust: the issuer decides who its people are and which groups they are in, for its own tenants. Of others than the
caller the directory knows what their last token said; somebody who never called is nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence

from onbehalf.config_directory import ClaimsSettings, DirectorySettings
from onbehalf.doors.directory_claims_write import Taken, begin, take
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.directory_sqlite_schema import connected
from onbehalf.errors import DirectoryInvalid, DirectoryUnavailable, PersonUnknown
from onbehalf.model import Caller, Entity, Json, Person, UnixTime
from onbehalf.ports import Directory
from onbehalf.validate.claims_people import member_of

__all__ = ["ClaimedPeople", "with_claims"]

_KEPT = 20_000
_HINT = "nothing was done; tell whoever runs the gateway"
_Note = Callable[[str, dict[str, Json]], None]


def with_claims(directory: SqliteDirectory, settings: DirectorySettings, *, note: _Note) -> Directory:
    """The directory, with what the settings say of claims. `note` puts a change on record.

    Raises DirectoryInvalid for a tenant whose people come from elsewhere, DirectoryUnavailable.
    """
    if not settings.claims:
        return directory
    with _writing(directory) as connection:
        begin(connection, [each.tenant for each in settings.claims])
    directory.forget()
    return ClaimedPeople(directory, settings.claims, lag_budget_s=settings.lag_budget_seconds, note=note)


class ClaimedPeople:
    """The Directory port. Used in one event loop; ends with the directory it is over."""

    def __init__(
        self, directory: SqliteDirectory, claims: Sequence[ClaimsSettings], *, lag_budget_s: int, note: _Note
    ) -> None:
        """For `with_claims`, which has the tenants made. With a budget, a person is fresh for so many seconds after
        the token was issued; 0 is for ever."""
        self._directory = directory
        self._claims = {(each.tenant, each.issuer): each for each in claims}
        self._lag_budget_s = lag_budget_s
        self._note = note
        self._turn = asyncio.Lock()
        self._books: dict[str, int] = {}
        self._taken: OrderedDict[str, tuple[Person, Person] | None] = OrderedDict()

    async def person(self, caller: Caller) -> Person:
        """The caller's own slice, after what their token says is in the directory.

        Raises PersonUnknown, ClaimsUnusable, DirectoryUnavailable.
        """
        told = self._claims.get((caller.tenant, caller.evidence.issuer))
        if told is None or caller.kind != "person":  # what a service's token says makes nobody
            return await self._directory.person(caller)
        if caller.evidence.token in self._taken:
            with contextlib.suppress(PersonUnknown):  # their tenant was released: they come in anew
                return self._fresh(caller, await self._directory.person(caller))
        await self._take(caller, told)
        return self._fresh(caller, await self._directory.person(caller))

    async def people(self, tenant: str, ids: Iterable[str]) -> Sequence[Entity]:
        """User entities of these ids with what they are in; who never called is left out. Raises
        DirectoryUnavailable."""
        return await self._directory.people(tenant, ids)

    async def _take(self, caller: Caller, told: ClaimsSettings) -> None:
        member = member_of(caller, told)

        def written() -> Taken:
            with _writing(self._directory) as connection:
                return take(connection, caller.tenant, member, at=caller.evidence.issued_at)

        async with self._turn:  # they would wait for each other in the file, in threads that others need
            try:
                taken = await asyncio.to_thread(written)
            except DirectoryInvalid as error:  # somebody gave the tenant another source since the gateway began
                raise DirectoryUnavailable(error.message, hint=_HINT) from error
        self._directory.forget()
        if self._books.get(caller.tenant) != taken.book:  # released since: what was taken is no longer there
            self._books[caller.tenant] = taken.book
            self._taken.clear()
        self._taken[caller.evidence.token] = None
        if len(self._taken) > _KEPT:
            self._taken.popitem(last=False)
        if taken.before != taken.after:
            about: dict[str, Json] = {"tenant": caller.tenant, "person": member.id}
            self._note("directory_change", {**about, "before": taken.before, "after": taken.after})

    def _fresh(self, caller: Caller, person: Person) -> Person:
        """The person, no fresher than the token. The same object as long as the directory's is the same."""
        if self._lag_budget_s == 0:
            return person
        kept = self._taken.get(caller.evidence.token)
        if kept is not None and kept[0] is person:
            return kept[1]
        made = Person(
            ref=person.ref, tenant=person.tenant, name=person.name, active=person.active, attributes=person.attributes,
            entities=person.entities, revision=person.revision,
            fresh_until=UnixTime(caller.evidence.issued_at + self._lag_budget_s),
        )  # fmt: skip
        self._taken[caller.evidence.token] = person, made
        return made


@contextlib.contextmanager
def _writing(directory: SqliteDirectory) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(connected(directory.path)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise DirectoryUnavailable(f"the directory cannot be written: {error}", hint=_HINT) from error
