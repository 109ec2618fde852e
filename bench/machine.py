"""What the figures were measured on, and who else used the machine meanwhile: without both they mean nothing."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

__all__ = ["Others", "cpu_seconds", "describe", "fdatasync_ms"]

_TICKS = os.sysconf("SC_CLK_TCK")


class Others:
    """The share of all cores that went to others between `begin` and `end`: other processes, other machines (steal)."""

    def __init__(self, pids: Sequence[int]) -> None:
        """`pids` are our own processes; wrk, as a child that has ended, counts as ours too."""
        self._pids = pids
        self._then = self._now()

    def share(self) -> float:
        """From 0 to 1, since this was made."""
        seconds, busy, own = (now - then for now, then in zip(self._now(), self._then, strict=True))
        return max(0.0, busy - own) / (seconds * (os.cpu_count() or 1))

    def _now(self) -> tuple[float, float, float]:
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        own = ended.ru_utime + ended.ru_stime + sum(cpu_seconds(pid) for pid in self._pids)
        whole = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
        user, nice, system, _idle, _wait, irq, soft, steal = (int(each) / _TICKS for each in whole[1:9])
        return time.monotonic(), user + nice + system + irq + soft + steal, own


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def fdatasync_ms(directory: Path, *, times: int = 200) -> float:
    """The median time of making 4 KiB more of a file durable there: what no gateway that records first can be under."""
    took = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(times):
            os.write(file.fileno(), b"\0" * 4096)
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000


def describe(directory: Path, fastmcp: Path | None) -> dict[str, str | int | float]:
    """Machine, versions and disk. `fastmcp` is the Python of its environment."""
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    found: dict[str, str | int | float] = {
        "processor": _line("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": os.cpu_count() or 1,
        "kernel": platform.release(),
        "system": (_line("/etc/os-release", "PRETTY_NAME", "=") or platform.system()).strip('"'),
        "python": f"{platform.python_version()} ({'' if optimised else 'not '}built with its optimisations)",
        "onbehalf": version("onbehalf-gateway"),
        "commit": _said(["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]),
        "nginx": _said(["nginx", "-v"]).rpartition("/")[2],
        "wrk": _said(["wrk", "-v"]).removeprefix("wrk ").partition(" ")[0],
        "fdatasync_p50_ms": round(fdatasync_ms(directory), 3),
    }
    if fastmcp is not None:
        asked = "from importlib.metadata import version as v; print(v('fastmcp'), 'with mcp', v('mcp'))"
        found["fastmcp"] = _said([str(fastmcp), "-c", asked])
    return found


def _line(path: str, name: str, mark: str = ":") -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(mark)
        if key.strip() == name:
            return value.strip()
    return ""


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip()
