"""`onbehalf keys`: the gateway's signing keys, and their rotation: with overlap, or on record."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.broker.grant import KIND
from onbehalf.build_broker import BROKER_KEYS
from onbehalf.build_ledger import changeable
from onbehalf.cli.screen import AsJson, ConfigFile, console, plain, print_json, quoted, user
from onbehalf.doors.clock_system import now
from onbehalf.doors.key_file import KeyFile
from onbehalf.doors.ledger_handover import hand_over
from onbehalf.doors.ledger_keys import make_next_keys, read_ledger_keys
from onbehalf.doors.signer_events import event_keys_path, read_event_keys
from onbehalf.doors.signer_file import FileSigner
from onbehalf.errors import ConfigInvalid
from onbehalf.explain.handover import keys_named
from onbehalf.places import Paths, load_settings, log_origin, paths, trust_domain

__all__ = ["app"]

app = typer.Typer(
    help="Show and rotate the keys of call tokens, of the broker, of events and of the record.", no_args_is_help=True
)


@app.command("show")
def show(config: ConfigFile = Path("onbehalf.yaml"), as_json: AsJson = False) -> None:
    """Print the ids of the keys that sign call tokens, and the record's public key.

    With --json also the keys themselves, as /.well-known/jwks.json serves them: backends check
    call tokens with those. The line of the record is what an auditor needs as --vkey.

    Example: onbehalf keys show --json
    """
    places, signer = _signer(config)
    log_pub = _log_pub(places.keys / "log.pub")
    events = _events(places)
    if as_json:
        told = {"events": dict(events.jwks())} if events is not None else {}
        print_json({"jwks": dict(signer.jwks()), "log": log_pub, **told})
        return
    screen = console()
    for name, kid in zip_longest(("next", "current"), signer.kids, fillvalue="former"):
        screen.print(f"{name:<9} {kid}")
    if events is not None:
        screen.print(f"events    {events.kids[1]}")
    screen.print(plain(f"record    {log_pub or '(no record yet)'}"), markup=False)


@app.command("rotate")
def rotate(
    config: ConfigFile = Path("onbehalf.yaml"),
    lost: Annotated[
        bool, typer.Option("--lost", help="The keys may have been read: replace all at once and publish none of them.")
    ] = False,
) -> None:
    """Let the next key sign from now on, and make a new next key.

    The next key has been published all along, so backends know it already; the one before stays
    published until no token of it can be alive. A running gateway takes it over on SIGHUP.
    Run it as the user that the gateway runs as, or the gateway cannot read the new file.

    Where the gateway is an authorization server itself (`broker`), the keys of its access tokens are
    rotated too; with --lost everybody's client then gets a new access token. So are the keys of
    security events, where a sink is pushed them.

    With --lost every key is new and none of the old is published any more. Backends that keep
    keys refuse calls until they ask again, at most 5 minutes, and believe the old keys as long:
    restart them if you cannot wait.

    Example: onbehalf keys rotate && kill -HUP <process id of the gateway>
    """
    places, signer = _signer(config)
    broker, events = _broker(config), _events(places)
    if events is not None:
        events.rotate(now(), lost=lost)
    if broker is not None:
        broker.rotate(now(), lost=lost)
    signer.rotate(now(), lost=lost)
    screen = console()
    screen.print("All keys are new." if lost else "Rotated.")
    screen.print("Now let the gateway take it over: kill -HUP <its process id>")
    if lost:
        screen.print(f"Then find out who could read {quoted(str(places.keys))}; the record's keys lie there too.")


@app.command("rotate-log")
def rotate_log(
    config: ConfigFile = Path("onbehalf.yaml"),
    login: Annotated[
        str,
        typer.Option(
            "--login", metavar="REFERENCE",
            help="With a record in PostgreSQL: the DSN of a login that may change its keys, at env:NAME or file:PATH.",
        ),
    ] = "",
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only make the new keys, beside the old ones, and print their lines.")
    ] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Let the record be signed by new keys from now on, and put that on record.

    No gateway of the record may run meanwhile. The change is a leaf that names the old and the new keys,
    under a head that all of them signed; bundles carry it, so auditors go on with the key that they know.
    The old keys are then deleted. Run it as the user that the gateway runs as. If it is broken off, the
    next start or the next run finishes it.

    With several gateways on one record, prepare first, copy data/keys to each machine, and stop them all:
    each takes the new keys when it starts.

    Witnesses, and a policy file that lists logs, must be told the new key: data/keys/log.pub.
    For a key that was stolen, read docs/witnesses.md first.

    Example: systemctl stop onbehalf && onbehalf keys rotate-log && systemctl start onbehalf
    """
    settings = load_settings(config)
    places, origin = paths(config, settings), log_origin(settings)
    if prepare:
        _prepared(places, origin, as_json=as_json)
        return
    record = changeable(places, settings, origin=origin, login=login)
    made = hand_over(record, places.keys, origin=origin, by=user(), at=now())
    before, after = keys_named(made)
    if as_json:
        print_json({"leaf": made.index, "before": list(before), "after": list(after)})
        return
    screen = console()
    screen.print(f"Heads of more than {made.index} leaves are signed by the new keys; leaf {made.index} says so.")
    screen.print(plain(f"record    {_log_pub(places.keys / 'log.pub')}"), markup=False, soft_wrap=True)
    screen.print("Now give these lines to witnesses, auditors and the policy file, then start the gateway.")
    if settings.gateway.ledger.postgres is not None:
        where = quoted(str(places.keys))
        screen.print(f"On other machines without the new keys: copy log.key, log-ml-dsa.key and log.pub from {where}.")


def _prepared(places: Paths, origin: str, *, as_json: bool) -> None:
    """The keys that are to come, made where they are missing. Those in force must be there."""
    before, after = read_ledger_keys(places.keys, origin=origin), make_next_keys(places.keys, origin=origin)
    if as_json:
        print_json({"before": list(before.vkeys), "after": list(after.vkeys)})
        return
    screen = console()
    screen.print(plain("next      " + "\n".join(after.vkeys)), markup=False, soft_wrap=True)
    screen.print("Nothing is changed yet. `onbehalf keys rotate-log` lets these keys come after those in force.")


def _signer(config: Path) -> tuple[Paths, FileSigner]:
    """The keys that are there. None are made: that is for the gateway, as the user that it runs as."""
    settings = load_settings(config)
    places = paths(config, settings)
    return places, FileSigner(places.keys, issuer=trust_domain(settings))


def _broker(config: Path) -> KeyFile | None:
    settings = load_settings(config)
    path = paths(config, settings).keys / BROKER_KEYS
    if settings.broker is None or not path.exists():
        return None
    return KeyFile(path, kind=KIND, lifetime_s=settings.broker.access_seconds)


def _events(places: Paths) -> KeyFile | None:
    return read_event_keys(places.keys) if event_keys_path(places.keys).exists() else None


def _log_pub(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"`{path}` cannot be read: {error}") from error
