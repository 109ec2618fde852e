"""The whole gateway under load, killed again and again, or left alone for hours.

    PYTHONPATH=tests python -m faults.soak --kills 1000 --minutes 10

Clients, backend and onlookers write down what they see, synced line by line, in files of their own; checker.py holds
the record against them after every kill and after every start. `--minutes` is how long one gateway then runs without a
kill, while its open files, its memory and its bytes of disk are measured. Exit code 1 where something does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from company import MODERN, Company, _claims, company, wait_for
from faults.checker import Log, Seen, judge, judge_recovery, read_log
from faults.planted_gateway import STEPS
from onbehalf.demo import run as demo

__all__ = ["STEPS", "Round", "Sample", "Told", "growing", "soak", "steady", "walked"]

PLANTED = str(Path(__file__).with_name("planted_gateway.py"))
TOOLS = ("desk_write", "desk_read", "notes_list", "desk_write")
A_LOG = 100
_TRIES = 30
"""Kills before a new record is begun, so that the checker's work stays small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One gateway's life: at which step it ends, how often that is passed before, or what is broken in it."""

    step: str
    after: int = 3


@dataclass(slots=True)
class Told:
    """What came of it."""

    kills: int = 0
    acked: int = 0
    effects: int = 0
    leaves: int = 0
    unknown: int = 0
    faults: list[str] = field(default_factory=list)


class Kept:
    """The logs beside the record, and the company that they are about."""

    def __init__(self, around: Company) -> None:
        self.around = around
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._files = {name: os.open(around.directory / name, flags) for name in ("clients", "backend", "heads")}
        answer = around.desk.answer

        def logged(message: Any, token: str) -> Any:
            if message["method"] == "tools/call":
                self._done(token)
            return answer(message, token)

        around.desk.answer = logged  # type: ignore[method-assign]

    def close(self) -> None:
        for each in self._files.values():
            os.close(each)

    def _done(self, token: str) -> None:
        claims = _claims(token)
        self.write("backend", did="effect", call=claims["txn"], **claims["tctx"]["record"])

    def write(self, name: str, **said: Any) -> None:
        os.write(self._files[name], json.dumps(said).encode() + b"\n")
        os.fdatasync(self._files[name])

    @property
    def seen(self) -> Seen:
        return Seen.of(*(self.around.directory / name for name in self._files))

    @property
    def vkey(self) -> str:
        [found] = self.around.directory.glob("data/**/log.pub")
        return found.read_text(encoding="ascii")

    def log(self) -> Log:
        return read_log(self.around.ledger)

    def call(self, connection: HTTPConnection, tool: str, token: str) -> bool:
        """One call, and what was answered; whether the gateway is there."""
        about = {"protocolVersion": MODERN, "clientCapabilities": {}, "clientInfo": {"name": "load", "version": "1"}}
        meta = {f"io.modelcontextprotocol/{name}": value for name, value in about.items()}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        body = json.dumps({**asked, "params": {"_meta": meta, "name": tool, "arguments": {}}})
        headers = {
            "Accept": "application/json, text/event-stream", "Content-Type": "application/json",
            "MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool,
            "Authorization": f"Bearer {token}",
        }  # fmt: skip
        try:
            connection.request("POST", "/mcp", body, headers)
            said = json.loads(connection.getresponse().read())["result"]["_meta"]
        except (OSError, HTTPException, ValueError):
            return False
        self.write("clients", did="ack", call=said["onbehalf/call"], **said["onbehalf/receipt"])
        return True

    def size(self, name: str) -> int:
        """How much stands in one of the files."""
        return os.fstat(self._files[name]).st_size


@contextmanager
def kept(directory: Path, *, pause: float = 0.005) -> Iterator[Kept]:
    with company(directory) as around:
        around.desk.pause = pause
        made = Kept(around)
        try:
            yield made
        finally:
            made.close()


@contextmanager
def started(kept: Kept, what: str = "", after: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A gateway that is ready, with something planted if `what` says so."""
    around = kept.around
    planted = (PLANTED, what, str(after)) if what else ("-m", "onbehalf.cli.main")
    command = (sys.executable, *planted, "serve", "--config", str(around.config))
    with ExitStack() as stack:
        for _ in range(_TRIES):
            process = stack.enter_context(demo._child(command, log=around.directory / "gateway.log"))
            wait_for(
                lambda at=process: _ready_or_gone(around, at), what="/readyz 200", seconds=90, said=around.served_log
            )
            if process.poll() is None or "Address already in use" not in around.served_log():
                break
            time.sleep(1)  # in a long run somebody else comes to use its port for a while
        assert process.poll() is None, around.served_log()
        yield process


def _ready_or_gone(around: Company, process: subprocess.Popen[str]) -> bool:
    return process.poll() is not None or around._ready(process) == 200


