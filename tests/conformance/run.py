"""`make conformance`: run the suite against the example server, directly and through the gateway, and write the page.

    .venv/bin/python tests/conformance/run.py

Says what is not as expected.yaml has it, and then exits 1.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # as pytest does, see `pythonpath` in pyproject.toml

from conformance.authorization import passing
from conformance.report import DOCUMENT, Runs, document, expected, showing_less
from conformance.suite import REVISIONS, house, suite

__all__ = ["both", "main"]


def both(directory: Path) -> tuple[Runs, Runs]:
    """Every revision, direct and through the gateway."""
    with house(directory) as where:
        direct, through = (
            {revision: suite(revision, url, directory / f"{revision}-{name}") for revision in REVISIONS}
            for name, url in (("direct", where.direct), ("gateway", where.through))
        )
    return direct, through


def main() -> int:
    """Write docs/conformance.md; 0 when what fails is exactly what is expected to."""
    with tempfile.TemporaryDirectory() as directory:
        direct, through = both(Path(directory))
    if not passing():
        sys.stdout.write(f"{DOCUMENT} is not written: a test that it names does not pass\n")
        return 1
    DOCUMENT.write_text(document(direct, through), encoding="utf-8")
    differing = [line for revision in REVISIONS for line in _differing(revision, direct, through)]
    verdict = "expected.yaml is not true" if differing else "all is as expected"
    sys.stdout.write("\n".join((*differing, f"{DOCUMENT} is written; {verdict}", "")))
    return 1 if differing else 0


def _differing(revision: str, direct: Runs, through: Runs) -> Iterator[str]:
    results, known = through[revision], expected()
    wanted = known.checks(revision)
    seen = {name: sorted(each.broken) for name, each in results.items() if each.failed}
    for name in sorted({*seen, *wanted}):
        if seen.get(name) != wanted.get(name):
            yield f"{revision} {name}: expected to fail {wanted.get(name, [])}, failing {seen.get(name, [])}"
            messages = results[name].broken if name in results else {}
            yield from (f"    {check}: {message[:300]}" for check, message in messages.items())
    less = showing_less(direct[revision], results)
    for name in sorted(less ^ set(known.less.get(revision, {}))):
        yield f"{revision} {name}: {'passes, but shows less than directly' if name in less else 'shows all'}"


if __name__ == "__main__":
    sys.exit(main())
