"""Records of the house that another process wants on the record: one file each, in a folder that the gateway looks at.

The ledger has one writer. A command beside it puts a file here, whole and synced; the gateway appends what it says and
removes it, at its start and each second. Where no gateway serves, the command opens the ledger and does the same. A
crash in between appends once more: `spooled` in the facts tells which. Must not know what the records are about.

Trust: whoever can write this folder can put records of the kinds in `KINDS` on record, and none about a call. It lies
in the gateway's own `data`, where the keys are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
from pathlib import Path

import orjson

from onbehalf.doors.folder_sync import sync_folder
from onbehalf.errors import LedgerUnavailable
from onbehalf.model import AuditEntry, Json, UnixTime
from onbehalf.model_json import plain
from onbehalf.ports import Ledger
from onbehalf.strict_json import NotStrict, strict_object

__all__ = ["KINDS", "Spool", "taking"]

KINDS = frozenset({"admin_read", "reconciled"})
_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_MAX_BYTES = 4 * 2**20
_MAX_FILES = 1000
_DEPTH = 32
_NAME = re.compile(r"[a-z_]{1,40}-[0-9a-f]{32}\.json")
_LAST = 2**53 - 1


class Spool:
    """The folder at `path`; made when something is put there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, entry: AuditEntry) -> str:
        """Keep an entry until it is on record; its name, as `spooled` will say. Raises LedgerUnavailable."""
        name = f"{entry.kind}-{secrets.token_hex(16)}.json"
        said: dict[str, Json] = {"at": entry.at, "facts": plain(entry.facts), "kind": entry.kind}
        spelled = orjson.dumps(said)
        if entry.call or not _NAME.fullmatch(name) or len(spelled) > _MAX_BYTES:
            raise LedgerUnavailable(f"a record of this kind or of {len(spelled)} bytes cannot be put into the spool")
        aside = self._path / f".{name}"
        try:
            self._made()
            handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                _hand_over(handle, os.stat(self._path))
                file.write(spelled)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self._path / name)
            sync_folder(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            raise LedgerUnavailable(f"`{self._path}` cannot be written: {error.strerror}") from error
        return name

    def holds(self, name: str) -> bool:
        """Whether an entry still waits."""
        return (self._path / name).exists()

    def waiting(self, kind: str) -> int:
        """How many entries of a kind wait; 0 where the folder cannot be looked at."""
        try:
            return sum(bool(_NAME.fullmatch(each)) and each.startswith(f"{kind}-") for each in os.listdir(self._path))
        except OSError:
            return 0

    async def take(self, ledger: Ledger) -> int:
        """Put on record what waits, in the order of the names; how many. What is no entry is set aside and said.

        Raises LedgerUnavailable; what was not appended by then goes on waiting. What may not be read waits, too, and
        is said after all others were taken.
        """
        taken, closed = 0, ""
        for name in await asyncio.to_thread(self._waiting):
            try:
                entry = await asyncio.to_thread(self._read, name)
            except ValueError as error:
                _log.error("`%s` in the spool is no record of the house, and is set aside: %s", name, error)
                await asyncio.to_thread(self._set_aside, name)
                continue
            except OSError as error:
                closed = f"`{name}` cannot be read: {error.strerror}"
                continue
            await ledger.append(entry)
            # if we stop here, it is appended once more; its name tells that it is the same
            await asyncio.to_thread(self._remove, name)
            taken += 1
        if closed:
            raise LedgerUnavailable(closed, hint=f"let the gateway's account read what is in `{self._path}`")
        return taken

    def _made(self) -> None:
        """The folder, made where there is none, for whoever has the folder it is in."""
        with contextlib.suppress(FileExistsError):
            self._path.mkdir(mode=0o700)
            if os.geteuid() == 0:
                around = os.stat(self._path.parent)
                os.chown(self._path, around.st_uid, around.st_gid)

    def _waiting(self) -> list[str]:
        try:
            return sorted(each for each in os.listdir(self._path) if _NAME.fullmatch(each))[:_MAX_FILES]
        except FileNotFoundError:
            return []

    def _read(self, name: str) -> AuditEntry:
        with (self._path / name).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        try:
            said = strict_object(data, depth=_DEPTH)
        except NotStrict as error:
            raise ValueError(str(error)) from error
        kind, at, facts = said.get("kind"), said.get("at"), said.get("facts")
        if said.keys() != {"at", "facts", "kind"} or not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"its kind is none of {', '.join(sorted(KINDS))}")
        if not isinstance(facts, dict) or type(at) is not int or not 0 <= at <= _LAST:
            raise ValueError("its facts or its time are none")
        return AuditEntry(kind=kind, call="", at=UnixTime(at), facts={**facts, "spooled": name})

    def _remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)
        sync_folder(self._path)

    def _set_aside(self, name: str) -> None:
        (self._path / name).rename(self._path / f"{name}.refused")


def _hand_over(handle: int, folder: os.stat_result) -> None:
    """Let the folder's owner read a file that another account makes there: root gives it away, others to the group."""
    if os.geteuid() == folder.st_uid:
        return
    if os.geteuid() == 0:
        os.fchown(handle, folder.st_uid, folder.st_gid)
        return
    with contextlib.suppress(PermissionError):  # not of that group: the gateway will say that it cannot read it
        os.fchown(handle, -1, folder.st_gid)
        os.fchmod(handle, 0o640)


async def taking(spool: Spool, ledger: Ledger) -> None:
    """Look into the spool each second, until cancelled."""
    failed = ""
    while True:
        try:
            await spool.take(ledger)
            failed = ""
        except (LedgerUnavailable, OSError) as error:
            if str(error) != failed:
                _log.error("what is in the spool is not on record yet: %s", error)
            failed = str(error)
        await asyncio.sleep(_LOOK_SECONDS)
