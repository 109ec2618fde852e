"""`onbehalf audit send`: the record to where `sinks` says, from a process that no call waits for."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.build_ledger import ledger_store, reading_keys
from onbehalf.cli.plain import plain
from onbehalf.cli.reading import Purpose, noted
from onbehalf.cli.screen import AsJson, ConfigFile, console, print_json
from onbehalf.config import Settings
from onbehalf.doors.sink_configured import configured
from onbehalf.doors.sink_send import Sending, send
from onbehalf.doors.sink_source import Cursor, Source
from onbehalf.errors import ConfigInvalid, LedgerCorrupt, OnbehalfError, SinkUnavailable
from onbehalf.explain.reading import Read
from onbehalf.model import Json
from onbehalf.places import VERSION, Paths, load_settings, log_origin, paths, trust_domain

__all__ = ["send_"]


@dataclass(slots=True)
class _Ends:
    """How each sink's thread ended."""

    sent: dict[str, int] = field(default_factory=dict)
    failed: dict[str, OnbehalfError] = field(default_factory=dict)


def send_(
    names: Annotated[list[str] | None, typer.Argument(help="Which sinks; all by default.", metavar="[SINK]...")] = None,
    config: ConfigFile = Path("onbehalf.yaml"),
    once: Annotated[bool, typer.Option("--once", help="End when all that is on record now was sent.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Send nothing; print how far each sink is.")] = False,
    purpose: Purpose = "",
    as_json: AsJson = False,
) -> None:
    """Send views of the record to its sinks, in order, each record at least once.

    Runs beside the gateway, as a service of its own, until Ctrl-C or SIGTERM. Where it stopped or
    was killed it goes on. What leaves is said under sinks in onbehalf.yaml; arguments only if asked.
    Each start goes on record.

    Example: onbehalf audit send --once siem
    """
    settings = load_settings(config)
    wanted = names or [*settings.sinks]
    for name in wanted:
        if name not in settings.sinks:
            known = ", ".join(f"`{each}`" for each in settings.sinks) or "none"
            raise ConfigInvalid(f"there is no sink `{name}`", hint=f"under `sinks` are {known}")
    if not wanted:
        raise ConfigInvalid("there is nowhere to send to", hint="list sinks in onbehalf.yaml: docs/audit-views.md")
    places = paths(config, settings)
    if status:
        _print_status(wanted, places, settings, as_json)
        return
    _note(wanted, settings, places, once=once, purpose=purpose)
    ends = _all(wanted, settings, places, once=once)
    told = dict(sorted(ends.sent.items()))
    if as_json:
        print_json({"sent": {**told}, "failed": {name: error.code for name, error in sorted(ends.failed.items())}})
    else:
        for name, count in told.items():
            console(stderr=True).print(plain(f"{name}: {count} records sent"), markup=False)
    for error in sorted(ends.failed.values(), key=lambda each: not isinstance(each, LedgerCorrupt)):
        raise error


def _note(names: list[str], settings: Settings, places: Paths, *, once: bool, purpose: str) -> None:
    """Say on record that from now on records leave: one record a start, however many are sent until it ends."""
    begins = {name: Cursor.look(_cursor(places, name)) for name in names}
    sinks: dict[str, Json] = {
        name: {"from": begins[name], "payload": settings.sinks[name].payload} for name in sorted(begins)
    }
    filters: dict[str, Json] = {"sinks": sinks, "once": once}
    noted(places, Read(command="audit send", start=min(begins.values()), filters=filters, purpose=purpose))


def _all(names: list[str], settings: Settings, places: Paths, *, once: bool) -> _Ends:
    """Send to each sink in a thread of its own, so that none waits for another."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s")
    logging.getLogger("onbehalf").setLevel(logging.INFO)
    stop, ends = threading.Event(), _Ends()
    for each in (signal.SIGTERM, signal.SIGINT):
        if threading.current_thread() is threading.main_thread():
            signal.signal(each, lambda *_: stop.set())
    threads = [
        threading.Thread(target=_one, args=(name, settings, places, once, stop, ends), name=name, daemon=True)
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)  # bounded, so that a signal is seen
    return ends


def _one(name: str, settings: Settings, places: Paths, once: bool, stop: threading.Event, ends: _Ends) -> None:
    """One sink until its end. Without `once`, a record that does not hold ends all: nothing after it may be sent."""
    try:
        ends.sent[name] = _sent(name, settings, places, once=once, stop=stop)
    except OnbehalfError as error:
        ends.failed[name] = error
    except Exception as error:  # a door's thread: what nobody foresaw ends this sink, and is said
        ends.failed[name] = SinkUnavailable(f"the sink `{name}` failed: {type(error).__name__}: {error}")
    if name in ends.failed and not once:
        stop.set()


def _sent(name: str, settings: Settings, places: Paths, *, once: bool, stop: threading.Event) -> int:
    one, origin = settings.sinks[name], log_origin(settings)
    keys = reading_keys(places, settings, origin=origin)
    cursor, store = Cursor(_cursor(places, name), log=origin), ledger_store(places, settings)
    try:
        source = Source(store, keys=keys, payload=one.payload, cursor=cursor)
        sink = configured(
            name, one, base=places.config.resolve().parent, keys=places.keys, issuer=trust_domain(settings),
            version=VERSION, next_=cursor.next,
        )  # fmt: skip
        try:
            sending = Sending(name=name, batch=one.batch, every_seconds=one.every_seconds, once=once)
            return send(sending, source, sink, stop=stop)
        finally:
            sink.close()
    finally:
        store.close()
        cursor.close()


def _cursor(places: Paths, name: str) -> Path:
    return places.data / "sinks" / f"{name}.json"


def _print_status(names: list[str], places: Paths, settings: Settings, as_json: bool) -> None:
    with ledger_store(places, settings).reading() as log:
        row = log.execute("SELECT size FROM head").fetchone()
    size = row[0] if row else 0
    reached = {name: Cursor.look(_cursor(places, name)) for name in names}
    if as_json:
        print_json({"size": size, "sinks": {name: {"next": at, "behind": size - at} for name, at in reached.items()}})
        return
    for name, at in reached.items():
        console().print(plain(f"{name}: {at} of {size} records delivered, {size - at} to come"), markup=False)
