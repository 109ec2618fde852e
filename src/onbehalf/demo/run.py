"""Starts everything the demo needs, plays the story, prints how to join in, and goes on serving.

The issuer, the ticket system and the gateway are processes of their own, ended by their ids. Must not
decide anything: what is right is the story's business.
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from onbehalf.demo.data import world
from onbehalf.demo.files import Database, Places, write
from onbehalf.demo.hr_postgres import HrPostgres
from onbehalf.demo.person_browser import say
from onbehalf.demo.postgres import ServerFailed, server
from onbehalf.demo.story import run_story
from onbehalf.demo.telling import Stage, table

__all__ = ["DemoFailed", "Ports", "run", "serve_gateway"]

StartGateway = Callable[[Path], AbstractContextManager[object]]
_READY_SECONDS = 40
_OURS = range(22_000, 32_000)
"""Below what systems give to whoever asks for any port."""


class DemoFailed(Exception):
    """A part of the demo did not start; the message is its last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where to listen. 0 takes any free port; a taken one is replaced by a free one, and that is said."""

    gateway: int = 8100
    admin: int = 8101
    issuer: int = 8110
    tickets: int = 8111
    orders: int = 8112


def run(
    directory: Path,
    *,
    once: bool,
    ports: Ports | None = None,
    start_gateway: StartGateway | None = None,
    console: Console | None = None,
    database: Database = "sqlite",
) -> int:
    """The demo. With `once` it ends after the story; 0 only when every step was as told. `directory` is kept."""
    console = console or Console()
    directory = directory.resolve()
    ok = False
    try:
        with _ended_in_order(), ExitStack() as house:
            hr = _hr_postgres(house, directory) if database == "postgres" else None
            places, config = _start(house, directory, ports or Ports(), start_gateway or serve_gateway, console, hr)
            ok = _told(directory, places, config, console, hr)
            if not once:
                _join_in(places, config, console)
                threading.Event().wait()
    except (DemoFailed, ServerFailed) as error:
        console.print(f"[red bold]the demo did not start[/red bold]: {escape(str(error))}", highlight=False)
    except KeyboardInterrupt:
        console.print("\nEnded.")
    console.print(f"The data stays in {escape(str(directory))}.", highlight=False, soft_wrap=True)
    return 0 if ok else 1


def _told(directory: Path, places: Places, config: Path, console: Console, hr: HrPostgres | None) -> bool:
    """Play the story; whether every step was as told."""
    stage = Stage(
        gateway=places.resource,
        directory=directory,
        world=world(),
        verify=lambda: _onbehalf("audit", "verify", "--config", str(config)),
        explain=lambda call: _explained(call, config),
        say=say,
        reviews=hr.reviews if hr else lambda: table(directory / "hr.db", "reviews"),
        seen_by_reader=hr.seen_by_reader if hr else None,
    )
    result = run_story(stage, console)
    right = sum(1 for step in result.steps if step.ok)
    console.print(f"\n[bold]{right} of {len(result.steps)} steps were as told.[/bold]", highlight=False)
    return result.ok


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """A SIGTERM unwinds as Ctrl-C does, so that no child process is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(
    house: ExitStack,
    directory: Path,
    ports: Ports,
    start_gateway: StartGateway,
    console: Console,
    hr: HrPostgres | None = None,
) -> tuple[Places, Path]:
    """All processes, each ready before the next; where they listen, and the configuration."""
    gateway, admin, issuer, tickets, orders = _free(ports, console)
    places = Places(
        gateway=_url(gateway), admin=_url(admin), issuer=_url(issuer), tickets=_url(tickets), orders=_url(orders)
    )
    config = write(directory, world(), places, database="postgres" if hr else "sqlite")
    if hr is not None:
        hr.fill(world())
        hr.build_wall(lambda *command: _said(*command, "--config", str(config)))
    python = (sys.executable, "-m")
    pages = ("--client", "onbehalf-approvals", f"{places.gateway}/approvals/back")
    login = (*python, "onbehalf.demo.issuer", "--port", str(issuer), "--resource", places.resource, *pages)
    _start_part(house, login, directory)
    for part, port in (("tickets", tickets), ("orders", orders)):
        behind = ("--port", str(port), "--data", str(directory), "--gateway", places.gateway)
        _start_part(house, (*python, f"onbehalf.demo.{part}", *behind), directory)
    process = house.enter_context(start_gateway(config))
    _wait_ready(f"{places.admin}/readyz", process, log=directory / "gateway.log")
    console.print("[bold]Everything runs.[/bold]")
    for what, where in (
        ("gateway", places.resource),
        ("health and metrics", places.admin),
        ("demo issuer", places.issuer),
        ("ticket system", places.tickets),
        ("orders", places.orders),
        ("data", str(directory)),
    ):
        console.print(f"  {what:<19} {where}", highlight=False, soft_wrap=True)
    return places, config


