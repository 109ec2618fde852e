"""`onbehalf db`: what stands inside databases, as SQL for whoever owns them. The record is in db_ledger.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.app import load_settings
from onbehalf.cli.db_ledger import ledger
from onbehalf.cli.screen import ConfigFile
from onbehalf.config import PostgresUpstream, Settings
from onbehalf.doors.secret_reference import resolved
from onbehalf.errors import ConfigInvalid
from onbehalf.validate.wall import key_sql, plan, wall_sql
from onbehalf.validate.wall_claim import claim_key

__all__ = ["app"]

app = typer.Typer(help="Print what stands inside databases: walls, the record.", no_args_is_help=True)
app.command("ledger")(ledger)


@app.callback()
def _main() -> None:
    pass


@app.command("wall")
def wall(
    upstream: Annotated[str, typer.Argument(help="Which upstream, where several are PostgreSQL.")] = "",
    config: ConfigFile = Path("onbehalf.yaml"),
    key: Annotated[
        bool, typer.Option("--key", help="Print instead the statement that makes the wall's key known. It is secret.")
    ] = False,
    reader: Annotated[str, typer.Option(help="The role that the gateway reads as.")] = "gw_ro",
    writer: Annotated[str, typer.Option(help="The role that it writes as, where a tool writes.")] = "gw_rw",
) -> None:
    """Print the SQL that builds the wall: roles, row security and signed claims.

    Read it, then run it as the owner of the tables or a superuser; it can be run again, and holds no
    secret. It works for the tables that the upstream lists under `tables`. Afterwards set the roles'
    passwords, and give the database the key: pipe what --key prints, and keep it nowhere.

    Example: onbehalf db wall > wall.sql && psql -f wall.sql hr && onbehalf db wall --key | psql hr
    """
    settings = load_settings(config)
    name, found = _chosen(settings, upstream)
    if key:
        typer.echo(_key(name, found, config), nl=False)
        return
    typer.echo(wall_sql(plan(found, reader=reader, writer=writer)), nl=False)


def _chosen(settings: Settings, name: str) -> tuple[str, PostgresUpstream]:
    known = {key: each for key, each in settings.upstreams.items() if isinstance(each, PostgresUpstream)}
    if not known:
        raise ConfigInvalid("no upstream is of kind `postgres`", hint="docs/your-database.md says how to add one")
    if name in known or (not name and len(known) == 1):
        return next((key, each) for key, each in known.items() if name in ("", key))
    listed = ", ".join(f"`{key}`" for key in sorted(known))
    raise ConfigInvalid(
        f"no upstream `{name}` is of kind `postgres`" if name else "several upstreams are of kind `postgres`",
        hint=f"name one of {listed}",
    )


def _key(name: str, upstream: PostgresUpstream, config: Path) -> str:
    """The statement with the secret, which is for a pipe and not for a screen. Raises ConfigInvalid."""
    if not isinstance(upstream.wall_key, str):
        raise ConfigInvalid(f"upstream `{name}` has no `wall_key`", hint="make one: openssl rand -hex 32")
    if sys.stdout.isatty():
        raise ConfigInvalid(
            "the key is not shown on a screen", hint="give it to psql: onbehalf db wall --key | psql ..."
        )
    secret = resolved(upstream.wall_key, base=config.resolve().parent, what="wall_key")
    return key_sql(claim_key(secret.encode()))
