"""`onbehalf audit`: check the record, list it, prove one entry, also while the gateway runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onbehalf.cli.explain import opened
from onbehalf.cli.reading import Purpose, noted
from onbehalf.cli.screen import AsJson, ConfigFile, console, plain, print_json, quoted
from onbehalf.doors.ledger_reader import LedgerReader, VerifyReport
from onbehalf.doors.ledger_spool import Spool
from onbehalf.errors import ConfigInvalid
from onbehalf.explain.erasure import Erasure
from onbehalf.explain.leaf import Record
from onbehalf.explain.reading import KIND as ADMIN_READ
from onbehalf.explain.reading import Read
from onbehalf.explain.reconcile import end_of, grade_of
from onbehalf.model import Json
from onbehalf.places import Paths, load_settings, paths

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["app"]

app = typer.Typer(help="Check, list and prove the record.", no_args_is_help=True)

_PROGRESS_EVERY = 10_240
"""A multiple of the reader's steps."""


@app.command("verify")
def verify(
    config: ConfigFile = Path("onbehalf.yaml"),
    ledger: Annotated[Path | None, typer.Option(help="A ledger file instead, such as a copy; needs --vkey.")] = None,
    vkey: Annotated[str, typer.Option(help="The log's public key (the line in log.pub). Payloads stay closed.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check the whole record: each leaf and payload, the tree, the signed head.

    Exit 1 if anything does not hold, and where. What it cannot see by itself: a whole record
    put back to an older state. Keep the printed checkpoint outside, and compare.

    Example, on an auditor's copy: onbehalf audit verify --ledger copy.db --vkey "$(cat log.pub)"
    """
    reader = _reader(config, ledger, vkey)
    try:
        report = reader.verify(_progress if sys.stderr.isatty() else None)
    finally:
        reader.close()
    if as_json:
        print_json(_report(report))
    else:
        _print(report, console())
    raise typer.Exit(0 if report.ok else 1)


@app.command("open")
def open_(config: ConfigFile = Path("onbehalf.yaml"), as_json: AsJson = False) -> None:
    """List calls whose outcome is not known.

    `open` is under way now; `unknown` was broken off when the gateway stopped, and must not be
    repeated blindly: look at the upstream first. The number is the record of the intent.

    Example: onbehalf audit open --json
    """
    reader = opened(config)
    try:
        under_way, broken = reader.unsettled()
    finally:
        reader.close()
    each_state = ((under_way, "open"), (broken, "unknown"))
    found = sorted(((each.call, each.index, state) for intents, state in each_state for each in intents), key=_place)
    if as_json:
        print_json({"open": [{"call": call, "index": index, "state": state} for call, index, state in found]})
        return
    for call, index, state in found:
        console().print(f"{state:<8} {call}  record {index}")
    if not found:
        console().print("Every call on record has an outcome.")


@app.command("list")
def list_(
    config: ConfigFile = Path("onbehalf.yaml"),
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="How many records.")] = 20,
    kind: Annotated[str, typer.Option(help="Of this kind alone, such as denial or admin_read.")] = "",
    closed: Annotated[bool, typer.Option("--closed", help="Open nothing: no person, no tool.")] = False,
    purpose: Purpose = "",
    as_json: AsJson = False,
) -> None:
    """List the newest records, oldest first.

    Who reads by onbehalf's commands is listed with --kind admin_read. That you list them goes on
    record, too, unless they stay --closed.

    Example: onbehalf audit list -n 100 --json
    """
    places = paths(config, load_settings(config))
    reader = opened(config, closed=closed)
    try:
        records = reader.latest(count, kind=kind)
    finally:
        reader.close()
    waiting = Spool(places.spool).waiting(ADMIN_READ) if kind == ADMIN_READ else 0
    if not closed:
        _note(places, records, {"count": count, "kind": kind}, purpose)
    if waiting:
        text = f"{waiting} more wait in `{places.spool}`, and are on record once a gateway serves here."
        console(stderr=True).print(plain(text), markup=False)
    if as_json:
        print_json({"records": [_row(record) for record in records]})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("record", "time (UTC)", "kind", "person", "tool", "call"):
        table.add_column(title, no_wrap=True)
    for record in records:
        row = _row(record)
        row["person"] = row["person"] or (f"service {row['service']}" if row["service"] else "")
        if read := row.get("read"):
            assert isinstance(read, dict)  # INVARIANT: _row made it so
            row |= {"person": f"on the host: {read['claimed_user']}", "tool": read["command"]}
        table.add_row(*(quoted(str(row[key])) for key in ("index", "time", "kind", "person", "tool", "call")))
    (console() if sys.stdout.isatty() else Console(highlight=False, width=160)).print(table)


@app.command("proof")
def proof(
    index: Annotated[
        int, typer.Argument(help="The record's index, as `onbehalf/receipt` in an answer says.", min=0, max=2**53)
    ],
    config: ConfigFile = Path("onbehalf.yaml"),
) -> None:
    """Print the proof that one record is under the newest signed head.

    The proof is a C2SP tlog-proof: whoever has the leaf and the log's public key can check it.

    Example: onbehalf audit proof 7
    """
    reader = opened(config)
    try:
        typer.echo(reader.proof(index).text, nl=False)
    finally:
        reader.close()


def _note(places: Paths, records: Sequence[Record], filters: Mapping[str, Json], purpose: str) -> None:
    start, end = (records[0].index, records[-1].index + 1) if records else (None, None)
    opened_ = sum(not each.erased for each in records)
    noted(
        places,
        Read(command="audit list", start=start, end=end, records=opened_, filters=filters, purpose=purpose),
    )  # fmt: skip


def _place(found: tuple[str, int, str]) -> int:
    return found[1]


def _reader(config: Path, ledger: Path | None, vkey: str) -> LedgerReader:
    if ledger is None:
        return opened(config)
    if not vkey:
        raise ConfigInvalid("a ledger without its configuration needs --vkey", hint="give the line in its log.pub")
    return LedgerReader(ledger, vkey=vkey)


def _report(report: VerifyReport) -> dict[str, Json]:
    return {
        "ok": report.ok,
        "size": report.size,
        "root": report.root.hex(),
        "checkpoint": report.note,
        "kinds": dict(report.kinds),
        "erased": report.erased,
        "erasures": [_erasure(each) for each in report.erasures],
        "payloads_opened": report.opened,
        "open": [{"index": each.index, "call": each.call} for each in report.open_intents],
        "findings": [{"index": each.index, "code": each.code, "text": each.text} for each in report.findings],
    }


def _print(report: VerifyReport, screen: Console) -> None:
    if report.ok:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.kinds.items())) or "none"
        screen.print(f"The record verifies: {report.size} records ({kinds}) under one signed head.")
        payloads = f"{report.size - report.erased} payloads opened" if report.opened else "payloads were not opened"
        screen.print(f"{payloads}, {report.erased} erased, {len(report.open_intents)} calls without outcome.")
        for erasure in report.erasures:
            what = f"from before {_moment(erasure.before)} UTC" if erasure.before else "of one person"
            at = _moment(erasure.at)
            screen.print(f"  record {erasure.leaf}: {erasure.count} payloads {what} were erased, {at} UTC.")
    else:
        screen.print(f"[bold red]The record does not verify[/bold red]: {len(report.findings)} findings.")
        for each in report.findings:
            screen.print(
                f"  record {each.index}: {quoted(each.text)} ({each.code})"
                if each.index >= 0
                else f"  {quoted(each.text)} ({each.code})"
            )
        screen.print("Stop the gateway, keep the file as it is, and compare with a copy.")
    screen.print(f"\nCheckpoint:\n{quoted(report.note.rstrip())}")


def _erasure(each: Erasure) -> dict[str, Json]:
    return {
        "leaf": each.leaf, "at": each.at, "count": each.count, "first": each.first, "last": each.last,
        "before": each.before or None, "keys": [*sorted(each.keys)],
    }  # fmt: skip


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _progress(count: int) -> None:
    if count % _PROGRESS_EVERY == 0:
        console(stderr=True).print(f"{count} records …", end="\r")


def _row(record: Record) -> dict[str, Json]:
    person, tool = record.facts.get("person"), record.facts.get("tool")
    caller = record.facts.get("caller")
    caller = caller if isinstance(caller, dict) else {}
    service = caller.get("service") if caller.get("kind") == "service" else ""
    who = person.get("id") if isinstance(person, dict) else "" if service else caller.get("subject")
    return {
        "index": record.index,
        "time": _moment(record.at),
        "kind": record.kind,
        "person": who or "",
        "service": f"{caller.get('tenant')}/{service}" if service else "",
        "tool": (tool.get("name") if isinstance(tool, dict) else "") or "",
        "call": record.call,
        **_grade(record),
        **_read(record),
    }


def _read(record: Record) -> dict[str, Json]:
    """Of a reading: by whom, as the host says, by which command, and what for."""
    read, by = record.facts.get("read"), record.facts.get("claimed_by")
    if record.kind != ADMIN_READ or not isinstance(read, dict) or not isinstance(by, dict):
        return {}
    told: dict[str, Json] = {
        name: read[name] for name in ("command", "call", "from", "to", "records", "purpose") if name in read
    }
    user = by.get("sudo_user") or by.get("user") or by.get("uid")
    return {"read": {**told, "claimed_user": str(user)}}


def _grade(record: Record) -> dict[str, Json]:
    """How well the record alone knows what came of a call, where it says anything of that."""
    if record.kind not in ("outcome", "unknown") or record.erased:
        return {}
    end = end_of(record.kind, record.facts.get("outcome"))
    return {"grade": grade_of(end, receipt="backend_receipt" in record.facts, row=False)}
