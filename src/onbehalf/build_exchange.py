"""Opens exchanges of people's tokens at their issuers, where some upstream has them.

Like build.py, names concrete doors. Must not hold a rule.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onbehalf.config import McpUpstream, OpenapiUpstream, Settings
from onbehalf.config_upstreams import ExchangeSettings
from onbehalf.doors.issuer_client import TokenClient, open_client
from onbehalf.doors.issuer_exchange import IssuerExchange
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.upstream_exchange import Exchanger
from onbehalf.places import Paths
from onbehalf.ports import Clock

__all__ = ["OpenExchange", "exchanging", "open_exchange", "token_client"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenExchange:
    """What holds people's tokens, and the bearers of upstream doors."""

    held: IssuerExchange
    authorizers: Mapping[str, Exchanger]


def open_exchange(
    settings: Settings, places: Paths, stack: contextlib.AsyncExitStack, clock: Clock
) -> OpenExchange | None:
    """None where no upstream exchanges. Raises ConfigInvalid."""
    named = exchanging(settings)
    if not named:
        return None
    fetcher = IssuerFetcher(insecure_http=settings.gateway.insecure_http_for_tests)
    stack.push_async_callback(fetcher.aclose)
    issuers = {rule.issuer for rule in named.values()}
    held = IssuerExchange((each for each in settings.issuers if each.issuer in issuers), fetcher, clock=clock)
    stack.callback(held.forget_all)
    base = places.config.resolve().parent
    authorizers = {
        name: Exchanger(
            rule, held, token_client(name, rule, base=base), gateway=settings.gateway.resource, clock=clock
        )
        for name, rule in named.items()
    }  # fmt: skip
    return OpenExchange(held=held, authorizers=authorizers)


def exchanging(settings: Settings) -> dict[str, ExchangeSettings]:
    """The upstreams that exchange."""
    return {
        name: upstream.exchange for name, upstream in settings.upstreams.items()
        if isinstance(upstream, McpUpstream | OpenapiUpstream) and upstream.exchange is not None
    }  # fmt: skip


def token_client(name: str, rule: ExchangeSettings, *, base: Path) -> TokenClient:
    """The gateway at the issuer of the exchange of upstream `name`. Raises ConfigInvalid."""
    return open_client(
        rule.client_id, secret=rule.client_secret, key=rule.client_key, base=base, what=f"upstreams.{name}.exchange",
        posted=rule.grant == "entra",
    )  # fmt: skip