@contextmanager
def load(kept: Kept) -> Iterator[None]:
    """Clients that call until the context ends or the gateway is gone, and an onlooker who keeps heads."""
    stop = threading.Event()
    tokens = [kept.around.token() for _ in TOOLS]

    def calling(tool: str, token: str) -> None:
        with closing(HTTPConnection(kept.around.gateway.removeprefix("http://"), timeout=20)) as connection:
            while not stop.is_set() and kept.call(connection, tool, token):
                pass

    def looking() -> None:
        uri = f"{kept.around.ledger.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=1)) as connection:
            while not stop.wait(0.02):
                try:
                    [(note,)] = connection.execute("SELECT note FROM head").fetchall()
                except sqlite3.Error:
                    continue
                kept.write("heads", did="head", note=note)

    threads = [threading.Thread(target=calling, args=each, daemon=True) for each in zip(TOOLS, tokens, strict=True)]
    threads.append(threading.Thread(target=looking, daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def walked(directory: Path, rounds: Sequence[Round]) -> list[Told]:
    """A gateway's life for each round, one after another on one record; each is judged, and the start after it."""
    told: list[Told] = []
    left: Log | None = None
    with kept(directory / "it") as here:
        for round_ in rounds:
            with started(here, round_.step, round_.after) as process:
                if left is not None:
                    told[-1].faults += judge_recovery(left, here.log())
                _ended(here, process, round_)
            left, found = _judged(here)
            told.append(found)
        with started(here):
            told[-1].faults += judge_recovery(left or here.log(), here.log())
    return told


def _ended(here: Kept, process: subprocess.Popen[str], round_: Round) -> None:
    """Load until the gateway has killed itself, or, with a fault in it, until it has done something."""
    with load(here):
        if round_.step in STEPS:
            wait_for(lambda: process.poll() is not None, what=f"end at {round_.step}", seconds=90)
        else:
            wait_for(lambda: here.size("backend") > 0, what="an effect", seconds=60)
            process.kill()
        process.wait(30)


def soak(directory: Path, *, kills: int, seed: int) -> Told:
    """So many gateways killed under load, one after another, with a new record after every A_LOG of them."""
    chance, told = random.Random(seed), Told()
    for number in range(0, kills, A_LOG):
        _soaked(directory / f"log-{number}", min(A_LOG, kills - number), chance, told)
    return told


def _soaked(directory: Path, kills: int, chance: random.Random, told: Told) -> None:
    with kept(directory) as here:
        left: Log | None = None
        for number in range(kills + 1):
            with started(here) as process:
                if left is not None:
                    told.faults += judge_recovery(left, here.log())
                if number == kills:
                    break
                before = here.size("backend")
                with load(here):
                    if chance.random() < 0.8:  # else it may be killed before anything was done
                        wait_for(lambda: here.size("backend") > before, what="an effect", seconds=60)  # noqa: B023
                    time.sleep(chance.uniform(0, 0.5))
                    process.kill()
                    process.wait(30)
            left, found = _judged(here)
            told.kills += 1
            told.faults += found.faults
            told.unknown += len(left.open())
        told.acked, told.effects, told.leaves = (
            told.acked + found.acked, told.effects + found.effects, told.leaves + found.leaves,
        )  # fmt: skip
    _say(f"{told.kills} kills: {told}")


def _judged(here: Kept) -> tuple[Log, Told]:
    log, seen = here.log(), here.seen
    faults = judge(log, seen, here.vkey)
    return log, Told(acked=len(seen.acked), effects=len(seen.effects), leaves=len(log.leaves), faults=faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one moment of a gateway's life costs."""

    files: int
    memory_kb: int
    disk: int
    leaves: int


def steady(directory: Path, *, seconds: float) -> list[Sample]:
    """One gateway under load, left alone, and what it holds at equal distances of time."""
    samples: list[Sample] = []
    with kept(directory, pause=0.001) as here, started(here) as process, load(here):
        for _ in range(30):
            time.sleep(seconds / 30)
            samples.append(_sampled(here, process.pid))
            _say(str(samples[-1]))
    return samples


def _sampled(here: Kept, pid: int) -> Sample:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii").split("VmRSS:")[1]
    database = here.around.ledger
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        [(leaves,)] = connection.execute("SELECT size FROM head").fetchall()
    return Sample(
        files=len(list(Path(f"/proc/{pid}/fd").iterdir())), memory_kb=int(status.split()[0]),
        disk=sum(each.stat().st_size for each in database.parent.glob(f"{database.name}*")), leaves=leaves,
    )  # fmt: skip


def growing(samples: Sequence[Sample]) -> list[str]:
    """What goes on growing from the second third to the last, when everything has been used once."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    faults = []
    if max(each.files for each in last) > max(each.files for each in middle) + 8:
        faults.append(f"open files: {[each.files for each in samples]}")
    if min(each.memory_kb for each in last) > min(each.memory_kb for each in middle) * 1.1:
        faults.append(f"memory: {[each.memory_kb for each in samples]}")
    if last[-1].leaves > 2000 and last[-1].disk > last[-1].leaves * 4096 + (32 << 20):
        faults.append(f"disk: {last[-1]}")
    return faults


def _say(text: str) -> None:
    if __name__ == "__main__":
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    given = parser.parse_args()
    _say(f"seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as place:
        faults = soak(Path(place) / "kills", kills=given.kills, seed=given.seed).faults
        if given.minutes:
            faults += growing(steady(Path(place) / "steady", seconds=given.minutes * 60))
    for each in faults:
        _say(each)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
