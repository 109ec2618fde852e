"""`audit query`: the record is asked in one line, and whoever asks gets the record and nothing else of the machine."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from company import Company, company, said

PEOPLE = """
tenants:
  acme:
    groups: {staff: [], clerks: [staff]}
    positions: {boss: [], team: [boss]}
    people:
      alice: {name: Alice Example, groups: [staff], position: team, logins: [{issuer: "@", subject: alice-at-login}]}
      bob: {name: Bob Example, groups: [clerks], logins: [{issuer: "@", subject: bob-at-login}]}
      carol: {name: Carol Example, position: boss, logins: [{issuer: "@", subject: carol-at-login}]}
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    """Alice reads her notes three times, Bob once; Carol is refused; Alice writes; somebody strange tries."""
    with company(tmp_path_factory.mktemp("record") / "it") as made:
        (made.directory / "people.yaml").write_text(PEOPLE.replace("@", made.issuer.url))
        lake = (
            "\nsinks: {lake: {kind: parquet, directory: lake}, open: {kind: parquet, directory: open, payload: true}}\n"
        )
        made.config.write_text(made.config.read_text() + lake)
        made.asked(
            *3 * [("alice-at-login", "notes_list", {})],
            ("bob-at-login", "notes_list", {}),
            ("carol-at-login", "notes_list", {}),
            ("alice-at-login", "desk_write", {"word": "CANARY"}),
            ("nobody-at-login", "desk_read", {}),
        )
        assert said("audit", "send", "--once", "-c", made.config).code == 0
        yield made


def asked(made: Company, *question: str) -> Any:
    told = said("audit", "query", *question, "-c", made.config, "--json")
    assert told.code == 0, told
    return json.loads(told.out)


SOURCES = [(), ("--parquet", "lake"), ("--parquet", "open")]


def where(made: Company, source: tuple[str, ...]) -> tuple[str, ...]:
    return source and (source[0], str(made.directory / source[1]))


# --- ready questions ---


@pytest.mark.parametrize("source", SOURCES)
def test_who_read_notes_about_a_team_is_answered_in_one_line(recorded: Company, source: tuple[str, ...]) -> None:
    more = where(recorded, source)
    found = asked(recorded, "--who-read", "Note", "--team", "acme/boss", "--since", "30d", *more)["rows"]
    assert [(row["person"], row["tool"], row["answers"], row["different_rows"]) for row in found] == [
        ("acme/alice", "notes_list", 3, 1)
    ]
    assert found[0]["last_call"].startswith("call_")
    both = asked(recorded, "--who-read", "Note", *more)["rows"]
    assert [(row["person"], row["answers"]) for row in both] == [("acme/alice", 3), ("acme/bob", 1)]
    assert asked(recorded, "--who-read", "Review", *more)["rows"] == []


@pytest.mark.parametrize(
    ("team", "readers"),
    [
        ("acme/boss", {"acme/alice"}),  # all below a position
        ("acme/carol", {"acme/alice"}),  # all below somebody
        ("acme/staff", {"acme/alice", "acme/bob"}),  # a group, and the groups in it
        ("acme/clerks", {"acme/bob"}),
    ],
)
def test_a_team_is_a_group_a_position_or_whose_manager_somebody_is(
    recorded: Company, team: str, readers: set[str]
) -> None:
    assert {row["person"] for row in asked(recorded, "--who-read", "Note", "--team", team)["rows"]} == readers


def test_a_team_that_nobody_is_in_is_no_empty_answer(recorded: Company) -> None:
    for team in ("acme/none", "globex/staff", "acme/alice", "staff", "acme/"):
        told = said("audit", "query", "--who-read", "Note", "--team", team, "-c", recorded.config)
        assert (told.code, told.out) == (2, ""), team
        assert "query_failed" in told.err


def test_whose_data_was_seen_is_asked_by_person(recorded: Company) -> None:
    assert [row["person"] for row in asked(recorded, "--about", "acme/bob")["rows"]] == ["acme/bob"]
    assert asked(recorded, "--about", "acme/carol")["rows"] == []


def test_what_somebody_did_is_told_newest_first_with_its_end(recorded: Company) -> None:
    rows = asked(recorded, "--by", "acme/alice")["rows"]
    assert [(row["tool"], row["effect"], row["ended"]) for row in rows] == [
        ("desk_write", "allow", "done"), *[("notes_list", "allow", "done")] * 3,
    ]  # fmt: skip
    (denied,) = asked(recorded, "--by", "acme/carol")["rows"]
    assert (denied["effect"], denied["released"]) == ("deny", None)


def test_answers_that_cannot_be_seen_into_are_counted(recorded: Company) -> None:
    """The desk's tool maps no rows: what was in its answer is not on record."""
    assert asked(recorded, "--who-read", "Note")["not_seen_into"] == 1
    told = said("audit", "query", "--who-read", "Note", "-c", recorded.config)
    assert "1 answers cannot be seen into" in told.err
    assert "acme/alice" in told.out


def test_a_span_leaves_out_what_was_before_and_after(recorded: Company) -> None:
    count = "SELECT count(*) AS n FROM records"
    everything = asked(recorded, count)["rows"][0]["n"]
    assert everything >= 12
    tomorrow = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 86_400))
    for source in SOURCES:
        more = where(recorded, source)
        assert asked(recorded, count, "--since", "1h", *more)["rows"][0]["n"] == everything
        assert asked(recorded, count, "--since", tomorrow, *more)["rows"][0]["n"] == 0
        assert asked(recorded, count, "--until", "2020-01-01T00:00", *more)["rows"][0]["n"] == 0


# --- SQL ---


