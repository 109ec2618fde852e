"""`onbehalf people`: who is who, from a file of any size or the company's own tables, and what is known of somebody."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.cli.screen import AsJson, ConfigFile, console, plain, print_json
from onbehalf.config import Settings
from onbehalf.doors.clock_system import now
from onbehalf.doors.directory_feeds import feed_of, opened
from onbehalf.doors.directory_file import FileFeed, is_feed
from onbehalf.doors.directory_load import Feed, Loaded, Progress, load, release
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.directory_tell import Told, tell, tenants
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json
from onbehalf.places import Paths, load_settings, make_data, paths

__all__ = ["app", "known_tenant"]

app = typer.Typer(help="Load, pull and show the people of the directory.", no_args_is_help=True)

Tenant = Annotated[str, typer.Option("--tenant", "-t", help="Whose people; needed where there are several tenants.")]
AtMost = Annotated[
    float | None,
    typer.Option(
        "--deactivate-at-most", min=0.0, max=1.0, show_default="as configured", metavar="SHARE",
        help="Allow this once that so large a share of the active people is no longer there: 1 for all.",
    ),
]  # fmt: skip


@app.command("load")
def load_(
    file: Annotated[Path | None, typer.Argument(help="JSON Lines or CSV; by default what `people` names.")] = None,
    tenant: Tenant = "",
    config: ConfigFile = Path("onbehalf.yaml"),
    at_most: AtMost = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant's people what a .jsonl or .csv file says.

    The old people are served until the whole file is read and checked; then the new ones at once.
    A load that was broken off goes on where it stopped when it is run again with the same file.
    Who is no longer in the file stays known and is not active. A running gateway sees it at once.

    Example: onbehalf people load people.jsonl --tenant acme
    """
    settings, places = _opened(config)
    path = file or places.people
    if not is_feed(path):
        raise ConfigInvalid(
            f"`{path.name}` is not loaded like this",
            hint="name a .jsonl or .csv file; a gateway reads people.yaml when it starts, and on SIGHUP",
        )
    _load(places, known_tenant(settings, tenant), FileFeed(path), _share(settings, at_most), as_json)


@app.command("pull")
def pull(
    tenant: Tenant = "",
    config: ConfigFile = Path("onbehalf.yaml"),
    at_most: AtMost = None,
    as_json: AsJson = False,
) -> None:
    """Ask a tenant's own tables now, as the gateway does every so often.

    The query is in the configuration, under directory and feeds. What it gives is checked as a whole
    before any of it counts; where it fails, the old people stay.

    Example: onbehalf people pull --tenant acme
    """
    settings, places = _opened(config)
    feed = feed_of(settings, tenant)
    source = opened(feed, base=places.config.resolve().parent)
    _load(places, feed.tenant, source, _share(settings, at_most), as_json)


@app.command("show")
def show(
    person: Annotated[str, typer.Argument(help="Their id, or the subject of a login.")],
    tenant: Tenant = "",
    config: ConfigFile = Path("onbehalf.yaml"),
    as_json: AsJson = False,
) -> None:
    """Print what the directory knows of one person: who is above them, and what they are in.

    Example: onbehalf people show alice --tenant acme
    """
    settings = load_settings(config)
    found = tell(paths(config, settings).directory, known_tenant(settings, tenant), person)
    if found is None:
        raise ConfigInvalid(f"there is no `{person}`", hint="`onbehalf people status` lists tenants and their feeds")
    if as_json:
        logins: list[Json] = [{"issuer": issuer, "subject": subject} for issuer, subject in found.logins]
        print_json({**asdict(found), "above": [*found.above], "groups": [*found.groups], "logins": logins})
        return
    _print(found)


