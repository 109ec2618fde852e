"""`onbehalf db ledger`: the record inside a PostgreSQL database, as SQL for whoever owns the database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onbehalf.cli.screen import ConfigFile, console
from onbehalf.config_ledger import LedgerSettings, PostgresLedgerSettings
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.secret_reference import resolved
from onbehalf.errors import ConfigInvalid
from onbehalf.places import load_settings, log_origin, make_data, paths

__all__ = ["ledger"]


def ledger(
    config: ConfigFile = Path("onbehalf.yaml"),
    apply: Annotated[
        str, typer.Option("--apply", help="Run it instead, with the owner's DSN: env:NAME or file:PATH.")
    ] = "",
) -> None:
    """Print the SQL that makes the record in PostgreSQL: tables, the functions that append, roles.

    Read it, then run it as a superuser, or as one who may create roles and schemas there; it can be
    run again. It holds no secret. The empty log in it is signed with log.key, made if it is missing:
    every replica needs that key. Then make the gateway's login, as the SQL's last lines say.

    Example: onbehalf db ledger > ledger.sql && psql -f ledger.sql onbehalf
    """
    from onbehalf.doors.ledger_postgres_schema import schema_sql

    settings = load_settings(config)
    places = paths(config, settings)
    if places.ledger.exists():
        raise ConfigInvalid(
            f"this log is in `{places.ledger}` already, and one log cannot have two beginnings",
            hint="begin another one: another `log_origin` and new keys, in a new `data`; keep the old one to be read",
        )
    make_data(places)
    text = schema_sql(open_ledger_keys(places.keys, origin=log_origin(settings)).signer)
    if not apply:
        typer.echo(text, nl=False)
        return
    _run(text, resolved(apply, base=config.resolve().parent, what="--apply"), settings.gateway.ledger)
    console().print("The record is made. Its last lines say how the gateway's login is: onbehalf db ledger | tail -4")


def _run(text: str, reference: str, asked: LedgerSettings) -> None:
    import psycopg

    from onbehalf.doors.upstream_postgres_dsn import safe_dsn

    insecure = (asked.postgres or PostgresLedgerSettings(dsn="env:UNUSED")).insecure_tls_for_tests
    dsn = safe_dsn(reference, what="--apply", insecure_tls=insecure)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(text.encode())
    except psycopg.Error as error:
        said = error.diag.message_primary or str(error).strip().split("\n")[0]
        raise ConfigInvalid(f"the record could not be made: {said}", hint="nothing was changed") from error
