"""Builds the house from `onbehalf.yaml`, and takes it down.

With build.py and its kin, the only file that names concrete doors. Parts come in stages, each of which needs the ones
before: the record, people, what proves who calls, what acts, the public door. What is built runs as running.py says.
Must not hold a rule: it connects parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from onbehalf.build import Ports, mcp_server, narrowed, open_approvals, open_upstream, sketched
from onbehalf.build_accounts import OpenAccounts, open_accounts
from onbehalf.build_authorization import OpenAuthorization, open_authorization
from onbehalf.build_broker import OpenBroker, open_broker, pages_login, serve_broker
from onbehalf.build_exchange import OpenExchange, open_exchange
from onbehalf.build_further import open_further
from onbehalf.build_keys import event_documents, event_keys, keys_in_force, keys_on_record
from onbehalf.build_ledger import ledger_heads, ledger_store, open_erasing, open_ledger, public_log
from onbehalf.build_people import OpenedPeople, load_people, open_people
from onbehalf.build_proof import OpenProofs, open_proofs
from onbehalf.build_signals import OpenedSignals, open_signals
from onbehalf.build_state import Stores, open_stores
from onbehalf.build_witnesses import Heads, open_heads, open_watched, open_witnesses
from onbehalf.config import McpUpstream, Settings
from onbehalf.config_upstreams import audience_of
from onbehalf.doors import policies_kept
from onbehalf.doors.clock_system import fresh_call_id, now
from onbehalf.doors.directory_feeds import Feeding
from onbehalf.doors.directory_pushed_configured import require_alone
from onbehalf.doors.engine_cedar import CedarEngine
from onbehalf.doors.engine_cedar_values import engine_name
from onbehalf.doors.inbound_admin import AdminApp
from onbehalf.doors.inbound_approve import ApprovePages
from onbehalf.doors.inbound_approve_login import Logins
from onbehalf.doors.inbound_http import Catalogue, PublicApp, ServerName
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.doors.issuer_introspection import introspection_clients
from onbehalf.doors.issuer_metadata import IssuerMetadata
from onbehalf.doors.key_file import KeyFile
from onbehalf.doors.ledger_erase import Erasing
from onbehalf.doors.ledger_heartbeat import Heart
from onbehalf.doors.ledger_keys import open_mask_key
from onbehalf.doors.ledger_spool import Spool, taking
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.doors.meter_prometheus import PrometheusMeter
from onbehalf.doors.signer_file import FileSigner
from onbehalf.doors.upstream_authorization import BearerSource
from onbehalf.doors.upstream_mcp import McpUpstreamServer
from onbehalf.doors.witness_quorum import QuorumWitnesses
from onbehalf.explain.key_set import changed
from onbehalf.explain.seal import LedgerKeys
from onbehalf.gateway import Gateway, Offer, Standing
from onbehalf.model import AuditEntry, Json, Tool
from onbehalf.offering import Notes, Offering, Pause, entry
from onbehalf.places import VERSION, Paths, load_settings, log_origin, make_data, paths, trust_domain
from onbehalf.ports import Directory, House
from onbehalf.running import App
from onbehalf.validate import people as people_file
from onbehalf.validate import route
from onbehalf.validate.claims_people import kept_claims

if TYPE_CHECKING:
    from onbehalf.doors.ledger_postgres import PostgresLedger

__all__ = ["App", "building"]

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 300.0


async def _pause(answered: bool) -> None:
    await asyncio.sleep(_LOOK_AGAIN_SECONDS if answered else _RETRY_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """What everything is built with. What is opened on `stack` is closed when the house is taken down."""

    settings: Settings
    places: Paths
    stack: contextlib.AsyncExitStack

    @property
    def parts(self) -> tuple[Settings, Paths, contextlib.AsyncExitStack]:
        """In the order in which parts of the house ask for them."""
        return self.settings, self.places, self.stack


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What puts calls on record."""

    ledger: SqliteLedger | PostgresLedger
    keys: LedgerKeys
    erasing: Erasing | None
    heads: Heads
    witnesses: QuorumWitnesses | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _People:
    """Whom the house knows, and what it remembers of them. `directory` is what calls are decided by."""

    stores: Stores
    told: OpenedPeople
    signals: OpenedSignals
    directory: Directory


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proving:
    """What proves who calls. `mirror` shows the issuer's metadata where there is no broker, which has its own."""

    broker: OpenBroker | None
    proofs: OpenProofs
    exchange: OpenExchange | None
    callers: IssuerCallers
    mirror: IssuerMetadata | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Acting:
    """What does calls, and asks people before it does."""

    gateway: Gateway
    signer: FileSigner
    meter: PrometheusMeter
    ports: Ports
    pages: ApprovePages | None
    logins: Logins | None
    accounts: OpenAccounts | None
    chained: OpenAuthorization | None
    events: KeyFile | None