@app.command("status")
def status(config: ConfigFile = Path("onbehalf.yaml"), as_json: AsJson = False) -> None:
    """Print every tenant: where its people come from, how many, and when that last went well.

    Example: onbehalf people status --json
    """
    settings = load_settings(config)
    found = tenants(paths(config, settings).directory)
    if as_json:
        print_json({"tenants": [asdict(each) for each in found]})
        return
    for each in found:
        when = "" if each.succeeded is None else f", last read {_at(each.succeeded)}"
        line = f"{each.tenant}  from {each.source}  {each.people} people, {each.active} active{when}"
        console().print(plain(line), markup=False)
        if each.problem and each.tried is not None:
            console().print(plain(f"  failed {_at(each.tried)}: {each.problem}"), markup=False)


@app.command("release")
def release_(
    tenant: Annotated[str, typer.Argument(help="The tenant whose people are forgotten.")],
    config: ConfigFile = Path("onbehalf.yaml"),
) -> None:
    """Forget a tenant's people, so that they can come from elsewhere.

    Until they do, nobody of that tenant is known, and every call of theirs is refused.

    Example: onbehalf people release acme && onbehalf people load people.csv --tenant acme
    """
    _, places = _opened(config)
    release(places.directory, tenant)
    console().print(plain(f"{tenant} is forgotten; load its people from where they come now."), markup=False)


def _opened(config: Path) -> tuple[Settings, Paths]:
    """The settings, with a directory file there."""
    settings = load_settings(config)
    places = paths(config, settings)
    make_data(places)
    SqliteDirectory.open(places.directory).close()
    return settings, places


def known_tenant(settings: Settings, named: str) -> str:
    """The tenant of that name, or the only one for "". Raises ConfigInvalid."""
    known: set[str] = set()
    for issuer in settings.issuers:
        known |= {issuer.tenant} if isinstance(issuer.tenant, str) else set(issuer.tenant.allowed)
    listed = ", ".join(f"`{each}`" for each in sorted(known))
    if named and named not in known:
        raise ConfigInvalid(f"no issuer may speak for the tenant `{named}`", hint=f"known are {listed}")
    if not named and len(known) != 1:
        raise ConfigInvalid("there are several tenants", hint=f"add --tenant with one of {listed}")
    return named or next(iter(known))


def _share(settings: Settings, at_most: float | None) -> float:
    return settings.directory.deactivates_at_most if at_most is None else at_most


def _load(places: Paths, tenant: str, feed: Feed, share: float, as_json: bool) -> None:
    with _progress() as said:
        loaded = load(places.directory, tenant, feed, now=now(), deactivates_at_most=share, progress=said)
    if as_json:
        print_json({"tenant": tenant, **asdict(loaded)})
        return
    console().print(plain(_summary(tenant, loaded)), markup=False)


def _summary(tenant: str, loaded: Loaded) -> str:
    went_on = ", gone on with where an earlier load stopped" if loaded.resumed else ""
    return (
        f"{tenant}: {loaded.people} people, {loaded.added} new, {loaded.changed} changed, "
        f"{loaded.deactivated} no longer active; revision {loaded.revision}{went_on}"
    )


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Bars on a terminal, a step each; nothing elsewhere."""
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    tasks: dict[str, TaskID] = {}
    with Bars(console=console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:

        def said(step: Progress) -> None:
            if step.step not in tasks:
                tasks[step.step] = bars.add_task(step.step)
            bars.update(tasks[step.step], completed=step.done, total=step.total or None)

        yield said


def _print(found: Told) -> None:
    logins = [f"{subject} at {issuer}" for issuer, subject in found.logins]
    lines = {
        "": f"{found.id}  {found.name}{'' if found.active else '  (no longer active)'}",
        "position": found.position, "below": ", ".join(found.above), "groups": ", ".join(found.groups),
        "logs in as": ", ".join(logins),
        "attributes": ", ".join(f"{key}: {value}" for key, value in sorted(found.attributes.items())),
    }  # fmt: skip
    for name, said in lines.items():
        console().print(plain(f"{name:<12}{said or '-'}" if name else said), markup=False)


def _at(when: int) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
