"""`onbehalf audit reconcile`: the record held against what backends themselves kept; the result goes on record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.cli.audit_export import place_of
from onbehalf.cli.explain import opened
from onbehalf.cli.reading import Purpose, delivered, noted
from onbehalf.cli.screen import AsJson, ConfigFile, console, print_json, quoted
from onbehalf.config import Settings
from onbehalf.config_upstreams import audience_of
from onbehalf.doors.backend_records import Records, read_records
from onbehalf.doors.clock_system import now
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sendings import Sent, denied, holds, sent
from onbehalf.doors.ledger_spool import Spool
from onbehalf.errors import ConfigInvalid
from onbehalf.explain.channel import channel_of
from onbehalf.explain.reading import Read
from onbehalf.explain.reconcile import Account, Asked, Row, account, reconciled
from onbehalf.model import AuditEntry, Json
from onbehalf.model_json import plain
from onbehalf.places import load_settings, paths

__all__ = ["reconcile"]

_SHOWN = 50
_LATEST = 1000
_TOLERANCE_S = 5


def reconcile(
    start: Annotated[str, typer.Option("--from", help="A time (UTC), such as 2026-11-01, or a record's number.")] = "0",
    end: Annotated[str, typer.Option("--to", help="The same, not included; by default all up to now.")] = "",
    backend: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SOURCE", help="What a backend itself kept; also several.")
    ] = None,
    wait: Annotated[float, typer.Option(min=0, max=600, help="Seconds for a running gateway to record it.")] = 20,
    purpose: Purpose = "",
    config: ConfigFile = Path("onbehalf.yaml"),
    as_json: AsJson = False,
) -> None:
    """Hold the record against backends' own: what was sent, done, and done without the gateway.

    NAME is an upstream of onbehalf.yaml, or the audience of its call tokens. SOURCE is a .jsonl, .csv
    or .db file with its onbehalf_calls, pgaudit:FILE (PostgreSQL's CSV log), or env:NAME or file:PATH
    with a PostgreSQL DSN. The result is put on record, also while the gateway serves. Exit 1 if
    anything is wrong. A backend without SOURCE is told of, and nothing is said of what else it did.

    Example: onbehalf audit reconcile --from 2026-11-01 --backend orders=orders.jsonl
    """
    settings = load_settings(config)
    upstreams = _upstreams(settings)
    sources = dict(_source(each, upstreams) for each in backend or ())
    reader = opened(config)
    try:
        span = sent(reader, place_of(start), place_of(end) if end else None)
        records = {audience: read_records(each, base=config.resolve().parent) for audience, each in sources.items()}
        accounts = _accounts(reader, span, upstreams, records)
    finally:
        reader.close()
    told: dict[str, Json] = {
        audience: {"kind": each.kind, "sha256": each.digest, "rows": len(each.rows)}
        for audience, each in records.items()
    }
    filters: dict[str, Json] = {"from": start, "to": end, "backends": [*sorted(sources)]}
    read = Read(
        command="audit reconcile", start=span.start, end=span.end, records=span.end - span.start, filters=filters,
        purpose=purpose,
    )  # fmt: skip
    noted(paths(config, settings), read)
    entry = reconciled(accounts, told, span=_span(span), now=now())
    index = _recorded(config, settings, entry, wait)
    bad = any(each.bad for each in accounts)
    if as_json:
        print_json({"ok": not bad, "record": index, **plain(entry.facts)})
    else:
        _print(span, accounts, index)
    raise typer.Exit(1 if bad else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upstream:
    """An upstream of the configuration, and whether its backend is to sign for its answers."""

    name: str
    audience: str
    signs: bool


def _upstreams(settings: Settings) -> list[_Upstream]:
    return [
        _Upstream(name=name, audience=audience_of(name, each), signs=bool(getattr(each, "receipt_keys", "")))
        for name, each in settings.upstreams.items()
    ]


def _source(text: str, upstreams: Sequence[_Upstream]) -> tuple[str, str]:
    """Audience and source of one --backend."""
    name, equals, source = text.partition("=")
    if not equals or not name or not source:
        raise ConfigInvalid(f"`{text}` is no backend and source", hint="such as --backend orders=orders.jsonl")
    return next((each.audience for each in upstreams if each.name == name), name), source


def _accounts(
    reader: LedgerReader, span: Sent, upstreams: Sequence[_Upstream], records: Mapping[str, Records]
) -> list[Account]:
    """One for each backend that was sent to or gave its record; a channel that no configured upstream has goes by its
    own name."""
    origin = reader.verifier.name
    audiences = {channel_of(origin, each): each for each in [*(one.audience for one in upstreams), *records]}
    given = {channel_of(origin, audience): each for audience, each in records.items()}
    signs = {each.audience for each in upstreams if each.signs}
    made = []
    for channel in sorted({*span.channels, *given}):
        audience = audiences.get(channel, channel)
        rows = _of_span(reader, span, channel, given[channel].rows) if channel in given else None
        sendings = span.channels.get(channel, [])
        known = {each.index for each in sendings}
        strays = [
            each.call for each in rows or () if each.call and (each.index not in known or each.channel != channel)
        ]
        asked = Asked(
            audience=audience, channel=channel, sendings=sendings, rows=rows, denied=denied(reader, strays),
            receipts=audience in signs, now=now(),
        )  # fmt: skip
        made.append(account(asked))
    return made


def _of_span(reader: LedgerReader, span: Sent, channel: str, rows: Sequence[Row]) -> list[Row]:
    """The rows that belong to the span: by their intent, or, where they name none or are of a channel that is not this
    log's, by their time. One whose intent the log does not have by now belongs to it, too."""
    later = holds(reader, [each.index for each in rows if each.index >= span.size])

    def within(row: Row) -> bool:
        if row.index >= 0 and row.channel in ("", channel):
            return span.start <= row.index < span.end or (row.index >= span.size and row.index not in later)
        if span.first_at is None or span.last_at is None:
            return False
        return span.first_at - _TOLERANCE_S <= row.at <= span.last_at + _TOLERANCE_S

    return [each for each in rows if within(each)]


def _span(span: Sent) -> dict[str, Json]:
    return {
        "from": span.start, "to": span.end, "first_at": span.first_at, "last_at": span.last_at,
        "uncounted": span.uncounted,
    }  # fmt: skip


def _recorded(config: Path, settings: Settings, entry: AuditEntry, wait: float) -> int | None:
    """Where the entry is on record; None where a gateway that serves did not take it in time. It will at its next
    start at the latest."""
    places = paths(config, settings)
    name = Spool(places.spool).put(entry)
    if not delivered(name, places, settings, wait=wait):
        return None
    reader = opened(config)
    try:
        found = [each.index for each in reader.latest(_LATEST) if each.facts.get("spooled") == name]
    finally:
        reader.close()
    return found[-1] if found else None


def _print(span: Sent, accounts: Sequence[Account], index: int | None) -> None:
    screen = console()
    bad = [(each, one) for each in accounts for one in each.findings if one.bad]
    if bad:
        screen.print(f"[bold red]{len(bad)} things are wrong[/bold red] in records {span.start} to {span.end}:")
    for of, one in bad[:_SHOWN]:
        place = f"record {one.index}, number {one.number}, {one.call}" if one.index >= 0 else of.audience
        screen.print(quoted(f"  {one.kind}: {one.text} ({place}; {of.audience})"))
    if len(bad) > _SHOWN:
        screen.print(f"  … and {len(bad) - _SHOWN} more (--json lists up to 500)")
    for each in accounts:
        told = ", ".join(f"{count} {name}" for name, count in sorted(each.counts.items()))
        state = (
            "complete" if each.complete else "NOT COMPLETE" if each.compared else "not compared: no record was given"
        )
        grade = f" at grade {each.grade}" if each.complete else ""
        screen.print(quoted(f"{each.audience}: {state}{grade}; {told or 'nothing was sent'}"))
    if span.uncounted:
        screen.print(f"{span.uncounted} intents are from before calls were numbered, and were not compared.")
    if not accounts:
        screen.print("Nothing was sent in that span, and no backend's record was given.")
    where = f"record {index}" if index is not None else "not on record yet: a gateway that serves has it to take"
    screen.print(f"The result is {where}.")
