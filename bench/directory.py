"""The directory at size: what a load, a slice and a write by other hands cost with so many people.

Run it with `python bench/directory.py --people 1000000`. It writes a made-up company of that size as JSON Lines into a
directory of its own, loads it, asks for slices of people chosen at random, and prints one JSON document. It asserts
nothing: figures are of one machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from onbehalf.doors.directory_file import FileFeed
from onbehalf.doors.directory_load import Progress, load
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.model import Caller, Digest, Evidence, UnixTime

T = TypeVar("T")
ISSUER = "https://login.example.com"
TENANT = "acme"
SPAN = 8
"""People right below one manager."""


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--people", type=int, default=100_000)
    options.add_argument("--slices", type=int, default=20_000)
    options.add_argument("--keep", type=Path, help="a directory for the files, kept afterwards")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.keep) as scratch:
        print(json.dumps(measured(Path(scratch), given.people, given.slices), indent=2))


def measured(place: Path, people: int, slices: int) -> dict[str, object]:
    """All figures of one run. Times are in seconds where the name says nothing else."""
    feed, database = place / "people.jsonl", place / "directory.db"
    write_company(feed, people)
    found: dict[str, object] = {"people": people, "feed_mb": round(feed.stat().st_size / 1e6, 1)}
    with closing(SqliteDirectory.open(database)) as directory:
        found["empty_mb_resident"] = resident()
        found["load"] = loading(database, feed)
        found["file_mb"] = round(database.stat().st_size / 1e6, 1)
        found["after_load_mb_resident_peak"] = resident()
        found["slice"] = slicing(directory, people, slices)
        found["foreign_write"] = foreign(directory, database, people)
    with closing(sqlite3.connect(database)) as reading:
        found["closure_rows"] = reading.execute("SELECT count(*) FROM position_above").fetchone()[0]
    found["open_s"], reopened = timed(lambda: SqliteDirectory.open(database))
    with closing(reopened):
        found["looked_through_s"], _ = timed(lambda: reopened.settled(600))
    found["again"] = loading(database, feed)
    return found


def write_company(path: Path, people: int) -> None:
    """A tree of managers with `SPAN` below each, everybody in two groups and with one login."""
    with path.open("w", encoding="utf-8") as file:
        for n in range(people):
            line = {
                "id": f"e{n:07d}",
                "name": f"Person Number {n}",
                "manager": f"e{(n - 1) // SPAN:07d}" if n else None,
                "groups": [f"unit-{n % 500}", "staff"],
                "attributes": {"department": f"d{n % 300}"},
                "logins": [{"issuer": ISSUER, "subject": f"user{n}@example.com"}],
            }
            file.write(json.dumps(line) + "\n")


def loading(database: Path, feed: Path) -> dict[str, float]:
    """Load once; when each step ended."""
    ended: dict[str, float] = {}

    def said(progress: Progress) -> None:
        ended[progress.step] = round(progress.seconds, 2)
        print(f"\r{progress.step} {progress.done}/{progress.total}  ", end="", file=sys.stderr)

    seconds, loaded = timed(lambda: load(database, TENANT, FileFeed(feed), now=UnixTime(1), progress=said))
    print(file=sys.stderr)
    return {**{f"{step}_until_s": at for step, at in ended.items()}, "total_s": seconds, "revision": loaded.revision}


def slicing(directory: SqliteDirectory, people: int, slices: int) -> dict[str, float]:
    """One slice after another, of people at random, none of them asked for before."""
    chosen = random.Random(7).sample(range(people), min(slices, people))

    async def run() -> list[float]:
        taken = []
        for n in chosen:
            before = time.perf_counter()
            await directory.person(caller(n))
            taken.append(time.perf_counter() - before)
        return taken

    taken = sorted(asyncio.run(run()))
    return {
        "asked": len(taken),
        "p50_ms": round(statistics.median(taken) * 1e3, 3),
        "p99_ms": round(taken[int(len(taken) * 0.99)] * 1e3, 3),
        "worst_ms": round(taken[-1] * 1e3, 3),
    }


def foreign(directory: SqliteDirectory, database: Path, people: int) -> dict[str, float]:
    """Another program writes one row: what the next answer costs, and the answers while the whole is looked through."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("UPDATE person SET name = 'Somebody' WHERE id = 'e0000001'")
    first, _ = timed(lambda: asyncio.run(directory.person(caller(2))))
    begun, worst, answers = time.perf_counter(), 0.0, 0
    source = random.Random(11)
    while not directory.settled(0.0):
        taken, _ = timed(lambda: asyncio.run(directory.person(caller(source.randrange(people)))))
        worst, answers = max(worst, taken), answers + 1
    return {
        "next_answer_ms": round(first * 1e3, 3),
        "looked_through_s": round(time.perf_counter() - begun, 2),
        "answers_meanwhile": answers,
        "worst_answer_meanwhile_ms": round(worst * 1e3, 3),
    }


def caller(n: int) -> Caller:
    """Person number `n`, as room 1 would prove them."""
    evidence = Evidence(
        issuer=ISSUER, key="k", algorithm="EdDSA", token=Digest("sha256:"), issued_at=UnixTime(0),
        expires_at=UnixTime(9),
    )  # fmt: skip
    return Caller(
        subject=f"user{n}@example.com", tenant=TENANT, client="c", actors=(), scopes=frozenset(), evidence=evidence
    )  # fmt: skip


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds, and what came of it."""
    before = time.perf_counter()
    result = work()
    return round(time.perf_counter() - before, 4), result


def resident() -> float:
    """The most memory this process has had so far, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


if __name__ == "__main__":
    main()
