"""The keys of a record that two gateways share are changed, as somebody does it along docs/replicas.md."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from company import Company, said, wait_for
from onbehalf.verifier.check import check
from onbehalf.verifier.report import Verdict
from test_replicas_ledger import pair

__all__ = ["pair"]

LOGIN = ("--login", "env:REKEYER_DSN")


@pytest.fixture
def rekeyer(pair: tuple[Company, Company], database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    login = f"rk_{conninfo_to_dict(database)['dbname']}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE onbehalf_log_rekeyer".encode())
    dsn = make_conninfo(database, user=login, password="x")
    monkeypatch.setenv("REKEYER_DSN", dsn)
    return dsn


def keys_of(company: Company) -> Path:
    return company.directory / "data" / "keys"


def lines(company: Company) -> list[str]:
    return (keys_of(company) / "log.pub").read_text().split()


def called(one: Company, *others: Company) -> None:
    """A call through each, which is on record. Whoever gives tokens gives them for the address of the first."""
    token = one.token()
    for each in (one, *others):
        assert each.call("desk_read", token=token)["_meta"]["onbehalf/call"]


def refused_to_serve(company: Company) -> str:
    """What a gateway says that does not start."""
    command = (sys.executable, "-m", "onbehalf.cli.main", "serve", "-c", str(company.config))
    ended = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert ended.returncode == 2, ended
    return ended.stderr


def open_calls(company: Company) -> list[object]:
    told: list[object] = json.loads(said("audit", "open", "-c", company.config, "--json").out)["open"]
    return told


def require_followed(company: Company, out: Path, *keys: str) -> None:
    """The whole record holds, from each of these keys, by the audit command and offline."""
    verified = json.loads(said("audit", "verify", "-c", company.config, "--json").out)
    assert verified["ok"], verified
    exported = said("audit", "export", "-c", company.config, out)
    assert exported.code == 0, exported
    for key in keys:
        report = check(out, key=key)
        assert (report.verdict, report.findings) == (Verdict.verified, [])


def test_with_all_gateways_stopped_and_the_new_keys_copied_one_record_goes_on(
    pair: tuple[Company, Company], rekeyer: str, tmp_path: Path
) -> None:
    one, two = pair
    rotate = ("keys", "rotate-log", "-c", one.config)
    [old, *_] = lines(one)
    unnamed = said(*rotate)
    assert (unnamed.code, "--login env:NAME" in unnamed.err) == (2, True)
    with one.serving(), two.serving():
        called(one, two)
        refused = said(*rotate, *LOGIN)
        assert refused.code != 0
        assert "replicas are there: " in refused.err
        assert "stop all gateways" in refused.err
        called(one, two)
    assert lines(one)[0] == old
    told = said(*rotate, *LOGIN)
    [new, *_] = lines(one)
    assert (told.code, new in told.out, "On other machines" in told.out, new != old) == (0, True, True, True)
    refusal = refused_to_serve(two)
    assert "`log.key` is a former key of this log" in refusal
    assert "copy `log.key`, `log-ml-dsa.key` and `log.pub` from `data/keys`" in refusal
    for name in ("log.key", "log-ml-dsa.key", "log.pub"):
        shutil.copy(keys_of(one) / name, keys_of(two) / name)
    with one.serving(), two.serving():
        called(one, two)
        [line] = httpx2.get(f"{two.gateway}/log/handovers").text.splitlines()
        assert json.loads(json.loads(line)["json"])["after"][0] == new
    require_followed(two, tmp_path / "b.zip", old, new)


def test_a_gateway_that_runs_on_with_the_former_keys_writes_nothing_says_why_and_serves_again_with_the_new_ones(
    pair: tuple[Company, Company], rekeyer: str, database: str, tmp_path: Path
) -> None:
    one, two = pair
    [old, *_] = lines(one)
    gateways = conninfo_to_dict(database)["dbname"]
    token = one.token()
    with two.serving() as process:
        assert two.call("desk_read", token=token)["_meta"]["onbehalf/call"]
        wait_for(lambda: open_calls(one) == [], what="its outcome")
        process.send_signal(signal.SIGSTOP)
        try:
            with psycopg.connect(database, autocommit=True) as connection:
                end = f"SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE usename = 'gw_{gateways}'"
                connection.execute(end.encode())
            told = said("keys", "rotate-log", "-c", one.config, *LOGIN)
            assert told.code == 0, told
        finally:
            process.send_signal(signal.SIGCONT)
        result = two.call("desk_write", token=token)
        assert "onbehalf/receipt" not in result.get("_meta", {})
        said_so = "the log's keys were changed, and this replica has the former ones"
        wait_for(lambda: said_so in two.served_log(), what="why it writes nothing more")
        assert two.get("/readyz").status_code == 503
    assert [tool for tool, _ in two.desk.seen] == ["desk_read"]
    shutil.copytree(keys_of(one), keys_of(two), dirs_exist_ok=True)
    with one.serving(), two.serving():
        called(one, two)
    require_followed(one, tmp_path / "b.zip", old, lines(one)[0])


def test_prepared_keys_are_copied_while_gateways_serve_and_taken_by_each_when_it_starts(
    pair: tuple[Company, Company], rekeyer: str, tmp_path: Path
) -> None:
    one, two = pair
    [old, *_] = lines(one)
    with one.serving(), two.serving():
        prepared = said("keys", "rotate-log", "--prepare", "-c", one.config, "--json")
        new = json.loads(prepared.out)["after"]
        for name in ("log.key.next", "log-ml-dsa.key.next"):
            shutil.copy(keys_of(one) / name, keys_of(two) / name)
        called(one, two)
    with one.serving():  # nothing is changed yet
        called(one)
    assert lines(one)[0] == old
    assert json.loads(said("keys", "rotate-log", "-c", one.config, *LOGIN, "--json").out)["after"] == new
    with two.serving(), one.serving():
        called(one, two)
    for each in pair:
        assert lines(each) == new
        assert not [*keys_of(each).glob("*.next")]
    assert (keys_of(one) / "log.key").read_bytes() == (keys_of(two) / "log.key").read_bytes()
    require_followed(one, tmp_path / "b.zip", old, new[0])