def test_every_column_can_be_asked_for_and_the_ledger_and_parquet_say_the_same(recorded: Company) -> None:
    names = [line.split()[0] for line in said("audit", "query", "--columns").out.splitlines()]
    assert names[:3] == ["index", "time", "kind"]
    flat = f"SELECT {', '.join(each for each in names if each not in ('record', 'text'))} FROM records ORDER BY index"
    told = [asked(recorded, flat, *where(recorded, source))["rows"] for source in SOURCES]
    assert told[0] == told[1] == told[2]
    assert {*told[0][0]} | {"record", "text"} >= {*names}


def test_arguments_are_seen_live_by_who_holds_the_keys_and_in_parquet_only_if_they_left(recorded: Company) -> None:
    sql = "SELECT count(*) AS n FROM records WHERE record LIKE '%CANARY%'"
    found = [asked(recorded, sql, *where(recorded, source))["rows"][0]["n"] for source in SOURCES]
    assert found == [1, 0, 1]
    inside = (
        "SELECT record->>'$.facts.arguments.word' AS word FROM records WHERE tool = 'desk_write' AND kind = 'intent'"
    )
    assert asked(recorded, inside)["rows"] == [{"word": "CANARY"}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('http://127.0.0.1:1/x')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "COPY records TO '/tmp/onbehalf-should-not-be'",
        "ATTACH '/tmp/onbehalf-should-not-be.db'",
        "INSTALL httpfs",
        "LOAD sqlite",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "DROP TABLE records",
        "INSERT INTO records SELECT * FROM records",
        "CREATE TABLE x AS SELECT 1",
        "SELECT 1; SELECT 2",
        "EXPORT DATABASE '/tmp/onbehalf-should-not-be'",
        "SELECT * FROM loaded_by_nobody",
        "SELECT getenv('HOME')",
        "SELECT * FROM sys.modules",
        "",
        ";",
        "nonsense",
        "\x00",
        "SELECT '" + "x" * 100_001 + "'",
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    ],
)
def test_a_question_reaches_no_file_no_network_and_changes_nothing(recorded: Company, sql: str) -> None:
    told = said("audit", "query", sql, "-c", recorded.config)
    assert (told.code, told.out) == (2, ""), told
    assert "query_failed" in told.err
    assert "internal" not in told.err
    assert not [*Path("/tmp").glob("onbehalf-should-not-be*")]


def test_rows_and_time_are_bounded(recorded: Company) -> None:
    told = asked(recorded, "SELECT range FROM range(100000)", "--rows", "3")
    assert (len(told["rows"]), told["more"]) == (3, True)
    began = time.monotonic()
    endless = said(
        "audit", "query", "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b", "--seconds", "0.5",
        "-c", recorded.config,
    )  # fmt: skip
    assert (endless.code, endless.out) == (2, "")
    assert "longer than 0.5 seconds" in endless.err
    assert time.monotonic() - began < 15


def test_memory_is_bounded(recorded: Company) -> None:
    told = said("audit", "query", "SELECT list(range) FROM range(2000000000)", "--seconds", "30", "-c", recorded.config)
    assert (told.code, told.out) == (2, "")
    assert "query_failed" in told.err


def test_control_characters_of_the_record_reach_no_terminal(recorded: Company) -> None:
    told = said("audit", "query", "SELECT chr(27) || '[31m' AS \"a\x1bb\", '[bold]x' AS c", "-c", recorded.config)
    assert told.code == 0
    assert all(each.isprintable() or each == "\n" for each in told.out)
    assert "[bold]x" in told.out


def test_values_that_json_has_no_form_for_are_told_all_the_same(recorded: Company) -> None:
    sql = "SELECT 'nan'::DOUBLE a, 2::HUGEINT ** 100 b, 1.5::DECIMAL(4,1) c, {'x': [NULL]} d, 'ab'::BLOB e, "
    sql += "DATE '2026-01-01' f"
    (row,) = asked(recorded, sql)["rows"]
    assert (row["a"], row["c"], row["d"], row["f"]) == ("nan", 1.5, {"x": [None]}, "2026-01-01")


@pytest.mark.parametrize(
    "question",
    [
        [], ["SELECT 1", "--by", "acme/alice"], ["--about", "a", "--team", "acme/staff"],
        ["SELECT 1", "--since", "soon"],
        ["SELECT 1", "--parquet", "/nowhere"], ["SELECT 1", "--since", "99999-01-01"],
    ],
)  # fmt: skip
def test_a_question_that_is_none_is_2_and_says_what_one_is(recorded: Company, question: list[str]) -> None:
    told = said("audit", "query", *question, "-c", recorded.config)
    assert (told.code, told.out) == (2, "")
    assert "what to do" in told.err


def test_a_damaged_payload_is_1_and_no_answer(recorded: Company, tmp_path: Path) -> None:
    copy = recorded.copied(tmp_path / "copy")
    with closing(sqlite3.connect(copy.ledger)) as base:
        base.execute("UPDATE payload SET sealed = zeroblob(length(sealed)) WHERE idx = 3")
        base.commit()
    told = said("audit", "query", "SELECT 1", "-c", copy.config)
    assert (told.code, told.out) == (1, "")


def test_noise_for_parquet_is_2(recorded: Company, tmp_path: Path) -> None:
    (tmp_path / "day=2026-01-01").mkdir()
    (tmp_path / "day=2026-01-01" / "x.parquet").write_bytes(b"PAR1 noise")
    told = said("audit", "query", "SELECT * FROM records", "--parquet", tmp_path, "-c", recorded.config)
    assert (told.code, told.out) == (2, "")
    assert "internal" not in told.err


def test_without_the_extra_it_says_what_to_install(recorded: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    told = said("audit", "query", "SELECT 1", "-c", recorded.config)
    assert (told.code, told.out) == (2, "")
    assert "onbehalf-gateway[gateway,audit]" in told.err
