"""Where the command begins: says what to install where only the backend's part is."""

from __future__ import annotations

import sys

__all__ = ["entry"]


def entry() -> None:
    """The command; a sentence, not a traceback, where the gateway's dependencies are not there."""
    try:
        from onbehalf.cli.main import entry as run
    except ModuleNotFoundError as error:
        if (error.name or "onbehalf").partition(".")[0] == "onbehalf":
            raise
        sys.stderr.write(
            f"error: `{error.name}` is not installed: this is the backend's part of onbehalf alone\n"
            "what to do: pip install 'onbehalf-gateway[gateway]'\n"
        )
        sys.exit(2)
    run()
