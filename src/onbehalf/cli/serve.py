"""`onbehalf serve`: the gateway until SIGTERM or Ctrl-C; SIGHUP takes over changed policies, people and keys."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from onbehalf.app import App, building, load_settings
from onbehalf.cli.screen import ConfigFile, plain
from onbehalf.doors import serve_uvicorn

__all__ = ["serve"]

_log = logging.getLogger("onbehalf")
_SWITCH_SECONDS = 0.0005
"""How long a thread may hold the interpreter: the ledger's writer waits for it once a statement."""
_COLLECT_AFTER = (20_000, 50, 100)


def serve(
    config: ConfigFile = Path("onbehalf.yaml"),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also log every refusal at the door.")] = False,
) -> None:
    """Run the gateway until Ctrl-C or SIGTERM, which let calls in flight end.

    It checks configuration, policies, people, tools and the whole record, and serves only
    when they are good. Logs go to stderr. kill -HUP takes over changed policies, people and
    keys; onbehalf.yaml itself needs a restart. Health and metrics are on the admin port.

    Example: onbehalf serve --config /etc/onbehalf/onbehalf.yaml
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Plain("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO if verbose else logging.WARNING)
    _log.setLevel(logging.INFO)
    if not verbose:
        logging.getLogger("onbehalf.doors.inbound_http").setLevel(logging.WARNING)
    sys.setswitchinterval(_SWITCH_SECONDS)
    _run(_serve(config))


class _Plain(logging.Formatter):
    """One message, one line: what an upstream says of itself must not write another or reach the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # logging's own name
        return super().formatMessage(record).replace("\n", " ")


async def _serve(config: Path) -> None:
    settings = load_settings(config)
    public = serve_uvicorn.bind(settings.gateway.listen)
    admin = serve_uvicorn.bind(settings.gateway.admin)
    async with building(config) as house:
        await serve_uvicorn.serve(
            ((house.public, public), (house.admin, admin)),
            reload=house.reload,
            ready=lambda: _settle(house),
            end_seconds=settings.gateway.limits.call_seconds,
        )
    _log.info("ended; the record is closed")


def _settle(house: App) -> None:
    """Say that it serves, and keep the collector from walking what stays loaded: that stopped all calls for 50 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    _say(house)


def _say(house: App) -> None:
    gateway = house.settings.gateway
    offered = sorted(house.state.standing.offers)
    _log.info("clients connect to %s, which listens on %s", gateway.resource, gateway.listen)
    _log.info("health and metrics are on %s; the record is %s", gateway.admin, house.paths.ledger)
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
