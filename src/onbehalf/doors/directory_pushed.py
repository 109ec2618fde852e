"""People whom identity providers push: what is kept of them becomes the directory, change by change.

One change at a time. Each is tried on all that is kept of its tenant, taken over by the directory, and only then kept
for good: what cannot be, such as a circle of managers, changes nothing. Must not know HTTP (inbound_scim.py) or what
resources mean (validate/scim*.py).

Trust: as directory_scim.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from onbehalf.doors.directory_scim import Kept, ScimStore
from onbehalf.doors.inbound_scim import Change
from onbehalf.errors import ConfigInvalid, OnbehalfError
from onbehalf.model import Json, UnixTime
from onbehalf.ports import Clock
from onbehalf.validate.people import TenantPeople
from onbehalf.validate.scim import Kind
from onbehalf.validate.scim_people import Feed, tenant_people

__all__ = ["PushedPeople"]

_HEARD_SECONDS = 60
"""How often a provider that only asks is taken for a sign that its people are as they were, in seconds at most."""


class PushedPeople:
    """All pushed tenants. `note` puts a change on record."""

    def __init__(
        self,
        store: ScimStore,
        feeds: Sequence[Feed],
        *,
        clock: Clock,
        note: Callable[[str, dict[str, Json]], None],
    ) -> None:
        self._store = store
        self._feeds = {feed.tenant: feed for feed in feeds}
        self._clock = clock
        self._note = note
        self._turn = asyncio.Lock()
        self._heard = UnixTime(0)
        self._take: Callable[[Mapping[str, TenantPeople]], object] | None = None

    def taken_by(self, take: Callable[[Mapping[str, TenantPeople]], object]) -> None:
        """Have `take` take over everybody, now and after every change. Raises ConfigInvalid, and what it raises."""
        self._take = take
        take(self.people())

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def people(self) -> dict[str, TenantPeople]:
        """Everybody of all pushed tenants, as they are kept. Raises ConfigInvalid."""
        try:
            return {tenant: self._people(feed) for tenant, feed in self._feeds.items()}
        except OnbehalfError as error:
            raise ConfigInvalid(
                f"what was pushed does not hold together: {error.message}",
                hint="mend it at the identity provider, or move `scim.db` away and have everything pushed again",
            ) from error

    async def look(self, tenant: str, kind: Kind) -> list[Kept]:
        """What is kept of one kind, deleted ones among them. A provider that asks is heard: its people are not old."""
        async with self._turn:
            now = self._clock()
            if now - self._heard >= _HEARD_SECONDS and self._take is not None:
                self._heard = now
                await asyncio.to_thread(self._take, await asyncio.to_thread(self.people))
            return await asyncio.to_thread(self._store.all, tenant, kind)

    async def make(self, change: Change) -> Kept | None:
        """Bring a change about, in force and on disk. Raises ScimInvalid, and what the directory raises."""
        async with self._turn:
            made = await asyncio.to_thread(self._made, change)
        known = made or change.kept
        what = "deleted" if change.body is None else "changed" if change.kept else "added"
        about: dict[str, Json] = {"tenant": change.tenant, "resource": change.kind, "change": what}
        self._note("directory_push", {**about, "id": known.id if known else ""})
        return made

    def _made(self, change: Change) -> Kept | None:
        feed, take = self._feeds[change.tenant], self._take
        assert take is not None  # INVARIANT: the gateway serves only once it is whole

        def taken() -> None:
            take({tenant: self._people(each) for tenant, each in self._feeds.items()})

        return self._store.change(change.tenant, lambda store: self._changed(store, change, feed), taken)

    def _changed(self, store: ScimStore, change: Change, feed: Feed) -> Kept | None:
        now, tenant, body = self._clock(), change.tenant, change.body
        if change.kept is None and body is not None:
            own = str(body.get(feed.person, "")).casefold()
            gone = [
                each.id
                for each in store.all(tenant, change.kind)
                if each.deleted and str(each.body.get(feed.person, "")).casefold() == own
            ]
            return store.add(tenant, change.kind, body, now=now, instead=gone)
        assert change.kept is not None  # INVARIANT: a change is of what is kept, or makes something
        if body is not None:
            return store.put(tenant, change.kept, body, now=now)
        store.put(tenant, change.kept, change.kept.body, now=now, deleted=True)
        return None

    def _people(self, feed: Feed) -> TenantPeople:
        users, groups = self._store.all(feed.tenant, "User"), self._store.all(feed.tenant, "Group")
        return tenant_people(feed, [each.pushed for each in users], [each.pushed for each in groups])
