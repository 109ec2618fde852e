"""The record alone: intents that are waited for, each with an outcome that follows, by many callers at once.

    python bench/ledger.py [--callers 64] [--seconds 5] [--replicas 1]

Measures SQLite and PostgreSQL in turn, on a server that it starts and that syncs what it commits; with several replicas
only PostgreSQL, each a process of its own. An entry is as large as a call with one small argument makes it. Afterwards
the whole record is verified, and a run whose record does not verify gives no figures.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import uvloop
from psycopg.conninfo import make_conninfo

from onbehalf.demo.postgres import server
from onbehalf.doors.ledger_keys import open_ledger_keys
from onbehalf.doors.ledger_postgres import PostgresLedger
from onbehalf.doors.ledger_postgres_schema import schema_sql
from onbehalf.doors.ledger_postgres_session import Demands
from onbehalf.doors.ledger_postgres_store import PostgresStore
from onbehalf.doors.ledger_reader import LedgerReader
from onbehalf.doors.ledger_sqlite import SqliteLedger
from onbehalf.explain.seal import LedgerKeys
from onbehalf.model import AuditEntry, UnixTime

_ORIGIN = "bench.example/log"
_SWITCH_SECONDS = 0.0005
_DIGEST = "sha256:" + "a" * 64
_FACTS: dict[str, Any] = {
    "caller": {
        "subject": "p0-at-login", "tenant": "acme", "client": "bench", "actors": [], "scopes": ["notes.read"],
        "issuer": "https://login.example.com", "key": "key-1", "algorithm": "ES256", "token": _DIGEST, "proof": "none",
    },
    "person": {"id": "acme/p0", "name": "Person Zero", "revision": 1},
    "tool": {
        "name": "echo", "upstream": "bench", "remote": "echo", "action": "echo", "definition": _DIGEST,
        "writes": False, "bound": [],
    },
    "arguments": {"text": "hello"},
    "arguments_digest": _DIGEST,
    "via": {"agent": "bench/1", "protocol": "2026-07-28"},
    "decision": {
        "effect": "allow", "policies": ["staff"], "policy": _DIGEST, "revision": 1,
        "resource": {"type": "Tool", "id": "acme/echo"},
    },
}  # fmt: skip
_DONE = {"status": "done", "code": "", "message": "", "unknown": False}


async def _calls(ledger: Any, callers: int, seconds: float) -> list[float]:
    waits: list[float] = []
    end = time.monotonic() + seconds

    async def caller(number: int) -> None:
        step = 0
        while time.monotonic() < end:
            call, begun = f"call_{os.getpid()}_{number}_{step}", time.perf_counter()
            receipt = await ledger.append(AuditEntry(kind="intent", call=call, at=UnixTime(1), facts=_FACTS))
            waits.append(time.perf_counter() - begun)
            facts: Any = {"intent": {"index": receipt.index, "leaf": receipt.leaf}, "outcome": _DONE}
            told = {**facts, "result_digest": _DIGEST}
            ledger.follow(AuditEntry(kind="outcome", call=call, at=UnixTime(1), facts=told))
            step += 1

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return waits


def _measured(name: str, opened: Callable[[], Any], asked: argparse.Namespace) -> None:
    sys.setswitchinterval(_SWITCH_SECONDS)
    ledger = opened()
    before, begun = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    waits = sorted(uvloop.run(_calls(ledger, asked.callers, asked.seconds)))
    spent, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_SELF)
    ledger.close()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    p50, p99 = (waits[int(len(waits) * part)] * 1e3 for part in (0.5, 0.99))
    print(
        f"{name:<12} {len(waits) / spent:7.0f} calls/s   p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   "
        f"{cpu / len(waits) * 1e6:5.0f} us of CPU a call in the gateway's process",
        flush=True,
    )


def _sqlite(place: Path, keys: LedgerKeys) -> SqliteLedger:
    return SqliteLedger.open(place / "log.db", keys=keys, origin=_ORIGIN, now=lambda: UnixTime(1))


def _postgres(place: Path, keys: LedgerKeys, dsn: str, number: int) -> PostgresLedger:
    (place / f"{number}").mkdir()
    return PostgresLedger.open(
        Demands(dsn=dsn), keys=keys, replica=place / f"{number}" / "replica.json",
        now=lambda: UnixTime(1),
    )  # fmt: skip


def _require_whole(reader: LedgerReader) -> None:
    report = reader.verify()
    reader.close()
    assert report.ok, report.findings[:3]
    assert report.kinds["intent"] == report.kinds["outcome"]


def main() -> None:
    """Measure as asked, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--replicas", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, server(durable=True) as owner:
        place = Path(folder)
        keys = open_ledger_keys(place / "keys", origin=_ORIGIN)
        if asked.replicas == 1:
            _measured("SQLite", lambda: _sqlite(place, keys), asked)
            _require_whole(LedgerReader(place / "log.db", keys=keys))
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute(schema_sql(keys.signer).encode())
            connection.execute("CREATE ROLE gw_log LOGIN PASSWORD 'bench' IN ROLE onbehalf_log_writer")
        dsn = make_conninfo(owner, user="gw_log", password="bench")

        def replica(number: int) -> None:
            _measured("PostgreSQL", lambda: _postgres(place, keys, dsn, number), asked)

        processes = [
            multiprocessing.get_context("fork").Process(target=replica, args=(each,)) for each in range(asked.replicas)
        ]
        for each in processes:
            each.start()
        for each in processes:
            each.join()
        _require_whole(LedgerReader(PostgresStore(owner), keys=keys))


if __name__ == "__main__":
    main()
