"""Opens one upstream as its settings say, with the tools it offers.

app.py and build.py are the files that name concrete doors: this one those behind the gateway. Must not hold a rule, or
know what is offered to whom.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onbehalf.config import McpUpstream, OpenapiUpstream, PostgresUpstream, Settings, SqlUpstream, row_attributes
from onbehalf.doors.engine_cedar_scope import Narrowed
from onbehalf.doors.upstream_mcp import McpUpstreamServer
from onbehalf.doors.upstream_sql import SqliteUpstream, Statement
from onbehalf.doors.wall_sqlite import SqliteWall
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Tool
from onbehalf.validate import tools
from onbehalf.validate.pushdown_terms import Closure, Column, Layout, Table

if TYPE_CHECKING:
    from onbehalf.doors.upstream_openapi import OpenapiServer
    from onbehalf.doors.upstream_postgres import PostgresUpstream as PostgresDatabase

__all__ = ["Paths", "mcp_server", "narrowed", "open_database", "open_upstream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """Where the parts of one gateway lie; relative settings are relative to the configuration file."""

    config: Path
    data: Path
    policies: Path
    people: Path

    @property
    def keys(self) -> Path:
        """Signing and sealing keys."""
        return self.data / "keys"

    @property
    def ledger(self) -> Path:
        """The record."""
        return self.data / "ledger.db"

    @property
    def directory(self) -> Path:
        """The directory database, made from `people`."""
        return self.data / "directory.db"

    @property
    def once(self) -> Path:
        """Which writing calls were begun and done."""
        return self.data / "once.db"


def narrowed(settings: Settings) -> dict[str, Narrowed]:
    """For every scoped tool, where what its policies look at lies. Raises ConfigInvalid."""
    found: dict[str, Narrowed] = {}
    for upstream in settings.upstreams.values():
        if isinstance(upstream, SqlUpstream | PostgresUpstream):
            where = Narrowed(
                layout=_layout(upstream), dialect="sqlite" if isinstance(upstream, SqlUpstream) else "postgres"
            )
            found |= {name: where for name, tool in upstream.tools.items() if tool.scoped}
    return found


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
    name: str, upstream: SqlUpstream | PostgresUpstream | OpenapiUpstream, places: Paths, settings: Settings
) -> tuple[SqliteUpstream | PostgresDatabase | OpenapiServer, list[Tool]]:
    """One upstream whose tools are known from the configuration and what it names. Raises ConfigInvalid."""
    if isinstance(upstream, OpenapiUpstream):
        # with it comes a client library, which a gateway without such an upstream does without
        from onbehalf.doors.upstream_openapi_configured import open_openapi

        insecure = settings.gateway.insecure_http_for_tests
        return await open_openapi(name, upstream, base=places.config.resolve().parent, insecure_http=insecure)
    return await open_database(name, upstream, places, settings)


async def open_database(
    name: str, upstream: SqlUpstream | PostgresUpstream, places: Paths, settings: Settings
) -> tuple[SqliteUpstream | PostgresDatabase, list[Tool]]:
    """One database and its tools. Raises ConfigInvalid."""
    base = places.config.resolve().parent
    if isinstance(upstream, PostgresUpstream):
        # with it comes a client library, which a gateway without such a database does without
        from onbehalf.doors.upstream_postgres_configured import open_postgres

        return await open_postgres(name, upstream, base=base, max_rows=settings.gateway.limits.rows)
    path = base / upstream.database
    statements = {each.remote or tool: Statement(each.statement) for tool, each in upstream.tools.items()}
    door = SqliteUpstream.open(
        path, audience=upstream.audience or f"sql:{name}", statements=statements, timeout=upstream.timeout_seconds,
        max_rows=settings.gateway.limits.rows, wall=SqliteWall.of(name, upstream.tables, upstream.shared),
    )  # fmt: skip
    try:
        made = [
            tools.sql_tool(
                tool, name, each, used=door.parameters(each.remote or tool), columns=door.columns(each.remote or tool)
            )
            for tool, each in upstream.tools.items()
        ]
    except ConfigInvalid:
        await door.aclose()
        raise
    return door, made


def mcp_server(upstream: McpUpstream, settings: Settings) -> McpUpstreamServer:
    """One MCP server behind the gateway; nothing is sent yet. Raises ConfigInvalid."""
    return McpUpstreamServer(
        upstream.url,
        audience=upstream.audience or upstream.url,
        protocol=upstream.protocol,
        timeout=upstream.timeout_seconds,
        response_bytes=upstream.response_bytes,
        insecure_http=settings.gateway.insecure_http_for_tests,
    )
