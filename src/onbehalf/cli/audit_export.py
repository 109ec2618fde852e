"""`onbehalf audit export-log` and `export`: the record for people outside. Reads only, also while the gateway runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onbehalf.app import load_settings, paths
from onbehalf.cli.screen import ConfigFile, console
from onbehalf.doors.ledger_tiles import LedgerTiles
from onbehalf.doors.ledger_tiles import export_log as write_log

__all__ = ["export_log"]


def export_log(
    directory: Annotated[Path, typer.Argument(help="Where to; made if missing. Full tiles there are kept.")],
    config: ConfigFile = Path("onbehalf.yaml"),
) -> None:
    """Write the log as static files (C2SP tlog-tiles), to be served or kept elsewhere.

    The files are checkpoint, tile/<L>/<N> and tile/entries/<N>. Leaves are commitments: no payload
    is written. Run it again to add what is new; the checkpoint comes last.

    Example: onbehalf audit export-log /srv/www/log
    """
    settings = load_settings(config)
    source = LedgerTiles(paths(config, settings).ledger)
    try:
        size = write_log(source, directory)
    finally:
        source.close()
    console().print(f"The log of {size} records is in {directory}.")
