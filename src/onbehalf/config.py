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

from onbehalf.config_directory import DirectorySettings, FeedSettings, Keys, Place, Reference, require_feeds
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json

__all__ = [
    "ApprovalSettings", "EntitySettings", "GatewaySettings", "HierarchySettings", "IssuerSettings", "Limits",
    "LoginSettings", "LookupSettings", "McpUpstream", "OpenapiToolSettings", "OpenapiUpstream", "ParameterSettings",
    "PostgresUpstream", "RowsSettings", "Settings", "SqlUpstream", "TenantClaim", "ToolSettings", "json_schema",
    "parse", "row_attributes",
]  # fmt: skip

Name = Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{0,63}$")]
Url = Annotated[str, Meta(pattern=r"^https?://[^?#\s]+$")]
Table = Annotated[str, Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_$]{0,62}\.)?[A-Za-z_][A-Za-z0-9_$]{0,62}$")]
Order = Annotated[str, Meta(pattern=r"^-?[A-Za-z_][A-Za-z0-9_$]{0,62}$")]
Column = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_$]{0,62}$")]
Algorithm = Literal["RS256", "PS256", "ES256", "EdDSA", "Ed25519"]


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
    insecure_http_for_tests: bool = False
    """Accept http:// issuers and upstreams beyond loopback. Danger: tokens and data travel in the clear."""
    limits: Limits = field(default_factory=Limits)
    approvals: ApprovalSettings = field(default_factory=ApprovalSettings)


class TenantClaim(Keys, frozen=True):
    """The tenant is read from `claim`, and must be one of `allowed`."""

    claim: str
    allowed: Annotated[tuple[str, ...], Meta(min_length=1)]


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
    of this issuer can approve calls in a browser.
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


class RowsSettings(Keys, frozen=True):
    """How rows become entities of one Cedar type, so that each is decided before it is released.

    `at` is the dotted path to the list (or object) in an MCP tool's structured result; unused for SQL.
    `id` and `tenant` name fields. `attributes` maps an attribute to a field, with its kind after a blank
    where it is not text: `subject: "subject_id User"`, `rating: "rating Long"`. The attribute `tenant`
    is always set from the field `tenant`.
    """

    type: str
    id: str = "id"
    tenant: str = "tenant"
    at: str = ""
    attributes: dict[str, str] = {}


class PageSettings(Keys, frozen=True):
    """How a long answer is turned: `by` these fields of its rows, with `-` before one that goes down, at most `size`
    rows a page. The rows' id comes last whatever is said."""

    by: Annotated[tuple[Order, ...], Meta(max_length=8)] = ()
    size: Annotated[int, Meta(ge=1, le=5000)] = 50


class ExploredSettings(RowsSettings, frozen=True):
    """A table that a model may ask about: what its rows are, and the `columns` that it may name (lower case).

    `table` is what the database calls it, by default as the model does.
    """

    columns: Annotated[tuple[Column, ...], Meta(max_length=200)] = ()
    table: Table | UnsetType = UNSET


class ExploreSettings(Keys, frozen=True):
    """What a model may ask about by a SELECT of its own. `max_cost` is the most that PostgreSQL may expect a statement
    to cost, in its own units; 0 for no such bound."""

    tables: Annotated[dict[Column, ExploredSettings], Meta(min_length=1, max_length=50)]
    max_cost: Annotated[float, Meta(ge=0)] = 1_000_000.0


class LookupSettings(Keys, frozen=True):
    """Before the call, find the one resource it is about by `tool`, giving it `argument` of this call
    as `parameter` (by default of the same name). The tool must map rows; no row means not permitted."""

    tool: Name
    argument: str
    parameter: str = ""


class ParameterSettings(Keys, frozen=True):
    """A parameter the gateway sets, from one of: `principal: department`, `tenant: true`, `constant: 5`."""

    principal: str = ""
    tenant: bool = False
    constant: Any | UnsetType = UNSET


