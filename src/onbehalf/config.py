"""`onbehalf.yaml` as frozen values, parsed once.

Every key states its unit, default and danger here, and the JSON Schema (`onbehalf init --schema`) is
made from these classes. An unknown key is fatal and the error lists the known ones. Reading files is a
door's work: this file turns text into `Settings` and knows no path's content.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
import yaml
from msgspec import UNSET, Meta, Struct, UnsetType, field

from onbehalf.config_broker import BrokerClient, BrokerLogin, BrokerSettings
from onbehalf.config_directory import (
    Algorithm,
    ClaimsSettings,
    DirectorySettings,
    FeedSettings,
    Keys,
    Place,
    Reference,
    ScimSettings,
    TenantClaim,
    require_feeds,
)
from onbehalf.config_introspection import IntrospectionSettings, require_told_apart
from onbehalf.config_proof import CertificateSettings, Demand, DpopSettings, require_certificates, require_demand
from onbehalf.config_services import ServicesSettings, WorkloadSettings, require_services, require_workloads
from onbehalf.config_signals import PollSettings, StreamSettings, VerificationSettings, require_streams
from onbehalf.config_sinks import (
    FileSink,
    HttpSink,
    OtlpSink,
    ParquetSink,
    SinkName,
    SinkSettings,
    StdoutSink,
    SyslogSink,
    require_sinks,
)
from onbehalf.config_tls import TlsSettings, require_tls
from onbehalf.config_upstreams import (
    AccountSettings,
    AuthorizationSettings,
    DryRunSettings,
    EntitySettings,
    ExchangeSettings,
    FurtherSettings,
    HierarchySettings,
    LookupSettings,
    McpUpstream,
    Name,
    OpenapiToolSettings,
    OpenapiUpstream,
    ParameterSettings,
    PostgresUpstream,
    RowsSettings,
    SqlUpstream,
    ToolSettings,
    Url,
    require_exchange,
)
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json

__all__ = [
    "TENANT_CLAIM",
    "ApprovalSettings",
    "BrokerClient",
    "BrokerLogin",
    "BrokerSettings",
    "DryRunSettings",
    "EntitySettings",
    "GatewaySettings",
    "HierarchySettings",
    "IntrospectionSettings",
    "IssuerSettings",
    "Limits",
    "LoginSettings",
    "LookupSettings",
    "McpUpstream",
    "OpenapiToolSettings",
    "OpenapiUpstream",
    "ParameterSettings",
    "PostgresUpstream",
    "RowsSettings",
    "ServicesSettings",
    "Settings",
    "SqlUpstream",
    "TenantClaim",
    "ToolSettings",
    "WorkloadSettings",
    "broker_issuer",
    "json_schema", "login_rule",
    "parse",
    "row_attributes",
    "token_issuers",
]  # fmt: skip


TENANT_CLAIM = "tenant"
"""Of the broker's access tokens, where its login may speak for several tenants."""


class Limits(Keys, frozen=True):
    """Bounds on what a client may send. All are per request but `concurrency`."""

    body_bytes: Annotated[int, Meta(ge=1024, le=16 * 2**20)] = 1 * 2**20
    body_seconds: Annotated[float, Meta(gt=0, le=60)] = 10.0
    depth: Annotated[int, Meta(ge=4, le=200)] = 32
    call_seconds: Annotated[float, Meta(gt=0, le=600)] = 30.0
    concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 512
    rows: Annotated[int, Meta(ge=1, le=10_000)] = 1000


class ApprovalSettings(Keys, frozen=True):
    """How long people have to approve a call and it to be sent again, and how long a browser stays logged in."""

    lifetime_seconds: Annotated[int, Meta(ge=60, le=86_400)] = 900
    session_seconds: Annotated[int, Meta(ge=60, le=3600)] = 900


