"""The files of a policy bundle as text, bounded, each from inside its directory and none of them missed.

Must not know what they say: engine_cedar.py reads that.
Trust: whoever can write the directory writes policy; a link cannot bring in a file from elsewhere.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from onbehalf.errors import PolicyInvalid
from onbehalf.validate import bundle
from onbehalf.validate.bundle import Source

__all__ = ["core_schema", "policies_in", "read"]

_MAX_FILES = 500
_MAX_FILE_BYTES = 1 * 2**20
_MAX_BUNDLE_BYTES = 8 * 2**20


def core_schema() -> str:
    """What every bundle's schema begins with."""
    return resources.files("onbehalf.doors").joinpath("core.cedarschema").read_text("utf-8")


def policies_in(directory: Path) -> bytes:
    """The bytes that the digest of the bundle in a directory is of. Raises PolicyInvalid."""
    return bundle.spelled(read(directory, ".cedar"), read(directory, ".cedarschema"), core=core_schema())


def read(directory: Path, suffix: str) -> tuple[Source, ...]:
    """Files by suffix, sorted by path. Hidden ones are left out; a link out of the bundle is refused.

    Raises PolicyInvalid.
    """
    if not directory.is_dir():
        raise PolicyInvalid(f"`{directory}` is not a directory", hint="`gateway.policies` names the policy directory")
    root = directory.resolve()
    paths: list[Path] = []
    for place, folders, names in os.walk(directory, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (Path(place) / name).is_symlink():  # left out silently, its forbids would be missing
                raise PolicyInvalid(f"`{Path(place) / name}` is a link to a directory", hint="put the files there")
        paths += [Path(place) / name for name in names if name.endswith(suffix) and not name.startswith(".")]
        if len(paths) > _MAX_FILES:
            raise PolicyInvalid(f"`{directory}` holds more than {_MAX_FILES} {suffix} files")
    found, total = [], 0
    for path in sorted(paths):
        if not path.resolve().is_relative_to(root) or not path.is_file():
            raise PolicyInvalid(f"`{path}` is not a file inside `{directory}`", hint="links must stay inside")
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
            text = data.decode("utf-8")
        except (OSError, UnicodeError) as error:
            raise PolicyInvalid(f"`{path}` cannot be read: {error}") from error
        total += len(data)
        if len(data) > _MAX_FILE_BYTES or total > _MAX_BUNDLE_BYTES:
            raise PolicyInvalid(f"`{path}` is over {_MAX_FILE_BYTES} bytes, or the bundle over {_MAX_BUNDLE_BYTES}")
        source = Source(name=path.relative_to(directory).as_posix(), text=text)
        bundle.require_shallow(source)
        found.append(source)
    return tuple(found)


def _unreadable(error: OSError) -> None:
    # os.walk passes over what it cannot list, and a forbid there would be missing
    raise PolicyInvalid(f"`{error.filename}` cannot be listed: {error}") from error
