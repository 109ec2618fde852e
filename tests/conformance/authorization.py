"""What the standards demand of authorization, with the tests that try it: a part of docs/conformance.md.

The published suite has no scenario about authorization of a server, so authorization.yaml lists what the specification
and the RFCs demand, each with tests of our own. The page says `passes` only where `make conformance` saw every one of
them pass. Must not judge whether a test tries enough.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = ["demands", "missing", "passing", "section"]

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
_SECONDS = 900


def demands() -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Who is asked, to what is demanded of them."""
    told: dict[str, list[dict[str, Any]]] = yaml.safe_load((HERE / "authorization.yaml").read_text(encoding="utf-8"))
    return told


def missing() -> list[str]:
    """Tests that are named and not there."""
    functions: dict[str, set[str]] = {}
    absent = []
    for name in _tests():
        file, _, function = name.partition("::")
        if file not in functions:
            path = TESTS / file
            tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.parse("")
            functions[file] = {
                node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        if function not in functions[file]:
            absent.append(name)
    return absent


def passing() -> bool:
    """Run every test that is named; whether all pass and none is skipped."""
    command = (sys.executable, "-m", "pytest", "-q", "-rs", "-n", "2", "--dist", "loadfile", *_tests())
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=_SECONDS, check=False)
    sys.stdout.write(done.stdout[-2000:])
    return done.returncode == 0 and "SKIPPED" not in done.stdout


def section() -> Iterator[str]:
    """The part of the page."""
    yield """
## Authorization

The suite does not try how a server proves who calls, so this part is our own: what the specification and the RFCs
demand of a gateway, in our words, and the tests that try it. `make conformance` runs each of them and writes this page
only when all pass; `make test` fails when the page names a test that is not there. A row without tests is a demand that
is not met, and says why."""
    for who, items in demands().items():
        role = who in ("resource server", "authorization server")
        yield f"\n### As a {who}\n" if role else f"\n### {who[0].upper()}{who[1:]}\n"
        yield "| | | demand | tried by | result |"
        yield "| --- | --- | --- | --- | --- |"
        for each in items:
            tried = "<br>".join(f"`{name}`" for name in each.get("tests", ())) or "nothing"
            result = "passes" if each.get("tests") else f"not met: {each['why']}"
            yield f"| {each['id']} | {each['level']} | {each['text']} ({each['source']}) | {tried} | {result} |"


def _tests() -> list[str]:
    return sorted({name for items in demands().values() for each in items for name in each.get("tests", ())})
