"""The sections of `onbehalf.yaml` that are of the whole gateway, and the document itself.

Every key states its unit, default and danger here or in the file of its section. Must not parse, or compare one section
with another.
"""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import UNSET, Meta, UnsetType, field

from onbehalf.config_broker import BrokerLogin, BrokerSettings
from onbehalf.config_directory import Algorithm, DirectorySettings, Keys, Place, Reference, TenantClaim
from onbehalf.config_introspection import IntrospectionSettings
from onbehalf.config_ledger import LedgerSettings
from onbehalf.config_proof import CertificateSettings, Demand, DpopSettings
from onbehalf.config_services import ServicesSettings, WorkloadSettings
from onbehalf.config_signals import StreamSettings
from onbehalf.config_sinks import SinkName, SinkSettings
from onbehalf.config_state import StateSettings
from onbehalf.config_tls import TlsSettings
from onbehalf.config_upstreams import McpUpstream, Name, OpenapiUpstream, PostgresUpstream, SqlUpstream, Url
from onbehalf.config_witnesses import WitnessesSettings

__all__ = [
    "TENANT_CLAIM", "ApprovalSettings", "GatewaySettings", "IssuerSettings", "Limits", "LoginSettings", "Settings",
    "broker_issuer", "login_rule", "token_issuers",
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
    kind (a denial, a failure), how much goes to each upstream, and the names of its facts, though nothing of what they
    say."""
    heartbeat_seconds: Annotated[int, Meta(ge=1, le=3600)] = 60
    """How often it goes on record that the gateway lives, so that silence says something."""
    insecure_http_for_tests: bool = False
    """Accept http:// issuers and upstreams beyond loopback. Danger: tokens and data travel in the clear."""
    ledger: LedgerSettings = field(default_factory=LedgerSettings)
    limits: Limits = field(default_factory=Limits)
    approvals: ApprovalSettings = field(default_factory=ApprovalSettings)
    dpop: DpopSettings = field(default_factory=DpopSettings)
    certificates: CertificateSettings | None = None
    tls: TlsSettings | None = None
    state: StateSettings | None = None
    witnesses: WitnessesSettings | None = None
    checkpoint_in_answers: bool = True
    """Each answer carries the newest signed head, some 250 bytes, so that clients can keep it as evidence. It tells how
    much is recorded, as the number in each receipt does."""


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


def broker_issuer(settings: Settings) -> str:
    """The issuer identifier of the gateway's own authorization server: the origin of its resource."""
    resource = urlsplit(settings.gateway.resource)
    return f"{resource.scheme}://{resource.netloc}"


def login_rule(login: BrokerLogin) -> IssuerSettings:
    """The broker's login as an issuer: whose keys are asked for, and for whom it may speak."""
    return IssuerSettings(
        issuer=login.issuer, tenant=login.tenant, algorithms=login.algorithms, metadata=login.metadata
    )


def token_issuers(stream: StreamSettings, settings: Settings) -> tuple[str, ...]:
    """Whose access tokens have, as `sub`, what the stream's events name: the issuer itself, and the broker where that
    is the login behind it, unless people are called by another claim there."""
    logins, broker = stream.logins or stream.issuer, settings.broker
    found = [issuer.issuer for issuer in settings.issuers if issuer.issuer == logins]
    if broker is not None and broker.login.issuer == logins and broker.login.subject_claim == "sub":
        found.append(broker_issuer(settings))
    return tuple(found)