@contextlib.asynccontextmanager
async def building(path: Path, *, pause: Pause = _pause) -> AsyncIterator[App]:
    """The whole house on one event loop, ready to serve; taken down when the context ends. Raises OnbehalfError."""
    settings = load_settings(path)
    registry = CollectorRegistry()
    async with contextlib.AsyncExitStack() as stack:
        site = _Site(settings=settings, places=paths(path, settings), stack=stack)
        sketches = sketched(settings)
        engine = CedarEngine.load(site.places.policies, tools=[*sketches.values()], narrowed=narrowed(settings))
        known = load_people(site.places)
        require_alone(settings.directory, known)
        make_data(site.places)
        # the ledger first: its lock keeps a second gateway from changing the directory and keys of this one
        record = await _record(site)
        policies_kept.keep(site.places.kept, engine.spelled)
        notes = Notes(ledger=record.ledger, clock=now)
        offering = Offering(
            settings=settings, standing=Standing(engine=engine, offers={}), problems={}, notes=notes
        )  # fmt: skip
        people = await _people(site, known, record, notes)
        proving = await _proving(site, people.stores)
        acting = _acting(site, record, people, proving, offering, PrometheusMeter(registry))
        public = await _public(
            site, record, people, proving, acting, _catalogue(site, sketches, offering, acting, proving)
        )
        app = App(
            settings=settings, paths=site.places, gateway=acting.gateway, public=public, sketches=sketches,
            admin=AdminApp(
                ready=_ready(record.ledger, proving.callers), alive={"ledger": lambda: record.ledger.closed},
                metrics=registry,
            ),
            callers=proving.callers, directory=people.told.file, ledger=record.ledger, signer=acting.signer,
            offering=offering, notes=notes, problems=offering.problems, logins=acting.logins,
            broker=proving.broker.keys if proving.broker is not None else None, events=acting.events,
            keys=keys_in_force(
                settings, site.places.config.resolve().parent, keys=record.keys, signer=acting.signer
            ),
        )  # fmt: skip
        await _begun(app, site, record)
        people.signals.begin(stack, note=notes.note, problems=offering.problems)
        sources = (acting.chained, acting.accounts, proving.exchange)
        bearers = {name: each for opened in sources if opened for name, each in opened.authorizers.items()}
        await _connect(app, stack, pause, bearers)
        if settings.directory.feeds:
            base = site.places.config.parent
            feeding = Feeding(settings.directory, directory=people.told.file, base=base, clock=now, told=app.fed)
            stack.push_async_callback(_cancelled, asyncio.create_task(feeding.run()))
        yield app


async def _record(site: _Site) -> _Record:
    settings, places, stack = site.parts
    ledger, keys = await asyncio.to_thread(open_ledger, places, settings, origin=log_origin(settings))
    erasing = open_erasing(places, stack, ledger)
    stack.push_async_callback(asyncio.to_thread, ledger.close)
    if erasing is not None:
        await erasing.begin()
    found = await asyncio.to_thread(ledger_heads, places, settings, keys.signer.verifier)
    heads = await open_heads(found, stack, ledger=ledger, keys=keys)
    witnesses = await open_witnesses(settings, places, stack, ledger=ledger, keys=keys, heads=heads.heads)
    return _Record(ledger=ledger, keys=keys, erasing=erasing, heads=heads, witnesses=witnesses)


