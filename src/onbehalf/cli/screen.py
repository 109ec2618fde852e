"""How commands speak: to a person by default, colour only on a terminal, or one JSON document with --json.

What draws tables and colours is loaded when something is printed: a gateway that serves prints nothing.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from onbehalf.cli.plain import plain
from onbehalf.errors import OnbehalfError
from onbehalf.model import Json

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["AsJson", "ConfigFile", "console", "plain", "print_json", "quoted", "show_error", "user"]

ConfigFile = Annotated[
    Path,
    typer.Option("--config", "-c", help="The gateway's configuration.", envvar="ONBEHALF_CONFIG", show_default=True),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr that wraps nothing and invents no colours for what it prints."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def quoted(text: str) -> str:
    """Text from outside, fit to be printed: no markup, no control characters."""
    from rich.markup import escape

    return escape(plain(text))


def print_json(value: Mapping[str, Json]) -> None:
    """One JSON document. What is not printable is escaped: JSON itself lets the C1 control characters stand."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    if not text.replace("\n", "").isprintable():
        text = "".join(each if each.isprintable() or each == "\n" else _escaped(each) for each in text)
    typer.echo(text)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]  # two \u escapes where it is beyond 16 bits


def user() -> str:
    """Who runs this command, by the machine's name for them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return "unknown"


def show_error(error: OnbehalfError) -> None:
    """What went wrong and what to do, on stderr."""
    screen = console(stderr=True)
    screen.print(f"[bold red]error[/bold red]: {quoted(error.message)} [dim]({error.code})[/dim]")
    if error.hint:
        screen.print(f"what to do: {quoted(error.hint)}")
