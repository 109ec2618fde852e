"""Measures the whole path of a call against nginx and FastMCP's proxy, in one run, and says whether the goals are met.

    make bench                      three rounds, about six minutes
    make bench ARGS=--quick         one short round: shows that all of it runs, and is no measurement
    make bench ARGS="--rounds 5"    more rounds, for a machine that is not quiet
    make bench ARGS=--json          one JSON document in place of the table

Needs wrk, and nginx to compare with (Debian: apt-get install wrk nginx-light). What is compared is CPU per call and
ratios within a round: rates by themselves are the machine's. Every run is kept in bench/results/.
Exit 1 where a goal is missed, 2 where something could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from house import HERE, Contender, Issuer, backend, fastmcp, gateway, nginx
from machine import Others, describe

CONNECTIONS = (1, 16, 64)
RESULTS = HERE / "results"
OURS, ANCHOR = "onbehalf", "nginx proxy_pass"
FEWEST_CALLS = 20
"""A window in which fewer calls ended gives no figure."""
MOST_OTHERS = 0.1
"""The share of the machine that others may use before a run is called disturbed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One run of wrk against one contender."""

    contender: str
    tool: str
    connections: int
    turn: int
    calls: int
    rate: float
    per_core_second: float
    p50_ms: float
    p99_ms: float
    others: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A goal with its figure, None where it could not be measured."""

    what: str
    figure: float | None
    bound: float
    at_least: bool

    @property
    def met(self) -> bool:
        """A goal that was not measured is not met."""
        if self.figure is None:
            return False
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound

    def __str__(self) -> str:
        side = "at least" if self.at_least else "at most"
        verdict, figure = "met   " if self.met else "MISSED", f"{self.figure:,.1f}" if self.figure is not None else "-"
        return f"{verdict} {self.what}: {figure}, goal {side} {self.bound:,g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What wrk is told."""

    tool: str
    connections: int
    seconds: int
    turn: int = 0


def measure(contender: Contender, tokens: Path, load: Load, *, own: Sequence[int]) -> Window:
    """One run of wrk, with the CPU that the contender used for it. `own` are the pids of all that belongs to us."""
    others, before = Others(own), contender.cpu_seconds()
    command = ["wrk", "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "--timeout", "60s"]
    done = subprocess.run(
        [*command, "-s", str(HERE / "call.lua"), contender.url, "--", str(tokens), load.tool],
        capture_output=True, text=True, timeout=load.seconds + 90, check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {1 % (os.cpu_count() or 1)}),
    )  # fmt: skip
    line = next((line for line in done.stdout.splitlines() if line.startswith("JSON")), "")
    if not line:
        raise SystemExit(f"wrk failed: {done.stdout}{done.stderr}")
    said: dict[str, float] = json.loads(line.removeprefix("JSON"))
    if said["not_200"] or said["errors"]:
        raise SystemExit(
            f"{contender.name}: {said['not_200']} answers not 200, {said['errors']} errors; no figure is given"
        )
    used = contender.cpu_seconds() - before
    return Window(
        contender=contender.name, tool=load.tool, connections=load.connections, turn=load.turn,
        calls=int(said["calls"]), rate=said["calls"] / (said["micros"] / 1e6),
        per_core_second=said["calls"] / used if used else 0.0,
        p50_ms=said["p50"] / 1000, p99_ms=said["p99"] / 1000, others=others.share(),
    )  # fmt: skip