class ToolSettings(Keys, frozen=True):
    """One tool. `action` is its Cedar action. For SQL, `statement` is a named, parameterised SELECT (`:name`)
    and `parameters` the JSON Schema properties that the model may send. For MCP, name and schema are the
    upstream's own (`remote`, by default the tool's name) and `pin` may hold its definition's digest.
    A call of a tool that `writes` is not done again when the same person's client sends it again within `once_seconds`.
    A `scoped` tool of a database gets the policies' own condition on its rows. With `preview`, a tool that writes to
    PostgreSQL shows what would change first, and does it when the client asks for exactly that. With `explore`, the
    model writes one SELECT over some tables of a database, of which it sees what the policies let the person see. With
    `page`, a statement's rows are given page by page.
    """

    action: str
    title: str = ""
    description: str = ""
    statement: str = ""
    remote: str = ""
    parameters: dict[str, dict[str, Any]] = {}
    required: tuple[str, ...] = ()
    bound: dict[str, ParameterSettings] = {}
    scopes: tuple[str, ...] = ()
    rows: RowsSettings | None = None
    resource: LookupSettings | None = None
    writes: bool = False
    once_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 60
    scoped: bool = False
    explore: ExploreSettings | None = None
    page: PageSettings | None = None
    preview: bool = False
    exposed: bool = True
    pin: str = ""


class EntitySettings(Keys, frozen=True):
    """A table whose rows are entities of one type, so that policies can be asked of rows that name them.

    An entity is `id` within `tenant`. `attributes` maps an attribute to a column, with its kind after a blank where it
    is not text, as under `rows`.
    """

    table: Table
    id: Identifier = "id"
    tenant: Identifier = "tenant_id"
    attributes: dict[str, str] = {}


class HierarchySettings(Keys, frozen=True):
    """A table of all pairs of a hierarchy within a tenant, at whatever depth: `below` is in `above`.

    `types` are the two types: `[Position, Position]`, `[User, Group]` or `[Group, Group]`.
    """

    types: tuple[str, str]
    table: Table
    tenant: Identifier = "tenant_id"
    below: Identifier = "below"
    above: Identifier = "above"


class SqlUpstream(Keys, frozen=True, tag_field="kind", tag="sql"):
    """A SQLite database, opened read-only. `database` is a path, relative to the configuration file. `entities` and
    `hierarchies` say where what scoped tools' policies look at lies.

    `tables` are those with rows of several tenants, each with the column that names the tenant: a statement then sees
    the caller's rows of them only, and beside them nothing but the tables in `shared`.
    """

    database: Place
    tools: dict[Name, ToolSettings]
    tables: dict[Identifier, Identifier] = {}
    shared: tuple[Identifier, ...] = ()
    entities: dict[str, EntitySettings] = {}
    hierarchies: tuple[HierarchySettings, ...] = ()
    audience: str = ""
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 10.0
    insecure_without_wall: bool = False
    """Serve without `tables`. Danger: a statement that forgets its tenant then fetches every tenant's rows, and only
    the policies stand between them and people."""


class PostgresUpstream(Keys, frozen=True, tag_field="kind", tag="postgres"):
    """A PostgreSQL database. `reader` and `writer` refer to DSNs; `writer` is used by tools that write, and only then
    needed. Each DSN names host, user and database.

    `tables` are those with rows of several tenants, each with the column that names the tenant: the wall stands around
    them (`onbehalf db wall`), with `wall_key` as its key of at least 32 bytes. `shared` are tables without tenants that
    everybody may read, `own_roles` the roles of the company's own programs, which the wall lets through.
    """

    reader: Reference
    tools: dict[Name, ToolSettings]
    writer: Reference | UnsetType = UNSET
    tables: dict[Table, Identifier] = {}
    shared: tuple[Table, ...] = ()
    own_roles: tuple[Identifier, ...] = ()
    wall_key: Reference | UnsetType = UNSET
    connections: Annotated[int, Meta(ge=1, le=100)] = 4
    entities: dict[str, EntitySettings] = {}
    hierarchies: tuple[HierarchySettings, ...] = ()
    audience: str = ""
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 10.0
    insecure_without_wall: bool = False
    """Serve without the wall. Danger: a statement that forgets its tenant then fetches every tenant's rows, and only
    the policies stand between them and people."""
    insecure_tls_for_tests: bool = False
    """Take an `sslmode` below `verify-full` beyond loopback. Danger: whoever sits between may read and answer."""


class McpUpstream(Keys, frozen=True, tag_field="kind", tag="mcp"):
    """An MCP server over Streamable HTTP. `audience` is who its call tokens are for, by default `url`.

    `protocol` is the MCP revision to speak; `auto` asks the server. `response_bytes` bounds an answer.
    """

    url: Url
    tools: dict[Name, ToolSettings]
    audience: str = ""
    protocol: Literal["auto", "2026-07-28", "2025-11-25", "2025-06-18"] = "auto"
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 20.0
    response_bytes: Annotated[int, Meta(ge=1024, le=64 * 2**20)] = 1 * 2**20