class GatewaySettings(Keys, frozen=True):
    """Who this gateway is and where it listens.

    `resource` is its resource identifier (RFC 8707): the URL clients type, and the only accepted `aud`.
    `listen` and `admin` are `host:port`; admin serves health and metrics and must not face clients.
    `data` is the directory for the ledger, keys and directory database.
    `hosts` and `origins` are the accepted Host and Origin headers beyond `resource`'s own.
    `trust_domain` is the issuer name in call tokens; by default the resource's origin. `log_origin` names the record
    in its checkpoints, by default from the trust domain; it never changes for a record once begun.
    """

    resource: Url
    listen: str = "127.0.0.1:8100"
    admin: str = "127.0.0.1:8101"
    data: Place = "data"
    policies: Place = "policies"
    people: Place = "people.yaml"
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    trust_domain: str = ""
    log_origin: str = ""
    public_log: Literal["none", "hashes", "leaves"] = "none"
    """What `/log/` shows to anybody. Danger: `hashes` tell how much is recorded, `leaves` also when each call was, its
    kind (a denial, a failure) and the names of its facts, though nothing of what they say."""
    insecure_http_for_tests: bool = False
    """Accept http:// issuers and upstreams beyond loopback. Danger: tokens and data travel in the clear."""
    limits: Limits = field(default_factory=Limits)
    approvals: ApprovalSettings = field(default_factory=ApprovalSettings)
    dpop: DpopSettings = field(default_factory=DpopSettings)
    certificates: CertificateSettings | None = None
    tls: TlsSettings | None = None


class LoginSettings(Keys, frozen=True):
    """The gateway as a client of an issuer, with which people log in to its pages. Its redirect address is
    `/approvals/back` of the resource's origin. Without a secret it is a public client. `scope` is asked for as it is.
    """

    client_id: Annotated[str, Meta(min_length=1, max_length=500)]
    client_secret: Reference | UnsetType = UNSET
    scope: str = ""


class IssuerSettings(Keys, frozen=True):
    """One issuer of access tokens, and the tenants it may speak for.

    `tenant` is one fixed tenant, or a claim with its allowed values. `metadata` is where its RFC 8414 or
    OIDC discovery document is, by default derived from `issuer`. `client_claim` names who the client is,
    `scope_claim` what the person allowed it: words in a text (RFC 9068), or with some issuers a list.
    `token_types` are accepted `typ` headers (RFC 9068: `at+jwt`); "JWT" is for issuers that cannot do better.
    `outage_seconds` is how long known keys are still believed while the issuer cannot be reached. With `login`, people
    of this issuer can approve calls in a browser. `proof` says whether its tokens must be bound to a client's key:
    with `required` by DPoP or a certificate, else by the one that it names. With `introspection` it is asked about
    tokens that are no JWTs. `services` says how its tokens tell of programs that call by themselves; without it none
    are taken for such.
    """

    issuer: Url
    tenant: str | TenantClaim
    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1)] = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
    metadata: str = ""
    client_claim: str = "client_id"
    scope_claim: str = "scope"
    token_types: Annotated[tuple[str, ...], Meta(min_length=1)] = ("at+jwt",)
    outage_seconds: Annotated[int, Meta(ge=0, le=7 * 86400)] = 3600
    login: LoginSettings | None = None
    proof: Demand = "optional"
    introspection: IntrospectionSettings | None = None
    services: ServicesSettings | None = None


class Settings(Keys, frozen=True):
    """The whole of `onbehalf.yaml`."""

    gateway: GatewaySettings
    upstreams: dict[Name, SqlUpstream | PostgresUpstream | McpUpstream | OpenapiUpstream]
    issuers: tuple[IssuerSettings, ...] = ()
    directory: DirectorySettings = field(default_factory=DirectorySettings)
    signals: tuple[StreamSettings, ...] = ()
    workloads: tuple[WorkloadSettings, ...] = ()
    broker: BrokerSettings | None = None
    sinks: dict[SinkName, SinkSettings] = field(default_factory=dict)


