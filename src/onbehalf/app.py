"""Builds the house from `onbehalf.yaml`, keeps it in order while it runs, and takes it down.

With build.py and build_people.py, the only file that names concrete doors. Must not hold a rule: it connects parts,
and swaps policies and tools as a whole. What cannot be read again (policies, people, keys) leaves the old one standing
and is said in the log and record.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from onbehalf.build import Ports, mcp_server, narrowed, open_approvals, open_upstream, sketched
from onbehalf.build_accounts import open_accounts
from onbehalf.build_authorization import open_authorization
from onbehalf.build_broker import open_broker, pages_login, serve_broker
from onbehalf.build_exchange import open_exchange
from onbehalf.build_further import open_further
from onbehalf.build_keys import keys_in_force, keys_on_record
from onbehalf.build_ledger import ledger_store, open_erasing, open_ledger, public_log
from onbehalf.build_people import load_people, open_people
from onbehalf.build_proof import open_proofs
from onbehalf.build_signals import open_signals
from onbehalf.build_state import open_stores
from onbehalf.build_witnesses import open_heads, open_watched, open_witnesses
from onbehalf.config import McpUpstream, Settings
from onbehalf.config_upstreams import audience_of
from onbehalf.doors import policies_kept
from onbehalf.doors.clock_system import fresh_call_id, now
from onbehalf.doors.directory_feeds import Feeding
from onbehalf.doors.directory_load import Loaded
from onbehalf.doors.directory_pushed_configured import require_alone
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.doors.engine_cedar_values import engine_name
from onbehalf.doors.inbound_admin import AdminApp
from onbehalf.doors.inbound_approve_login import Logins
from onbehalf.doors.inbound_http import Catalogue, PublicApp, ServerName
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.doors.issuer_introspection import introspection_clients
from onbehalf.doors.issuer_metadata import IssuerMetadata
from onbehalf.doors.key_file import KeyFile
from onbehalf.doors.ledger_heartbeat import Heart
from onbehalf.doors.ledger_keys import open_mask_key
from onbehalf.doors.ledger_spool import Spool, taking
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.meter_prometheus import PrometheusMeter
from onbehalf.doors.signer_file import FileSigner
from onbehalf.doors.upstream_authorization import BearerSource
from onbehalf.doors.upstream_mcp import McpUpstreamServer
from onbehalf.errors import ConfigInvalid, DirectoryUnavailable, LedgerUnavailable, OnbehalfError
from onbehalf.explain.key_set import changed
from onbehalf.gateway import Gateway, Offer, Standing
from onbehalf.model import AuditEntry, Json, Tool
from onbehalf.places import VERSION, Paths, load_settings, log_origin, make_data, paths, trust_domain
from onbehalf.ports import House
from onbehalf.validate import route, tools
from onbehalf.validate.claims_people import kept_claims

if TYPE_CHECKING:
    from onbehalf.doors.ledger_postgres import PostgresLedger

__all__ = ["App", "building"]

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 300.0
_Pause = Callable[[bool], Awaitable[None]]  # told whether the MCP server answered the last time


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
    state: _State
    keys: Callable[[], dict[str, Json]]
    logins: Logins | None = None
    broker: KeyFile | None = None
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
            self._note(f"{part}_refused", {"reason": error.message})
            return
        self.problems.pop(part, None)
        _log.info("%s %s", part, "taken over" if before != after else "unchanged")
        if before != after:
            self._note(event, {"before": before, now_as: after})

    async def _reload_policies(self) -> tuple[Json, Json]:
        before = self.state.standing.engine.policy
        engine = await asyncio.to_thread(
            CedarEngine.load, self.paths.policies, tools=[*self.sketches.values()], narrowed=narrowed(self.settings)
        )
        await asyncio.to_thread(policies_kept.keep, self.paths.kept, engine.spelled)
        self.state.standing = replace(self.state.standing, engine=engine)
        return before, engine.policy

    async def _reload_people(self) -> tuple[Json, Json]:
        before = 0
        with contextlib.suppress(DirectoryUnavailable):  # what is found damaged is what a load may mend
            before = self.directory.revision
        return before, await asyncio.to_thread(lambda: self.directory.load(load_people(self.paths)))

    async def _reload_keys(self) -> tuple[Json, Json]:
        before = self.keys()
        await asyncio.to_thread(self.signer.reload)
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
                self._note("directory_refused", {"tenant": tenant, "reason": outcome.message})
            self.problems[part] = outcome.message
            return
        self.problems.pop(part, None)
        if outcome.before != outcome.revision:
            _log.info("the people of `%s` changed: revision %d", tenant, outcome.revision)
            self._note("directory_change", {"tenant": tenant, "before": outcome.before, "after": outcome.revision})

    def _note(self, kind: str, facts: dict[str, Json]) -> None:
        try:
            self.ledger.follow(_entry(kind, facts))
        except LedgerUnavailable as error:  # what is withdrawn or refused stays so, and no call goes unrecorded
            _log.error("`%s` is not on record: %s", kind, error.message)

    async def watch(self, name: str, server: McpUpstreamServer, pause: _Pause) -> None:
        """Offer an MCP server's tools once it answers, and withdraw one whose definition is no longer the same."""
        seen = f"upstream {name}" not in self.problems
        while True:
            await pause(seen)
            before = self.state.standing.offers.keys()
            try:
                seen = await self.look(name, server)
            except Exception:  # one bad answer must not end the watch: the next look may find what to withdraw
                _log.exception("upstream `%s` could not be looked at", name)
            if new := self.state.standing.offers.keys() - before:
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
        first = self.state.seen.setdefault(name, offer.tool.definition)
        if first != offer.tool.definition:
            raise ConfigInvalid(
                f"tool `{name}` changed its definition while in use, from `{first}` to `{offer.tool.definition}`",
                hint="look at what its server says now, then restart the gateway",
            )
        if name not in self.state.standing.offers:
            self.state.standing = replace(self.state.standing, offers={**self.state.standing.offers, name: offer})

    def withdraw(self, name: str, error: OnbehalfError) -> None:
        """Offer a tool no longer."""
        left = {key: offer for key, offer in self.state.standing.offers.items() if key != name}
        self.state.standing = replace(self.state.standing, offers=left)
        if self.problems.get(f"tool {name}") != error.message:
            self.problems[f"tool {name}"] = error.message
            _log.error("tool `%s` is not offered: %s", name, error.message)
            self._note("tool_withdrawn", {"tool": name, "reason": error.message})


