"""`audit send`: nothing is lost by kill -9, and a sink that hangs keeps no call waiting."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from company import Company, company, said, wait_for
from doors.sink_house import indices, taking

FILE = "\nsinks:\n  siem: {kind: file, path: out/records.jsonl, batch: 3, every_seconds: 0.05}\n"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as it:
        yield it


def configured(made: Company, sinks: str) -> None:
    made.config.write_text(made.config.read_text() + sinks)


def calls(made: Company, count: int) -> None:
    made.notes_listed(*count * ["alice-at-login"])


def size(made: Company) -> int:
    with closing(sqlite3.connect(made.ledger)) as base:
        found: int = base.execute("SELECT size FROM head").fetchone()[0]
    return found


@contextmanager
def sending(made: Company) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a service of its own; ended by SIGKILL if it is still there."""
    command = [sys.executable, "-m", "onbehalf.cli.main", "audit", "send", "-c", str(made.config)]
    with (made.directory / "send.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def test_all_that_is_on_record_is_sent_and_then_only_what_is_new(made: Company) -> None:
    configured(made, FILE)
    calls(made, 3)
    out = made.directory / "out" / "records.jsonl"
    told = said("audit", "send", "--once", "-c", made.config, "--json")
    assert (told.code, json.loads(told.out)) == (0, {"sent": {"siem": size(made)}, "failed": {}})
    assert indices(out.read_bytes()) == [*range(size(made))]
    told = said("audit", "send", "--once", "siem", "-c", made.config)
    assert (told.code, told.out) == (0, "")
    assert "siem: 0 records sent" in told.err
    before = size(made)
    calls(made, 1)
    told = said("audit", "send", "--status", "-c", made.config)
    assert f"{before} of {size(made)} records delivered, {size(made) - before} to come" in told.out
    assert said("audit", "send", "--once", "-c", made.config).code == 0
    assert indices(out.read_bytes()) == [*range(size(made))]


def test_the_standard_output_is_a_sink(made: Company) -> None:
    configured(made, "\nsinks:\n  here: {kind: stdout}\n")
    calls(made, 2)
    told = said("audit", "send", "--once", "-c", made.config)
    assert told.code == 0
    assert indices(told.out.encode()) == [*range(size(made))]


def test_kill_9_at_any_time_loses_nothing_and_leaves_no_broken_line(made: Company) -> None:
    configured(made, FILE)
    calls(made, 1)
    out, dice = made.directory / "out" / "records.jsonl", random.Random(7)
    enough = threading.Event()

    def write() -> None:
        while not enough.is_set():
            calls(made, 10)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        for _ in range(6):
            with sending(made) as process:
                before = out.stat().st_size if out.exists() else 0
                wait_for(lambda before=before: out.exists() and out.stat().st_size > before, what="a line", seconds=30)
                time.sleep(dice.uniform(0, 0.05))
                process.send_signal(signal.SIGKILL)
                process.wait(10)
    finally:
        enough.set()
        writing.join()
    assert said("audit", "send", "--once", "-c", made.config).code == 0
    found = indices(out.read_bytes())
    assert set(found) == {*range(size(made))}
    first_seen = list(dict.fromkeys(found))
    assert first_seen == sorted(first_seen), "in order, but for what was sent again"


def test_sigterm_ends_it_with_0(made: Company) -> None:
    configured(made, FILE)
    calls(made, 1)
    out = made.directory / "out" / "records.jsonl"
    with sending(made) as process:
        wait_for(lambda: out.exists() and out.stat().st_size > 0, what="a line", seconds=30)
        process.terminate()
        assert process.wait(20) == 0


def test_a_sink_that_hangs_delays_no_call_and_no_other_sink(made: Company) -> None:
    with taking() as server:
        server.holding.set()
        hangs = f"  dead: {{kind: http, url: '{server.url}', every_seconds: 0.05, timeout_seconds: 60}}\n"
        configured(made, FILE + hangs)
        calls(made, 1)
        with made.serving(), sending(made):
            assert server.arrived.wait(30), "the sink is not being sent to"
            before, times = size(made), []
            for _ in range(20):
                began = time.monotonic()
                assert "structuredContent" in made.call("notes_list")
                times.append(time.monotonic() - began)
            assert len(server.got) == 1, "it hangs in its first batch"
            assert max(times) < 2, times
            out = made.directory / "out" / "records.jsonl"
            wait_for(lambda: len(indices(out.read_bytes())) >= before + 40, what="the other sink", seconds=15)
            with closing(sqlite3.connect(made.ledger, timeout=5)) as base:
                busy = base.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            assert busy[0] == 0
            assert busy[1] == busy[2], "the hanging sink holds the ledger's own log"


def test_a_dead_sink_is_2_in_a_single_run_and_its_records_come_later(made: Company) -> None:
    with taking() as server:
        configured(made, f"\nsinks:\n  web: {{kind: http, url: '{server.url}'}}\n")
        calls(made, 1)
        server.answers = [(401, b"")]
        told = said("audit", "send", "--once", "-c", made.config)
        assert (told.code, told.out) == (2, "")
        assert "sink_refused" in told.err
        assert said("audit", "send", "--once", "-c", made.config).code == 0
        assert indices(server.got[-1][1]) == [*range(size(made))]


def test_a_secret_is_a_reference_and_stands_in_nothing_that_is_said(
    made: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    with taking() as server:
        sink = f"  web: {{kind: http, url: '{server.url}', bearer: 'env:SIEM_TOKEN'}}\n"
        configured(made, "\nsinks:\n" + sink)
        calls(made, 1)
        told = said("audit", "send", "--once", "-c", made.config)
        assert (told.code, "SIEM_TOKEN" in told.err) == (2, True)
        monkeypatch.setenv("SIEM_TOKEN", "canary-secret")
        server.answers = [(500, b"")] * 2
        told = said("audit", "send", "--once", "-c", made.config)
        assert told.code == 0
        assert {headers["authorization"] for headers, _ in server.got} == {"Bearer canary-secret"}
        assert "canary" not in told.out + told.err
        kept = [path.read_bytes() for path in (made.directory / "data" / "sinks").iterdir()]
        assert not [each for each in kept if b"canary" in each]


def test_a_damaged_record_is_1_and_nothing_of_it_is_sent(made: Company) -> None:
    configured(made, FILE)
    calls(made, 2)
    with closing(sqlite3.connect(made.ledger)) as base:
        base.execute("UPDATE payload SET sealed = zeroblob(length(sealed)) WHERE idx = 1")
        base.commit()
    told = said("audit", "send", "--once", "-c", made.config)
    assert (told.code, told.out) == (1, "")
    assert "record 1 is damaged" in told.err
    assert not (made.directory / "out").exists()


@pytest.mark.parametrize(
    ("sinks", "said_so"),
    [
        ("", "nowhere to send"),
        ("\nsinks: {a: {kind: http, url: 'http://siem.example/'}}\n", "not https"),
        ("\nsinks: {a: {kind: udp, address: 'x:1'}}\n", "udp"),
        ("\nsinks: {a: {kind: file, path: x, colour: red}}\n", "unknown key `colour`"),
        ("\nsinks: {a: {kind: file, path: x}, b: {kind: file, path: x}}\n", "two sinks write `x`"),
        ("\nsinks: {a: {kind: stdout}, b: {kind: stdout}}\n", "standard output"),
        ("\nsinks: {a: {kind: http, url: 'https://siem.example/', bearer: plain}}\n", "bearer"),
        ("\nsinks: {'../a': {kind: stdout}}\n", "sinks"),
    ],
)
def test_sinks_that_cannot_be_are_2_and_say_why(made: Company, sinks: str, said_so: str) -> None:
    configured(made, sinks)
    told = said("audit", "send", "--once", "-c", made.config)
    assert (told.code, told.out) == (2, "")
    assert said_so in told.err
    assert "internal" not in told.err


def test_the_parquet_sink_says_what_to_install(made: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(made, "\nsinks: {lake: {kind: parquet, directory: lake}}\n")
    calls(made, 1)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    told = said("audit", "send", "--once", "-c", made.config)
    assert (told.code, told.out) == (2, "")
    assert "onbehalf-gateway[gateway,audit]" in told.err
    assert not os.path.exists(made.directory / "lake")
