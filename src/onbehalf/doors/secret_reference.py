"""Secrets that the configuration only refers to: `env:NAME`, or `file:path` relative to the configuration.

Must not keep a secret, log one, or know what it is for.

Trust: whoever can set this process's environment, or write that file, chooses the secret.
"""

from __future__ import annotations

import os
from pathlib import Path

from onbehalf.errors import ConfigInvalid

__all__ = ["resolved"]

_MAX_BYTES = 64 * 1024


def resolved(reference: str, *, base: Path, what: str) -> str:
    """The secret that `reference` names, without white space around it. Raises ConfigInvalid, which never holds it.

    `base` is the directory of the configuration file, `what` the key that refers to it.
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        secret = os.environ.get(name, "")
        missing = f"the environment has no `{name}`"
    elif kind == "file":
        secret = _read(base / name, what)
        missing = f"`{name}` is empty"
    else:
        raise ConfigInvalid(
            f"`{what}` is no reference", hint="write `env:NAME` or `file:path`; secrets stand elsewhere"
        )
    if not secret.strip():
        raise ConfigInvalid(f"`{what}` refers to nothing: {missing}", hint="set it where the gateway runs")
    return secret.strip()


def _read(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ConfigInvalid(
                f"`{what}` refers to a file of more than {_MAX_BYTES} bytes", hint="name the right file"
            )
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(
            f"`{what}` refers to a file that cannot be read: {type(error).__name__}",
            hint="let the user that the gateway runs as read it, and nobody else",
        ) from error
