"""The keys of `events.keys`, which sign Security Event Tokens and nothing else (RFC 8725 section 3.9).

Must not hold what such a token says (explain/views_set.py).

Trust: whoever reads `events.keys` can tell receivers anything in this gateway's name, until its keys are replaced.
"""

from __future__ import annotations

from pathlib import Path

from onbehalf.doors.key_file import KeyFile
from onbehalf.model import UnixTime

__all__ = ["EVENT_TYPE", "event_keys_path", "make_event_keys", "read_event_keys"]

EVENT_TYPE = "secevent+jwt"
"""The `typ` (RFC 8417 section 2.3)."""
_LIFE_S = 86_400
"""How long a receiver may take to check a token: a key stays published so much longer than it signs."""


def event_keys_path(directory: Path) -> Path:
    """Where they are among the gateway's keys."""
    return directory / "events.keys"


def make_event_keys(directory: Path, now: UnixTime) -> KeyFile:
    """The keys, made if there are none. Raises SignerUnavailable."""
    return KeyFile.open(event_keys_path(directory), kind=EVENT_TYPE, lifetime_s=_LIFE_S, now=now)


def read_event_keys(directory: Path) -> KeyFile:
    """The keys as a gateway made and publishes them. Raises SignerUnavailable."""
    return KeyFile(event_keys_path(directory), kind=EVENT_TYPE, lifetime_s=_LIFE_S)
