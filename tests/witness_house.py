"""Witnesses for tests: real ones, over HTTP in threads or as processes, and ones that are slow, or that lie."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from onbehalf.doors.ledger_heads import LedgerHeads
from onbehalf.doors.witness_http import WitnessClient
from onbehalf.doors.witness_quorum import QuorumWitnesses, Rounds
from onbehalf.explain.quorum import Policy
from onbehalf.witness.judge import Answer
from onbehalf.witness.serve import Witness, server

__all__ = ["Process", "Told", "asking", "policy_text", "witness_process", "witnessing"]


@dataclass(slots=True)
class Told:
    """A real witness over HTTP, whose answers a test may change on their way. `asked` are the requests that came."""

    witness: Witness
    url: str = ""
    change: Callable[[Answer], Answer] = field(default=lambda answer: answer)
    hold: threading.Event | None = None
    arrived: threading.Event = field(default_factory=threading.Event)
    asked: list[bytes] = field(default_factory=list)
    connections: set[threading.Thread] = field(default_factory=set)

    @property
    def vkey(self) -> str:
        return self.witness.vkey

    def add_checkpoint(self, request: bytes) -> Answer:
        self.asked.append(request)
        self.connections.add(threading.current_thread())  # one thread a connection
        self.arrived.set()
        if self.hold is not None:
            self.hold.wait(20)
        return self.change(self.witness.add_checkpoint(request))


@contextmanager
def witnessing(folder: Path, *, log: str, name: str = "w.example/1", port: int = 0) -> Iterator[Told]:
    """A witness of this log that serves until the context ends."""
    made = Told(Witness(folder, name=name, logs=[log]))
    serving = server(made, "127.0.0.1", port)  # type: ignore[arg-type]  # all that it asks of a witness
    made.url = f"http://127.0.0.1:{serving.server_address[1]}"
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        if made.hold is not None:
            made.hold.set()
        serving.shutdown()
        serving.server_close()
        thread.join()
        made.witness.close()


@dataclass(slots=True)
class Process:
    """`onbehalf-witness` as another team runs it."""

    process: subprocess.Popen[str]
    vkey: str

    @property
    def pid(self) -> int:
        return self.process.pid

    def end(self) -> None:
        self.process.kill()
        self.process.wait(20)


@contextmanager
def witness_process(folder: Path, *, log: str, name: str = "w.example/1", port: int) -> Iterator[Process]:
    """A witness of this log in a process of its own, until the context ends."""
    program = str(Path(sys.executable).with_name("onbehalf-witness"))
    arguments = [str(folder), "--name", name, "--log", log, "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Process(process, process.stdout.readline().strip())
        finally:
            process.kill()


def policy_text(*witnesses: tuple[str, str, str], quorum: str, log: str = "") -> str:
    """A policy file of (name, vkey, url); `quorum` is how many of them are enough, or `all`, or `any`."""
    lines = [f"log {log}"] if log else []
    lines += [f"witness {name} {vkey} {url}".rstrip() for name, vkey, url in witnesses]
    names = " ".join(name for name, _, _ in witnesses)
    return "\n".join([*lines, f"group enough {quorum} {names}", "quorum enough"]) + "\n"


@asynccontextmanager
async def asking(
    policy: Policy, heads: LedgerHeads, rounds: Rounds, *, running: bool = True
) -> AsyncIterator[QuorumWitnesses]:
    """A policy's witnesses, asked about these heads, which are closed at the end."""
    clients = {
        each.name: WitnessClient(each, seconds=rounds.wait_s, proof=heads.proof)
        for each in policy.witnesses
        if each.url
    }
    made = QuorumWitnesses(policy, clients, heads, rounds)
    task = asyncio.create_task(made.run()) if running else None
    try:
        yield made
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await made.aclose()
        heads.close()
