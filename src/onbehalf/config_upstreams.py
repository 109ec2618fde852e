"""The section `upstreams` of `onbehalf.yaml`: the systems behind the gateway, and the tools they offer.

As in config.py: every key states its unit, default and danger. Must not read a file or a secret.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from onbehalf.config_directory import Keys, Place, Reference
from onbehalf.errors import ConfigInvalid

__all__ = [
    "AccountSettings", "AuthorizationSettings", "DryRunSettings", "EntitySettings", "ExchangeSettings",
    "ExploreSettings", "ExploredSettings", "FurtherSettings", "HierarchySettings", "LookupSettings", "McpUpstream",
    "Name", "OpenapiToolSettings", "OpenapiUpstream", "PageSettings", "ParameterSettings", "PostgresUpstream",
    "RowsSettings", "SqlUpstream", "ToolSettings", "Url", "require_definitions", "require_exchange",
]  # fmt: skip

Name = Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{0,63}$")]
Url = Annotated[str, Meta(pattern=r"^https?://[^?#\s]+$")]
Table = Annotated[str, Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_$]{0,62}\.)?[A-Za-z_][A-Za-z0-9_$]{0,62}$")]
Sha256 = Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")]
Order = Annotated[str, Meta(pattern=r"^-?[A-Za-z_][A-Za-z0-9_$]{0,62}$")]
Column = Annotated[str, Meta(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]
Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_$]{0,62}$")]


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
    PostgreSQL, or has a dry run, shows what would change first, and does it when the client asks for exactly that. With
    `explore`, the model writes one SELECT over some tables of a database, of which it sees what the policies let the
    person see. With `page`, a statement's rows are given page by page. `durability` is how far the record of a call
    must be before it is sent: `witnessed` needs `gateway.witnesses`.
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
    durability: Literal["durable", "integrated", "witnessed"] = "durable"
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


class _DatabaseUpstream(Keys, frozen=True, kw_only=True):
    """What every database has. `entities` and `hierarchies` say where what scoped tools' policies look at lies."""

    entities: dict[str, EntitySettings] = {}
    hierarchies: tuple[HierarchySettings, ...] = ()
    audience: str = ""
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 10.0
    insecure_without_wall: bool = False
    """Serve without the wall around `tables`. Danger: a statement that forgets its tenant then fetches every tenant's
    rows, and only the policies stand between them and people."""


class SqlUpstream(_DatabaseUpstream, frozen=True, kw_only=True, tag_field="kind", tag="sql"):
    """A SQLite database, opened read-only. `database` is a path, relative to the configuration file.

    `tables` are those with rows of several tenants, each with the column that names the tenant: a statement then sees
    the caller's rows of them only, and beside them nothing but the tables in `shared`.
    """

    database: Place
    tools: dict[Name, ToolSettings]
    tables: dict[Identifier, Identifier] = {}
    shared: tuple[Identifier, ...] = ()


class PostgresUpstream(_DatabaseUpstream, frozen=True, kw_only=True, tag_field="kind", tag="postgres"):
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
    insecure_tls_for_tests: bool = False
    """Take an `sslmode` below `verify-full` beyond loopback. Danger: whoever sits between may read and answer."""


class FurtherSettings(Keys, frozen=True):
    """The backend behind this upstream may call further in the name of whoever it was called for: it gets call tokens
    for the upstreams `to`, with its upstream's name and `secret`, of at least 32 characters."""

    secret: Reference
    to: Annotated[tuple[Name, ...], Meta(min_length=1)]


class AuthorizationSettings(Keys, frozen=True):
    """An API or MCP server of another domain, which takes access tokens of its own authorization server. The gateway
    gets one for each person, by an assertion that it signs, presented as a grant (`jwt-bearer`, ID-JAG) or exchanged
    (`token-exchange`, RFC 8693).

    `issuer` is that server, as it calls itself, `token_endpoint` where it is asked, `client_id` and `client_secret` the
    gateway's own there. `resource` is what tokens are for, by default the API's `url`; `scope` is asked for as it is.
    `token_audience` is who a token says that it is for (`aud`), by default `resource`; one for another is not used.
    """

    issuer: Url
    token_endpoint: Url
    client_id: Annotated[str, Meta(min_length=1, max_length=500)]
    client_secret: Reference
    grant: Literal["jwt-bearer", "token-exchange"] = "jwt-bearer"
    resource: str = ""
    scope: str = ""
    token_audience: str = ""


