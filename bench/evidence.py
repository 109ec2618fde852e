"""How fast a bundle of evidence is checked: leaves a second, closed and with facts opened, and the memory used.

    bench/evidence.py [--calls 100000] [--jobs 2]

A log of so many calls is written by the ledger itself and exported; the verifier then checks the whole of it, the best
of some rounds, in so many processes besides its own, or in its own alone where it is 1. Memory is that of the largest
of them. The goal is 200,000 closed leaves a second. 100,000 calls take a minute, 5,000,000 an hour; for memory alone
there is evidence_long.py.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from onbehalf.doors.ledger_evidence import Asked, export
from onbehalf.doors.ledger_keys import open_ledger_keys, read_ledger_keys
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.errors import LedgerUnavailable
from onbehalf.model import AuditEntry, Json, UnixTime

ORIGIN = "bench.example/log"
GOAL = 200_000
_CHECK = """
import resource, sys, time
from pathlib import Path
from onbehalf.verifier.check import check
begun = time.perf_counter()
report = check(Path(sys.argv[1]), key=sys.argv[2], jobs=int(sys.argv[3]))
spent = time.perf_counter() - begun
assert not report.findings, report.findings[:3]
each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
cpu = sum(used.ru_utime + used.ru_stime for used in each)
own = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(spent, max(int(own.split()[1]), each[1].ru_maxrss) / 1024, cpu)
"""


def _intent(number: int) -> AuditEntry:
    facts: dict[str, Json] = {
        "caller": {"subject": f"s{number % 64}", "tenant": "acme", "client": "bench", "issuer": "https://issuer.example"},
        "person": {"id": f"acme/p{number % 64}", "name": f"Person {number % 64}", "revision": 1},
        "tool": {"name": "echo", "upstream": "bench", "remote": "echo", "action": "benchCall"},
        "arguments": {"n": number}, "arguments_digest": "sha256:" + "0" * 64, "via": {"agent": "wrk", "protocol": ""},
        "decision": {"effect": "allow", "policies": ["bench-8"], "policy": "sha256:" + "1" * 64},
    }  # fmt: skip
    return AuditEntry(kind="intent", call=f"call_{number:032x}", at=UnixTime(1_700_000_000 + number), facts=facts)


def _outcome(number: int, index: int) -> AuditEntry:
    facts: dict[str, Json] = {
        "intent": {"index": index, "leaf": "sha256:" + "2" * 64}, "outcome": {"status": "done", "code": ""},
        "result_digest": "sha256:" + "3" * 64,
    }  # fmt: skip
    return AuditEntry(kind="outcome", call=f"call_{number:032x}", at=UnixTime(1_700_000_000 + number), facts=facts)


async def _write(path: Path, calls: int) -> None:
    keys = open_ledger_keys(path.parent, origin=ORIGIN)
    ledger = SqliteLedger.open(path, keys=keys, origin=ORIGIN, now=lambda: UnixTime(1_700_000_000))
    for number in range(calls):
        for entry in (_intent(number), _outcome(number, 2 * number)):
            while True:
                try:
                    ledger.follow(entry)
                    break
                except LedgerUnavailable:  # the queue is full
                    await asyncio.sleep(0.005)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await asyncio.to_thread(ledger.close)


def _checked(bundle: Path, vkey: str, jobs: int) -> tuple[float, float, float]:
    """Seconds of the check, the megabytes that one of its processes used at most, and seconds of CPU of all of them."""
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, str(bundle), vkey, str(jobs)], check=True, stdout=subprocess.PIPE, text=True
    )
    seconds, megabytes, cpu = map(float, done.stdout.split())
    return seconds, megabytes, cpu


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--calls", type=int, default=100_000)
    reader.add_argument("--rounds", type=int, default=3)
    reader.add_argument("--jobs", type=int, default=2)
    asked = reader.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "ledger.db"
        begun = time.monotonic()
        asyncio.run(_write(path, asked.calls))
        sys.stdout.write(f"{2 * asked.calls:,} leaves written in {time.monotonic() - begun:.1f} s\n")
        keys = read_ledger_keys(path.parent, origin=ORIGIN)
        speed = 0.0
        for name, opened in (("closed", frozenset()), ("opened", frozenset({"decision", "outcome", "tool"}))):
            bundle = Path(scratch) / f"{name}.zip"
            export(
                LedgerReader(path, keys=keys),
                bundle,
                Asked(open=opened),
                keys={"log": keys.signer.verifier.vkey},
                policies={},
            )
            took = [_checked(bundle, keys.signer.verifier.vkey, asked.jobs) for _ in range(asked.rounds)]
            rate = 2 * asked.calls / min(seconds for seconds, _, _ in took)
            speed = speed or rate
            sys.stdout.write(f"{name}: {rate:,.0f} leaves a second, {took[0][1]:.0f} MB, CPU {min(took)[2]:.2f} s\n")
    sys.stdout.write(f"{'met   ' if speed >= GOAL else 'MISSED'} {GOAL:,} closed leaves a second\n")
    return 0 if speed >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
