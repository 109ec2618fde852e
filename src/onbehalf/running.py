"""The running house: what of it can be taken over anew while it serves, and what could not be.

Policies, people and keys are taken over as a whole, or not at all: then the old ones stay in force, and that is said in
the log, in `problems` and on record. Must not build anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from onbehalf.build import narrowed
from onbehalf.build_people import load_people
from onbehalf.config import Settings
from onbehalf.doors import policies_kept
from onbehalf.doors.directory_load import Loaded
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.doors.inbound_admin import AdminApp
from onbehalf.doors.inbound_approve_login import Logins
from onbehalf.doors.inbound_http import PublicApp
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.doors.key_file import KeyFile
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.signer_file import FileSigner
from onbehalf.errors import DirectoryUnavailable, OnbehalfError
from onbehalf.gateway import Gateway
from onbehalf.model import Json, Tool
from onbehalf.offering import Notes, Offering
from onbehalf.places import Paths

if TYPE_CHECKING:
    from onbehalf.doors.ledger_postgres import PostgresLedger

__all__ = ["App"]

_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class App:
    """The running house. `problems` says, part by part, what could not be taken over since it was built."""

    settings: Settings
    paths: Paths
    gateway: Gateway
    public: PublicApp
    admin: AdminApp
    callers: IssuerCallers
    directory: SqliteDirectory
    ledger: SqliteLedger | PostgresLedger
    signer: FileSigner
    sketches: Mapping[str, Tool]
    offering: Offering
    notes: Notes
    keys: Callable[[], dict[str, Json]]
    logins: Logins | None = None
    broker: KeyFile | None = None
    events: KeyFile | None = None
    problems: dict[str, str] = field(default_factory=dict)
    reloading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def reload(self) -> None:
        """Take over changed policies, people and keys, and prove every token anew.

        What is bad changes nothing and stands in `problems`. One at a time: of two reloads the later one's files stand.
        """
        async with self.reloading:
            self.callers.revoke_all()
            if self.logins is not None:
                self.logins.end_all()
            await self._reloaded("policies", "policy_change", self._reload_policies)
            await self._reloaded("people", "directory_change", self._reload_people)
            await self._reloaded("keys", "key_change", self._reload_keys, now_as="key_set")

    async def _reloaded(
        self, part: str, event: str, action: Callable[[], Awaitable[tuple[Json, Json]]], now_as: str = "after"
    ) -> None:
        try:
            before, after = await action()
        except OnbehalfError as error:
            self.problems[part] = error.message
            _log.error("the old %s stay in force: %s", part, error.message)
            self.notes.note(f"{part}_refused", {"reason": error.message})
            return
        self.problems.pop(part, None)
        _log.info("%s %s", part, "taken over" if before != after else "unchanged")
        if before != after:
            self.notes.note(event, {"before": before, now_as: after})

    async def _reload_policies(self) -> tuple[Json, Json]:
        before = self.offering.standing.engine.policy
        engine = await asyncio.to_thread(
            CedarEngine.load, self.paths.policies, tools=[*self.sketches.values()], narrowed=narrowed(self.settings)
        )
        await asyncio.to_thread(policies_kept.keep, self.paths.kept, engine.spelled)
        self.offering.standing = replace(self.offering.standing, engine=engine)
        return before, engine.policy

    async def _reload_people(self) -> tuple[Json, Json]:
        before = 0
        with contextlib.suppress(DirectoryUnavailable):  # what is found damaged is what a load may mend
            before = self.directory.revision
        return before, await asyncio.to_thread(lambda: self.directory.load(load_people(self.paths)))

    async def _reload_keys(self) -> tuple[Json, Json]:
        before = self.keys()
        await asyncio.to_thread(self.signer.reload)
        if self.events is not None:
            await asyncio.to_thread(self.events.reload)
        if self.broker is not None:
            await asyncio.to_thread(self.broker.reload)
            await self.callers.warm()
        return before, self.keys()

    def fed(self, tenant: str, outcome: Loaded | OnbehalfError) -> None:
        """Take note of what a feed of the directory came to. What failed left the old people in force."""
        part = f"directory {tenant}"
        if isinstance(outcome, OnbehalfError):
            if self.problems.get(part) != outcome.message:
                _log.error("the old people of `%s` stay in force: %s", tenant, outcome.message)
                self.notes.note("directory_refused", {"tenant": tenant, "reason": outcome.message})
            self.problems[part] = outcome.message
            return
        self.problems.pop(part, None)
        if outcome.before != outcome.revision:
            _log.info("the people of `%s` changed: revision %d", tenant, outcome.revision)
            self.notes.note("directory_change", {"tenant": tenant, "before": outcome.before, "after": outcome.revision})