@dataclass(slots=True, kw_only=True)
class _State:
    """What the corridor asks for once a call, and the first definition of every tool."""

    standing: Standing
    seen: dict[str, str] = field(default_factory=dict)


async def _pause(answered: bool) -> None:
    await asyncio.sleep(_LOOK_AGAIN_SECONDS if answered else _RETRY_SECONDS)


@contextlib.asynccontextmanager
async def building(path: Path, *, pause: _Pause = _pause) -> AsyncIterator[App]:
    """The whole house on one event loop, ready to serve; taken down when the context ends. Raises OnbehalfError."""
    settings = load_settings(path)
    places = paths(path, settings)
    limits, gateway_settings = settings.gateway.limits, settings.gateway
    async with contextlib.AsyncExitStack() as stack:
        sketches = sketched(settings)
        engine = CedarEngine.load(places.policies, tools=[*sketches.values()], narrowed=narrowed(settings))
        known = load_people(places)
        require_alone(settings.directory, known)
        make_data(places)
        # the ledger first: its lock keeps a second gateway from changing the directory and keys of this one
        ledger, log_keys = await asyncio.to_thread(open_ledger, places, settings, origin=log_origin(settings))
        erasing = open_erasing(places, stack, ledger, log_keys)
        stack.push_async_callback(asyncio.to_thread, ledger.close)
        if erasing is not None:
            await erasing.begin()
        policies_kept.keep(places.kept, engine.spelled)
        heads = witnesses = None
        if isinstance(ledger, SqliteLedger):  # neither is there for a record in PostgreSQL (config_ledger.py)
            heads = await open_heads(places, stack, ledger=ledger, keys=log_keys)
            witnesses = await open_witnesses(
                settings, places, stack, ledger=ledger, keys=log_keys, heads=heads.heads
            )  # fmt: skip
        stores = await open_stores(settings, places, stack)
        told = open_people(
            settings, places, stack, known=known, stopped=stores.revocations,
            note=lambda kind, facts: app._note(kind, facts),
            record=lambda kind, facts: ledger.follow(_entry(kind, facts)),
        )  # fmt: skip
        signals = await open_signals(settings, places, stack, revoked=told.known, ledger=ledger)
        people = signals.people(told.known)
        signer = FileSigner.open(places.keys, issuer=trust_domain(settings), now=now())
        once = stores.once()
        broker = open_broker(settings, places, now(), store=stores.broker)
        proofs = open_proofs(settings, places, used=stores.proofs(now()))
        exchange = open_exchange(settings, places, stack, now)
        callers = IssuerCallers(
            settings.issuers, resource=gateway_settings.resource, kept=kept_claims(settings.directory.claims),
            insecure_http=gateway_settings.insecure_http_for_tests, own=broker.own if broker is not None else None,
            proofs=proofs.tokens, keeper=exchange.held if exchange is not None else None,
            clients=introspection_clients(settings.issuers, base=places.config.resolve().parent),
            workloads=settings.workloads, base=places.config.resolve().parent,
        )  # fmt: skip
        stack.push_async_callback(callers.aclose)
        await stores.begin(callers.revoke_all)
        mirror = None
        if broker is None:  # which has metadata of its own
            mirror = IssuerMetadata(
                settings.issuers[0], IssuerFetcher(insecure_http=gateway_settings.insecure_http_for_tests)
            )
            stack.push_async_callback(mirror.aclose)
        registry = CollectorRegistry()
        meter = PrometheusMeter(registry)
        state = _State(standing=Standing(engine=engine, offers={}))
        ports = Ports(clock=now, callers=callers, directory=people, ledger=ledger)
        own = pages_login(broker, settings, places, stack, now) if broker is not None else None
        approving, pages, logins = open_approvals(
            settings, places, stack, ports=ports, kept=stores.approvals, own=own
        ) or (None,) * 3  # fmt: skip
        accounts = open_accounts(settings, places, stack, ports=ports, logins=logins, vault=stores.vault)
        gateway = Gateway(
            clock=now, ids=fresh_call_id, callers=callers, directory=people, ledger=ledger, signer=signer,
            meter=meter, once=once, changes=once, standing=lambda: state.standing, max_rows=limits.rows,
            trip=lambda name: app.withdraw(name, _disagreeing(name)), secret=open_mask_key(places.keys),
            approving=approving, connecting=accounts.connecting if accounts is not None else None, witnesses=witnesses,
        )  # fmt: skip
        catalogue = _catalogue(sketches, state, signer, mirror)
        chained = open_authorization(settings, places, stack, now)
        oauth = None
        if broker is not None:
            oauth = serve_broker(
                broker, settings, places, stack, ports=ports, callers=callers, scopes=catalogue.scopes,
                dpop=proofs.dpop,
            )  # fmt: skip
        watched: House = gateway
        if isinstance(ledger, SqliteLedger):
            watched = await open_watched(
                gateway, settings, places, stack, ledger=ledger, keys=log_keys, count=meter.brought
            )  # fmt: skip
        public = PublicApp(
            watched, settings, catalogue=catalogue, meter=meter, pages=pages, scim=told.pushed, oauth=oauth,
            connect=accounts.pages if accounts is not None else None,
            signals=signals.pushed, assertions=chained.app if chained is not None else None,
            log=public_log(places, settings, stack, heads.signing if heads is not None else None),
            txn=open_further(settings, places, issuer=trust_domain(settings), signer=signer, ports=ports),
            server=ServerName(name="onbehalf", version=VERSION, title="onbehalf"), proving=proofs.proving,
        )  # fmt: skip
        problems: dict[str, str] = {}
        meter.watch_problems(lambda: len(problems) + len(witnesses.problems() if witnesses is not None else ()))
        app = App(
            settings=settings, paths=places, gateway=gateway, public=public,
            admin=AdminApp(ready=_ready(ledger, callers), alive={"ledger": lambda: ledger.closed}, metrics=registry),
            callers=callers, directory=told.file, ledger=ledger, signer=signer, sketches=sketches, state=state,
            problems=problems, logins=logins, broker=broker.keys if broker is not None else None,
            keys=keys_in_force(settings, places.config.resolve().parent, keys=log_keys, signer=signer),
        )  # fmt: skip
        before = await asyncio.to_thread(keys_on_record, ledger, ledger_store(places, settings), log_keys)
        if before is not None and (change := changed(before, app.keys(), at=now())) is not None:
            await app.ledger.append(change)
        await app.ledger.append(_start(app))
        heart = Heart(
            every=gateway_settings.heartbeat_seconds, sendings=ledger.sendings, origin=log_origin(settings),
            audiences={audience_of(name, each) for name, each in settings.upstreams.items()}, ledger=ledger, clock=now,
        )  # fmt: skip
        stack.push_async_callback(heart.stop)
        watches = [heart.beat(), taking(Spool(places.spool), ledger)]
        if erasing is not None:
            watches.append(erasing.watch(problems))
        for each in watches:
            stack.push_async_callback(_cancelled, asyncio.create_task(each))
        signals.begin(stack, note=app._note, problems=problems)
        sources = (chained, accounts, exchange)
        bearers = {name: each for opened in sources if opened for name, each in opened.authorizers.items()}
        await _connect(app, stack, pause, bearers)
        if settings.directory.feeds:
            feeding = Feeding(
                settings.directory, directory=told.file, base=places.config.parent, clock=now, told=app.fed
            )
            stack.push_async_callback(_cancelled, asyncio.create_task(feeding.run()))
        yield app


