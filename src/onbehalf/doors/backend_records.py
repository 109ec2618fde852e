"""A backend's own record of what it did, read for a comparison: its table, an export of that, or pgaudit's log.

What is read is bounded, and what cannot be read whole is an error: a row that was passed over would be a finding, or
hide one. Must not compare (explain/reconcile.py).

Trust: whoever can write the source decides what the comparison finds. Take it from the backend's people, not from those
who run the gateway.
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import orjson

from onbehalf.doors.secret_reference import resolved
from onbehalf.doors.wall_postgres import TAG
from onbehalf.errors import ConfigInvalid
from onbehalf.explain.reconcile import Row
from onbehalf.model import Json, UnixTime
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["COLUMNS", "Records", "read_records"]

COLUMNS = ("channel", "n", "token", "call", "tool", "arguments", "record", "leaf", "at", "answer", "status")
Told = TypeVar("Told")
_MAX_BYTES = 1 << 30
_MAX_ROWS = 1_000_000
_MAX_TEXT = 2048
_LAST = 2**53 - 1
_NUMBERS = frozenset({"n", "record", "at", "status"})
_HINT = "give the backend's record as its people exported it"
_QUERY = f"SELECT {', '.join(COLUMNS)} FROM onbehalf_calls ORDER BY channel, n"  # noqa: S608  # our own names
_AUDIT = re.compile(r"AUDIT: (SESSION|OBJECT),")
_CLASSES = frozenset({"READ", "WRITE"})
_OURS = ("onbehalf.", "pg_catalog.", "information_schema.")
"""Where the wall and PostgreSQL itself look things up, which is nobody's call."""
_PLAN = re.compile(r"EXPLAIN\s+(SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|VALUES|TABLE)\b", re.IGNORECASE)
"""A plan alone, of which nothing is done; with options it may be."""
_CSVLOG = (23, 24, 26)
"""How many columns a line of PostgreSQL's CSV log has: up to 12, in 13, and since 14."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Rows of one backend. `kind` says what they were read from, `digest` is over its bytes, or, of a table, over its
    rows as JSON lines in the order of channel and number."""

    kind: str
    digest: str
    rows: tuple[Row, ...]


def read_records(source: str, *, base: Path) -> Records:
    """The records at `source`: a .jsonl, .csv or .db file, `pgaudit:FILE`, or a reference to a PostgreSQL DSN.

    `base` is the directory of the configuration, which references are relative to. Raises ConfigInvalid.
    """
    if source.startswith(("env:", "file:")):
        return _table("postgres", _postgres(resolved(source, base=base, what="--backend")))
    if source.startswith("pgaudit:"):
        data = _bytes(Path(source.removeprefix("pgaudit:")))
        return Records(kind="pgaudit", digest=_digest(data), rows=tuple(_capped(_audited(_text(data)))))
    place = Path(source)
    if place.suffix in (".db", ".sqlite", ".sqlite3"):
        return _table("sqlite", _sqlite(place))
    if place.suffix not in (".jsonl", ".csv"):
        raise ConfigInvalid(
            f"`{source}` is no record of a backend's",
            hint="a .jsonl, .csv or .db file, pgaudit:FILE, or env:NAME or file:PATH with a PostgreSQL DSN",
        )
    data = _bytes(place)
    told = _jsonl(data) if place.suffix == ".jsonl" else _csv(_text(data))
    return Records(kind=place.suffix[1:], digest=_digest(data), rows=tuple(_capped(map(_row, told))))


def _table(kind: str, told: Iterator[dict[str, Json]]) -> Records:
    hash_, rows = sha256(), list[Row]()
    for each in _capped(told):
        hash_.update(orjson.dumps(each) + b"\n")
        rows.append(_row(each))
    return Records(kind=kind, digest=f"sha256:{hash_.hexdigest()}", rows=tuple(rows))


def _capped(rows: Iterable[Told]) -> Iterator[Told]:
    for count, row in enumerate(rows):
        if count >= _MAX_ROWS:
            raise ConfigInvalid(f"there are more than {_MAX_ROWS} rows", hint="give those of the span alone")
        yield row


def _bytes(place: Path) -> bytes:
    try:
        with place.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigInvalid(f"`{place}` cannot be read: {error.strerror}", hint=_HINT) from error
    if len(data) > _MAX_BYTES:
        raise ConfigInvalid(f"`{place}` has more than {_MAX_BYTES} bytes", hint="give what is of the span alone")
    return data


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigInvalid("the backend's record is not UTF-8", hint=_HINT) from error


