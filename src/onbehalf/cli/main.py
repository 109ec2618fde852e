"""`onbehalf`: all commands, and the one place where an error becomes an exit code.

0 is success, 1 that what was checked does not hold, 2 that the command could not do its work.
"""

from __future__ import annotations

import io
import os
import sys

import typer

from onbehalf.app import VERSION
from onbehalf.cli import (
    audit,
    audit_erase,
    audit_export,
    audit_query,
    audit_reconcile,
    audit_send,
    check,
    connect,
    db,
    demo,
    explain,
    init,
    keys,
    people,
    policy,
    revoke,
    serve,
    tools,
)
from onbehalf.cli.screen import console, plain, show_error
from onbehalf.errors import LedgerCorrupt, OnbehalfError

__all__ = ["app", "entry", "run"]

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

app = typer.Typer(
    name="onbehalf",
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onbehalf {VERSION}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


app.command("init")(init.init)
app.command("demo")(demo.demo)
app.command("serve")(serve.serve)
app.command("check")(check.check)
app.command("connect")(connect.connect)
app.command("tools")(tools.tools)
app.command("doctor", hidden=True, help="The same as `check`.")(check.check)
app.command("explain")(explain.explain)
audit.app.command("export-log")(audit_export.export_log)
audit.app.command("controls")(audit_export.controls)
audit.app.command("export")(audit_export.export)
audit.app.command("query")(audit_query.query)
audit.app.command("reconcile")(audit_reconcile.reconcile)
audit.app.command("send")(audit_send.send_)
audit.app.command("erase")(audit_erase.erase)
audit.app.add_typer(audit_erase.hold, name="hold")
app.add_typer(audit.app, name="audit")
app.add_typer(db.app, name="db")
app.add_typer(keys.app, name="keys")
app.add_typer(people.app, name="people")
app.add_typer(policy.app, name="policy")
app.add_typer(revoke.app, name="revoke")


def entry() -> None:
    """The command in a process of its own, which `serve` may make into another program."""
    run(own=serve.OWN_PROCESS)


def run(own: str = "") -> None:
    """The command. `own` is `serve.OWN_PROCESS` where the process is nobody else's."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that this terminal cannot show ends no command
    try:
        app(obj=own)
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
