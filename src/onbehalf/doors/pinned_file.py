"""A file that the configuration pins: its bytes, and only if they have the digest that stands there.

Must not read what they say.

Trust: none is needed in who holds the file; its digest stands in the configuration.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from onbehalf.errors import ConfigInvalid

__all__ = ["MAX_BYTES", "file_bytes", "file_digest", "require_pinned"]

MAX_BYTES = 4 * 2**20


def file_digest(data: bytes) -> str:
    """How the configuration writes the digest of these bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def require_pinned(data: bytes, digest: str, *, what: str) -> None:
    """See that these are the bytes of that digest. `what` is the file in words. Raises ConfigInvalid."""
    found = file_digest(data)
    if found != digest:
        raise ConfigInvalid(
            f"{what} is not as pinned: its digest is `{found}`",
            hint="look at what changed; if it is right, write this under `digest`",
        )


def file_bytes(path: Path, *, what: str) -> bytes:
    """The bytes of a file of at most 4 MiB. `what` is it in words. Raises ConfigInvalid."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigInvalid(f"{what} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigInvalid(f"{what} is larger than {MAX_BYTES} bytes")
    return data
