"""Opens the sign-in broker as its settings say.

Like build.py, names concrete doors. Must not hold a rule.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec import UnsetType

from onbehalf.broker import redirect
from onbehalf.broker.client import Client
from onbehalf.broker.grant import KIND
from onbehalf.broker.ports import Store
from onbehalf.brokering import Broker
from onbehalf.build import Ports
from onbehalf.config import BrokerClient, BrokerSettings, Settings, broker_issuer
from onbehalf.doors.broker_authenticate import Authenticator
from onbehalf.doors.broker_clients import KnownClients
from onbehalf.doors.broker_login import OidcLogin
from onbehalf.doors.broker_own import OwnTokens
from onbehalf.doors.broker_pages import PagesLogin
from onbehalf.doors.inbound_approve_login import PageLogin
from onbehalf.doors.inbound_oauth import PATH, OauthApp
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.doors.issuer_proof import DpopProofs
from onbehalf.doors.key_file import KeyFile
from onbehalf.doors.secret_reference import resolved
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Presented, UnixTime
from onbehalf.places import Paths
from onbehalf.ports import Clock

__all__ = ["BROKER_KEYS", "OpenBroker", "broker_keys", "open_broker", "pages_login", "serve_broker"]

BROKER_KEYS = "broker.keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBroker:
    """What the broker keeps, before the house is there."""

    settings: BrokerSettings
    issuer: str
    keys: KeyFile
    store: Store
    own: OwnTokens


def broker_keys(places: Paths, settings: BrokerSettings, now: UnixTime) -> KeyFile:
    """The keys that sign access tokens, made if there are none. Raises SignerUnavailable."""
    return KeyFile.open(places.keys / BROKER_KEYS, kind=KIND, lifetime_s=settings.access_seconds, now=now)


def open_broker(settings: Settings, places: Paths, now: UnixTime, *, store: Callable[[], Store]) -> OpenBroker | None:
    """The broker's keys and grants, which `store` opens; None where none is configured.

    Raises ConfigInvalid, SignerUnavailable.
    """
    if settings.broker is None:
        return None
    issuer = broker_issuer(settings)
    keys = broker_keys(places, settings.broker, now)
    kept = store()
    own = OwnTokens(issuer, keys, kept)
    return OpenBroker(settings=settings.broker, issuer=issuer, keys=keys, store=kept, own=own)


def pages_login(
    broker: OpenBroker, settings: Settings, places: Paths, stack: contextlib.AsyncExitStack, clock: Clock
) -> Callable[[str], PageLogin]:
    """How people of the broker log in to the approval pages, given the redirect address."""
    (rule,) = (each for each in settings.issuers if each.issuer == broker.issuer)

    def login(redirect_uri: str) -> PageLogin:
        company = _login(broker, settings, places, stack, redirect_uri)
        return PagesLogin(rule, company, broker.keys, resource=settings.gateway.resource, clock=clock)

    return login


def serve_broker(
    broker: OpenBroker, settings: Settings, places: Paths, stack: contextlib.AsyncExitStack, *, ports: Ports,
    callers: IssuerCallers, scopes: Callable[[], frozenset[str]], dpop: DpopProofs,
) -> OauthApp:  # fmt: skip
    """The broker's endpoints. Raises ConfigInvalid."""
    # with it comes a client library, which a gateway without a broker does without
    from onbehalf.doors.broker_fetch import DocumentFetcher

    base, rules = places.config.resolve().parent, broker.settings
    login = _login(broker, settings, places, stack, f"{broker.issuer}{PATH}callback")
    fetcher = DocumentFetcher()
    stack.push_async_callback(fetcher.aclose)
    configured = [_client(each, base) for each in rules.clients]
    clients = KnownClients(configured, broker.store, fetcher, hosts=frozenset(rules.client_hosts), clock=ports.clock)

    async def known(token: str) -> None:
        caller = await callers.prove(Presented(token=token), now=ports.clock())
        await ports.directory.person(caller)

    house = Broker(
        issuer=broker.issuer, resource=settings.gateway.resource, scopes=scopes, clients=clients, store=broker.store,
        sign=broker.keys.sign, known=known, ended=callers.revoke_all, ledger=ports.ledger, clock=ports.clock,
        fresh=lambda: secrets.token_urlsafe(32), access_s=rules.access_seconds, refresh_s=rules.refresh_seconds,
        registration=rules.registration, asserts=login.asserted if rules.login.assertions else None,
    )  # fmt: skip
    audiences = frozenset({broker.issuer, f"{broker.issuer}{PATH}token"})
    return OauthApp(
        house, login, Authenticator(clients, broker.store, audiences=audiences, clock=ports.clock),
        family_of=broker.own.family_of, jwks=broker.keys.jwks,
        secrets_taken=any(client.secret for client in configured), dpop=dpop,
        seconds=settings.gateway.limits.call_seconds,
    )  # fmt: skip


def _login(
    broker: OpenBroker, settings: Settings, places: Paths, stack: contextlib.AsyncExitStack, redirect_uri: str
) -> OidcLogin:
    rules, base = broker.settings.login, places.config.resolve().parent
    reference = rules.client_secret
    secret = "" if isinstance(reference, UnsetType) else _secret(reference, base, "broker.login.client_secret")
    insecure = settings.gateway.insecure_http_for_tests
    login = OidcLogin(rules, redirect_uri=redirect_uri, secret=secret, insecure_http=insecure)
    stack.push_async_callback(login.aclose)
    return login


def _client(settings: BrokerClient, base: Path) -> Client:
    for uri in settings.redirect_uris:
        if not redirect.allowed(uri):
            raise ConfigInvalid(
                f"client `{settings.id}` cannot be answered at `{uri}`",
                hint="an https address, http on loopback, or a scheme of the client's own",
            )
    reference = settings.client_secret
    secret = "" if isinstance(reference, UnsetType) else _secret(reference, base, "broker.clients.client_secret")
    methods = ("client_secret_basic", "client_secret_post") if secret else ()
    return Client(
        id=settings.id, name=settings.name, redirect_uris=settings.redirect_uris, origin="configured", secret=secret,
        methods=(*methods, *(("private_key_jwt",) if settings.jwks_uri else ())) or ("none",),
        keys_at=settings.jwks_uri,
    )  # fmt: skip


def _secret(reference: str, base: Path, what: str) -> str:
    return resolved(reference, base=base, what=what)
