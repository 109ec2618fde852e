"""The part of `onbehalf check` about the gateway's own TLS: are its files good, for how long, and for which name.

No connection is made: the gateway may not be running. Must not print.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from onbehalf.cli.check_exchange import Said
from onbehalf.config import Settings
from onbehalf.doors.serve_tls import ServerTls
from onbehalf.model import UnixTime

__all__ = ["said_of_tls"]


def said_of_tls(settings: Settings, *, base: Path, now: UnixTime) -> Iterator[Said]:
    """Everything to be said. `base` is where paths start. Raises ConfigInvalid."""
    if settings.gateway.tls is None:
        return
    certificate = ServerTls(settings.gateway.tls, base=base, now=now).certificate
    ends = f"{datetime.fromtimestamp(certificate.ends, UTC):%Y-%m-%d %H:%M} UTC"
    host = urlsplit(settings.gateway.resource).hostname or ""
    good = True
    if not certificate.fits(host):
        good = False
        names = ", ".join(sorted(certificate.names)) or "no host"
        text = f"its certificate is for {names}, and clients connect to {host}"
        yield "warning", "tls", text, "get one for the host of `resource`, or clients will refuse it"
    if certificate.ends_soon(now):
        good = False
        yield "warning", "tls", f"its certificate ends {ends}", "renew it; `kill -HUP` takes it over"
    if good:
        yield "ok", "tls", f"its certificate is for {host}, until {ends}", ""
