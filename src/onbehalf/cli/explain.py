"""`onbehalf explain`: one call, in sentences, from the record alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onbehalf.app import load_settings, log_origin, paths
from onbehalf.build_ledger import ledger_store
from onbehalf.cli.screen import AsJson, ConfigFile, console, print_json, quoted
from onbehalf.doors.ledger_keys import read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.errors import RecordMissing
from onbehalf.explain.story import story

__all__ = ["explain", "opened"]


def opened(config: Path) -> LedgerReader:
    """The gateway's record for reading, payloads included; it may be in use. Raises an OnbehalfError."""
    settings = load_settings(config)
    places = paths(config, settings)
    return LedgerReader(ledger_store(places, settings), keys=read_ledger_keys(places.keys, origin=log_origin(settings)))


def explain(
    call: Annotated[
        str, typer.Argument(help="A call id, or how it begins; `last` is the newest call.", metavar="CALL")
    ],
    config: ConfigFile = Path("onbehalf.yaml"),
    as_json: AsJson = False,
) -> None:
    """Tell one call: who asked for what, why it was allowed or denied, what came back.

    Reads the record only, so it tells what was so then, not what would be so now. Call ids stand
    in every answer that a client gets (`_meta`), in onbehalf audit list, and in call tokens (`txn`).

    Example: onbehalf explain last
    """
    reader = opened(config)
    try:
        told = story(reader.records(_one(reader, call)))
    finally:
        reader.close()
    if as_json:
        print_json(told.as_json())
    else:
        console().print(quoted(told.as_text()))


def _one(reader: LedgerReader, call: str) -> str:
    if call == "last":
        calls = [record.call for record in reader.latest(1000) if record.call]
        if not calls:
            raise RecordMissing("no call is on record yet", hint="make one through a client first")
        return calls[-1]
    prefix = call if call.startswith("call_") else f"call_{call}"
    found = reader.find(prefix) if prefix.isascii() else ()
    if not found:
        raise RecordMissing(f"no call `{call}` is on record", hint="`onbehalf audit list` shows the latest")
    if len(found) > 1 and prefix not in found:
        raise RecordMissing(f"`{call}` is not one call but several", hint=f"such as {', '.join(found[:3])}")
    return prefix if prefix in found else found[0]
