"""Two gateways on one record with real witnesses beside them: what they send, when they stop, what an auditor sees."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from company import Company, said, wait_for
from doors.ledger_postgres_house import durable_server
from onbehalf.cli.explain import opened
from onbehalf.verifier.check import check
from onbehalf.verifier.policy import read_policy
from onbehalf.verifier.report import Verdict
from ports import free_port
from replica_house import put_back, sharing
from witness_house import Process, policy_text, witness_process

WRITE = "desk_write: {action: writeDesk, "


@pytest.fixture
def pair(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Company, Company]]:
    with sharing(tmp_path, database, monkeypatch.setenv) as made:
        witnessed(made)
        yield made


def witnessed(pair: tuple[Company, Company]) -> None:
    """Have their writing tool wait for witnesses."""
    asked = "  witnesses: {policy: witnesses.policy, wait_seconds: 5}\n"
    for each in pair:
        each.edit(WRITE, f"{WRITE}durability: witnessed, ")
        each.edit("  public_log: leaves\n", f"  public_log: leaves\n{asked}")


def log_key(of: Company) -> str:
    return (of.directory / "data" / "keys" / "log.pub").read_text().splitlines()[0]


class Witnesses:
    """So many `onbehalf-witness` of other teams, each of which can be stopped and started again."""

    def __init__(self, stack: ExitStack, place: Path, pair: tuple[Company, Company], count: int) -> None:
        self._place, self._log, self._stack = place, log_key(pair[0]), stack
        self.ports = [free_port() for _ in range(count)]
        self.running: dict[int, Process] = {}
        vkeys = [self.start(number) for number in range(count)]
        named = [(f"w{n}", vkeys[n], f"http://127.0.0.1:{self.ports[n]}") for n in range(count)]
        self.policy = policy_text(*named, quorum="all", log=self._log)
        for each in pair:
            (each.directory / "witnesses.policy").write_text(self.policy)

    def start(self, number: int) -> str:
        process = self._stack.enter_context(
            witness_process(
                self._place / f"w{number}", log=self._log, name=f"w.example/{number}", port=self.ports[number]
            )
        )
        self.running[number] = process
        return process.vkey

    def end(self, number: int) -> None:
        self.running.pop(number).end()


@pytest.fixture
def two_witnesses(pair: tuple[Company, Company], tmp_path: Path) -> Iterator[Witnesses]:
    with ExitStack() as stack:
        yield Witnesses(stack, tmp_path, pair, 2)


def text(answer: object) -> str:
    assert isinstance(answer, dict)
    return str(answer["content"][0]["text"]) if "content" in answer else json.dumps(answer)


def test_calls_of_two_gateways_are_witnessed_before_they_are_sent_and_the_bundle_shows_it(
    pair: tuple[Company, Company], two_witnesses: Witnesses, tmp_path: Path
) -> None:
    one, two = pair
    token, said_so = one.token(), list[str]()

    def calls(through: Company) -> None:
        said_so.extend(text(through.call(tool, token=token)) for tool in ("desk_write", "desk_read") * 6)

    with one.serving(), two.serving():
        threads = [threading.Thread(target=calls, args=(each,)) for each in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert said_so == ["done"] * 24
        two_witnesses.end(1)
        for each in pair:
            refused = each.call("desk_write", token=token)
            assert "witnesses_unavailable" in json.dumps(refused)
            assert text(each.call("desk_read", token=token)) == "done"  # which need not be witnessed
        assert [tool for tool, _ in one.desk.seen].count("desk_write") == 12
        two_witnesses.start(1)
        assert text(two.call("desk_write", token=token)) == "done"
        bundle = tmp_path / "served.zip"
        assert said("audit", "export", "-c", one.config, "--open", "all", bundle).code == 0
    policy = read_policy(two_witnesses.policy.encode())
    report = check(bundle, policy=policy)
    assert (report.verdict, report.witnessed, report.unshown) == (Verdict.verified, 13, []), report.as_text()
    assert said("audit", "export", "-c", two.config, "--open", "all", bundle).code == 0
    report = check(bundle, policy=policy)
    assert (report.verdict, report.witnessed, report.unshown) == (Verdict.verified, 13, []), report.as_text()
    verified = json.loads(said("audit", "verify", "-c", one.config, "--json").out)
    assert (verified["ok"], verified["kinds"].get("witness_refused")) == (True, None)


def test_a_bundle_is_made_while_two_gateways_have_one_head_after_another_cosigned(
    pair: tuple[Company, Company], two_witnesses: Witnesses, tmp_path: Path
) -> None:
    one, two = pair
    token, stop, said_so = one.token(), threading.Event(), list[str]()

    def calls(through: Company) -> None:
        while not stop.is_set():
            said_so.append(text(through.call("desk_write", token=token)))

    policy = read_policy(two_witnesses.policy.encode())
    with one.serving(), two.serving():
        threads = [threading.Thread(target=calls, args=(each,)) for each in (*pair, *pair)]
        for thread in threads:
            thread.start()
        for number, through in enumerate((one, two, one)):
            bundle = tmp_path / f"{number}.zip"
            wait_for(lambda n=number: len(said_so) > 20 * (n + 1), what="some calls")  # type: ignore[misc]
            made = said("audit", "export", "-c", through.config, "--open", "all", bundle)
            assert made.code == 0, made.err
            assert "not on record yet" not in made.err
            report = check(bundle, policy=policy)
            assert report.verdict in (Verdict.verified, Verdict.unknown), report.as_text()
            assert (report.findings, report.unshown) == ([], []), report.as_text()
        stop.set()
        for thread in threads:
            thread.join(60)
    assert {*said_so} == {"done"}


def test_a_standby_that_is_behind_is_read_by_nobody_who_asks_witnesses_or_holds_clients_to_what_they_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(durable_server())
        pair = stack.enter_context(sharing(tmp_path, server.dsn, monkeypatch.setenv))
        one, _ = pair
        witnessed(pair)
        Witnesses(stack, tmp_path, pair, 1)
        standby = stack.enter_context(durable_server(standby_of=server))
        monkeypatch.setenv("READER_DSN", make_conninfo(os.environ["LEDGER_DSN"], port=standby.port))
        one.edit('      dsn: "env:LEDGER_DSN"\n', '      dsn: "env:LEDGER_DSN"\n      reader: "env:READER_DSN"\n')
        with one.serving():
            assert text(one.call("desk_write", token=one.token())) == "done"
        with psycopg.connect(standby.dsn, autocommit=True) as connection:
            wait_for(lambda: size_of(standby.dsn) == size_of(server.dsn), what="that it has followed")
            connection.execute("SELECT pg_wal_replay_pause()")
            behind = size_of(standby.dsn)
            with one.serving():
                for _ in range(4):
                    assert text(one.call("desk_write", token=one.token())) == "done"
                assert size_of(server.dsn) > behind == size_of(standby.dsn)
                shown = one.get("/log/checkpoint", public=True).text
                assert int(shown.split("\n")[1]) > behind
                assert one.get("/healthz").status_code == 200
            connection.execute("SELECT pg_wal_replay_resume()")
        assert "witness_refused" not in kinds(server.dsn)


def size_of(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        [(size,)] = connection.execute("SELECT size FROM onbehalf_log.head").fetchall()
    return int(size)


def test_a_gateway_that_is_killed_while_a_call_waits_for_witnesses_has_sent_nothing(
    pair: tuple[Company, Company], two_witnesses: Witnesses
) -> None:
    one, two = pair
    token = one.token()
    with two.serving():
        with one.serving() as process:
            assert text(one.call("desk_write", token=token)) == "done"
            os.kill(two_witnesses.running[0].pid, signal.SIGSTOP)  # it takes the request and says nothing

            def leave() -> None:
                with pytest.raises(httpx2.TransportError):
                    one.call("desk_write", token=token)

            client = threading.Thread(target=leave)
            client.start()
            wait_for(lambda: len(intents(one)) == 2, what="that it is on record")
            process.kill()
            process.wait(10)
            client.join(20)
        os.kill(two_witnesses.running[0].pid, signal.SIGCONT)

        def states() -> list[str]:
            told = json.loads(said("audit", "open", "-c", two.config, "--json").out)
            return [each["state"] for each in told["open"]]

        wait_for(lambda: states() == ["unknown"], what="that it is unknown", seconds=40)
        assert text(two.call("desk_write", token=token)) == "done"
    assert [tool for tool, _ in one.desk.seen].count("desk_write") == 2
    assert said("audit", "verify", "-c", two.config).code == 0


def intents(of: Company) -> list[object]:
    reader = opened(of.config)
    try:
        return [each for each in reader.latest(100) if each.kind == "intent"]
    finally:
        reader.close()


def kinds(database: str) -> list[str]:
    with psycopg.connect(database, autocommit=True) as connection:
        query = "SELECT convert_from(entry, 'UTF8')::json ->> 'kind' FROM onbehalf_log.leaf ORDER BY idx"
        return [str(kind) for (kind,) in connection.execute(query).fetchall()]


def test_a_record_that_was_put_back_is_disowned_and_no_gateway_that_is_there_does_anything_more(
    pair: tuple[Company, Company], two_witnesses: Witnesses, database: str
) -> None:
    one, two = pair
    token = one.token()
    with one.serving():
        assert text(one.call("desk_write", token=token)) == "done"
    with psycopg.connect(database, autocommit=True) as connection:
        [(note,)] = connection.execute("SELECT note FROM onbehalf_log.head").fetchall()
    with one.serving():
        for _ in range(4):
            assert text(one.call("desk_write", token=token)) == "done"
    put_back(database, note)
    for name in ("heads.db", "heads.db-wal", "heads.db-shm"):  # or it would not start
        (one.directory / "data" / name).unlink(missing_ok=True)
    done = len(one.desk.seen)
    for number in (0, 1):
        two_witnesses.end(number)
    with one.serving(), two.serving():  # their witnesses are away: they cannot know yet
        assert text(two.call("desk_read", token=token)) == "done"
        for number in (0, 1):
            two_witnesses.start(number)
        assert "ledger_unavailable" in json.dumps(one.call("desk_write", token=token))
        wait_for(lambda: two.get("/healthz").status_code == 503, what="the other one too", said=two.served_log)
        assert one.get("/healthz").status_code == 503
        assert "witness `w" in one.get("/readyz").text
        assert "a witness disowns this log" in two.get("/readyz").text
        for each in pair:
            for tool in ("desk_read", "desk_write"):
                assert "ledger_unavailable" in json.dumps(each.call(tool, token=token))
    assert len(one.desk.seen) == done + 1
    assert kinds(database)[-1] == "witness_refused"
