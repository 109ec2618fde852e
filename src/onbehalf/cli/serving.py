"""The gateway's own process: what `onbehalf serve` becomes, with nothing of the command line left in memory.

    python -m onbehalf.cli.serving CONFIG [--verbose]

Errors are told as all commands tell them, and with the same exit codes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from onbehalf.app import building
from onbehalf.build_ledger import ledger_where
from onbehalf.cli.plain import exit_code, plain
from onbehalf.config import Settings
from onbehalf.doors import serve_uvicorn
from onbehalf.doors.clock_system import now
from onbehalf.doors.serve_tls import ServerTls
from onbehalf.doors.serve_uvicorn import Port
from onbehalf.errors import ConfigInvalid, OnbehalfError
from onbehalf.places import load_settings
from onbehalf.running import App

__all__ = ["main", "run"]

_log = logging.getLogger("onbehalf")
_SWITCH_SECONDS = 0.0005
"""How long a thread may hold the interpreter: the ledger's writer waits for it once a statement."""
_COLLECT_AFTER = (20_000, 50, 100)


def run(config: Path, *, verbose: bool) -> None:
    """Serve until SIGTERM or SIGINT. Raises OnbehalfError before it serves."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO if verbose else logging.WARNING)
    _log.setLevel(logging.INFO)
    if not verbose:
        logging.getLogger("onbehalf.doors.inbound_http").setLevel(logging.WARNING)
    sys.setswitchinterval(_SWITCH_SECONDS)
    _run(_serve(config))


def main(arguments: list[str]) -> int:
    """The process's entry; its exit code."""
    try:
        run(Path(arguments[0]), verbose="--verbose" in arguments[1:])
    except OnbehalfError as error:
        sys.stderr.write(plain(f"error: {error.message} ({error.code})\n"))
        if error.hint:
            sys.stderr.write(plain(f"what to do: {error.hint}\n"))
        return exit_code(error)
    except Exception as error:  # the street's last resort, as in main.py
        if os.environ.get("ONBEHALF_DEBUG"):
            raise
        sys.stderr.write(plain(f"error: {type(error).__name__}: {error} (internal)\n"))
        sys.stderr.write("what to do: run it again with ONBEHALF_DEBUG=1 and report what it prints\n")
        return 2
    return 0


class _Plain(logging.Formatter):
    """One message, one line: what an upstream says of itself must not write another or reach the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's own name
        return super().formatMessage(record).replace("\n", " ")


async def _serve(config: Path) -> None:
    settings = load_settings(config)
    tls = _tls(settings, config)
    public = serve_uvicorn.bind(settings.gateway.listen)
    admin = serve_uvicorn.bind(settings.gateway.admin)
    async with building(config) as house:
        await serve_uvicorn.serve(
            (
                Port(app=house.public, bound=public, tls=tls.context if tls is not None else None),
                Port(app=house.admin, bound=admin),
            ),
            reload=lambda: _reload(house, tls),
            ready=lambda: _settle(house),
            end_seconds=settings.gateway.limits.call_seconds,
        )
    _log.info("ended; the record is closed")


def _tls(settings: Settings, config: Path) -> ServerTls | None:
    if settings.gateway.tls is None:
        return None
    tls = ServerTls(settings.gateway.tls, base=config.resolve().parent, now=now())
    if tls.certificate.ends_soon(now()):
        _log.warning("the certificate of the public port ends soon: renew it, and send SIGHUP")
    return tls


async def _reload(house: App, tls: ServerTls | None) -> None:
    """The house's own, and the public port's certificate."""
    if tls is not None:
        try:
            changed = await asyncio.to_thread(tls.renew, now())
        except ConfigInvalid as error:
            _log.error("the old certificate stays in force: %s", error.message)
        else:
            _log.info("certificate %s", "taken over" if changed else "unchanged")
    await house.reload()


def _settle(house: App) -> None:
    """Say that it serves, and keep the collector from walking what stays loaded: that stopped all calls for 50 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    _say(house)


def _say(house: App) -> None:
    gateway = house.settings.gateway
    offered = sorted(house.offering.standing.offers)
    _log.info("clients connect to %s, which listens on %s", gateway.resource, gateway.listen)
    _log.info(
        "health and metrics are on %s; the record is %s", gateway.admin, ledger_where(house.paths, house.settings)
    )
    _log.info("tools offered: %s", ", ".join(offered) or "none")
    if house.ledger.recovered:
        _log.warning(
            "%d calls had no outcome when the gateway stopped; they are on record as unknown (`onbehalf audit open`)",
            len(house.ledger.recovered),
        )
    for part, problem in sorted(house.problems.items()):
        _log.warning("%s: %s", part, problem)
    for problem in house.callers.problems():
        _log.warning("issuer: %s", problem)


def _run(main: Coroutine[Any, Any, None]) -> None:
    runner: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
    if sys.platform != "win32":
        import uvloop

        runner = uvloop.run
    runner(main)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
