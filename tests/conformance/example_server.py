"""The SDK's example server for conformance tests, out of the SDK's own source distribution.

It is published there only, so the distribution is fetched from the package index by pip, held to the hash that
requirements.lock has for the `mcp` we run. Nothing of it is changed, installed or kept in this repository.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from node_peers import locked

__all__ = ["LOCK", "SDK", "example_server", "unpacked"]

_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parent.parent
LOCK = (_ROOT / "requirements.lock").read_text(encoding="utf-8")
_PINNED = re.search(r"^mcp==(?P<version>[^ ]+) \\\n(?:    --hash=\S+(?: \\)?\n)+", LOCK, re.M)
assert _PINNED
SDK = _PINNED["version"]
_INSIDE = f"mcp-{SDK}/examples/servers/everything-server/mcp_everything_server/"
_SERVES = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")


@contextmanager
def example_server(log: Path) -> Iterator[str]:
    """The server, until the context ends; its MCP address."""
    command = (sys.executable, "-m", "mcp_everything_server", "--port", "0", "--log-level", "INFO")
    environment = {**os.environ, "PYTHONPATH": str(unpacked())}
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True
        )
        try:
            yield f"{_address(process, log)}/mcp"
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:  # it waits for event streams that nobody will end
                process.kill()
                process.wait()


def unpacked() -> Path:
    """The folder that holds the package `mcp_everything_server`. Fetched once; others wait meanwhile."""
    place = _ROOT / ".tools" / f"example-server-{SDK}"
    with locked("example-server"):
        if not place.exists():
            fresh = place.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            with tarfile.open(_fetched(fresh / "build")) as archive:
                for member in archive.getmembers():
                    if member.isfile() and member.name.startswith(_INSIDE) and member.name.endswith(".py"):
                        (file := archive.extractfile(member)) and _write(fresh, member.name, file.read())
            shutil.rmtree(fresh / "build", ignore_errors=True)
            fresh.rename(place)
    return place


def _write(place: Path, name: str, content: bytes) -> None:
    target = place / "mcp_everything_server" / Path(name).name
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)


def _fetched(build: Path) -> Path:
    """The source distribution, its hash checked by pip."""
    build.mkdir()
    wanted = build / "sdk.txt"
    assert _PINNED
    wanted.write_text(_PINNED[0])
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
    # pip looks into a source distribution with its build backend even where it only fetches it.
    _pip("install", *quiet, "--target", str(build), "--requirement", str(_HERE / "build-requirements.txt"))
    _pip(
        "download", *quiet, "--no-binary", "mcp", "--no-build-isolation", "--dest", str(build), "-r", str(wanted),
        PYTHONPATH=str(build),
    )  # fmt: skip
    [archive] = build.glob("mcp-*.tar.gz")
    return archive


def _pip(*arguments: str, **environment: str) -> None:
    command = (sys.executable, "-m", "pip", *arguments)
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, which it says in its log."""
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        if found := _SERVES.search(log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"the example server did not start: {log.read_text(encoding='utf-8')[-2000:]}")
