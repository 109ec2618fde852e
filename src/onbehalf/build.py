"""Opens parts of the house as their settings say: an upstream with the tools it offers, and approvals with their pages.

app.py and build.py are the files that name concrete doors. Must not hold a rule, or know what is offered to whom.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import UnsetType

from onbehalf.approving import Approving
from onbehalf.config import (
    LoginSettings,
    McpUpstream,
    OpenapiUpstream,
    PostgresUpstream,
    Settings,
    SqlUpstream,
    ToolSettings,
    row_attributes,
)
from onbehalf.config_upstreams import audience_of
from onbehalf.doors.engine_cedar_scope import Narrowed
from onbehalf.doors.inbound_approve import PATH, ApprovePages
from onbehalf.doors.inbound_approve_login import Logins, PageLogin
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_login import IssuerLogin
from onbehalf.doors.ledger_keys import open_mask_key
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.upstream_authorization import BearerSource
from onbehalf.doors.upstream_mcp import McpUpstreamServer
from onbehalf.doors.upstream_mcp_definitions import pinned_tools
from onbehalf.doors.upstream_receipts import open_receipts
from onbehalf.doors.upstream_sql import SqliteUpstream, Statement
from onbehalf.doors.wall_sqlite import SqliteWall
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Tool
from onbehalf.places import Paths
from onbehalf.ports import Approvals, Callers, Clock, Directory, Ledger
from onbehalf.validate import explore, tools
from onbehalf.validate.pushdown_sql import Dialect
from onbehalf.validate.pushdown_terms import Closure, Column, Layout, Table

if TYPE_CHECKING:
    from onbehalf.doors.upstream_openapi import OpenapiServer
    from onbehalf.doors.upstream_postgres import PostgresUpstream as PostgresDatabase

__all__ = [
    "Ports",
    "dialect_of",
    "mcp_server",
    "narrowed",
    "open_approvals",
    "open_database",
    "open_upstream",
    "sketched",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What approvals share with calls."""

    clock: Clock
    callers: Callers
    directory: Directory
    ledger: Ledger


def narrowed(settings: Settings) -> dict[str, Narrowed]:
    """For every scoped tool, where what its policies look at lies. Raises ConfigInvalid."""
    found: dict[str, Narrowed] = {}
    for upstream in settings.upstreams.values():
        if isinstance(upstream, SqlUpstream | PostgresUpstream):
            where = Narrowed(layout=_layout(upstream), dialect=dialect_of(upstream) or "sqlite")
            found |= {name: where for name, tool in upstream.tools.items() if tool.scoped or tool.explore is not None}
    return found


def sketched(settings: Settings) -> dict[str, Tool]:
    """All tools as configuration alone tells of them. Raises ConfigInvalid."""
    found = {
        tool: tools.sketch(tool, name, each, dialect_of(upstream))
        for name, upstream in settings.upstreams.items()
        for tool, each in upstream.tools.items()
    }
    tools.require_sound(found)
    return found


def dialect_of(upstream: object) -> Dialect | None:
    """What SQL an upstream speaks; None for one that is no database."""
    if isinstance(upstream, SqlUpstream):
        return "sqlite"
    return "postgres" if isinstance(upstream, PostgresUpstream) else None


def _layout(upstream: SqlUpstream | PostgresUpstream) -> Layout:
    tables = {
        type_: Table(
            name=each.table, id=each.id, tenant=each.tenant,
            attributes={
                name: Column(name=column, kind=kind, required=False)
                for name, (column, kind) in row_attributes(each).items()
            },
        )
        for type_, each in upstream.entities.items()
    }  # fmt: skip
    closures = {
        each.types: Closure(name=each.table, tenant=each.tenant, below=each.below, above=each.above)
        for each in upstream.hierarchies
    }
    return Layout(tables=tables, closures=closures)


async def open_upstream(
    name: str,
    upstream: SqlUpstream | PostgresUpstream | OpenapiUpstream,
    places: Paths,
    settings: Settings,
    authorizer: BearerSource | None = None,
) -> tuple[SqliteUpstream | PostgresDatabase | OpenapiServer, list[Tool]]:
    """One upstream whose tools are known from the configuration and what it names. Raises ConfigInvalid."""
    if isinstance(upstream, OpenapiUpstream):
        # with it comes a client library, which a gateway without such an upstream does without
        from onbehalf.doors.upstream_openapi_configured import open_openapi

        insecure = settings.gateway.insecure_http_for_tests
        base = places.config.resolve().parent
        return await open_openapi(name, upstream, base=base, insecure_http=insecure, authorizer=authorizer)
    return await open_database(name, upstream, places, settings)


