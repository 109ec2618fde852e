"""The log's second signature where two gateways share the record: shown by both, kept once, and in a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from company import Company, said, wait_for
from onbehalf.verifier.check import check
from onbehalf.verifier.command import main as verify
from onbehalf.verifier.report import Verdict
from replica_house import put_back, sharing


@pytest.fixture
def pair(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Company, Company]]:
    with sharing(tmp_path, database, monkeypatch.setenv) as made:
        yield made


def newest(database: str) -> tuple[int, str]:
    with psycopg.connect(database, autocommit=True) as connection:
        [found] = connection.execute("SELECT size, note FROM onbehalf_log.head").fetchall()
    return int(found[0]), str(found[1])


def own_lines(database: str) -> dict[int, str]:
    with psycopg.connect(database, autocommit=True) as connection:
        query = "SELECT size, line FROM onbehalf_log.cosignature WHERE name = 'the log'"
        return dict(connection.execute(query).fetchall())


def test_both_gateways_show_one_head_with_one_second_line_and_the_last_head_has_one_too(
    pair: tuple[Company, Company], database: str
) -> None:
    one, two = pair
    key = (one.directory / "data" / "keys" / "log.pub").read_text()
    with one.serving(), two.serving():
        for through in (one, two, one):
            through.call("desk_read", token=one.token())

        def shown() -> list[str]:
            return [each.get("/log/checkpoint", public=True).text for each in pair]

        wait_for(lambda: len({*shown()}) == 1, what="both show one head")  # each shows one for a second
        assert shown()[0].count("\n— ") == 2
    size, note = newest(database)
    assert size in own_lines(database), "the last head is signed when the last gateway ends"
    out = one.directory / "all.zip"
    assert said("audit", "export", "-c", two.config, "--open", "all", out).code == 0
    report = check(out, key=key)
    assert (report.verdict, report.own_signature, report.findings) == (Verdict.verified, True, [])
    (one.directory / "key.pub").write_text(key)
    assert verify([str(out), "--key", key]) == 0
    assert (report.size, note.split("\n")[1]) == (report.size, str(size))


def test_a_killed_gateway_leaves_what_it_showed_signed_and_another_goes_on(
    pair: tuple[Company, Company], database: str
) -> None:
    one, two = pair
    with two.serving():
        with one.serving() as process:
            one.call("desk_read", token=one.token())
            shown = one.get("/log/checkpoint", public=True).text
            process.kill()
            process.wait(10)
        size = int(shown.split("\n")[1])
        assert shown.endswith(own_lines(database)[size])
        two.call("desk_read", token=one.token())
    assert newest(database)[0] in own_lines(database)


def test_a_gateway_that_signed_more_does_not_start_on_a_database_that_was_put_back(
    pair: tuple[Company, Company], database: str
) -> None:
    one, _ = pair
    with one.serving():
        one.call("desk_read", token=one.token())
    size, note = newest(database)
    with one.serving():
        one.call("desk_read", token=one.token())
    put_back(database, note)
    assert newest(database)[0] == size
    refused = said("serve", "-c", one.config)
    assert refused.code != 0
    assert "is no beginning of this log" in refused.err
    assert "heads.db" in refused.err


def test_a_login_that_reads_exports_with_what_is_kept(
    pair: tuple[Company, Company], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    with one.serving():
        one.call("desk_read", token=one.token())
    login = f"rd_{psycopg.conninfo.conninfo_to_dict(database)['dbname']}"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x' IN ROLE onbehalf_log_reader".encode())
    monkeypatch.setenv("READER_DSN", psycopg.conninfo.make_conninfo(database, user=login, password="x"))
    two.edit('      dsn: "env:LEDGER_DSN"\n', '      dsn: "env:LEDGER_DSN"\n      reader: "env:READER_DSN"\n')
    before = own_lines(database)
    monkeypatch.delenv("LEDGER_DSN")
    out = two.directory / "all.zip"
    told = said("audit", "export", "-c", two.config, out)
    assert told.code == 0, told
    assert own_lines(database) == before
    key = (one.directory / "data" / "keys" / "log.pub").read_text()
    assert check(out, key=key).own_signature is True
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"DROP OWNED BY {login}; DROP ROLE {login}".encode())


def test_a_gateway_without_the_second_key_says_so_on_record_and_signs_by_the_first_alone(
    pair: tuple[Company, Company], database: str
) -> None:
    one, two = pair
    with one.serving():
        one.call("desk_read", token=one.token())
    (two.directory / "data" / "keys" / "log-ml-dsa.key").unlink()
    before = own_lines(database)
    with two.serving():
        two.call("desk_read", token=one.token())
        assert two.get("/log/checkpoint", public=True).text.count("\n— ") == 1
    assert own_lines(database) == before
    told = json.loads(said("audit", "list", "-c", one.config, "--json", "--kind", "key_change").out)
    assert len(told["records"]) == 1
