"""`onbehalf explain`: one call, in sentences, from the record alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.build_ledger import ledger_store, reading_keys
from onbehalf.cli.reading import Purpose, noted
from onbehalf.cli.screen import AsJson, ConfigFile, console, print_json, quoted
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.errors import RecordMissing
from onbehalf.explain.leaf import Record
from onbehalf.explain.reading import Read
from onbehalf.explain.story import story
from onbehalf.places import Paths, load_settings, log_origin, paths

__all__ = ["explain", "opened"]


def opened(config: Path, *, closed: bool = False) -> LedgerReader:
    """The gateway's record for reading; it may be in use. Payloads can be opened, unless it is to be `closed`: whoever
    shows what they say puts that on record first (reading.py). Raises an OnbehalfError."""
    settings = load_settings(config)
    places = paths(config, settings)
    keys = reading_keys(places, settings, origin=log_origin(settings))
    store = ledger_store(places, settings)
    return LedgerReader(store, vkey=keys.signer.verifier.vkey) if closed else LedgerReader(store, keys=keys)


def explain(
    call: Annotated[
        str, typer.Argument(help="A call id, or how it begins; `last` is the newest call.", metavar="CALL")
    ],
    config: ConfigFile = Path("onbehalf.yaml"),
    purpose: Purpose = "",
    as_json: AsJson = False,
) -> None:
    """Tell one call: who asked for what, why it was allowed or denied, what came back.

    Reads the record only, so it tells what was so then, not what would be so now. Each decision is
    made again from the record, under the policies that were in force, and it says whether the same
    comes out. Call ids stand in every answer that a client gets (`_meta`), in onbehalf audit list,
    and in call tokens (`txn`). That you read it goes on record, too.

    Example: onbehalf explain last
    """
    reader = opened(config)
    try:
        records = reader.records(_one(reader, call))
    finally:
        reader.close()
    places = paths(config, load_settings(config))
    told = story(records, _replayed(records, places))
    first, last = records[0], records[-1]
    read = Read(
        command="explain", call=first.call, start=first.index, end=last.index + 1, records=len(records),
        filters={"call": call}, purpose=purpose,
    )  # fmt: skip
    noted(places, read)
    if as_json:
        print_json(told.as_json())
    else:
        console().print(quoted(told.as_text()))


def _replayed(records: Sequence[Record], places: Paths) -> dict[int, str]:
    """What comes of each decision when it is made again, as a sentence, by the record's index."""
    from onbehalf.cli.policy_bundles import bundles_of, why_not  # loads the policy engine
    from onbehalf.replaying import Replay

    replay, said = Replay(bundles_of(places)), dict[int, str]()
    for record in records:
        made = replay.again(record)
        if made is None or made.why_not in ("erased", "not_decided"):
            continue
        if made.why_not:
            said[record.index] = f"It cannot be decided again: it is {why_not(made.why_not)}."
        elif made.differs is None:
            said[record.index] = "It cannot be decided again: its policies are not kept here."
        elif made.differs:
            said[record.index] = f"Decided again from the record, it is NOT THE SAME: {made.differs}."
        else:
            said[record.index] = "Decided again from the record, it comes out the same."
    return said


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
