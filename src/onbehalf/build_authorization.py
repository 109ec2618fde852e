"""Opens what upstreams in other domains need: the keys of assertions, and an authorizer for each that has one.

Like build.py, names concrete doors. Must not hold a rule.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from onbehalf.act.assertion import ASSERTION_KIND, ASSERTION_LIFE_S
from onbehalf.config import McpUpstream, OpenapiUpstream, Settings, broker_issuer
from onbehalf.doors.inbound_assertions import AssertionsApp
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.key_file import KeyFile
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.upstream_authorization import Authorizer
from onbehalf.places import Paths
from onbehalf.ports import Clock

__all__ = ["ASSERTION_KEYS", "OpenAuthorization", "open_authorization"]

ASSERTION_KEYS = "assertions.keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAuthorization:
    """Authorizers by upstream, and what is published for others to check assertions by."""

    authorizers: Mapping[str, Authorizer]
    app: AssertionsApp
    keys: KeyFile


def open_authorization(
    settings: Settings, places: Paths, stack: contextlib.AsyncExitStack, clock: Clock
) -> OpenAuthorization | None:
    """None where no upstream needs it. Raises ConfigInvalid, SignerUnavailable."""
    named = {
        name: (upstream, upstream.authorization) for name, upstream in settings.upstreams.items()
        if isinstance(upstream, McpUpstream | OpenapiUpstream) and upstream.authorization is not None
    }  # fmt: skip
    if not named:
        return None
    issuer = f"{broker_issuer(settings)}/assertions"
    keys = KeyFile.open(places.keys / ASSERTION_KEYS, kind=ASSERTION_KIND, lifetime_s=ASSERTION_LIFE_S, now=clock())
    fetcher = IssuerFetcher(insecure_http=settings.gateway.insecure_http_for_tests)
    stack.push_async_callback(fetcher.aclose)
    base = places.config.resolve().parent
    authorizers = {
        name: Authorizer(
            rule, fetcher, keys, gateway=settings.gateway.resource, issuer=issuer,
            resource=rule.resource or upstream.url, clock=clock,
            secret=resolved(rule.client_secret, base=base, what=f"upstreams.{name}.authorization.client_secret"),
        )
        for name, (upstream, rule) in named.items()
    }  # fmt: skip
    return OpenAuthorization(authorizers=authorizers, app=AssertionsApp(issuer, keys.jwks), keys=keys)