def require_right(contender: Contender, tokens: Path, tool: str) -> None:
    """Look into one answer: a fast refusal is no result."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {}, "_meta": meta}}
    request = urllib.request.Request(
        contender.url,
        json.dumps(body).encode(),
        {
            "Authorization": f"Bearer {tokens.read_text(encoding='ascii').splitlines()[0]}",
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool,
        },
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=30) as answer:
        result = json.loads(answer.read()).get("result", {})
    right = {"echo": {"said": "hello"}}.get(tool)
    found = result.get("structuredContent")
    if result.get("isError") or (right is not None and found != right) or (right is None and len(found["rows"]) != 20):
        raise SystemExit(f"{contender.name} answers `{tool}` with {str(result)[:300]}")


def rounds(
    contenders: Sequence[tuple[Contender, Path]], *, number: int, seconds: int, own: Sequence[int],
    note: Callable[[str], object],
) -> Iterator[Window]:  # fmt: skip
    """Every contender at every count of connections, and ours with rows; every other round in the opposite order."""
    ours = next(pair for pair in contenders if pair[0].name == OURS)
    cells = [(each, "echo", connections) for connections in CONNECTIONS for each in contenders] + [(ours, "rows", 16)]
    for turn in range(number):
        for (contender, tokens), tool, connections in cells if turn % 2 == 0 else reversed(cells):
            note(f"round {turn + 1} of {number}: {contender.name}, {tool}, {connections} connections")
            load = Load(tool=tool, connections=connections, seconds=seconds, turn=turn)
            yield measure(contender, tokens, load, own=own)


def goals(windows: Sequence[Window], memory: dict[str, float]) -> list[Goal]:
    """The goals of the project, with what was measured."""
    ours = [each for each in windows if each.contender == OURS and each.tool == "echo"]
    speed = [each.per_core_second for each in ours if each.connections == 16]
    beside = {each.turn: each.p50_ms for each in windows if each.contender == ANCHOR and each.connections == 1}
    ratios = [each.p50_ms / beside[each.turn] for each in ours if each.connections == 1 and each.turn in beside]
    return [
        Goal(
            what="calls per core-second at 16 connections",
            figure=statistics.median(speed), bound=3000, at_least=True,
        ),
        Goal(
            what="p50 at 1 connection, as a multiple of nginx's in the same round",
            figure=statistics.median(ratios) if ratios else None, bound=6, at_least=False,
        ),
        Goal(what="megabytes of memory", figure=memory[OURS], bound=100, at_least=False),
    ]  # fmt: skip


def table(windows: Sequence[Window], memory: dict[str, float]) -> str:
    """Medians over the rounds, and the least and most calls per core-second that a round gave."""
    lines = [
        f"{'':<18}{'tool':<6}{'connections':>11}{'calls/s':>9}{'calls/core-s':>14}{'(rounds)':>16}"
        f"{'p50 ms':>9}{'p99 ms':>9}{'added p50':>11}{'added p99':>11}"
    ]
    cells: dict[tuple[str, str, int], list[Window]] = {}
    for each in windows:
        cells.setdefault((each.contender, each.tool, each.connections), []).append(each)
    for (name, tool, connections), found in sorted(cells.items(), key=lambda cell: _place(cell[0])):
        start = f"{name:<18}{tool:<6}{connections:>11}"
        if min(each.calls for each in found) < FEWEST_CALLS:
            lines.append(f"{start}  too few calls ended in a window for a figure")
            continue
        speed, rate, p50, p99 = (
            [getattr(each, what) for each in found] for what in ("per_core_second", "rate", "p50_ms", "p99_ms")
        )
        beside = {each.turn: each for each in cells.get((ANCHOR, tool, connections), [])}
        added = [
            (each.p50_ms - beside[each.turn].p50_ms, each.p99_ms - beside[each.turn].p99_ms)
            for each in found
            if each.turn in beside and name != ANCHOR
        ]
        shown = [f"{statistics.median(column):+11.2f}" for column in zip(*added, strict=True)]
        lines.append(
            f"{start}{statistics.median(rate):>9,.0f}{statistics.median(speed):>14,.0f}"
            f"{f'{min(speed):,.0f}-{max(speed):,.0f}':>16}"
            f"{statistics.median(p50):>9.2f}{statistics.median(p99):>9.2f}{''.join(shown)}"
        )
    lines += ["", *(f"{name:<18}memory at most {megabytes:.0f} MB" for name, megabytes in memory.items())]
    return "\n".join(lines)


def _place(cell: tuple[str, str, int]) -> tuple[int, str, str, int]:
    name, tool, connections = cell
    return [ANCHOR, OURS].index(name) if name in (ANCHOR, OURS) else 2, name, tool, connections


def disturbed(windows: Sequence[Window]) -> str:
    """A warning where others used much of the machine; "" where they did not."""
    worst = max(windows, key=lambda each: each.others)
    if worst.others <= MOST_OTHERS:
        return ""
    typical = statistics.median(each.others for each in windows)
    return (
        f"DISTURBED: others used up to {worst.others:.0%} of this machine ({typical:.0%} at the median). "
        "Run it again when nothing else runs."
    )


def main() -> int:
    """The bench; its exit code."""
    asked = _asked()
    if shutil.which("wrk") is None:
        sys.stderr.write("wrk is not here, which makes the load; Debian: apt-get install wrk nginx-light\n")
        return 2
    if shutil.which("nginx") is None:
        sys.stderr.write("without nginx, so one goal cannot be measured; Debian: apt-get install nginx-light\n")
    python: Path | None = HERE / ".venv" / "bin" / "python"
    if python is None or not python.exists():
        python = None
        sys.stderr.write("without FastMCP: `make bench` sets it up in bench/.venv\n")
    RESULTS.mkdir(exist_ok=True)
    # not /tmp, which may be memory: a record there is durable for free
    with tempfile.TemporaryDirectory(dir=asked.scratch) as scratch:
        machine = describe(Path(scratch), python)
        windows, memory = _measured(Path(scratch), asked, python)
    verdicts = goals(windows, memory)
    document: dict[str, Any] = {
        "machine": machine,
        "windows": [asdict(each) for each in windows],
        "memory_mb": memory,
        "goals": [asdict(each) | {"met": each.met} for each in verdicts],
    }
    _keep(document)
    if asked.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        said = ["; ".join(f"{key} {value}" for key, value in machine.items()), "", table(windows, memory), ""]
        sys.stdout.write("\n".join([*said, *map(str, verdicts), disturbed(windows)]).rstrip() + "\n")
    if any(each.figure is None for each in verdicts):
        return 2
    return 0 if all(each.met for each in verdicts) else 1


def _measured(scratch: Path, asked: argparse.Namespace, python: Path | None) -> tuple[list[Window], dict[str, float]]:
    note: Callable[[str], object] = (lambda text: sys.stderr.write(f"{text}\n")) if not asked.json else (lambda _: None)
    with ExitStack() as stack:
        issuer = Issuer(scratch)
        stack.callback(issuer.close)
        behind = stack.enter_context(backend(scratch))
        running = [stack.enter_context(gateway(scratch, behind.url, issuer))]
        if shutil.which("nginx") is not None:
            running.insert(0, stack.enter_context(nginx(scratch, behind.url)))
        if python is not None:
            running.append(stack.enter_context(fastmcp(scratch, behind.url, issuer, python)))
        contenders = [
            (each, issuer.tokens(each.url, scratch / f"tokens-{number}")) for number, each in enumerate(running)
        ]
        own = [os.getpid(), behind.pid, *(pid for each in running for pid in each.pids())]
        for each, tokens in contenders:
            note(f"{each.name}: warming up")
            for tool in ("echo", "rows") if each.name == OURS else ("echo",):
                require_right(each, tokens, tool)
                measure(each, tokens, Load(tool=tool, connections=16, seconds=2), own=own)
        windows = [*rounds(contenders, number=asked.rounds, seconds=asked.seconds, own=own, note=note)]
        return windows, {each.name: round(each.peak_megabytes(), 1) for each in running}


def _asked() -> argparse.Namespace:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--quick", action="store_true", help="one round of two seconds")
    reader.add_argument("--rounds", type=int, default=3, metavar="N", help="how often everything is measured (3)")
    reader.add_argument("--seconds", type=int, default=5, metavar="N", help="how long each window is (5)")
    reader.add_argument(
        "--scratch", metavar="DIR", default=RESULTS, help="a place for the record, not in memory (results)"
    )
    reader.add_argument("--json", action="store_true", help="one JSON document")
    asked = reader.parse_args()
    if asked.quick:
        asked.rounds, asked.seconds = 1, 2
    return asked


def _keep(document: dict[str, Any]) -> None:
    path = RESULTS / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    sys.stderr.write(f"kept in {path}\n")


if __name__ == "__main__":
    sys.exit(main())
