"""Opens people's own accounts at upstreams, where some upstream has them.

Like build.py, names concrete doors. Must not hold a rule.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onbehalf.build import Ports
from onbehalf.config import McpUpstream, OpenapiUpstream, Settings, broker_issuer
from onbehalf.connecting import Connecting, Vault
from onbehalf.doors.inbound_approve_login import Logins
from onbehalf.doors.inbound_connect import PATH, ConnectPages
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.ledger_keys import open_mask_key
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.upstream_authorization import BearerSource
from onbehalf.doors.vault_accounts import Meant, OauthAccounts, VaultAuthorizer
from onbehalf.places import Paths

__all__ = ["OpenAccounts", "open_accounts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAccounts:
    """The corridor of connections, its pages where people can log in to them, and the bearers of upstream doors."""

    connecting: Connecting
    pages: ConnectPages | None
    authorizers: Mapping[str, BearerSource]


def open_accounts(
    settings: Settings, places: Paths, stack: contextlib.AsyncExitStack, *, ports: Ports, logins: Logins | None,
    vault: Callable[[bytes], Vault],
) -> OpenAccounts | None:  # fmt: skip
    """None where no upstream has accounts of people. `vault` opens them, given the secret. Raises ConfigInvalid."""
    named = {
        name: upstream.account for name, upstream in settings.upstreams.items()
        if isinstance(upstream, McpUpstream | OpenapiUpstream) and upstream.account is not None
    }  # fmt: skip
    if not named:
        return None
    base, origin = places.config.resolve().parent, broker_issuer(settings)
    fetcher = IssuerFetcher(insecure_http=settings.gateway.insecure_http_for_tests)
    stack.push_async_callback(fetcher.aclose)
    meant = {name: Meant.of(rule, gateway=settings.gateway.resource) for name, rule in named.items()}
    accounts = {
        name: OauthAccounts(
            name, rule, fetcher, redirect_uri=f"{origin}{PATH}back", meant=meant[name],
            secret=resolved(rule.client_secret, base=base, what=f"upstreams.{name}.account.client_secret"),
        )
        for name, rule in named.items()
    }  # fmt: skip
    issuers = frozenset(each.rule.issuer for each in logins.issuers) if logins is not None else frozenset()
    connecting = Connecting(
        clock=ports.clock, fresh=lambda: secrets.token_urlsafe(32), vault=vault(open_mask_key(places.keys)),
        directory=ports.directory,
        ledger=ports.ledger, url=f"{origin}{PATH}", issuers=issuers, accounts=accounts,
    )  # fmt: skip
    pages = None
    if logins is not None:
        seconds = settings.gateway.limits.call_seconds
        pages = ConnectPages(connecting, logins, accounts, origin=origin, seconds=seconds)
    authorizer = VaultAuthorizer(connecting, meant)
    return OpenAccounts(connecting=connecting, pages=pages, authorizers=dict.fromkeys(named, authorizer))