async def _connect(
    app: App, stack: contextlib.AsyncExitStack, pause: _Pause, authorizers: Mapping[str, BearerSource]
) -> None:
    """Issuers' keys fetched, databases open, MCP servers asked; those that do not answer are asked again."""
    await app.callers.warm()
    servers: dict[str, McpUpstreamServer] = {}
    for name, upstream in app.settings.upstreams.items():
        if isinstance(upstream, McpUpstream):
            base = app.paths.config.resolve().parent
            servers[name] = mcp_server(upstream, app.settings, base=base, authorizer=authorizers.get(name))
            stack.push_async_callback(servers[name].aclose)
            continue
        door, made = await open_upstream(name, upstream, app.paths, app.settings, authorizers.get(name))
        stack.push_async_callback(door.aclose)
        for tool in made:
            app.offer(Offer(tool=tool, check=route.prepare(tool.schema), upstream=door))
    await asyncio.gather(
        *(app.look(name, server) for name, server in servers.items())
    )  # one that hangs delays no other
    for name, server in servers.items():
        stack.push_async_callback(_cancelled, asyncio.create_task(app.watch(name, server, pause)))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _disagreeing(name: str) -> ConfigInvalid:
    return ConfigInvalid(
        f"the statement of scoped tool `{name}` gave a row that the policies refuse",
        hint="see that its tables say the same of people as the directory, then restart the gateway",
    )


