"""An upstream of kind `postgres` as its settings say, with its tools: where references become secrets.

Must not hold how a call is made (upstream_postgres.py) or what the wall is (validate/wall.py).

Trust: as upstream_postgres.py; the secrets come from where the configuration refers to.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import UnsetType

from onbehalf import config
from onbehalf.config_upstreams import audience_of
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.upstream_postgres import PostgresUpstream, Role, Statement
from onbehalf.doors.upstream_postgres_dsn import safe_dsn
from onbehalf.doors.wall_postgres import Wall
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Tool
from onbehalf.validate import explore, tools
from onbehalf.validate.wall import plan
from onbehalf.validate.wall_claim import ClaimKey, claim_key
from onbehalf.validate.wall_standing import Standing

__all__ = ["open_postgres"]


async def open_postgres(
    name: str, upstream: config.PostgresUpstream, *, base: Path, max_rows: int
) -> tuple[PostgresUpstream, list[Tool]]:
    """The database named `name` and its tools, its wall looked at. Raises ConfigInvalid.

    `base` is the directory of the configuration file, which references are relative to.
    """
    key = _key(name, upstream, base)
    statements = {
        each.remote or tool: Statement(text=_text(name, tool, each), writes=each.writes)
        for tool, each in upstream.tools.items()
    }
    writes = any(each.writes for each in statements.values())
    reader = _role(upstream, upstream.reader, "reader", key, base)
    writer = None
    if writes and isinstance(upstream.writer, str):
        writer = _role(upstream, upstream.writer, "writer", key, base)
    door = await PostgresUpstream.open(
        reader, writer, audience=audience_of(name, upstream), statements=statements,
        timeout=upstream.timeout_seconds, max_rows=max_rows, connections=upstream.connections,
    )  # fmt: skip
    try:
        return door, [_tool(name, tool, each, door) for tool, each in upstream.tools.items()]
    except ConfigInvalid:
        await door.aclose()
        raise


def _tool(upstream: str, name: str, settings: config.ToolSettings, door: PostgresUpstream) -> Tool:
    if settings.explore is not None:
        return tools.exploring_tool(name, upstream, settings, "postgres")
    remote = settings.remote or name
    used, columns = door.parameters(remote), door.columns(remote)
    return tools.sql_tool(name, upstream, settings, used=used, columns=columns, dialect="postgres", may_write=True)


def _text(upstream: str, name: str, settings: config.ToolSettings) -> str:
    found = tools.sketch(name, upstream, settings, "postgres").explores
    return settings.statement if found is None else explore.trial(found.tables)


def _key(name: str, upstream: config.PostgresUpstream, base: Path) -> ClaimKey | None:
    """The wall's key; None only where the wall is turned off by name."""
    if upstream.insecure_without_wall:
        return None
    if isinstance(upstream.wall_key, UnsetType):
        raise ConfigInvalid(
            f"upstream `{name}` has no `wall_key`",
            hint="make one (openssl rand -hex 32), refer to it by `env:NAME` or `file:path`, and build the wall: "
            "onbehalf db wall",
        )
    plan(upstream)  # the tables are listed, and none of them twice
    return claim_key(resolved(upstream.wall_key, base=base, what="wall_key").encode())


def _role(upstream: config.PostgresUpstream, reference: str, what: str, key: ClaimKey | None, base: Path) -> Role:
    dsn = safe_dsn(resolved(reference, base=base, what=what), what=what, insecure_tls=upstream.insecure_tls_for_tests)
    if key is None:
        return Role(dsn=dsn, wall=None)
    asked = plan(upstream)
    standing = Standing(tables=asked.tables, shared=asked.shared, own=asked.own, writes=what == "writer")
    return Role(dsn=dsn, wall=Wall(standing=standing, key=key))