class ExchangeSettings(Keys, frozen=True):
    """An API or MCP server of the same company login: it takes access tokens of the issuer that people's own are of.
    The gateway exchanges each person's token there for one that is for it alone (`token-exchange`, RFC 8693, or
    `entra`, its on-behalf-of form).

    `issuer` is one of `issuers`, and its token endpoint is the one of its own metadata: a person's token is sent
    nowhere else, and no key here could name a place. `client_id` is the gateway's own there, with a `client_secret` or
    a `client_key` (PEM with the certificate, or a private JWK). `audience` and `resource` say what the token is for;
    `scope` is asked for as it is, and with `token-exchange` the answer may have no more. `token_audience` is who a
    token says that it is for (`aud`): one for another is not used. With `token-exchange` and `resource` that is by
    default `resource` or `audience`, else it is not compared.
    """

    issuer: Url
    client_id: Annotated[str, Meta(min_length=1, max_length=500)]
    client_secret: Reference | UnsetType = UNSET
    client_key: Reference | UnsetType = UNSET
    grant: Literal["token-exchange", "entra"] = "token-exchange"
    audience: str = ""
    resource: str = ""
    scope: str = ""
    token_audience: str = ""


class AccountSettings(Keys, frozen=True):
    """An API or MCP server where people have accounts of their own (such as GitHub or Jira). Each person connects
    theirs, once, in a browser; calls are then made with that account's token.

    `authorization_endpoint` and `token_endpoint` are the API's authorization server, `client_id` and `client_secret`
    the gateway's own there; its redirect address is `/connect/back` of the resource's origin. `issuer` is how that
    server calls itself, where it names itself in its answers (RFC 9207). `parameters` are sent with every request for
    an authorization, such as `access_type: offline`. `title` is what people are shown. `token_audience` is who a token
    says that it is for (`aud`), by default the `resource` of `parameters`; one for another is not used. Without either
    it is not compared.
    """

    authorization_endpoint: Url
    token_endpoint: Url
    client_id: Annotated[str, Meta(min_length=1, max_length=500)]
    client_secret: Reference
    scope: str = ""
    issuer: str = ""
    title: Annotated[str, Meta(max_length=100)] = ""
    parameters: dict[Annotated[str, Meta(pattern="^[a-z_]{1,50}$")], str] = {}
    token_audience: str = ""


class McpUpstream(Keys, frozen=True, tag_field="kind", tag="mcp"):
    """An MCP server over Streamable HTTP. `audience` is who its call tokens are for, by default `url`.

    `protocol` is the MCP revision to speak; `auto` asks the server. `response_bytes` bounds an answer. `receipt_keys`
    is a file with the JWK Set of the server's receipt keys: with it, an answer without a good receipt is a failure.
    `definitions` is a file with the definitions of its tools (`onbehalf tools` writes it) and `digest` is `sha256:` and
    the hex digest of its bytes: with them the server is not asked for its tools, as one that lists them to people only
    cannot be.
    """

    url: Url
    tools: dict[Name, ToolSettings]
    audience: str = ""
    protocol: Literal["auto", "2026-07-28", "2025-11-25", "2025-06-18"] = "auto"
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 20.0
    response_bytes: Annotated[int, Meta(ge=1024, le=64 * 2**20)] = 1 * 2**20
    further: FurtherSettings | None = None
    receipt_keys: str = ""
    definitions: Place | UnsetType = UNSET
    digest: Sha256 | UnsetType = UNSET
    authorization: AuthorizationSettings | None = None
    exchange: ExchangeSettings | None = None
    account: AccountSettings | None = None


class DryRunSettings(Keys, frozen=True):
    """How an API says what an operation would change without changing it: `parameter`, of query, header or body, is
    sent with `value` while a call is tried. While it is done it is left out, or sent with `off`.

    Danger: an API that does not heed the parameter changes things while they are only tried, before every row is
    decided, anybody has confirmed it, or any person approved it. `compare` names the fields at the top of the dry
    run's answer that say what would change, by default all of it: leave out what is made up anew for each try.
    """

    parameter: str
    value: Any
    off: Any | UnsetType = UNSET
    compare: Annotated[tuple[str, ...], Meta(max_length=50)] = ()


