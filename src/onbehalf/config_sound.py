"""Whether the sections of `onbehalf.yaml` agree with each other, each being sound by itself.

Must not read a file or a secret.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

from onbehalf.config_directory import ClaimsSettings, ScimSettings, TenantClaim, require_feeds
from onbehalf.config_introspection import require_told_apart
from onbehalf.config_proof import require_certificates, require_demand
from onbehalf.config_services import require_services, require_workloads
from onbehalf.config_settings import TENANT_CLAIM, GatewaySettings, IssuerSettings, Settings, broker_issuer
from onbehalf.config_signals import require_streams
from onbehalf.config_sinks import require_sinks
from onbehalf.config_tls import require_tls
from onbehalf.config_upstreams import McpUpstream, OpenapiUpstream, require_definitions, require_exchange
from onbehalf.config_witnesses import require_witnesses
from onbehalf.errors import ConfigInvalid

__all__ = ["sound"]


def sound(settings: Settings) -> Settings:
    """The settings, with the broker among the issuers where there is one. Raises ConfigInvalid."""
    settings = _with_broker(settings)
    _require_issuers(settings)
    _require_upstreams(settings)
    require_feeds(settings.directory)
    _require_callers(settings)
    _require_speakers(settings)
    _require_signals(settings)
    require_witnesses(
        settings.gateway.witnesses,
        [
            name
            for upstream in settings.upstreams.values()
            for name, tool in upstream.tools.items()
            if tool.durability == "witnessed"
        ],
    )
    require_sinks(settings.sinks, insecure_http=settings.gateway.insecure_http_for_tests)
    return settings


def _require_issuers(settings: Settings) -> None:
    """See that each issuer stands once, and whether its tokens can be bound as it demands."""
    _require_url(settings.gateway.resource)
    certificates = _require_certificates(settings.gateway)
    for issuer in settings.issuers:
        _require_url(issuer.issuer)
        _require_https(issuer.issuer, settings)
        require_demand(issuer.issuer, issuer.proof, logs_in=issuer.login is not None, certificates=certificates)
    if len({issuer.issuer for issuer in settings.issuers}) != len(settings.issuers):
        raise ConfigInvalid(
            "an issuer stands twice", hint="one entry per issuer, or a token could have two tenant rules"
        )


def _require_upstreams(settings: Settings) -> None:
    """See that upstreams are at URLs, and that their tools have names of their own and pages that fit."""
    most, names = settings.gateway.limits.rows, set[str]()
    for upstream in settings.upstreams.values():
        if isinstance(upstream, McpUpstream | OpenapiUpstream):
            _require_url(upstream.url)
            _require_one_bearer(upstream, settings)
        if isinstance(upstream, McpUpstream):
            require_definitions(upstream)
        for name, tool in upstream.tools.items():
            if name in names:
                raise ConfigInvalid(
                    "two upstreams offer a tool of one name", hint="tool names are unique within a gateway"
                )
            names.add(name)
            if tool.page is not None and tool.page.size >= most:
                raise ConfigInvalid(
                    f"tool `{name}` has pages of {tool.page.size} rows, and `limits.rows` is {most}",
                    hint="a page is smaller, by one row at least",
                )


def _require_certificates(gateway: GatewaySettings) -> bool:
    """Whether clients' certificates are read, from one place. Raises ConfigInvalid."""
    if gateway.certificates is not None:
        require_certificates(gateway.certificates)
    if gateway.tls is not None:
        require_tls(gateway.tls, resource=gateway.resource, headers=gateway.certificates is not None)
    asked = gateway.tls is not None and gateway.tls.client_certificates == "optional"
    return asked or gateway.certificates is not None


def _with_broker(settings: Settings) -> Settings:
    """The settings with the broker as the first issuer: some clients look at no other. Raises ConfigInvalid."""
    broker = settings.broker
    if broker is None:
        if not settings.issuers:
            raise ConfigInvalid(
                "nobody can log in: `issuers` is empty, and there is no `broker`",
                hint="list the company's authorization server under `issuers`, or set up `broker`",
            )
        return settings
    _require_url(settings.gateway.resource)
    for url in (broker.login.issuer, *(client.jwks_uri for client in broker.clients if client.jwks_uri)):
        _require_url(url)
        _require_https(url, settings)
    tenant = broker.login.tenant
    if not isinstance(tenant, str):
        tenant = TenantClaim(claim=TENANT_CLAIM, allowed=tenant.allowed)
    own = IssuerSettings(issuer=broker_issuer(settings), tenant=tenant, algorithms=("EdDSA",), outage_seconds=0)
    return msgspec.structs.replace(settings, issuers=(own, *settings.issuers))


