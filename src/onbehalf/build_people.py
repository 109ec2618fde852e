"""Opens the directory as its settings say: the file, what feeds it while the house runs, and what stands before it.

As build.py, it names concrete doors for app.py. Must not hold a rule, or know who asks for a person.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from onbehalf.config import Settings
from onbehalf.doors.clock_system import now
from onbehalf.doors.directory_claims import with_claims
from onbehalf.doors.directory_file import is_feed
from onbehalf.doors.directory_pushed_configured import open_pushed
from onbehalf.doors.directory_revoked import RevokedPeople, Stopped
from onbehalf.doors.directory_services import with_services
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.inbound_scim import ScimApp
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Json, digest
from onbehalf.places import Paths
from onbehalf.validate import people

__all__ = ["OpenedPeople", "load_people", "open_people"]

_NONE = digest(b"")
_FRESH_SECONDS = 0.05
Note = Callable[[str, dict[str, Json]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedPeople:
    """`file` is the directory as it is loaded, `known` as everything asks it for people. `pushed` is the door by which
    providers push them, None where none does."""

    file: SqliteDirectory
    known: RevokedPeople
    pushed: ScimApp | None


def open_people(
    settings: Settings, places: Paths, stack: contextlib.AsyncExitStack, *, known: people.People,
    stopped: Callable[[], Stopped], note: Note, record: Note,
) -> OpenedPeople:  # fmt: skip
    """Everything about people, with `known` of people.yaml in force. `stopped` opens who is stopped.

    `note` puts something on record and never fails; `record` raises LedgerUnavailable where it cannot. Raises
    ConfigInvalid, DirectoryInvalid, DirectoryUnavailable.
    """
    file = SqliteDirectory.open(
        places.directory, fresh_seconds=_FRESH_SECONDS, lag_budget_s=settings.directory.lag_budget_seconds
    )
    stack.callback(file.close)
    file.load(known)
    pushed = _pushed(settings, places, stack, file, note)
    told = with_services(with_claims(file, settings.directory, note=note), settings)
    return OpenedPeople(file=file, known=RevokedPeople(told, stopped(), note=record), pushed=pushed)


def load_people(places: Paths) -> people.People:
    """What people.yaml says; nobody where `people` names a feed, which is loaded by itself. Raises ConfigInvalid."""
    if is_feed(places.people):
        return people.People(tenants={}, digest=_NONE)
    try:
        text = places.people.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"`{places.people}` cannot be read: {error}", hint="`people` names the file") from error
    return people.parse(text)


def _pushed(
    settings: Settings, places: Paths, stack: contextlib.AsyncExitStack, file: SqliteDirectory, note: Note
) -> ScimApp | None:
    """The door by which providers push people, with everybody who was pushed before in force."""
    resource = urlsplit(settings.gateway.resource)
    found = open_pushed(
        settings.directory.scim, base=places.config.resolve().parent, file=places.scim,
        origin=f"{resource.scheme}://{resource.netloc}", clock=now, note=note,
    )  # fmt: skip
    if found is None:
        return None
    pushed, door = found
    stack.callback(pushed.close)
    pushed.taken_by(lambda tenants: file.load(people.People(tenants=tenants, digest=_NONE), source="SCIM", now=now()))
    return door