class _UniqueLoader(yaml.SafeLoader):
    """YAML without duplicate keys: the second of two `tenant:` lines must not win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key `{key}` stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load_yaml(text: str, *, what: str) -> Json:
    """The value of one YAML document. Raises ConfigInvalid naming the line."""
    try:
        loaded: Json = yaml.load(text, _UniqueLoader)  # noqa: S506  # _UniqueLoader is a SafeLoader
    except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
        raise ConfigInvalid(f"{what} is not YAML: {error}", hint="mend the line it names") from error
    return loaded


def parse(text: str) -> Settings:
    """Settings from the text of `onbehalf.yaml`. Raises ConfigInvalid, listing the known keys for an unknown one."""
    value = load_yaml(text, what="onbehalf.yaml")
    try:
        settings = msgspec.convert(value, Settings)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(_explained(str(error)), hint="docs/config.md describes every key") from error
    settings = _with_broker(settings)
    for url in (
        settings.gateway.resource,
        *(each.url for each in settings.upstreams.values() if isinstance(each, McpUpstream | OpenapiUpstream)),
    ):
        _require_url(url)
    for upstream in settings.upstreams.values():
        if isinstance(upstream, OpenapiUpstream):
            _require_one_bearer(upstream, settings)
    certificates = _require_certificates(settings.gateway)
    for issuer in settings.issuers:
        _require_url(issuer.issuer)
        _require_https(issuer.issuer, settings)
        require_demand(issuer.issuer, issuer.proof, logs_in=issuer.login is not None, certificates=certificates)
    if len({issuer.issuer for issuer in settings.issuers}) != len(settings.issuers):
        raise ConfigInvalid(
            "an issuer stands twice", hint="one entry per issuer, or a token could have two tenant rules"
        )
    most = settings.gateway.limits.rows
    for name, tool in ((name, tool) for each in settings.upstreams.values() for name, tool in each.tools.items()):
        if tool.page is not None and tool.page.size >= most:
            raise ConfigInvalid(
                f"tool `{name}` has pages of {tool.page.size} rows, and `limits.rows` is {most}",
                hint="a page is smaller, by one row at least",
            )
    require_feeds(settings.directory)
    _require_callers(settings)
    _require_speakers(settings)
    _require_signals(settings)
    require_sinks(settings.sinks, insecure_http=settings.gateway.insecure_http_for_tests)
    names = [name for upstream in settings.upstreams.values() for name in upstream.tools]
    if len(set(names)) != len(names):
        raise ConfigInvalid("two upstreams offer a tool of one name", hint="tool names are unique within a gateway")
    return settings


def _require_certificates(gateway: GatewaySettings) -> bool:
    """Whether clients' certificates are read, from one place. Raises ConfigInvalid."""
    if gateway.certificates is not None:
        require_certificates(gateway.certificates)
    if gateway.tls is not None:
        require_tls(gateway.tls, resource=gateway.resource, headers=gateway.certificates is not None)
    asked = gateway.tls is not None and gateway.tls.client_certificates == "optional"
    return asked or gateway.certificates is not None


def broker_issuer(settings: Settings) -> str:
    """The issuer identifier of the gateway's own authorization server: the origin of its resource."""
    resource = urlsplit(settings.gateway.resource)
    return f"{resource.scheme}://{resource.netloc}"


def login_rule(login: BrokerLogin) -> IssuerSettings:
    """The broker's login as an issuer: whose keys are asked for, and for whom it may speak."""
    return IssuerSettings(
        issuer=login.issuer, tenant=login.tenant, algorithms=login.algorithms, metadata=login.metadata
    )


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
    for issuer in settings.issuers:
        for url in (issuer.issuer, *([issuer.introspection.endpoint] if issuer.introspection else [])):
            _require_url(url)
            _require_https(url, settings)
    require_told_apart({each.issuer: each.introspection for each in settings.issuers if each.introspection})
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


def _require_one_bearer(upstream: OpenapiUpstream, settings: Settings) -> None:
    """See that an API gets one `Authorization` at most, from a server that is asked over https."""
    own = [name for name in upstream.headers if name.lower() == "authorization"]
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


def token_issuers(stream: StreamSettings, settings: Settings) -> tuple[str, ...]:
    """Whose access tokens have, as `sub`, what the stream's events name: the issuer itself, and the broker where that
    is the login behind it, unless people are called by another claim there."""
    logins, broker = stream.logins or stream.issuer, settings.broker
    found = [issuer.issuer for issuer in settings.issuers if issuer.issuer == logins]
    if broker is not None and broker.login.issuer == logins and broker.login.subject_claim == "sub":
        found.append(broker_issuer(settings))
    return tuple(found)


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


def row_attributes(rows: RowsSettings | EntitySettings) -> dict[str, tuple[str, str]]:
    """`attributes` taken apart: attribute to (field, kind). Raises ConfigInvalid."""
    parts = {attribute: text.split() for attribute, text in rows.attributes.items()}
    for attribute, words in parts.items():
        if len(words) not in (1, 2):
            raise ConfigInvalid(
                f"attribute `{attribute}` must read `field` or `field Kind`", hint="such as `subject_id User`"
            )
    return {attribute: (words[0], words[1] if len(words) == 2 else "String") for attribute, words in parts.items()}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `onbehalf.yaml`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Settings)}