def _digest(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()}"


def _jsonl(data: bytes) -> Iterator[dict[str, Json]]:
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            yield strict_object(line, depth=2)
        except NotStrict as error:
            raise ConfigInvalid(f"line {number} of the backend's record is no row: {error}", hint=_HINT) from error


def _csv(text: str) -> Iterator[dict[str, Json]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        for line in reader:
            numbers = {name: _number(line.get(name) or "") for name in _NUMBERS}
            yield {**{name: line.get(name) or "" for name in COLUMNS}, **numbers}
    except csv.Error as error:
        raise ConfigInvalid(f"line {reader.line_num} of the backend's record is no row: {error}", hint=_HINT) from error


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else -1


def _row(told: dict[str, Json]) -> Row:
    """One row, every column there and of its type. Raises ConfigInvalid."""
    for name in COLUMNS:
        value = told.get(name)
        good = (
            type(value) is int and 0 <= value <= _LAST
            if name in _NUMBERS
            else isinstance(value, str) and len(value) <= _MAX_TEXT
        )
        if not good:
            raise ConfigInvalid(f"a row of the backend's record has no `{name}`, or none of its kind", hint=_HINT)
    return Row(
        channel=str(told["channel"]), n=int(str(told["n"])), token=str(told["token"]), call=str(told["call"]),
        tool=str(told["tool"]), arguments=str(told["arguments"]), record=int(str(told["record"])),
        leaf=str(told["leaf"]), at=UnixTime(int(str(told["at"]))), answer=str(told["answer"]),
    )  # fmt: skip


def _sqlite(place: Path) -> Iterator[dict[str, Json]]:
    try:
        connection = sqlite3.connect(f"{place.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            for row in connection.execute(_QUERY):
                yield dict(zip(COLUMNS, row, strict=True))
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ConfigInvalid(f"`{place}` has no record of calls that can be read: {error}", hint=_HINT) from error


def _postgres(dsn: str) -> Iterator[dict[str, Json]]:
    import psycopg  # with it comes a client library, which a gateway without such a backend does without

    try:
        with psycopg.connect(dsn, connect_timeout=10) as connection:
            connection.read_only = True
            with connection.cursor(name="onbehalf_calls") as cursor:
                cursor.itersize = 5000
                for row in cursor.execute(_QUERY.encode()):
                    yield dict(zip(COLUMNS, row, strict=True))
    except psycopg.Error as error:
        raise ConfigInvalid(
            f"the table `onbehalf_calls` cannot be read ({error.sqlstate or 'no connection'})", hint=_HINT
        ) from error


def _audited(text: str) -> Iterator[Row]:
    """Statements that pgaudit logged into PostgreSQL's CSV log: one row for each call that a session's application name
    names, and one for each READ or WRITE on a table without such a name."""
    reader = csv.reader(io.StringIO(text), strict=True)
    named: set[str] = set()
    try:
        for line in reader:
            if len(line) not in _CSVLOG:
                raise ConfigInvalid(
                    f"line {reader.line_num} is none of PostgreSQL's CSV log", hint="set log_destination = csvlog"
                )
            if not _AUDIT.match(line[13]):
                continue
            _, _, _, class_, _, _, object_, statement, *_ = next(csv.reader([line[13]]))
            token = line[22].removeprefix(TAG) if line[22].startswith(TAG) else ""
            told = object_ and not object_.startswith(_OURS) and not _PLAN.match(statement)
            if class_ not in _CLASSES or token in named or not (token or told):
                continue
            if token:
                named.add(token)
            yield Row(token=token, at=_moment(line[0]), call=token.rpartition(".")[0])
    except (csv.Error, ValueError, StopIteration) as error:
        raise ConfigInvalid(f"line {reader.line_num} is none that pgaudit writes", hint=_HINT) from error


def _moment(text: str) -> UnixTime:
    """The time of a line of the log, which must be told in UTC."""
    moment, _, zone = text.rpartition(" ")
    if zone not in ("UTC", "GMT"):
        raise ConfigInvalid(f"the log tells time in `{zone[:20]}`", hint="set log_timezone = 'UTC'")
    return UnixTime(int(datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()))