class OpenapiToolSettings(ToolSettings, frozen=True):
    """One operation of an HTTP API. `remote` is its operationId, by default the tool's name.

    `waived` names parameters that look like identities, or that take members nobody declared, and that the model may
    send all the same. A `scoped` tool must map `rows`, so that nothing comes back undecided.
    """

    waived: tuple[str, ...] = ()
    scoped: bool = False


class OpenapiUpstream(Keys, frozen=True, tag_field="kind", tag="openapi"):
    """An HTTP API as its OpenAPI 3.0 or 3.1 document tells. `url` is the server, whatever servers the document names.

    `document` is a path relative to the configuration file, or an https URL on one of `document_hosts`; `digest` is
    `sha256:` and the hex digest of its bytes. `headers` are the gateway's own credentials, by reference.
    `audience` is who its call tokens are for, by default `url`. `response_bytes` bounds an answer.
    """

    url: Url
    document: Place
    digest: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")]
    tools: dict[Name, OpenapiToolSettings]
    document_hosts: tuple[str, ...] = ()
    headers: dict[Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9-]{0,63}$")], Reference] = {}
    audience: str = ""
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 20.0
    response_bytes: Annotated[int, Meta(ge=1024, le=64 * 2**20)] = 1 * 2**20
    private_network: bool = False
    """The server is within a private network. Danger: whoever answers for its name can lead calls to other servers
    within; loopback and link-local addresses stay refused."""


class Settings(Keys, frozen=True):
    """The whole of `onbehalf.yaml`."""

    gateway: GatewaySettings
    issuers: Annotated[tuple[IssuerSettings, ...], Meta(min_length=1)]
    upstreams: dict[Name, SqlUpstream | PostgresUpstream | McpUpstream | OpenapiUpstream]
    directory: DirectorySettings = field(default_factory=DirectorySettings)


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
    for url in (
        settings.gateway.resource,
        *(each.url for each in settings.upstreams.values() if isinstance(each, McpUpstream | OpenapiUpstream)),
    ):
        _require_url(url)
    for issuer in settings.issuers:
        _require_url(issuer.issuer)
        _require_https(issuer.issuer, settings)
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
    for pushed in settings.directory.scim:
        if pushed.issuer not in {issuer.issuer for issuer in settings.issuers}:
            raise ConfigInvalid(
                f"the people of `{pushed.tenant}` log in at `{pushed.issuer}`, which is no issuer here",
                hint="spell it exactly as under `issuers`",
            )
    names = [name for upstream in settings.upstreams.values() for name in upstream.tools]
    if len(set(names)) != len(names):
        raise ConfigInvalid("two upstreams offer a tool of one name", hint="tool names are unique within a gateway")
    return settings


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
    (r"\$\.directory", (DirectorySettings,)),
    (r"\$\.directory\.feeds\[(\d+|\.\.\.)\]", (FeedSettings,)),
    (r"\$\.issuers\[\d+\]|\$\.issuers\[\.\.\.\]", (IssuerSettings,)),
    (r"\$\.issuers.*\.tenant", (TenantClaim,)),
    (r"\$\.upstreams\[\.\.\.\]", (SqlUpstream, PostgresUpstream, McpUpstream, OpenapiUpstream)),
    (r"\$\.upstreams.*\.tools\[\.\.\.\]", (OpenapiToolSettings,)),
    (r"\$\.upstreams.*\.rows", (RowsSettings,)),
    (r"\$\.upstreams.*\.entities\[\.\.\.\]", (EntitySettings,)),
    (r"\$\.upstreams.*\.hierarchies\[\d+\]|\$\.upstreams.*\.hierarchies\[\.\.\.\]", (HierarchySettings,)),
    (r"\$\.upstreams.*\.resource", (LookupSettings,)),
    (r"\$\.upstreams.*\.bound\[\.\.\.\]", (ParameterSettings,)),
)


def _structs_at(path: str) -> tuple[type[Struct], ...]:
    return next((structs for pattern, structs in _PLACES if re.fullmatch(pattern, path)), ())
