"""Which distributions the base dependencies in pyproject.toml bring, and Python with those alone."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = """
import sys
sys.path[:0] = {paths!r}
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if path is None and top in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Only())
"""


def brought() -> frozenset[str]:
    """Names of all distributions that the base dependencies need, themselves included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    todo = [_name(each) for each in project["dependencies"]]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        needs = metadata.requires(name) or []
        todo += [_name(each) for each in needs if "extra ==" not in each and not _elsewhere(each)]
    return frozenset(found)


def alone(code: str) -> subprocess.CompletedProcess[str]:
    """Run some code where nothing can be imported but Python's own, ours and what is `brought`."""
    kept = brought()
    blocked = {
        top for top, names in metadata.packages_distributions().items()
        if top != "onbehalf" and not any(_name(name) in kept for name in names)
    }  # fmt: skip
    paths = [str(ROOT / "src"), str(ROOT / "tests")]
    return subprocess.run(
        [sys.executable, "-c", _BLOCK.format(paths=paths, blocked=blocked) + code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def _elsewhere(requirement: str) -> bool:
    """Whether its marker is for another Python; those here are plain enough to be told by their version."""
    try:
        return metadata.version(_name(requirement)) == ""
    except metadata.PackageNotFoundError:
        return True
