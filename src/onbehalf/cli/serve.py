"""`onbehalf serve`: the gateway until SIGTERM or Ctrl-C; SIGHUP takes over changed policies, people and keys."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from onbehalf.cli.screen import ConfigFile

__all__ = ["serve"]


def serve(
    context: typer.Context,
    config: ConfigFile = Path("onbehalf.yaml"),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also log every refusal at the door.")] = False,
) -> None:
    """Run the gateway until Ctrl-C or SIGTERM, which let calls in flight end.

    It checks configuration, policies, people, tools and the whole record, and serves only
    when they are good. Logs go to stderr. kill -HUP takes over changed policies, people and
    keys; onbehalf.yaml itself needs a restart. Health and metrics are on the admin port.

    Example: onbehalf serve --config /etc/onbehalf/onbehalf.yaml
    """
    if context.obj and sys.platform != "win32":
        # the same process without the command line's libraries, which are a fifth of what serving needs
        command = [sys.executable, "-m", "onbehalf.cli.serving", str(config), *(["--verbose"] if verbose else [])]
        os.execv(sys.executable, command)  # noqa: S606  # ourselves, without a shell
    from onbehalf.cli import serving  # the whole house, for which the process above has no use

    serving.run(config, verbose=verbose)
