"""The side corridor of people's own logins at upstreams: whether a call has one, how to get it, and using it.

A call of a tool behind such an upstream waits, like one that needs an approval, until its person connected their
account there: in a browser, logged in as that very person. The tokens are found by tenant, person and upstream and by
nothing else, renewed here, and shown to nobody. Read gateway.py first. Must not hold a page, a browser's login or a
format of storage.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from onbehalf.errors import ConnectionUnknown, VaultUnavailable
from onbehalf.model import AuditEntry, Caller, Json, ToolCall, UnixTime, Waiting
from onbehalf.ports import Clock, Directory, Ledger

__all__ = ["Account", "Accounts", "Connecting", "ConnectionDead", "Owner", "Pending", "Vault"]

_EARLY_S = 60
_PENDING_S = 900
_MOST = 10_000
_LOCKS = 4096
_RENEWING_S = 60
"""Longer than an authorization server is waited for. One that ends in the middle holds up others so long."""
_LOOKS, _LOOK_AGAIN_S = 20, 0.25


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A person's login at an upstream. `until` is when `access` ends, 0 where that is not known to happen."""

    access: str
    refresh: str = ""
    until: int = 0

    def __repr__(self) -> str:
        return "Account()"


class ConnectionDead(Exception):
    """The upstream's authorization server takes this login no longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose login where. `person` is an id within the tenant."""

    tenant: str
    person: str
    upstream: str


class Vault(Protocol):
    """Keeps logins, sealed. All raise VaultUnavailable."""

    async def find(self, owner: Owner) -> Account | None: ...
    async def keep(self, owner: Owner, account: Account) -> None: ...
    async def renewing(self, owner: Owner, *, now: UnixTime, until: UnixTime) -> bool:
        """Whether no other gateway renews it; then no other may until it is kept, or `until`."""
        ...

    async def drop(self, owner: Owner) -> bool: ...


class Accounts(Protocol):
    """One upstream's authorization server, as the gateway is a client of it."""

    title: str

    async def renewed(self, account: Account, *, now: UnixTime) -> Account:
        """A new access token by the refresh token. Raises ConnectionDead, and AuthorizationFailed where it may still
        be good."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A connection that somebody was asked for, until `until`."""

    owner: Owner
    until: UnixTime


