"""`onbehalf`: all commands, and the one place where an error becomes an exit code.

Only the command that is asked for is loaded: the whole of the house takes longer to load than most commands to run.

0 is success, 1 that what was checked does not hold, 2 that the command could not do its work.
"""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module

import typer

from onbehalf.cli.screen import console, plain, show_error
from onbehalf.errors import LedgerCorrupt, OnbehalfError
from onbehalf.places import VERSION

__all__ = ["command_line", "entry", "run"]

OWN_PROCESS = "own process"
"""As the context's object: the process is the command's own, and may become another program."""
_COMMANDS = ("init", "demo", "serve", "check", "connect", "tools", "explain")
"""Each is the function of its name in the module of its name."""
_GROUPS = {
    "audit": "audit_commands", "db": "db", "keys": "keys", "people": "people", "policy": "policy", "revoke": "revoke",
}  # fmt: skip
"""Each is `app` in its module."""

_HELP = """Let LLM clients use your company's tools on behalf of a verified employee.

Every tool call is proven (which person, through which client),
decided on the server (deny by default), and put on a record that anyone can check.

[bold]New here?[/bold]  onbehalf demo      plays the whole story on this machine, with made-up data
[bold]Your own?[/bold]  onbehalf init      writes onbehalf.yaml, people.yaml and policies, commented
           onbehalf check     says what is missing before anyone relies on it
           onbehalf serve     runs the gateway
           onbehalf connect   says what to paste into ChatGPT, Claude, Cursor or VS Code
[bold]Audit?[/bold]     onbehalf explain   tells one call in sentences: onbehalf explain last
           onbehalf audit     checks, lists, proves and exports the record: onbehalf audit verify
           onbehalf policy    says what other policies would make of recorded calls
"""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onbehalf {VERSION}")
        raise typer.Exit


def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def command_line(asked: str = "") -> typer.Typer:
    """All commands, or the one that is `asked` for alone."""
    app = typer.Typer(
        name="onbehalf",
        help=_HELP,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_main)
    known = asked in _COMMANDS or asked in _GROUPS
    for name in (asked,) if known else (*_COMMANDS, "doctor", *_GROUPS):
        if name == "doctor":
            app.command(name, hidden=True, help="The same as `check`.")(import_module("onbehalf.cli.check").check)
        elif name in _COMMANDS:
            app.command(name)(getattr(import_module(f"onbehalf.cli.{name}"), name))
        else:
            app.add_typer(import_module(f"onbehalf.cli.{_GROUPS[name]}").app, name=name)
    return app


def entry() -> None:
    """The command in a process of its own, which `serve` may make into another program."""
    run(own=OWN_PROCESS)


def run(own: str = "") -> None:
    """The command. `own` is `OWN_PROCESS` where the process is nobody else's."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that this terminal cannot show ends no command
    try:
        command_line(sys.argv[1] if len(sys.argv) > 1 else "")(obj=own)
    except LedgerCorrupt as error:
        error.hint = error.hint or "keep the file as it is; `onbehalf audit verify` lists all that does not hold"
        show_error(error)
        sys.exit(1)
    except OnbehalfError as error:
        show_error(error)
        sys.exit(2)
    except BrokenPipeError:  # such as `onbehalf explain … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # the street's last resort: a sentence, not a traceback, unless it is asked for
        if os.environ.get("ONBEHALF_DEBUG"):
            raise
        console(stderr=True).print(plain(f"error: {type(error).__name__}: {error} (internal)"), markup=False)
        console(stderr=True).print(
            "what to do: run it again with ONBEHALF_DEBUG=1 and report what it prints", markup=False
        )
        sys.exit(2)


if __name__ == "__main__":
    entry()
