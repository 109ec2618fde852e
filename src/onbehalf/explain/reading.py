"""That somebody on the host read what stands on record, as an entry for the record.

Must not ask who runs the process (a door does), nor hold what was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onbehalf.model import AuditEntry, Json, UnixTime

__all__ = ["KIND", "ClaimedReader", "Read", "admin_read"]

KIND = "admin_read"
_MOST = 4000
"""Characters of one text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedReader:
    """Who says to read: the account that the operating system runs the command for, which proves no person.

    `sudo_user` is who `sudo` says it was called by, "" without it.
    """

    user: str
    uid: int
    host: str
    sudo_user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What a command is about to show of the record.

    `command` is its words (`audit list`); `call` the one call that is told, or ""; `start` and `end` the leaves that
    it looks at, `end` not included, None where that is not known before; `records` how many were opened, None where
    they are opened as they leave. `filters` are what it was asked by, `purpose` the reader's own words.
    """

    command: str
    call: str = ""
    start: int | None = None
    end: int | None = None
    records: int | None = None
    filters: Mapping[str, Json] = field(default_factory=dict)
    purpose: str = ""


def admin_read(read: Read, by: ClaimedReader, *, now: UnixTime) -> AuditEntry:
    """The entry. It is of no call: reading a call is no part of it. Empty filters are left out, long texts are cut."""
    told: dict[str, Json] = {"command": read.command}
    numbers = {"from": read.start, "to": read.end, "records": read.records}
    told |= {name: number for name, number in numbers.items() if number is not None}
    texts = {"call": read.call, "purpose": read.purpose}
    told |= {name: _text(text) for name, text in texts.items() if text}
    filters = {name: _fit(value) for name, value in read.filters.items() if value not in ("", None, False, [], {})}
    if filters:
        told["filters"] = filters
    claimed: dict[str, Json] = {"user": _text(by.user), "uid": by.uid, "host": _text(by.host)}
    if by.sudo_user:
        claimed["sudo_user"] = _text(by.sudo_user)
    return AuditEntry(kind=KIND, call="", at=now, facts={"read": told, "claimed_by": claimed})


def _fit(value: Json) -> Json:
    if isinstance(value, dict):
        return {_text(name): _fit(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_fit(each) for each in value]
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    """Text as it can be spelled: what a command line had that is no Unicode is shown as `?`."""
    fit = text.encode("utf-8", "replace").decode()
    return fit if len(fit) <= _MOST else fit[: _MOST - 1] + "…"