_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`(?: - at `(?P<path>[^`]*)`)?")


def _explained(message: str) -> str:
    """msgspec's message, with the known keys where a key is unknown."""
    found = _UNKNOWN.search(message)
    if found is None:
        return message[:1].lower() + message[1:]
    path = found["path"] or "$"
    known = sorted({key for struct in _structs_at(path) for key in _keys(struct)})
    return f"unknown key `{found['key']}` at `{path}`; known keys are {', '.join(f'`{key}`' for key in known)}"


def _keys(struct: type[Struct]) -> list[str]:
    tag = [struct.__struct_config__.tag_field] if struct.__struct_config__.tag_field else []
    return [*struct.__struct_fields__, *tag]


_PLACES: tuple[tuple[str, tuple[type[Struct], ...]], ...] = (
    (r"\$", (Settings,)),
    (r"\$\.gateway", (GatewaySettings,)),
    (r"\$\.gateway\.limits", (Limits,)),
    (r"\$\.gateway\.approvals", (ApprovalSettings,)),
    (r"\$\.gateway\.dpop", (DpopSettings,)),
    (r"\$\.gateway\.certificates", (CertificateSettings,)),
    (r"\$\.gateway\.tls", (TlsSettings,)),
    (r"\$\.broker", (BrokerSettings,)),
    (r"\$\.broker\.login", (BrokerLogin,)),
    (r"\$\.broker\.login\.tenant", (TenantClaim,)),
    (r"\$\.broker\.clients\[(\d+|\.\.\.)\]", (BrokerClient,)),
    (r"\$\.directory", (DirectorySettings,)),
    (r"\$\.directory\.feeds\[(\d+|\.\.\.)\]", (FeedSettings,)),
    (r"\$\.directory\.scim\[(\d+|\.\.\.)\]", (ScimSettings,)),
    (r"\$\.directory\.claims\[(\d+|\.\.\.)\]", (ClaimsSettings,)),
    (r"\$\.signals\[(\d+|\.\.\.)\]", (StreamSettings,)),
    (r"\$\.signals.*\.poll", (PollSettings,)),
    (r"\$\.signals.*\.verification", (VerificationSettings,)),
    (r"\$\.issuers\[\d+\]|\$\.issuers\[\.\.\.\]", (IssuerSettings,)),
    (r"\$\.issuers.*\.tenant", (TenantClaim,)),
    (r"\$\.issuers.*\.introspection", (IntrospectionSettings,)),
    (r"\$\.issuers.*\.services", (ServicesSettings,)),
    (r"\$\.workloads\[(\d+|\.\.\.)\]", (WorkloadSettings,)),
    (r"\$\.upstreams\[\.\.\.\]", (SqlUpstream, PostgresUpstream, McpUpstream, OpenapiUpstream)),
    (r"\$\.upstreams.*\.tools\[\.\.\.\]", (OpenapiToolSettings,)),
    (r"\$\.sinks\[\.\.\.\]", (FileSink, StdoutSink, SyslogSink, OtlpSink, HttpSink, ParquetSink)),
    (r"\$\.upstreams.*\.rows", (RowsSettings,)),
    (r"\$\.upstreams.*\.entities\[\.\.\.\]", (EntitySettings,)),
    (r"\$\.upstreams.*\.hierarchies\[\d+\]|\$\.upstreams.*\.hierarchies\[\.\.\.\]", (HierarchySettings,)),
    (r"\$\.upstreams.*\.resource", (LookupSettings,)),
    (r"\$\.upstreams.*\.dry_run", (DryRunSettings,)),
    (r"\$\.upstreams.*\.further", (FurtherSettings,)),
    (r"\$\.upstreams.*\.authorization", (AuthorizationSettings,)),
    (r"\$\.upstreams.*\.exchange", (ExchangeSettings,)),
    (r"\$\.upstreams.*\.account", (AccountSettings,)),
    (r"\$\.upstreams.*\.bound\[\.\.\.\]", (ParameterSettings,)),
)


def _structs_at(path: str) -> tuple[type[Struct], ...]:
    return next((structs for pattern, structs in _PLACES if re.fullmatch(pattern, path)), ())
