"""Every policy bundle that was ever in force, by its digest, so that what it decided can be decided again.

A bundle is written here before it decides anything, and never changed or removed: records name it by its digest. A
file is believed only as far as it has the digest that is its name. Must not know what policies say.

Trust: whoever can write the folder can remove a bundle, and then its decisions cannot be made again; nobody can put
another in its place.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from onbehalf.doors.folder_sync import sync_folder
from onbehalf.errors import PolicyInvalid
from onbehalf.model import Digest, digest

__all__ = ["find", "keep"]

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_BYTES = 32 * 2**20


def keep(folder: Path, spelled: bytes) -> Digest:
    """Keep a bundle, spelled as its digest is over it; durable when this returns. Raises PolicyInvalid."""
    named = digest(spelled)
    place = _place(folder, named)
    try:
        if find(folder, named) is None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside = place.with_suffix(".new")
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(spelled)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(place)
            sync_folder(folder)
    except OSError as error:
        raise PolicyInvalid(
            f"the policies cannot be kept in `{folder}`: {error.strerror}",
            hint="make room; what cannot be looked up later decides nothing now",
        ) from error
    return named


def find(folder: Path, named: str) -> bytes | None:
    """The bundle of this digest; None where it is not kept, or is not what it was."""
    if not _DIGEST.fullmatch(named):
        return None
    try:
        with _place(folder, named).open("rb") as file:
            found = file.read(_MAX_BYTES + 1)
    except OSError:
        return None
    return found if len(found) <= _MAX_BYTES and digest(found) == named else None


def _place(folder: Path, named: str) -> Path:
    return folder / f"{named.removeprefix('sha256:')}.json"
