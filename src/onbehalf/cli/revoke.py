"""`onbehalf revoke`: stop a person, a client or a whole tenant at once, and let them go on."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onbehalf.build_state import shared_revocations
from onbehalf.cli.people import known_tenant
from onbehalf.cli.screen import AsJson, ConfigFile, console, plain, print_json, user
from onbehalf.doors.clock_system import now
from onbehalf.doors.directory_tell import tell
from onbehalf.doors.revocations_sqlite import Kind, Revocation, Revocations
from onbehalf.errors import ConfigInvalid
from onbehalf.places import load_settings, make_data, paths

if TYPE_CHECKING:
    from onbehalf.doors.revocations_postgres import RevocationTable

__all__ = ["app"]

app = typer.Typer(help="Stop a person, a client or a whole tenant at once, and let them go on.", no_args_is_help=True)

Tenant = Annotated[str, typer.Option("--tenant", "-t", help="Of which tenant; needed where there are several.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why, in a few words. It goes on record.")]
TokensOnly = Annotated[
    bool, typer.Option("--tokens-only", help="Only end what was issued until now; whoever logs in again goes on.")
]  # fmt: skip


@app.command("person")
def person(
    who: Annotated[str, typer.Argument(help="Their id in the directory, or the subject of a login.")],
    reason: Reason = "",
    tenant: Tenant = "",
    tokens_only: TokensOnly = False,
    config: ConfigFile = Path("onbehalf.yaml"),
) -> None:
    """Refuse every call of this person, within a second, whatever client they use.

    Until it is lifted nothing they present is taken. Tokens from before it are worth nothing for good.

    Example: onbehalf revoke person bob --tenant acme --reason "laptop stolen"
    """
    settings = load_settings(config)
    of = known_tenant(settings, tenant)
    found = tell(paths(config, settings).directory, of, who)
    if found is None:
        raise ConfigInvalid(
            f"there is no `{who}` in `{of}`", hint="`onbehalf people show` finds people; nobody was stopped"
        )
    _add(config, "person", of, found.id, reason, tokens_only)


@app.command("client")
def client(
    client_id: Annotated[str, typer.Argument(help="The client's id, as tokens name it.")],
    reason: Reason = "",
    tenant: Tenant = "",
    tokens_only: TokensOnly = False,
    config: ConfigFile = Path("onbehalf.yaml"),
) -> None:
    """Refuse every call that comes through this client, of whomever in the tenant.

    Example: onbehalf revoke client chat-app --tenant acme --reason "leaks prompts"
    """
    if not client_id.strip():
        raise ConfigInvalid("a client has an id", hint="`onbehalf explain last` says through which client a call came")
    _add(config, "client", known_tenant(load_settings(config), tenant), client_id, reason, tokens_only)


@app.command("tenant")
def tenant_(
    tenant: Annotated[str, typer.Argument(help="Which tenant.")],
    reason: Reason = "",
    tokens_only: TokensOnly = False,
    config: ConfigFile = Path("onbehalf.yaml"),
) -> None:
    """Refuse every call of everybody in this tenant.

    Example: onbehalf revoke tenant acme --reason "incident 17"
    """
    _add(config, "tenant", known_tenant(load_settings(config), tenant), "", reason, tokens_only)


@app.command("list")
def list_(config: ConfigFile = Path("onbehalf.yaml"), as_json: AsJson = False) -> None:
    """Print every revocation there ever was, with who said so and why.

    Example: onbehalf revoke list --json
    """
    with _opened(config) as file:
        found = file.all()
    if as_json:
        print_json({"revocations": [{**asdict(each), "stops": each.stops} for each in found]})
        return
    for each in found:
        console().print(plain(_line(each)), markup=False)
    if not found:
        console().print("Nobody was ever stopped.")


@app.command("lift")
def lift(
    number: Annotated[int, typer.Argument(help="Its number in `onbehalf revoke list`.")],
    config: ConfigFile = Path("onbehalf.yaml"),
) -> None:
    """Let somebody go on who was stopped. They log in again: their old tokens stay worth nothing.

    Example: onbehalf revoke lift 3
    """
    with _opened(config) as file:
        found = file.lift(number, at=now(), by=user())
    if found is None:
        raise ConfigInvalid(f"number {number} stops nobody", hint="`onbehalf revoke list` lists all")
    console().print(plain(_line(found)), markup=False)


def _add(config: Path, kind: Kind, tenant: str, name: str, reason: str, tokens_only: bool) -> None:
    if not reason.strip() or len(reason) > 500:
        raise ConfigInvalid(
            "a revocation has a reason", hint='say why in up to 500 characters: --reason "laptop stolen"'
        )
    with _opened(config) as file:
        made = file.add(kind, tenant, name, at=now(), blocks=not tokens_only, by=user(), reason=reason.strip())
    screen = console()
    screen.print(plain(_line(made)), markup=False)
    screen.print("A running gateway sees it within a second, and puts it on record with its next call.")


@contextlib.contextmanager
def _opened(config: Path) -> Iterator[Revocations | RevocationTable]:
    settings = load_settings(config)
    places = paths(config, settings)
    if settings.gateway.state is not None:
        with shared_revocations(settings.gateway.state.postgres, base=config.resolve().parent) as table:
            yield table
        return
    make_data(places)
    file = Revocations.open(places.revocations)
    try:
        yield file
    except sqlite3.Error as error:
        raise ConfigInvalid(
            f"`{places.revocations}` cannot be used: {error}", hint="nothing was changed; run it as the gateway's user"
        ) from error
    finally:
        file.close()


def _line(each: Revocation) -> str:
    whom = f"{each.kind} {each.name} of {each.tenant}" if each.name else f"{each.kind} {each.tenant}"
    what = "stopped" if each.blocks else "tokens ended"
    lifted = f"; lifted {_at(each.lifted)} by {each.lifted_by}" if each.lifted is not None else ""
    return f"{each.id}  {whom}  {what} {_at(each.at)} by {each.by}: {each.reason}{lifted}"


def _at(when: int) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