def _require_callers(settings: Settings) -> None:
    """See that it is clear whose tokens are whose: opaque ones, and those of programs that call by themselves."""
    asked = {each.issuer: each.introspection for each in settings.issuers if each.introspection}
    for introspection in asked.values():
        _require_url(introspection.endpoint)
        _require_https(introspection.endpoint, settings)
    require_told_apart(asked)
    require_services(
        [
            (each.issuer, _tenants(each.tenant), each.services, each.introspection is not None)
            for each in settings.issuers
            if each.services is not None
        ]
    )
    for workload in require_workloads(settings.workloads).values():
        if workload.bundle_url:
            _require_url(workload.bundle_url)
            _require_https(workload.bundle_url, settings)


def _tenants(tenant: str | TenantClaim) -> frozenset[str]:
    return frozenset({tenant} if isinstance(tenant, str) else tenant.allowed)


def _require_one_bearer(upstream: McpUpstream | OpenapiUpstream, settings: Settings) -> None:
    """See that an upstream gets one `Authorization` at most, from a server that is asked over https."""
    headers = upstream.headers if isinstance(upstream, OpenapiUpstream) else ()
    own = [name for name in headers if name.lower() == "authorization"]
    chosen = [each for each in (upstream.authorization, upstream.exchange, upstream.account) if each is not None]
    if len(own) + len(chosen) > 1:
        raise ConfigInvalid(
            "an upstream has two of `authorization`, `exchange`, `account` and a header `Authorization`",
            hint="it takes one of them",
        )
    if upstream.exchange is not None:
        broker = {broker_issuer(settings)} if settings.broker is not None else set()
        known = {issuer.issuer for issuer in settings.issuers} - broker
        require_exchange(upstream.exchange, issuers=known, gateway=settings.gateway.resource)
    urls = [upstream.authorization.token_endpoint] if upstream.authorization else []
    if upstream.account is not None:
        urls += [upstream.account.authorization_endpoint, upstream.account.token_endpoint]
    for url in urls:
        _require_url(url)
        _require_https(url, settings)


def _require_speakers(settings: Settings) -> None:
    """See that an issuer whose people are told of may speak for their tenant."""
    issuers = {issuer.issuer: issuer.tenant for issuer in settings.issuers}
    told_of: tuple[ScimSettings | ClaimsSettings, ...] = (*settings.directory.scim, *settings.directory.claims)
    for told in told_of:
        if told.issuer not in issuers:
            raise ConfigInvalid(
                f"the people of `{told.tenant}` log in at `{told.issuer}`, which is no issuer here",
                hint="spell it exactly as under `issuers`",
            )
        tenant = issuers[told.issuer]
        if told.tenant not in ({tenant} if isinstance(tenant, str) else tenant.allowed):
            raise ConfigInvalid(
                f"the issuer `{told.issuer}` may not speak for the tenant `{told.tenant}`",
                hint="name one of its tenants, or allow it this one under `issuers`",
            )


def _require_signals(settings: Settings) -> None:
    """See that a stream names people of known logins, and tenants of these, and is reached over https."""
    speakers = {issuer.issuer: issuer.tenant for issuer in settings.issuers}
    if settings.broker is not None:
        speakers[settings.broker.login.issuer] = settings.broker.login.tenant
    require_streams(settings.signals, speakers)
    for stream in settings.signals:
        asked = [each.url for each in (stream.poll, stream.verification) if each is not None]
        for url in filter(None, (stream.issuer, stream.metadata, stream.jwks, *asked)):
            _require_url(url)
            _require_https(url, settings)


def _require_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        sound = parts.port != 0 and bool(parts.hostname) and url == url.strip()
    except ValueError:  # a port or an IPv6 address that is none
        sound = False
    if not sound:
        raise ConfigInvalid(f"`{url}` is no URL", hint="such as https://gateway.example.com/mcp")


def _require_https(url: str, settings: Settings) -> None:
    loopback = re.match(r"^http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/|$)", url)
    if url.startswith("http://") and not loopback and not settings.gateway.insecure_http_for_tests:
        raise ConfigInvalid(f"`{url}` is not https", hint="use https; only loopback addresses may be http")
