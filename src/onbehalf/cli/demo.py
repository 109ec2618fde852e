"""`onbehalf demo`: the whole story on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from onbehalf.errors import ConfigInvalid

__all__ = ["demo"]


def demo(
    data: Annotated[Path, typer.Option("--data", help="Where the demo's files go; kept afterwards.")] = Path(
        "demo-data"
    ),
    once: Annotated[
        bool, typer.Option("--once", help="Play the story, then end; 0 only if every step was as told.")
    ] = False,
    any_port: Annotated[
        bool, typer.Option("--any-port", help="Take free ports instead of 8100, 8101, 8110 to 8112.")
    ] = False,
    database: Annotated[
        Literal["sqlite", "postgres"],
        typer.Option("--database", help="Where HR's rows are: in a SQLite file, or in a PostgreSQL that it starts."),
    ] = "sqlite",
) -> None:
    """Play the story with made-up people, then serve it for a client of your own.

    It starts an OAuth issuer, an HR database, a ticket system and the gateway, all on 127.0.0.1,
    and lets Alice, Bob and Dave ask for performance reviews and change tickets through a real
    MCP client. Nothing leaves this machine.

    Example: onbehalf demo --once --any-port --data /tmp/demo
    """
    from onbehalf.demo.run import Ports, run  # with it comes the whole SDK, which `serve` does without

    ports = Ports(gateway=0, admin=0, issuer=0, tickets=0, orders=0) if any_port else None
    try:
        code = run(data, once=once, ports=ports, database=database)
    except OSError as error:
        raise ConfigInvalid(
            f"the demo cannot be written to `{data}`: {error}", hint="name another by --data"
        ) from error
    raise typer.Exit(code)