async def _people(site: _Site, known: people_file.People, record: _Record, notes: Notes) -> _People:
    stores = await open_stores(*site.parts)
    told = open_people(*site.parts, known=known, stopped=stores.revocations, note=notes.note, record=notes.record)
    signals = await open_signals(*site.parts, revoked=told.known, ledger=record.ledger, kept=stores)
    return _People(stores=stores, told=told, signals=signals, directory=signals.people(told.known))


async def _proving(site: _Site, stores: Stores) -> _Proving:
    settings, places, stack = site.parts
    insecure_http, base = settings.gateway.insecure_http_for_tests, places.config.resolve().parent
    broker = open_broker(settings, places, now(), store=stores.broker)
    proofs = open_proofs(settings, places, used=stores.proofs(now()))
    exchange = open_exchange(settings, places, stack, now)
    callers = IssuerCallers(
        settings.issuers, resource=settings.gateway.resource, kept=kept_claims(settings.directory.claims),
        insecure_http=insecure_http, own=broker.own if broker is not None else None,
        proofs=proofs.tokens, keeper=exchange.held if exchange is not None else None,
        clients=introspection_clients(settings.issuers, base=base), workloads=settings.workloads, base=base,
    )  # fmt: skip
    stack.push_async_callback(callers.aclose)
    await stores.begin(callers.revoke_all)
    mirror = None
    if broker is None:
        mirror = IssuerMetadata(settings.issuers[0], IssuerFetcher(insecure_http=insecure_http))
        stack.push_async_callback(mirror.aclose)
    return _Proving(broker=broker, proofs=proofs, exchange=exchange, callers=callers, mirror=mirror)


def _acting(
    site: _Site, record: _Record, people: _People, proving: _Proving, offering: Offering, meter: PrometheusMeter
) -> _Acting:
    settings, places, stack = site.parts
    signer = FileSigner.open(places.keys, issuer=trust_domain(settings), now=now())
    once = people.stores.once()
    ports = Ports(clock=now, callers=proving.callers, directory=people.directory, ledger=record.ledger)
    own = pages_login(proving.broker, settings, places, stack, now) if proving.broker is not None else None
    approving, pages, logins = open_approvals(
        settings, places, stack, ports=ports, kept=people.stores.approvals, own=own
    ) or (None,) * 3  # fmt: skip
    accounts = open_accounts(settings, places, stack, ports=ports, logins=logins, vault=people.stores.vault)
    gateway = Gateway(
        clock=now, ids=fresh_call_id, callers=proving.callers, directory=people.directory, ledger=record.ledger,
        signer=signer, meter=meter, once=once, changes=once, standing=lambda: offering.standing,
        max_rows=settings.gateway.limits.rows, trip=offering.disagrees, secret=open_mask_key(places.keys),
        approving=approving, connecting=accounts.connecting if accounts is not None else None,
        witnesses=record.witnesses,
    )  # fmt: skip
    witnesses = record.witnesses
    meter.watch_problems(lambda: len(offering.problems) + len(witnesses.problems() if witnesses is not None else ()))
    return _Acting(
        gateway=gateway, signer=signer, meter=meter, ports=ports, pages=pages, logins=logins, accounts=accounts,
        chained=open_authorization(settings, places, stack, now), events=event_keys(settings, places, now()),
    )  # fmt: skip


