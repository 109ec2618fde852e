"""`onbehalf db`: what stands inside databases, and the tables of the gateways' own, as SQL for whoever owns them.

The record is in db_ledger.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.cli.db_ledger import ledger
from onbehalf.cli.screen import ConfigFile
from onbehalf.config import PostgresUpstream, Settings
from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.state_schema import state_sql
from onbehalf.errors import ConfigInvalid
from onbehalf.places import load_settings
from onbehalf.validate.wall import key_sql, plan, wall_sql
from onbehalf.validate.wall_claim import claim_key

__all__ = ["app"]

app = typer.Typer(
    help="Print SQL for databases: walls, tables that gateways share, the record.",
    no_args_is_help=True,
)
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


@app.command("state")
def state(
    apply: Annotated[
        str,
        typer.Option(
            "--apply", metavar="REFERENCE",
            help="Run it, as the owner whose DSN stands at `env:NAME` or `file:path`. It is not kept.",
        ),
    ] = "",
    role: Annotated[str, typer.Option(help="The role that the gateways log in as.")] = "gw_state",
    insecure_tls: Annotated[
        bool, typer.Option("--insecure-tls-for-tests", help="Do not verify the server's name beyond this machine.")
    ] = False,
) -> None:  # fmt: skip
    """Print the SQL of what gateways remember together (`gateway.state`): tables, and a role for the gateways.

    Read it, then run it as whoever shall own the tables, who is not the gateways' role; it can be run
    again, and holds no secret. Afterwards set the role's password, and name the role in the DSN that
    `gateway.state.postgres.dsn` refers to.

    Example: onbehalf db state | psql gateway
    """
    script = state_sql(role=role)
    if not apply:
        typer.echo(script, nl=False)
        return
    _apply(script, apply, insecure_tls=insecure_tls)
    typer.echo(f"The tables are there. Now set the password of `{role}`, and give its DSN to the gateways.")


def _apply(script: str, reference: str, *, insecure_tls: bool) -> None:
    """Run it, all or nothing. Raises ConfigInvalid."""
    # with it comes a client library, which printing does without
    import psycopg

    from onbehalf.doors.upstream_postgres_dsn import safe_dsn

    dsn = safe_dsn(resolved(reference, base=Path(), what="--apply"), what="--apply", insecure_tls=insecure_tls)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(script.removeprefix("\\set ON_ERROR_STOP on\n").encode())
    except psycopg.Error as error:
        told = error.diag.message_primary or "the database cannot be reached, or does not know who this is"
        raise ConfigInvalid(f"nothing was made: {told}", hint="run it as who may make schemas and roles") from error


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
