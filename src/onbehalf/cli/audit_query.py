"""`onbehalf audit query`: questions to the record, in SQL or ready ones by name."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from onbehalf.build_ledger import ledger_store, reading_keys
from onbehalf.cli.plain import plain
from onbehalf.cli.reading import Purpose, noted
from onbehalf.cli.screen import AsJson, ConfigFile, console, print_json, quoted
from onbehalf.doors.clock_system import now
from onbehalf.doors.directory_tell import team_members
from onbehalf.doors.query_duckdb import Answer, Desk
from onbehalf.doors.query_records import Span, from_ledger, from_parquet
from onbehalf.errors import ConfigInvalid, QueryFailed
from onbehalf.explain.reading import Read
from onbehalf.explain.ready_questions import Question, calls_by, who_read
from onbehalf.explain.views_said import columns
from onbehalf.model import Json
from onbehalf.places import load_settings, log_origin, paths

__all__ = ["query"]

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SAFE_INTEGER = 2**53 - 1


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT over the table records.", metavar="[SQL]")] = "",
    read: Annotated[str, typer.Option("--who-read", metavar="TYPE", help="Who was given rows of this type.")] = "",
    team: Annotated[str, typer.Option(help="... about a group, all below a position, or a manager's people.")] = "",
    about: Annotated[str, typer.Option(metavar="PERSON", help="... about this person, such as acme/alice.")] = "",
    by: Annotated[str, typer.Option(metavar="PERSON", help="What this person asked for.")] = "",
    since: Annotated[str, typer.Option(help="Such as 30d, 12h or 2026-11-01 (UTC).")] = "",
    until: Annotated[str, typer.Option(help="The same; what is then is not in it.")] = "",
    parquet: Annotated[Path | None, typer.Option(help="Ask what a Parquet sink wrote instead.")] = None,
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many rows.")] = 1000,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="At most so long.")] = 60,
    names: Annotated[bool, typer.Option("--columns", help="List the columns.")] = False,
    purpose: Purpose = "",
    config: ConfigFile = Path("onbehalf.yaml"),
    as_json: AsJson = False,
) -> None:
    """Ask the record, in SQL or by a ready question.

    Reads it as it is now, payloads opened, also while the gateway runs; or what a Parquet sink
    wrote. Who is in a team is as the directory says today. What is asked of the record goes on record
    itself; what is asked of Parquet files does not.

    Example: onbehalf audit query --who-read Review --team acme/dir-platform --since 30d
    """
    if names:
        _print_columns()
        return
    question = _question(sql, read, about, by, team, config)
    span = Span(since=_moment(since, 0), until=_moment(until, 2**53))
    loaded = _Loaded()
    desk = Desk(_records(config, parquet, span, loaded))
    try:
        if parquet is None:
            asked = {
                "sql": sql,
                "who_read": read,
                "team": team,
                "about": about,
                "by": by,
                "since": since,
                "until": until,
            }
            _note(config, loaded, asked, purpose)
        answer = desk.ask(question.sql, question.values, most=rows, seconds=seconds)
        unseen = desk.ask(question.beside, most=1, seconds=seconds).rows[0][0] if question.beside else 0
    finally:
        desk.close()
    _print(answer, unseen, as_json)


def _question(sql: str, read: str, about: str, by: str, team: str, config: Path) -> Question:
    reads = bool(read or about or team)
    if sum((bool(sql), reads, bool(by))) != 1:
        raise QueryFailed("one question at a time", hint="a SELECT, --who-read, --about or --by")
    if sql:
        return Question(sql=sql)
    if by:
        return calls_by(by)
    if about and team:
        raise QueryFailed("--about and --team are two questions", hint="ask one after the other")
    if not team:
        return who_read(read, people=[about] if about else None)
    tenant, slash, name = team.partition("/")
    if not slash:
        raise QueryFailed(f"`{team}` is no team", hint="such as acme/sales: a tenant, and a group, position or person")
    settings = load_settings(config)
    found = team_members(paths(config, settings).directory, tenant, name)
    if not found:
        raise QueryFailed(f"nobody is in `{team}`", hint="a group, a position with people below it, or their manager")
    return who_read(read, people=sorted(found))


class _Loaded:
    """How many records were opened."""

    count = 0

    def progress(self, count: int) -> None:
        self.count = count
        if sys.stderr.isatty():
            console(stderr=True).print(f"{count} records …", end="\r")


def _note(config: Path, loaded: _Loaded, asked: Mapping[str, str], purpose: str) -> None:
    read = Read(command="audit query", records=loaded.count, filters={**asked}, purpose=purpose)
    noted(paths(config, load_settings(config)), read)


def _records(config: Path, parquet: Path | None, span: Span, loaded: _Loaded) -> Any:
    if parquet is not None:
        return from_parquet(parquet, span)
    settings = load_settings(config)
    places = paths(config, settings)
    keys = reading_keys(places, settings, origin=log_origin(settings))
    return from_ledger(ledger_store(places, settings), keys, span, loaded.progress)


def _moment(text: str, default: int) -> int:
    """A moment in Unix seconds: so long ago, or the beginning of a UTC day, or a full time."""
    if not text:
        return default
    if ago := re.fullmatch(r"(\d{1,6})([mhdw])", text):
        return max(0, now() - int(ago[1]) * _UNITS[ago[2]])
    try:
        found = datetime.fromisoformat(text)
        return max(0, int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError) as error:
        raise ConfigInvalid(f"`{text}` is no time", hint="such as 30d, 12h, 2026-11-01 or 2026-11-01T08:00") from error


def _print(answer: Answer, unseen: int, as_json: bool) -> None:
    if as_json:
        told: list[Json] = [{name: _json(value) for name, value in _pairs(answer, row)} for row in answer.rows]
        print_json({"columns": [*answer.columns], "rows": told, "more": answer.more, "not_seen_into": unseen})
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in answer.columns:
        shown.add_column(quoted(name), no_wrap=True)
    for row in answer.rows:
        shown.add_row(*(quoted(_text(value)) for value in row))
    (console() if sys.stdout.isatty() else Console(highlight=False, width=max(160, _width(answer)))).print(shown)
    notes = [f"There are more than these {len(answer.rows)} rows (--rows)."] if answer.more else []
    if unseen:
        notes.append(f"{unseen} answers cannot be seen into: erased, without mapped rows, or of an older gateway.")
    for note in notes:
        console(stderr=True).print(plain(note), markup=False)


def _pairs(answer: Answer, row: tuple[Any, ...]) -> list[tuple[str, Any]]:
    return [*zip(answer.columns, row, strict=True)]


def _width(answer: Answer) -> int:
    widest = [max(map(len, (name, *(_text(row[at]) for row in answer.rows)))) for at, name in enumerate(answer.columns)]
    return sum(widest) + 2 * len(widest)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)


def _json(value: Any) -> Json:
    """A value of DuckDB's as JSON: what JSON has no form for is text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _SAFE_INTEGER else str(value)
    if isinstance(value, float | Decimal):
        return float(value) if -1e300 < value < 1e300 else str(value)
    if isinstance(value, date):  # a datetime is one
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_json(each) for each in value]
    return {str(key): _json(each) for key, each in value.items()} if isinstance(value, Mapping) else str(value)


def _print_columns() -> None:
    for name, kind in columns().items():
        console().print(plain(f"{name:<14} {'timestamp in UTC' if name == 'time' else kind}"), markup=False)
    console().print("record         str, the whole record as one JSON document", markup=False)
