"""The published conformance suite, run against an address; and the house it is run through.

Must not judge what is right: that stands in expected.yaml.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import node_peers
from conformance.bearer_shim import bearer_shim
from conformance.example_server import example_server
from house_process import bearer, running_gateway, running_issuer
from onbehalf.demo.data import world
from ports import free_port

__all__ = ["REVISIONS", "Result", "house", "suite"]

REVISIONS: Mapping[str, tuple[str, ...]] = {
    "2025-03-26": ("--suite", "all", "--spec-version", "2025-03-26"),
    "2025-06-18": ("--suite", "all", "--spec-version", "2025-06-18"),
    "2025-11-25": ("--requirements", "2025-11-25"),
    "2026-07-28": ("--requirements", "2026-07-28"),
}
"""Revisions the suite knows, and how to ask for one. It keeps frozen requirement sets of the newer two."""

_HOUSE = Path(__file__).resolve().parent / "house"
_LINE = re.compile(r"^[✓✗] (?P<name>\S+): (?P<passed>\d+) passed, (?P<failed>\d+) failed", re.M)
_UNSCORED = re.compile(r"^  [✓✗] (?P<name>\S+) \((?P<why>[a-z-]+)\)$", re.M)
_SCENARIO_MS = 15_000
_SECONDS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One scenario. `broken` maps failed checks to what the suite says; `unscored` is why it does not count, or ""."""

    passed: int
    failed: int
    broken: Mapping[str, str]
    unscored: str


def suite(revision: str, url: str, out: Path) -> dict[str, Result]:
    """Every scenario of a revision against the server at `url`. `out` keeps the suite's own files."""
    program = node_peers.packages() / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    command = (
        node_peers.node(), str(program), "server", "--url", url, *REVISIONS[revision],
        "--timeout", str(_SCENARIO_MS), "--output-dir", str(out),
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    told = done.stdout + done.stderr
    unscored = {found["name"]: found["why"] for found in _UNSCORED.finditer(told)}
    results = {
        found["name"]: Result(
            passed=int(found["passed"]),
            failed=int(found["failed"]),
            broken=_broken(out, found["name"]),
            unscored=unscored.get(found["name"], ""),
        )
        for found in _LINE.finditer(told)
    }
    assert results, f"the suite told nothing: {told[-3000:]}"
    return results


def _broken(out: Path, scenario: str) -> dict[str, str]:
    """Failed checks. Some ids stand several times in a scenario; the first message is kept."""
    broken: dict[str, str] = {}
    # The suite names a folder after the scenario and the time; no scenario's name is another's with a digit after it.
    for path in out.glob(f"server-{scenario}-20[0-9][0-9]-[0-9][0-9]-[0-9][0-9]T*/checks.json"):
        for check in json.loads(path.read_text(encoding="utf-8")):
            if check["status"] == "FAILURE":
                broken.setdefault(check["id"], str(check.get("errorMessage") or check.get("description") or ""))
    return dict(sorted(broken.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """Where the example server is, and where it is through the gateway with a token added."""

    direct: str
    through: str


@contextmanager
def house(directory: Path) -> Iterator[House]:
    """The example server, an issuer and the gateway before it, and the shim before that."""
    gateway, admin, issuer = (f"http://127.0.0.1:{free_port()}" for _ in range(3))
    resource = f"{gateway}/mcp"
    with ExitStack() as stack:
        example = stack.enter_context(example_server(directory / "example.log"))
        issuer_port = urlsplit(issuer).port
        assert issuer_port
        stack.enter_context(running_issuer(directory, port=issuer_port, resource=resource))
        subject = world().person("acme", "alice").subject
        marks = {
            "@GATEWAY@": gateway,
            "@LISTEN@": urlsplit(gateway).netloc,
            "@ADMIN@": urlsplit(admin).netloc,
            "@ISSUER@": issuer,
            "@EXAMPLE@": example,
            "@SUBJECT@": subject,
        }
        stack.enter_context(running_gateway(_written(directory, marks), admin=admin))
        through = stack.enter_context(bearer_shim(resource, bearer(issuer, resource, subject)))
        yield House(direct=example, through=through)


def _written(directory: Path, marks: Mapping[str, str]) -> Path:
    policies = directory / "policies"
    policies.mkdir()
    for source in _HOUSE.iterdir():
        text = source.read_text(encoding="utf-8")
        for mark, value in marks.items():
            text = text.replace(mark, value)
        (policies if "cedar" in source.suffix else directory).joinpath(source.name).write_text(text, encoding="utf-8")
    return directory / "onbehalf.yaml"
