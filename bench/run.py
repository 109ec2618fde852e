"""Measures the whole path of a call against nginx and FastMCP's proxy, in one run, and says whether the goals are met.

    make bench                 three rounds, about five minutes
    bench/run.py --quick       one short round
    bench/run.py --json        one JSON document

Needs wrk and nginx (Debian: apt-get install wrk nginx-light). What is compared is CPU per call and ratios within this
run: rates by themselves are the machine's. Exit 1 where a goal is missed, 2 where something cannot run.
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
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from house import HERE, Contender, Issuer, backend, fastmcp, gateway, nginx

CONNECTIONS = (1, 16, 64)
GOALS = (
    ("calls per core-second at 16 connections", 3000.0, "at least"),
    ("p50 at 1 connection, against nginx", 6.0, "at most"),
    ("megabytes of memory", 100.0, "at most"),
)


def measure(contender: Contender, tokens: Path, *, tool: str, connections: int, seconds: float) -> dict[str, float]:
    """One run of wrk, with the CPU that the contender used for it."""
    before = contender.cpu_seconds()
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(HERE / "call.lua")]
    done = subprocess.run(
        [*command, contender.url, "--", str(tokens), tool],
        capture_output=True, text=True, timeout=seconds + 60, check=False,
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
    return {
        "rate": said["calls"] / (said["micros"] / 1e6),
        "per_core_second": said["calls"] / used if used else 0.0,
        "p50_ms": said["p50"] / 1000,
        "p99_ms": said["p99"] / 1000,
    }


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


def rounds(contenders: list[tuple[Contender, Path]], *, number: int, seconds: float, note: Any) -> dict[str, Any]:
    """Every contender at every count of connections, interleaved; medians over the rounds."""
    seen: dict[tuple[str, str], list[dict[str, float]]] = {}
    for turn in range(number):
        for connections in CONNECTIONS:
            for contender, tokens in contenders:
                note(f"round {turn + 1} of {number}: {contender.name}, {connections} connections")
                found = measure(contender, tokens, tool="echo", connections=connections, seconds=seconds)
                seen.setdefault((contender.name, f"c{connections}"), []).append(found)
    for contender, tokens in contenders:
        if contender.name == "onbehalf":
            note("onbehalf, 20 rows each decided, 16 connections")
            seen[contender.name, "c16 rows"] = [
                measure(contender, tokens, tool="rows", connections=16, seconds=seconds) for _ in range(number)
            ]
    result: dict[str, Any] = {}
    for (name, what), found in seen.items():
        medians = {key: statistics.median(each[key] for each in found) for key in found[0]}
        result.setdefault(name, {})[what] = medians
    for contender, _ in contenders:
        result[contender.name]["memory_mb"] = contender.peak_megabytes()
    return result


def verdict(result: dict[str, Any]) -> list[tuple[str, float, float, bool]]:
    """Each goal with its figure, its bound, and whether it is met."""
    own, anchor = result["onbehalf"], result["nginx proxy_pass"]
    figures = (own["c16"]["per_core_second"], own["c1"]["p50_ms"] / anchor["c1"]["p50_ms"], own["memory_mb"])
    return [
        (what, figure, bound, figure >= bound if side == "at least" else figure <= bound)
        for (what, bound, side), figure in zip(GOALS, figures, strict=True)
    ]


def report(result: dict[str, Any]) -> str:
    """The figures as a table for people."""
    lines = [
        f"{'':<18}{'connections':>12}{'calls/s':>10}{'calls/core-s':>14}{'p50 ms':>9}{'p99 ms':>9}{'added p50':>11}"
    ]
    anchor = result["nginx proxy_pass"]
    for name, found in result.items():
        for what, each in found.items():
            if what == "memory_mb":
                continue
            added = each["p50_ms"] - anchor[what]["p50_ms"] if what in anchor else float("nan")
            lines.append(
                f"{name:<18}{what.removeprefix('c'):>12}{each['rate']:>10.0f}{each['per_core_second']:>14.0f}"
                f"{each['p50_ms']:>9.2f}{each['p99_ms']:>9.2f}{'' if added != added else f'{added:+.2f}':>11}"
            )
        lines.append(f"{name:<18}{'memory':>12}{found['memory_mb']:>10.0f} MB")
    lines.append("")
    lines += [
        f"{'met   ' if met else 'MISSED'} {what}: {figure:.1f}, goal {side} {bound:g}"
        for (what, figure, bound, met), (_, _, side) in zip(verdict(result), GOALS, strict=True)
    ]
    return "\n".join(lines)


def main() -> int:
    """The bench; its exit code."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--quick", action="store_true", help="one round of two seconds")
    reader.add_argument("--json", action="store_true", help="one JSON document")
    asked = reader.parse_args()
    for needed in ("wrk", "nginx"):
        if shutil.which(needed) is None:
            sys.stderr.write(f"{needed} is not here; Debian: apt-get install wrk nginx-light\n")
            return 2
    python = HERE / ".venv" / "bin" / "python"
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        directory = Path(scratch)
        issuer = Issuer(directory)
        stack.callback(issuer.close)
        behind = stack.enter_context(backend(directory))
        running = [
            stack.enter_context(nginx(directory, behind)),
            stack.enter_context(gateway(directory, behind, issuer)),
        ]
        if python.exists():
            running.append(stack.enter_context(fastmcp(directory, behind, issuer, python)))
        else:
            sys.stderr.write("without FastMCP: `make bench` sets it up in bench/.venv\n")
        contenders = [
            (each, issuer.tokens(each.url, directory / f"tokens-{number}")) for number, each in enumerate(running)
        ]
        note = (lambda text: sys.stderr.write(f"{text}\n")) if not asked.json else (lambda _: None)
        for each, tokens in contenders:
            require_right(each, tokens, "echo")
            measure(each, tokens, tool="echo", connections=16, seconds=2)  # warm
        require_right(contenders[1][0], contenders[1][1], "rows")
        result = rounds(contenders, number=1 if asked.quick else 3, seconds=2 if asked.quick else 5, note=note)
    sys.stdout.write((json.dumps(result, indent=2) if asked.json else report(result)) + "\n")
    return 0 if all(met for *_, met in verdict(result)) else 1


if __name__ == "__main__":
    sys.exit(main())
