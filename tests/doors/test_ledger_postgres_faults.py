"""Replicas, and the database itself, killed and stopped at any moment: what was answered is on record, once.

What replicas were told, what they did and what the log says are held against each other by a reader of its own.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from doors.ledger_postgres_house import Record, Server, durable_server, wait_for
from onbehalf.explain import checkpoint, tree
from onbehalf.explain.leaf import read
from postgres import PROGRAMS

CHILD = """
import asyncio, os, signal, sys, threading
from pathlib import Path
from onbehalf.doors.ledger_keys import read_ledger_keys
from onbehalf.doors.ledger_postgres import Patience, PostgresLedger
from onbehalf.doors.ledger_postgres_session import Demands
from onbehalf.errors import LedgerUnavailable
from onbehalf.model import AuditEntry, UnixTime

path, name, stop_at, how, gone = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], float(sys.argv[5])
seen = 0
def failpoint(step):
    global seen
    if step == stop_at:
        seen += 1
        if seen == 5:
            os.write(told, f"stopping {name}\\n".encode())
            # this thread, so that it does not go on while another one takes the signal
            signal.pthread_kill(threading.get_ident(), getattr(signal, how))

def entry(kind, call, **facts):
    audience = "https://desk.example" if kind == "intent" else ""
    return AuditEntry(kind=kind, call=call, at=UnixTime(1), facts=facts, audience=audience)

