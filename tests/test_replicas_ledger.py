"""Two gateways on one record in PostgreSQL, as somebody runs them along docs/replicas.md."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from company import Company, said, wait_for
from replica_house import sharing


@pytest.fixture
def pair(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Company, Company]]:
    """Two replicas of one gateway: one configuration, each with a `data` folder and ports of its own."""
    with sharing(tmp_path, database, monkeypatch.setenv) as made:
        yield made


def test_calls_through_two_gateways_are_one_record_that_every_command_reads(pair: tuple[Company, Company]) -> None:
    one, two = pair
    token, answered = one.token(), list[str]()

    def calls(through: Company) -> None:
        for tool in ("desk_read", "notes_list", "desk_write") * 4:
            answered.append(through.call(tool, token=token)["_meta"]["onbehalf/call"])

    with one.serving(), two.serving():
        threads = [threading.Thread(target=calls, args=(each,)) for each in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(answered) == 24
        for each in (one, two):
            name = each.get("/log/checkpoint", public=True).text.splitlines()[0]
            assert name == f"{one.gateway.removeprefix('http://')}/ledger"
        told = json.loads(said("audit", "open", "-c", one.config, "--json").out)
        assert told["open"] == []
    for each in (one, two):
        verified = json.loads(said("audit", "verify", "-c", each.config, "--json").out)
        assert verified["ok"], verified
        assert verified["kinds"]["intent"] == verified["kinds"]["outcome"] == 24
        for call in answered[:2] + answered[-2:]:
            explained = said("explain", call, "-c", each.config)
            assert explained.code == 0, explained
    bundle = one.directory / "all.zip"
    assert said("audit", "export", "-c", one.config, "--open", "all", bundle).code == 0
    assert said("audit", "export-log", "-c", two.config, two.directory / "log").code == 0
    assert said("audit", "proof", "3", "-c", two.config).out.startswith("c2sp.org/tlog-proof@v1\nindex 3\n")
    assert len(json.loads(said("audit", "list", "-c", two.config, "--json", "-n", "5").out)["records"]) == 5
    told = said("audit", "list", "-c", two.config, "--json", "--kind", "admin_read")
    readings = [each["read"]["command"] for each in json.loads(told.out)["records"]]
    assert readings.count("audit export") == 1
    assert readings.count("explain") == 4, "those of the folder that the export put on record, and no others'"
    assert "5 more wait" in told.err, "the other folder's: 4 of explain, 1 of list"


def test_a_person_is_erased_while_two_gateways_take_their_calls(pair: tuple[Company, Company]) -> None:
    stop, refused = threading.Event(), list[object]()

    def calling(through: Company, token: str) -> None:
        while not stop.is_set():
            result = through.call("notes_list", token=token)
            if "onbehalf/receipt" not in result.get("_meta", {}):
                refused.append(result)

    def listed() -> list[dict[str, object]]:
        answer = said("audit", "list", "-c", pair[1].config, "--json", "-n", "10000")
        records: list[dict[str, object]] = json.loads(answer.out)["records"]
        return records

    with pair[0].serving(), pair[1].serving():
        threads = [
            threading.Thread(target=calling, args=(each, pair[0].token(subject)))
            for each in pair
            for subject in ("alice-at-login", "bob-at-login")
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(listed()) > 40, what="some calls", seconds=60)
        erase = ("audit", "erase", "--subject", "acme/alice", "--basis", "art. 17", "--yes", "-c")
        answer = said(*erase, pair[1].config)
        until = len(listed()) + 40
        wait_for(lambda: len(listed()) > until, what="more calls", seconds=60)
        stop.set()
        for thread in threads:
            thread.join(60)
    assert answer.code == 0, answer.err
    assert refused == []
    records = listed()
    [at] = [index for index, each in enumerate(records) if each["kind"] == "erased"]
    assert "acme/alice" in {each["person"] for each in records[at:]}
    assert "acme/alice" not in {each["person"] for each in records[:20]}
    assert "acme/bob" in {each["person"] for each in records[:20]}
    report = json.loads(said("audit", "verify", "-c", pair[0].config, "--json").out)
    assert (report["ok"], report["findings"]) == (True, [])
    assert report["erased"] == report["erasures"][0]["count"] > 0


def test_what_a_killed_gateway_had_under_way_is_unknown_and_the_other_one_serves_on(
    pair: tuple[Company, Company],
) -> None:
    one, two = pair
    token = one.token()
    with two.serving():
        with one.serving() as process:
            one.desk.hold = True

            def leave() -> None:
                with pytest.raises(httpx2.TransportError):
                    one.call("desk_write", token=token)

            client = threading.Thread(target=leave)
            client.start()
            assert one.desk.arrived.wait(20)
            process.kill()
            process.wait(10)
            client.join(20)
        one.desk.hold = False
        one.desk.go_on.set()
        assert two.call("desk_read", token=token)["_meta"]["onbehalf/call"]

        def states() -> list[str]:
            told = json.loads(said("audit", "open", "-c", two.config, "--json").out)
            return [each["state"] for each in told["open"]]

        assert states() in (["open"], ["unknown"])
        wait_for(lambda: states() == ["unknown"], what="that it is unknown", seconds=40)
    assert said("audit", "verify", "-c", two.config).code == 0
    assert [tool for tool, _ in one.desk.seen].count("desk_write") == 1


def test_a_record_is_not_begun_beside_one_of_the_same_name(pair: tuple[Company, Company]) -> None:
    one, _ = pair
    (one.directory / "data" / "ledger.db").touch()
    refused = said("db", "ledger", "-c", one.config)
    assert refused.code != 0
    assert "cannot have two beginnings" in refused.err


def test_a_record_that_nobody_made_is_told(pair: tuple[Company, Company], database: str) -> None:
    one, _ = pair
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA onbehalf_log CASCADE")
    refused = said("audit", "verify", "-c", one.config)
    assert refused.code != 0
    assert "onbehalf db ledger" in refused.err
    again = said("db", "ledger", "-c", one.config)
    assert "CREATE SCHEMA" in again.out
    assert (one.directory / "data" / "keys" / "log.key").read_text().strip() not in again.out


def test_a_comparison_with_a_backend_goes_on_the_shared_record(pair: tuple[Company, Company]) -> None:
    one, two = pair
    with one.serving(), two.serving():
        for each in (one, two):
            each.call("desk_read", token=one.token())
        compared = said("audit", "reconcile", "-c", two.config)
        assert compared.code == 0, compared
    again = said("audit", "reconcile", "-c", one.config)
    assert again.code == 0, again
    verified = json.loads(said("audit", "verify", "-c", one.config, "--json").out)
    assert verified["ok"], verified
    assert verified["kinds"]["reconciled"] == 2


def test_the_sql_can_be_run_again(pair: tuple[Company, Company]) -> None:
    one, _ = pair
    before = said("audit", "verify", "-c", one.config, "--json").out
    for _ in range(2):
        assert said("db", "ledger", "-c", one.config, "--apply", "env:LEDGER_OWNER").code == 0
    assert said("audit", "verify", "-c", one.config, "--json").out == before