class OpenapiToolSettings(ToolSettings, frozen=True):
    """One operation of an HTTP API. `remote` is its operationId, by default the tool's name.

    `waived` names parameters that look like identities, or that take members nobody declared, and that the model may
    send all the same. A `scoped` tool must map `rows`, so that nothing comes back undecided.
    With `dry_run`, a call of a tool that writes is tried first by the API's own dry run; then it may have a `preview`.
    """

    waived: tuple[str, ...] = ()
    scoped: bool = False
    dry_run: DryRunSettings | None = None


class OpenapiUpstream(Keys, frozen=True, tag_field="kind", tag="openapi"):
    """An HTTP API as its OpenAPI 3.0 or 3.1 document tells. `url` is the server, whatever servers the document names.

    `document` is a path relative to the configuration file, or an https URL on one of `document_hosts`; `digest` is
    `sha256:` and the hex digest of its bytes. `headers` are the gateway's own credentials, by reference.
    `audience` is who its call tokens are for, by default `url`. `response_bytes` bounds an answer. `receipt_keys` is
    a file with the JWK Set of the backend's receipt keys: with it, an answer without a good receipt is a failure.
    """

    url: Url
    document: Place
    digest: Sha256
    tools: dict[Name, OpenapiToolSettings]
    document_hosts: tuple[str, ...] = ()
    headers: dict[Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9-]{0,63}$")], Reference] = {}
    audience: str = ""
    timeout_seconds: Annotated[float, Meta(gt=0, le=600)] = 20.0
    response_bytes: Annotated[int, Meta(ge=1024, le=64 * 2**20)] = 1 * 2**20
    further: FurtherSettings | None = None
    receipt_keys: str = ""
    authorization: AuthorizationSettings | None = None
    exchange: ExchangeSettings | None = None
    account: AccountSettings | None = None
    private_network: bool = False
    """The server is within a private network. Danger: whoever answers for its name can lead calls to other servers
    within; loopback and link-local addresses stay refused."""


def require_definitions(upstream: McpUpstream) -> None:
    """See that definitions in a file are pinned. Raises ConfigInvalid."""
    if isinstance(upstream.definitions, UnsetType) != isinstance(upstream.digest, UnsetType):
        raise ConfigInvalid(
            f"`{upstream.url}` has one of `definitions` and `digest`", hint="`onbehalf tools` writes one and says both"
        )


def audience_of(name: str, upstream: SqlUpstream | PostgresUpstream | McpUpstream | OpenapiUpstream) -> str:
    """Who an upstream's call tokens are for, and so which channel its sendings are numbered in."""
    if isinstance(upstream, McpUpstream | OpenapiUpstream):
        return upstream.audience or upstream.url
    return upstream.audience or f"{'sql' if isinstance(upstream, SqlUpstream) else 'postgres'}:{name}"


def require_exchange(rule: ExchangeSettings, *, issuers: Set[str], gateway: str) -> None:
    """See that tokens are exchanged where they are from, by a client that proves itself, for an API that is named.

    `issuers` are those of people's tokens but for the gateway's own, `gateway` is its resource. Raises ConfigInvalid.
    """
    if rule.issuer not in issuers:
        raise ConfigInvalid(
            f"tokens are to be exchanged at `{rule.issuer}`, which is no issuer here but perhaps the broker's",
            hint="spell it as under `issuers`; who signs in by the broker has no token of the company's login",
        )
    if isinstance(rule.client_secret, UnsetType) == isinstance(rule.client_key, UnsetType):
        raise ConfigInvalid(
            "an exchange needs one of `client_secret` and `client_key`", hint="the issuer gives its tokens to a client"
        )
    if rule.grant == "entra" and (rule.audience or not (rule.scope or rule.resource)):
        raise ConfigInvalid(
            "an exchange of the form `entra` says what the token is for by `scope`, or by `resource`",
            hint="such as `scope: api://orders/.default`; `resource` is for Entra's version 1 endpoint",
        )
    if rule.grant == "token-exchange" and not (rule.audience or rule.resource):
        raise ConfigInvalid(
            "an exchange says by `audience` or `resource` what the token is for",
            hint="a token that is for anything could be used by the API elsewhere, as the person",
        )
    if gateway in (rule.audience, rule.resource):
        raise ConfigInvalid(
            "an exchange asks for a token for this gateway", hint="name the API: it could come back here as the person"
        )