told = os.open(path / f"told-{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

async def work(ledger, task):
    number = 0
    while not ledger.closed:
        call = f"call_{os.getpid()}_{task}_{number}"
        number += 1
        try:
            receipt = await ledger.append(entry("intent", call, arguments={"n": number}))
            os.write(told, f"{receipt.index} {call} {receipt.leaf} {receipt.number}\\n".encode())
            place = {"index": receipt.index, "leaf": receipt.leaf}
            done = entry("outcome", call, intent=place, outcome={"status": "done"})
            if number % 2:
                ledger.follow(done)
            else:
                await ledger.append(done)
        except LedgerUnavailable:
            await asyncio.sleep(0.05)

async def main():
    keys = read_ledger_keys(path / "keys", origin="gateway.example/log")
    ledger = PostgresLedger.open(
        Demands(dsn=sys.stdin.readline().strip(), idle_seconds=1.0), keys=keys,
        replica=path / name / "replica.json", now=lambda: UnixTime(2), failpoint=failpoint,
        patience=Patience(record=2, again=0.05, look=0.2, gone=gone),
    )
    print("ready", flush=True)
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    tasks = [asyncio.create_task(work(ledger, task)) for task in range(6)]
    while not end.is_set() and not ledger.closed:
        await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    why = ledger.closed
    await asyncio.to_thread(ledger.close)
    print("closed", why, flush=True)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if PROGRAMS is None:
        pytest.skip("POSTGRESQL IS NOT INSTALLED, so nothing here was tested (apt-get install postgresql)")
    with durable_server() as running:
        yield running


@pytest.fixture
def record(server: Server, tmp_path: Path) -> Record:
    name = f"faults_{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return Record(tmp_path, psycopg.conninfo.make_conninfo(server.dsn, dbname=name))


class Child:
    """A replica as a process of its own, which writes without a pause until it is stopped."""

    def __init__(
        self, record: Record, name: str, *, stop_at: str = "", how: str = "SIGKILL", gone: float = 600
    ) -> None:
        (record.path / name).mkdir(exist_ok=True)
        self.name, self.told = name, record.path / f"told-{name}"
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(record.path), name, stop_at, how, str(gone)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(record.dsn + "\n")
        self.process.stdin.flush()

    def ready(self) -> Child:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def answers(self) -> int:
        return self.told.read_text().count("\n") if self.told.exists() else 0

    def end(self) -> str:
        """Let it end in order; why it had closed, if it had."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> str:
        said, _ = self.process.communicate(timeout=60)
        return said.strip().removeprefix("closed").strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)


def wait_for_more(*children: Child) -> None:
    """Until each of them was answered again, several times: what was under way before does not count."""
    before = [each.answers() for each in children]
    wait_for(
        lambda: all(each.answers() > was + 6 for each, was in zip(children, before, strict=True)), "more answers", 60
    )


class Watch:
    """Reads the published head again and again."""

    def __init__(self, record: Record) -> None:
        self.notes: list[str] = []
        self._record, self._stop = record, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._record.dsn, autocommit=True) as connection:
                    while not self._stop.wait(0.02):
                        row = connection.execute("SELECT note FROM onbehalf_log.head").fetchone()
                        if row and row[0] not in self.notes[-1:]:
                            self.notes.append(row[0])
            except psycopg.Error:
                self._stop.wait(0.05)

    def end(self) -> list[str]:
        self._stop.set()
        self._thread.join(30)
        return self.notes


def check(record: Record, notes: list[str]) -> int:
    """Hold all against all; how many answers there were. Nobody writes any more."""
    acked = [line.split() for path in record.path.glob("told-*") for line in path.read_text().splitlines()]
    acked = [each for each in acked if len(each) == 4]
    assert len({index for index, *_ in acked}) == len(acked), "one place was given to two"
    reader = record.reader()
    report = reader.verify()
    assert report.ok, report.findings[:5]
    reader.close()
    rows = record.run("SELECT idx, entry, call FROM onbehalf_log.leaf ORDER BY idx")
    assert [row[0] for row in rows] == list(range(report.size)), "the indices have a hole"
    entries = [bytes(row[1]) for row in rows]
    assert len(set(entries)) == len(entries), "an entry is there twice"
    hashes = [tree.leaf_hash(each) for each in entries]
    for index, call, leaf, number in acked:
        assert (rows[int(index)][2], f"sha256:{hashes[int(index)].hex()}") == (call, leaf), "an answer is not on record"
        assert read(entries[int(index)]).n == int(number), "a number was given that is not in the leaf"
    before = (0, tree.EMPTY_ROOT)
    for note in notes:
        head = checkpoint.read(note, record.keys.signer.verifier, origin=record.keys.signer.name)
        assert head.size >= before[0], "a head went back"
        assert tree.root(hashes[: head.size]) == head.root, "a head that was published is not of this log"
        before = (head.size, head.root)
    return len(acked)


def test_killed_at_random_moments_four_replicas_lose_and_double_nothing(record: Record) -> None:
    chance, watch = random.Random(), Watch(record)
    survivor = Child(record, "survivor", gone=0.5).ready()
    for _ in range(3):
        children = [Child(record, name, gone=0.5) for name in "abc"]
        for each in children:
            each.ready()
        wait_for_more(*children)
        time.sleep(chance.uniform(0.02, 0.3))
        for each in children:
            each.kill()
        wait_for_more(survivor)
    gone = "SELECT count(*) FROM onbehalf_log.replica WHERE gone IS NULL"
    wait_for(lambda: record.run(gone) == [(1,)], "that those that were killed are taken for gone")
    assert survivor.end() == ""
    assert check(record, watch.end()) > 20
    reader = record.reader()
    assert reader.unsettled()[0] == (), "an intent of a replica that is gone is still open"
    reader.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGQUIT])
def test_the_database_killed_under_load_loses_nothing_that_was_answered(
    record: Record, server: Server, how: signal.Signals
) -> None:
    """SIGKILL of its first process, and an immediate stop. Replicas live on, and write again once it is back."""
    chance, watch = random.Random(), Watch(record)
    children = [Child(record, name).ready() for name in "ab"]
    for _ in range(2):
        wait_for_more(*children)
        time.sleep(chance.uniform(0, 0.2))
        server.stop(how)
        server.start()
    wait_for_more(*children)
    for each in children:
        each.end()
        assert each.process.returncode == 0
    assert check(record, watch.end()) > 0


@pytest.mark.parametrize("step", ["queued", "locked", "signed", "committed", "woken"])
def test_killed_at_each_step_of_a_commit_nothing_is_off_the_record(record: Record, step: str) -> None:
    watch, other = Watch(record), Child(record, "other", gone=0.5).ready()
    child = Child(record, "a", stop_at=step)
    child.process.wait(60)
    assert child.process.returncode == -signal.SIGKILL
    wait_for_more(other)
    again = Child(record, "a").ready()
    again.end()
    other.end()
    check(record, watch.end())
    reader = record.reader()
    assert reader.unsettled()[0] == ()
    reader.close()


@pytest.mark.parametrize("step", ["locked", "signed"])
def test_a_replica_stopped_with_the_head_in_its_hands_holds_nobody_up_and_signs_nothing_later(
    record: Record, step: str
) -> None:
    watch, other = Watch(record), Child(record, "other", gone=0.5).ready()
    child = Child(record, "a", stop_at=step, how="SIGSTOP")
    wait_for(lambda: "stopping" in (child.told.read_text() if child.told.exists() else ""), "the stop", 60)
    wait_for_more(other)
    gone = "SELECT 1 FROM onbehalf_log.replica WHERE gone IS NOT NULL"
    wait_for(lambda: record.run(gone), "that the one that was stopped is taken for gone")
    child.process.send_signal(signal.SIGCONT)
    assert "took this one for gone" in child.ended()
    other.end()
    check(record, watch.end())
    reader = record.reader()
    assert reader.unsettled()[0] == ()
    reader.close()


@pytest.mark.skipif(PROGRAMS is None, reason="POSTGRESQL IS NOT INSTALLED")
def test_after_a_failover_to_a_synchronous_standby_all_that_was_answered_is_there(tmp_path: Path) -> None:
    with durable_server() as primary, durable_server(standby_of=primary) as standby:
        record = Record(tmp_path, primary.dsn)
        record.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
        record.run("SELECT pg_reload_conf()")
        follows = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_for(lambda: record.run(follows), "the standby")
        record.dsn = psycopg.conninfo.make_conninfo(
            record.dsn, host="127.0.0.1,127.0.0.1", port=f"{primary.port},{standby.port}",
            target_session_attrs="read-write",
        )  # fmt: skip
        watch, children = Watch(record), [Child(record, name).ready() for name in "ab"]
        wait_for_more(*children)
        primary.stop(signal.SIGKILL)
        record.owner = standby.dsn
        record.run("SELECT pg_promote()")
        wait_for_more(*children)
        for each in children:
            each.end()
        assert check(record, watch.end()) > 0