def _catalogue(
    sketches: Mapping[str, Tool], state: _State, signer: FileSigner, mirror: IssuerMetadata | None
) -> Catalogue:
    scopes = frozenset(scope for tool in sketches.values() if tool.exposed for scope in tool.scopes)

    def tool(name: str) -> Tool | None:
        offer = state.standing.offers.get(name)
        return offer.tool if offer is not None and offer.tool.exposed else None

    def asked() -> frozenset[str]:
        return scopes | state.standing.engine.scopes

    return Catalogue(tool=tool, scopes=asked, jwks=signer.jwks, issuer=mirror.document if mirror is not None else None)


def _ready(ledger: SqliteLedger | PostgresLedger, callers: IssuerCallers) -> dict[str, Callable[[], str]]:
    """What makes this gateway unfit for any call. An upstream that is down, or policies that could not be reloaded, do
    not: the one fails its own calls, the other leaves the old ones in force."""
    return {"ledger": lambda: ledger.unready, "issuers": lambda: "; ".join(callers.problems())}


def _entry(kind: str, facts: dict[str, Json]) -> AuditEntry:
    return AuditEntry(kind=kind, call="", at=now(), facts=facts)


def _start(app: App) -> AuditEntry:
    facts: dict[str, Json] = {
        "version": VERSION,
        "resource": app.settings.gateway.resource,
        "policy": app.state.standing.engine.policy,
        "engine": engine_name(),
        "revision": app.directory.revision,
        "epoch": secrets.token_hex(8),
        "key_set": app.keys(),
        "unknown": len(app.ledger.recovered),
    }
    return _entry("start", facts)
