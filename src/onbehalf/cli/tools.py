"""`onbehalf tools`: what an MCP server says its tools are, looked at by a person and written down to be pinned.

Asks the server once, in the operator's own name where it lists its tools to people only. Must not change the
configuration, or write over a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from onbehalf.act.bearer import names_audience
from onbehalf.build import mcp_server
from onbehalf.cli.screen import AsJson, ConfigFile, console, print_json, quoted
from onbehalf.config import McpUpstream, Settings
from onbehalf.doors.pinned_file import file_digest
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.upstream_mcp import Described
from onbehalf.doors.upstream_mcp_definitions import written_definitions
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json
from onbehalf.places import load_settings

__all__ = ["tools"]

_Now = Literal["as pinned", "changed", "new", "gone", ""]
_COLOURS: dict[_Now, str] = {"as pinned": "green", "changed": "red bold", "new": "yellow", "gone": "red bold", "": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """The tools a server lists, those that are pinned (None for none), and what is odd about others."""

    tools: Mapping[str, Described]
    pinned: Mapping[str, Described] | None
    odd: Sequence[str]

    def now(self, name: str) -> _Now:
        """How a tool stands to what is pinned."""
        if self.pinned is None:
            return ""
        if name not in self.tools:
            return "gone"
        if name not in self.pinned:
            return "new"
        same = written_definitions({name: self.tools[name]}) == written_definitions({name: self.pinned[name]})
        return "as pinned" if same else "changed"

    @property
    def names(self) -> list[str]:
        return sorted({*self.tools, *(self.pinned or ())})


def tools(
    upstream: Annotated[str, typer.Argument(help="Which upstream, of kind mcp.")],
    config: ConfigFile = Path("onbehalf.yaml"),
    bearer: Annotated[
        str,
        typer.Option(help="Your own access token there, as env:NAME or file:PATH, if it lists tools to people only."),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write the definitions to this file, which must not exist.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask an MCP server for its tools, and write their definitions down.

    Read the file: models are shown every word of it. Then name it under the upstream's `definitions`,
    with its digest. From then on the gateway offers these and asks the server for no others. Where
    definitions are pinned, says what is different now, and exits 1 if anything is.

    Example: onbehalf tools desk --bearer env:DESK_TOKEN --out desk-tools.json
    """
    settings = load_settings(config)
    base = config.resolve().parent
    found = asyncio.run(_found(settings, upstream, base=base, bearer=bearer))
    data = written_definitions(found.tools)
    if out is not None:
        _write(out, data)
    differ = any(found.now(name) not in ("", "as pinned") for name in found.names)
    if as_json:
        rows: list[Json] = [{"name": name, "now": found.now(name)} for name in found.names]
        print_json({"upstream": upstream, "digest": file_digest(data), "tools": rows, "left_out": [*found.odd]})
    else:
        _print(found, file_digest(data), out and Path(os.path.relpath(out, base)))
    raise typer.Exit(1 if differ else 0)


async def _found(settings: Settings, name: str, *, base: Path, bearer: str) -> _Found:
    upstream = settings.upstreams.get(name)
    if not isinstance(upstream, McpUpstream):
        have = ", ".join(f"`{each}`" for each, one in settings.upstreams.items() if isinstance(one, McpUpstream))
        raise ConfigInvalid(f"there is no upstream `{name[:80]}` of kind mcp", hint=f"there is {have or 'none'}")
    secret = resolved(bearer, base=base, what="--bearer") if bearer else ""
    if names_audience(secret, settings.gateway.resource):
        raise ConfigInvalid(
            "the token is for this gateway, and is sent to nobody else", hint="log in at the server and take its token"
        )
    async with contextlib.AsyncExitStack() as stack:
        pinned = None
        if not isinstance(upstream.definitions, msgspec.UnsetType):
            old = mcp_server(upstream, settings, base=base)
            stack.push_async_callback(old.aclose)
            pinned = await old.describe()
        asked = msgspec.structs.replace(upstream, definitions=msgspec.UNSET, digest=msgspec.UNSET)
        server = mcp_server(asked, settings, base=base)
        stack.push_async_callback(server.aclose)
        return _Found(tools=await server.describe(bearer=secret), pinned=pinned, odd=server.problems())


def _write(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigInvalid(
            f"`{path}` cannot be written: {error.strerror}", hint="name a new file; what is pinned is not written over"
        ) from error


def _print(found: _Found, digest: str, out: Path | None) -> None:
    """The tools, and where they were written, as the configuration names it."""
    screen = console()
    for name in found.names:
        now = found.now(name)
        title = found.tools[name].description.partition("\n")[0][:100] if name in found.tools else ""
        mark = f" [{_COLOURS[now]}]{now}[/]" if now else ""
        screen.print(f"[bold]{quoted(name)}[/bold]{mark}  {quoted(title)}")
    for odd in found.odd:
        screen.print(f"[yellow]warning[/yellow]  {quoted(odd)}")
    if out is not None:
        screen.print("\nWritten. Read it, then set under the upstream:")
        screen.print(f"    definitions: {quoted(str(out))}\n    digest: {digest}")