@dataclass(slots=True, kw_only=True)
class Connecting:
    """`url` is the pages' address, ending before the id; `fresh` gives an id; `issuers` are those where people can log
    in to the pages. `accounts` are by upstream."""

    clock: Clock
    fresh: Callable[[], str]
    vault: Vault
    directory: Directory
    ledger: Ledger
    url: str
    issuers: frozenset[str]
    accounts: Mapping[str, Accounts]
    _pending: OrderedDict[str, Pending] = field(default_factory=OrderedDict)
    _locks: OrderedDict[Owner, asyncio.Lock] = field(default_factory=OrderedDict)

    async def needed(self, call: ToolCall) -> Waiting | None:
        """Where the person connects their account first; None where it is connected, or no upstream of this call has
        accounts. With an empty `url` it cannot be connected at all. Raises VaultUnavailable."""
        if call.tool.upstream not in self.accounts:
            return None
        owner = owner_of(call)
        if await self.vault.find(owner) is not None:
            return None
        title = self.accounts[owner.upstream].title
        if call.caller.evidence.issuer not in self.issuers or call.caller.kind != "person":
            return Waiting(url="", message=f"This needs your account at {title}, which cannot be connected here.")
        id = self.fresh()
        self._pending[id] = Pending(owner=owner, until=UnixTime(self.clock() + _PENDING_S))
        while len(self._pending) > _MOST:
            self._pending.popitem(last=False)
        message = f"Connect your account at {title}. It is done when the same call is sent again after that."
        return Waiting(url=f"{self.url}{id}", message=message)

    async def look(self, caller: Caller, id: str) -> Pending:
        """The connection of that id, if it is this person's own. Raises ConnectionUnknown, and what ports raise."""
        person = await self.directory.person(caller)
        found = self._pending.get(id)
        own = person.own_id
        if found is None or found.until <= self.clock() or (found.owner.tenant, found.owner.person) != (
            caller.tenant, own
        ) or person.tenant != caller.tenant:  # fmt: skip
            raise ConnectionUnknown(
                "there is nothing here for you to connect",
                hint="it may be over, or another person's; send the call again in your AI client and use its link",
            )
        return found

    async def connected(self, caller: Caller, id: str, account: Account) -> None:
        """Keep what the upstream gave, on record first. Raises ConnectionUnknown, and what ports raise."""
        found = await self.look(caller, id)
        await self._note("connected", found.owner, client=caller.client)
        await self.vault.keep(found.owner, account)
        self._pending.pop(id, None)

    async def bearer(self, call: ToolCall) -> str:
        """The person's access token at the upstream of a call, renewed where it has to be. Raises ConnectionDead,
        VaultUnavailable, AuthorizationFailed."""
        owner = owner_of(call)
        async with self._lock(owner):  # a refresh token is good once
            for _ in range(_LOOKS):
                account = await self.vault.find(owner)
                if account is None:
                    raise ConnectionDead
                if account.until == 0 or account.until - _EARLY_S > self.clock():
                    return account.access
                if not account.refresh:
                    await self._dead(owner, "it ended, and cannot be renewed")
                now = self.clock()
                if await self.vault.renewing(owner, now=now, until=UnixTime(now + _RENEWING_S)):
                    return await self._renewed(owner, account)
                await asyncio.sleep(_LOOK_AGAIN_S)
        raise VaultUnavailable("another gateway renews this login, and is not done", hint="try again later")

    async def _renewed(self, owner: Owner, was: Account) -> str:
        """The access token of a login that this gateway alone renews now."""
        account = await self.vault.find(owner)  # another may have been done between the look and the claim
        if account is None:
            raise ConnectionDead
        if account != was:
            await self.vault.keep(owner, account)
            return account.access
        try:
            renewed = await self.accounts[owner.upstream].renewed(was, now=self.clock())
        except ConnectionDead:
            await self._dead(owner, "the upstream takes it no longer")
        except Exception:  # it may still be good, for whoever comes next
            await self.vault.keep(owner, was)
            raise
        await self.vault.keep(owner, renewed)
        return renewed.access

    async def refused(self, call: ToolCall) -> None:
        """The upstream did not take the access token: it is renewed before it is used again, or given up."""
        owner = owner_of(call)
        async with self._lock(owner):
            now = self.clock()
            if not await self.vault.renewing(owner, now=now, until=UnixTime(now + _RENEWING_S)):
                return  # it is being renewed already, or is gone
            account = await self.vault.find(owner)
            if account is None:
                return
            if account.refresh and account.until != 1:
                again = Account(access=account.access, refresh=account.refresh, until=1)
                await self.vault.keep(owner, again)
            else:
                await self._note("disconnected", owner, why="the upstream refused its token")
                await self.vault.drop(owner)

    async def _dead(self, owner: Owner, why: str) -> None:
        await self._note("disconnected", owner, why=why)
        await self.vault.drop(owner)
        raise ConnectionDead

    async def _note(self, kind: str, owner: Owner, **more: Json) -> None:
        facts: dict[str, Json] = {"tenant": owner.tenant, "person": owner.person, "upstream": owner.upstream, **more}
        about = f"{owner.tenant}/{owner.person}"
        await self.ledger.append(AuditEntry(kind=kind, call="", at=self.clock(), facts=facts, about=about))

    def _lock(self, owner: Owner) -> asyncio.Lock:
        lock = self._locks.setdefault(owner, asyncio.Lock())
        self._locks.move_to_end(owner)
        while len(self._locks) > _LOCKS and not next(iter(self._locks.values())).locked():
            self._locks.popitem(last=False)
        return lock


def owner_of(call: ToolCall) -> Owner:
    """Whose login a call uses: its proven person's, at its tool's upstream. A service has none, and nobody else's."""
    return Owner(tenant=call.person.tenant, person=call.person.own_id, upstream=call.tool.upstream)