async def open_database(
    name: str, upstream: SqlUpstream | PostgresUpstream, places: Paths, settings: Settings
) -> tuple[SqliteUpstream | PostgresDatabase, list[Tool]]:
    """One database and its tools. Raises ConfigInvalid."""
    base = places.config.resolve().parent
    if upstream.insecure_without_wall and any(each.explore is not None for each in upstream.tools.values()):
        raise ConfigInvalid(
            f"upstream `{name}` has a tool that explores and no wall",
            hint="build the wall first: a condition is then not the only thing between a model's SELECT and other rows",
        )
    if isinstance(upstream, PostgresUpstream):
        # with it comes a client library, which a gateway without such a database does without
        from onbehalf.doors.upstream_postgres_configured import open_postgres

        return await open_postgres(name, upstream, base=base, max_rows=settings.gateway.limits.rows)
    path = base / upstream.database
    wall = SqliteWall.of(name, upstream.tables, upstream.shared, without=upstream.insecure_without_wall)
    statements = {each.remote or tool: Statement(_text(tool, name, each)) for tool, each in upstream.tools.items()}
    door = SqliteUpstream.open(
        path, audience=audience_of(name, upstream), statements=statements, timeout=upstream.timeout_seconds,
        max_rows=settings.gateway.limits.rows, wall=wall,
    )  # fmt: skip
    try:
        made = [
            tools.exploring_tool(tool, name, each, "sqlite")
            if each.explore is not None
            else tools.sql_tool(
                tool, name, each, used=door.parameters(each.remote or tool), columns=door.columns(each.remote or tool)
            )
            for tool, each in upstream.tools.items()
        ]
    except ConfigInvalid:
        await door.aclose()
        raise
    return door, made


def _text(tool: str, upstream: str, settings: ToolSettings) -> str:
    found = tools.sketch(tool, upstream, settings, "sqlite").explores
    return settings.statement if found is None else explore.trial(found.tables)


def mcp_server(
    upstream: McpUpstream, settings: Settings, *, base: Path, authorizer: BearerSource | None = None
) -> McpUpstreamServer:
    """One MCP server behind the gateway; nothing is sent yet. `base` is onbehalf.yaml's place. Raises ConfigInvalid."""
    pinned = None
    if not isinstance(upstream.definitions, UnsetType) and not isinstance(upstream.digest, UnsetType):
        pinned = pinned_tools(upstream.definitions, upstream.digest, base=base)
    return McpUpstreamServer(
        upstream.url,
        audience=audience_of("", upstream),
        protocol=upstream.protocol,
        timeout=upstream.timeout_seconds,
        response_bytes=upstream.response_bytes,
        insecure_http=settings.gateway.insecure_http_for_tests,
        receipts=open_receipts(upstream.receipt_keys, base=base),
        authorizer=authorizer,
        pinned=pinned,
    )


def open_approvals(
    settings: Settings,
    places: Paths,
    stack: contextlib.AsyncExitStack,
    *,
    ports: Ports,
    kept: Callable[[bytes], Approvals],
    own: Callable[[str], PageLogin] | None = None,
) -> tuple[Approving, ApprovePages, Logins] | None:
    """How people approve calls, where some issuer lets them log in to the pages for it. `kept` opens them, given the
    secret; `own` makes the gateway's own login, given the redirect address. Raises ConfigInvalid."""
    rules = [(rule, rule.login) for rule in settings.issuers if rule.login is not None]
    if not rules and own is None:
        return None
    gateway, base = settings.gateway, places.config.resolve().parent
    resource = urlsplit(gateway.resource)
    origin = f"{resource.scheme}://{resource.netloc}"
    secret = open_mask_key(places.keys)
    fetcher = IssuerFetcher(insecure_http=gateway.insecure_http_for_tests)
    stack.push_async_callback(fetcher.aclose)
    issuers: list[PageLogin] = [
        IssuerLogin(
            rule, login, fetcher, resource=gateway.resource, redirect_uri=f"{origin}{PATH}back",
            secret=_secret(login, base),
        )
        for rule, login in rules
    ]  # fmt: skip
    if own is not None:
        issuers.append(own(f"{origin}{PATH}back"))
    approving = Approving(
        clock=ports.clock, fresh=lambda: secrets.token_urlsafe(32), approvals=kept(secret), directory=ports.directory,
        ledger=ports.ledger, url=f"{origin}{PATH}", issuers=frozenset(each.rule.issuer for each in issuers),
        lifetime_s=gateway.approvals.lifetime_seconds, secret=secret,
    )  # fmt: skip
    session_seconds = gateway.approvals.session_seconds
    logins = Logins(issuers, ports.callers, clock=ports.clock, session_seconds=session_seconds)
    pages = ApprovePages(
        approving, logins, origin=origin, seconds=gateway.limits.call_seconds, session_seconds=session_seconds
    )
    return approving, pages, logins


def _secret(login: LoginSettings, base: Path) -> str:
    reference = login.client_secret
    return "" if isinstance(reference, UnsetType) else resolved(reference, base=base, what="login.client_secret")
