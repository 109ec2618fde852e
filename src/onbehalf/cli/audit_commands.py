"""`onbehalf audit`: all of its commands together."""

from __future__ import annotations

from onbehalf.cli import audit_erase, audit_export, audit_query, audit_reconcile, audit_send
from onbehalf.cli.audit import app

__all__ = ["app"]

app.command("export-log")(audit_export.export_log)
app.command("controls")(audit_export.controls)
app.command("export")(audit_export.export)
app.command("query")(audit_query.query)
app.command("reconcile")(audit_reconcile.reconcile)
app.command("send")(audit_send.send_)
app.command("erase")(audit_erase.erase)
app.add_typer(audit_erase.hold, name="hold")