async def _public(
    site: _Site, record: _Record, people: _People, proving: _Proving, acting: _Acting, catalogue: Catalogue
) -> PublicApp:
    settings, places, stack = site.parts
    oauth = None
    if proving.broker is not None:
        oauth = serve_broker(
            proving.broker, settings, places, stack, ports=acting.ports, callers=proving.callers,
            scopes=catalogue.scopes, dpop=proving.proofs.dpop,
        )  # fmt: skip
    house: House = acting.gateway
    if settings.gateway.checkpoint_in_answers:
        heads = await asyncio.to_thread(ledger_heads, places, settings, record.keys.signer.verifier)
        house = await open_watched(house, heads, stack, ledger=record.ledger, count=acting.meter.brought)
    return PublicApp(
        house, settings, catalogue=catalogue, meter=acting.meter, pages=acting.pages, scim=people.told.pushed,
        oauth=oauth, connect=acting.accounts.pages if acting.accounts is not None else None,
        signals=people.signals.pushed, assertions=acting.chained.app if acting.chained is not None else None,
        log=public_log(places, settings, stack, record.heads.signing),
        txn=open_further(
            settings, places, issuer=trust_domain(settings), signer=acting.signer, ports=acting.ports
        ),
        server=ServerName(name="onbehalf", version=VERSION, title="onbehalf"), proving=proving.proofs.proving,
    )  # fmt: skip


async def _begun(app: App, site: _Site, record: _Record) -> None:
    """The start on record, after a change of keys since the last one; and what looks around from time to time."""
    settings, places, stack = site.parts
    ledger = record.ledger
    before = await asyncio.to_thread(keys_on_record, ledger, ledger_store(places, settings), record.keys)
    if before is not None and (change := changed(before, app.keys(), at=now())) is not None:
        await ledger.append(change)
    await ledger.append(_start(app))
    heart = Heart(
        every=settings.gateway.heartbeat_seconds, sendings=ledger.sendings, origin=log_origin(settings),
        audiences={audience_of(name, each) for name, each in settings.upstreams.items()}, ledger=ledger, clock=now,
    )  # fmt: skip
    stack.push_async_callback(heart.stop)
    watches = [heart.beat(), taking(Spool(places.spool), ledger)]
    if record.erasing is not None:
        watches.append(record.erasing.watch(app.problems))
    for each in watches:
        stack.push_async_callback(_cancelled, asyncio.create_task(each))


async def _connect(
    app: App, stack: contextlib.AsyncExitStack, pause: Pause, authorizers: Mapping[str, BearerSource]
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
            app.offering.offer(Offer(tool=tool, check=route.prepare(tool.schema), upstream=door))
    await asyncio.gather(
        *(app.offering.look(name, server) for name, server in servers.items())
    )  # one that hangs delays no other
    for name, server in servers.items():
        stack.push_async_callback(_cancelled, asyncio.create_task(app.offering.watch(name, server, pause)))


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _catalogue(
    site: _Site, sketches: Mapping[str, Tool], offering: Offering, acting: _Acting, proving: _Proving
) -> Catalogue:
    scopes = frozenset(scope for tool in sketches.values() if tool.exposed for scope in tool.scopes)

    def tool(name: str) -> Tool | None:
        offer = offering.standing.offers.get(name)
        return offer.tool if offer is not None and offer.tool.exposed else None

    def asked() -> frozenset[str]:
        return scopes | offering.standing.engine.scopes

    issuer = proving.mirror.document if proving.mirror is not None else None
    documents = event_documents(site.settings, acting.events)
    return Catalogue(tool=tool, scopes=asked, jwks=acting.signer.jwks, issuer=issuer, documents=documents)


def _ready(ledger: SqliteLedger | PostgresLedger, callers: IssuerCallers) -> dict[str, Callable[[], str]]:
    """What makes this gateway unfit for any call. An upstream that is down, or policies that could not be reloaded, do
    not: the one fails its own calls, the other leaves the old ones in force."""
    return {"ledger": lambda: ledger.unready, "issuers": lambda: "; ".join(callers.problems())}


def _start(app: App) -> AuditEntry:
    facts: dict[str, Json] = {
        "version": VERSION,
        "resource": app.settings.gateway.resource,
        "policy": app.offering.standing.engine.policy,
        "engine": engine_name(),
        "revision": app.directory.revision,
        "epoch": secrets.token_hex(8),
        "key_set": app.keys(),
        "unknown": len(app.ledger.recovered),
    }
    return entry("start", facts, at=now())
