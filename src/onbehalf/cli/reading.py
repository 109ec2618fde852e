"""Reading the record is itself put on record, before anything that was opened is shown.

The notice goes into the spool of the gateway's data, whole and synced. A gateway that serves has it on record within a
second; where none serves it waits there for the next one, or for a command that writes. A command that shows opened
facts calls `noted` first. Where the notice cannot be kept nothing is shown. Must not read the record itself.

Trust: the operating system's word for who runs the command. Whoever reads the files and keys without these commands
leaves no notice.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import time
from typing import Annotated

import typer

from onbehalf.build_ledger import open_ledger
from onbehalf.config import Settings
from onbehalf.doors.clock_system import now
from onbehalf.doors.ledger_spool import Spool
from onbehalf.errors import ConfigInvalid, LedgerUnavailable
from onbehalf.explain.reading import ClaimedReader, Read, admin_read
from onbehalf.places import Paths, log_origin

__all__ = ["Purpose", "delivered", "noted"]

_LOOK_SECONDS = 0.2
_MAX_PURPOSE = 500

Purpose = Annotated[
    str, typer.Option("--purpose", metavar="WORDS", help="Why you read; goes on record with the reading.")
]


def noted(places: Paths, read: Read) -> str:
    """Keep that this is read; the notice's name in the spool.

    Raises ConfigInvalid for a purpose that is none, and LedgerUnavailable where it cannot be kept: then nothing may be
    shown.
    """
    if len(read.purpose) > _MAX_PURPOSE or not read.purpose.isprintable():
        raise ConfigInvalid(f"--purpose is at most {_MAX_PURPOSE} printable characters", hint="such as a ticket's name")
    try:
        return Spool(places.spool).put(admin_read(read, _claimed(), now=now()))
    except LedgerUnavailable as error:
        raise LedgerUnavailable(
            f"nothing is shown, for that it was read cannot be put on record: {error.message}",
            hint=f"see that `{places.spool}` has room and that you may write there; `--closed` of onbehalf audit list, "
            "audit verify and audit open show no facts, and need it not",
        ) from error


def delivered(name: str, places: Paths, settings: Settings, *, wait: float) -> bool:
    """Have what is in the spool put on record, by a gateway that serves or else here; False where that takes longer
    than `wait` seconds. It will be at the gateway's next start at the latest."""
    spool, until = Spool(places.spool), time.monotonic() + wait
    while spool.holds(name):
        try:
            _append(spool, places, settings)
        except LedgerUnavailable:  # a gateway has it open, and takes what is in the spool
            if time.monotonic() >= until:
                return False
            time.sleep(_LOOK_SECONDS)
    return True


def _append(spool: Spool, places: Paths, settings: Settings) -> None:
    """Where no gateway serves: put on record what is in the spool. Raises LedgerUnavailable."""
    ledger, _ = open_ledger(places, settings, origin=log_origin(settings))
    try:
        asyncio.run(spool.take(ledger))
    finally:
        ledger.close()


def _claimed() -> ClaimedReader:
    """Whom the operating system runs this for. Of what the environment says, only what `sudo` sets, and named so."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:  # such as in a container that has no such account
        user = ""
    return ClaimedReader(user=user, uid=uid, host=socket.gethostname(), sudo_user=os.environ.get("SUDO_USER", "")[:200])