def _hr_postgres(house: ExitStack, directory: Path) -> HrPostgres:
    """A database server of the demo's own, which ends with it. Raises ServerFailed."""
    return HrPostgres(owner=house.enter_context(server()), directory=directory)


def _said(*command: str) -> str:
    ok, text = _onbehalf(*command)
    if not ok:
        raise DemoFailed(text)
    return text


@contextmanager
def serve_gateway(config: Path) -> Iterator[subprocess.Popen[str]]:
    """The gateway as `onbehalf serve` runs it, in a process of its own, until the context ends."""
    command = (sys.executable, "-m", "onbehalf.cli.main", "serve", "--config", str(config))
    with _child(command, log=config.parent / "gateway.log") as process:
        yield process


def _start_part(house: ExitStack, command: Sequence[str], directory: Path) -> subprocess.Popen[str]:
    """Start a helper that prints one JSON line when it listens, and wait for that line."""
    log = directory / f"{command[2].rpartition('.')[2]}.log"
    process = house.enter_context(_child(command, log=log, pipe=True))
    lines: queue.Queue[str] = queue.Queue()
    stream = process.stdout
    assert stream is not None  # asked for in the line that made the process
    threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
    try:
        json.loads(lines.get(timeout=_READY_SECONDS))["url"]
    except (queue.Empty, ValueError, KeyError) as error:
        raise DemoFailed(f"{command[2]} did not start; see {log}: {_tail(log)}") from error
    return process


@contextmanager
def _child(command: Sequence[str], *, log: Path, pipe: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended, by its id, when the context ends. What it says on stderr goes to `log`."""
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(  # noqa: S603  # our own modules, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipe else errors,
            stderr=errors,
            text=True,
            # A Ctrl-C in the terminal goes to the demo alone, which then ends its children in order.
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


def _wait_ready(url: str, process: object, *, log: Path) -> None:
    """Until the gateway says it is ready. Raises DemoFailed with what it said last, at once where it has ended."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until, last = time.monotonic() + _READY_SECONDS, "nothing listens"
    while time.monotonic() < until:
        try:
            with opener.open(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except urllib.error.HTTPError as error:
            last = f"{error.code} {error.read(300).decode('utf-8', 'replace')}"
        except OSError as error:
            last = str(error)
        if isinstance(process, subprocess.Popen) and process.poll() is not None:
            raise DemoFailed(f"the gateway ended: {_tail(log)}")
        time.sleep(0.1)
    raise DemoFailed(f"the gateway was not ready within {_READY_SECONDS} s: {last}; see {log}")


def _free(ports: Ports, console: Console) -> tuple[int, int, int, int, int]:
    """The wanted ports where they are free, else others. All are held until all are known, so none comes twice."""
    with ExitStack() as held:
        chosen = []
        wanted_ports = (("gateway", ports.gateway), ("admin", ports.admin), ("issuer", ports.issuer))
        for name, wanted in (*wanted_ports, ("tickets", ports.tickets), ("orders", ports.orders)):
            listening = (_bound(wanted) if wanted else None) or _anywhere()
            if listening is None:
                raise DemoFailed("no free port on 127.0.0.1")
            held.enter_context(listening)
            port = int(listening.getsockname()[1])
            if wanted and port != wanted:
                console.print(f"port {wanted} is taken; the {name} listens on {port}", highlight=False)
            chosen.append(port)
    return chosen[0], chosen[1], chosen[2], chosen[3], chosen[4]


def _anywhere() -> socket.socket | None:
    """A port that the system gives to nobody who asks for any: else another could have it before who is to listen."""
    ports = random.sample(_OURS, 100)
    return next(filter(None, map(_bound, (*ports, 0))), None)


def _bound(port: int) -> socket.socket | None:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return None


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()[-600:]


def _onbehalf(*arguments: str) -> tuple[bool, str]:
    """Run the command line as an auditor would; whether it said yes, and what it said."""
    done = subprocess.run(  # noqa: S603  # our own module, no shell
        (sys.executable, "-m", "onbehalf.cli.main", *arguments),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120"},
    )
    return done.returncode == 0, done.stdout if done.returncode == 0 else f"{done.stdout}\n{done.stderr}".strip()


def _explained(call: str, config: Path) -> str:
    ok, text = _onbehalf("explain", call, "--config", str(config))
    if not ok:
        raise RuntimeError(text)
    return text


def _join_in(places: Places, config: Path, console: Console) -> None:
    console.print("\n[bold]Now you.[/bold] It serves until Ctrl-C. Connect any MCP client to:")
    console.print(f"  {places.resource}", highlight=False, soft_wrap=True)
    console.print("  for example: claude mcp add --transport http onbehalf-demo " + places.resource, soft_wrap=True)
    console.print("               npx @modelcontextprotocol/inspector   (transport: Streamable HTTP)", highlight=False)
    console.print("A browser opens; pick a person, say Alice Ngo of acme. Then look at the record:")
    console.print(f"  onbehalf audit verify --config {config}", highlight=False, soft_wrap=True)
