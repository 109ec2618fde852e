"""Which tools are on offer while the house runs: as configured, and as their servers describe them.

A tool whose definition is no longer the one that was offered first is withdrawn, and comes back with a restart only.
Must not decide who may use one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from onbehalf.config import Settings
from onbehalf.doors.upstream_mcp import McpUpstreamServer
from onbehalf.errors import ConfigInvalid, LedgerUnavailable, OnbehalfError
from onbehalf.gateway import Offer, Standing
from onbehalf.model import AuditEntry, Json, UnixTime
from onbehalf.ports import Clock, Ledger
from onbehalf.validate import route, tools

__all__ = ["Notes", "Offering", "Pause", "entry"]

_log = logging.getLogger(__name__)
Pause: TypeAlias = Callable[[bool], Awaitable[None]]
"""Told whether the MCP server answered the last time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """Puts on record what happens to the house itself, rather than to a call."""

    ledger: Ledger
    clock: Clock

    def note(self, kind: str, facts: dict[str, Json]) -> None:
        """Have it recorded soon. What could not be is said in the log: what was refused stays so all the same."""
        try:
            self.record(kind, facts)
        except LedgerUnavailable as error:  # what is withdrawn or refused stays so, and no call goes unrecorded
            _log.error("`%s` is not on record: %s", kind, error.message)

    def record(self, kind: str, facts: dict[str, Json]) -> None:
        """The same. Raises LedgerUnavailable."""
        self.ledger.follow(entry(kind, facts, at=self.clock()))


def entry(kind: str, facts: dict[str, Json], *, at: UnixTime) -> AuditEntry:
    """What is about no call."""
    return AuditEntry(kind=kind, call="", at=at, facts=facts)


@dataclass(slots=True, kw_only=True)
class Offering:
    """What the corridor asks for once a call, and the first definition of every tool. `problems` are the house's."""

    settings: Settings
    standing: Standing
    problems: dict[str, str]
    notes: Notes
    seen: dict[str, str] = field(default_factory=dict)

    async def watch(self, name: str, server: McpUpstreamServer, pause: Pause) -> None:
        """Offer an MCP server's tools once it answers, and withdraw one whose definition is no longer the same."""
        seen = f"upstream {name}" not in self.problems
        while True:
            await pause(seen)
            before = self.standing.offers.keys()
            try:
                seen = await self.look(name, server)
            except Exception:  # one bad answer must not end the watch: the next look may find what to withdraw
                _log.exception("upstream `%s` could not be looked at", name)
            if new := self.standing.offers.keys() - before:
                _log.info("now offered: %s", ", ".join(sorted(new)))

    async def look(self, name: str, server: McpUpstreamServer) -> bool:
        """Ask one MCP server for its tools and offer those that are as configured. Whether it answered."""
        settings = self.settings.upstreams[name]
        try:
            described = await server.describe()
        except OnbehalfError as error:
            if self.problems.get(f"upstream {name}") != error.message:
                _log.warning("upstream `%s` cannot be asked for its tools: %s", name, error.message)
            self.problems[f"upstream {name}"] = error.message
            return False
        self.problems.pop(f"upstream {name}", None)
        if odd := server.problems():
            self.problems[f"upstream {name}"] = "; ".join(odd)
        for tool_name, each in settings.tools.items():
            try:
                known = described.get(each.remote or tool_name)
                if known is None:
                    raise ConfigInvalid(f"upstream `{name}` has no tool `{each.remote or tool_name}`")
                made = tools.mcp_tool(
                    tool_name, name, each, title=known.title, description=known.description, schema=known.schema
                )
                self.offer(Offer(tool=made, check=route.prepare(made.schema), upstream=server))
                self.problems.pop(f"tool {tool_name}", None)
            except OnbehalfError as error:
                self.withdraw(tool_name, error)
        return True

    def offer(self, offer: Offer) -> None:
        """Offer a tool. One that was offered before is refused with another definition until the gateway restarts."""
        name = offer.tool.name
        first = self.seen.setdefault(name, offer.tool.definition)
        if first != offer.tool.definition:
            raise ConfigInvalid(
                f"tool `{name}` changed its definition while in use, from `{first}` to `{offer.tool.definition}`",
                hint="look at what its server says now, then restart the gateway",
            )
        if name not in self.standing.offers:
            self.standing = replace(self.standing, offers={**self.standing.offers, name: offer})

    def withdraw(self, name: str, error: OnbehalfError) -> None:
        """Offer a tool no longer."""
        left = {key: offer for key, offer in self.standing.offers.items() if key != name}
        self.standing = replace(self.standing, offers=left)
        if self.problems.get(f"tool {name}") != error.message:
            self.problems[f"tool {name}"] = error.message
            _log.error("tool `%s` is not offered: %s", name, error.message)
            self.notes.note("tool_withdrawn", {"tool": name, "reason": error.message})

    def disagrees(self, name: str) -> None:
        """Withdraw a scoped tool whose statement and policies were seen to disagree."""
        self.withdraw(
            name,
            ConfigInvalid(
                f"the statement of scoped tool `{name}` gave a row that the policies refuse",
                hint="see that its tables say the same of people as the directory, then restart the gateway",
            ),
        )
