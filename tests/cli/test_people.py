"""`onbehalf people` as somebody uses it who follows docs/directory.md."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from company import Company, Said, company, said

DOCUMENT = (Path(__file__).parents[2] / "docs" / "directory.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        (made.directory / "people.yaml").write_text("tenants: {}")
        yield made


def people(around: Company, *words: str) -> Said:
    return said("people", *words, "--config", around.config)


@pytest.mark.parametrize(("language", "name"), [("json", "people.jsonl"), ("csv", "people.csv")])
def test_the_example_of_a_file_is_loaded_and_shown(around: Company, language: str, name: str) -> None:
    (around.directory / name).write_text(block(language))
    told = people(around, "load", str(around.directory / name), "--tenant", "acme")
    assert (told.code, told.err) == (0, "")
    assert "acme: 2 people, 2 new" in told.out
    shown = people(around, "show", "e2")
    assert re.search(r"below +e1\n", shown.out)
    assert "department: sales" in shown.out
    machine = json.loads(people(around, "show", "dana", "--json").out)  # by what she logs in as
    assert (machine["id"], machine["groups"], machine["active"]) == ("e1", ["hr"], True)
    status = json.loads(people(around, "status", "--json").out)["tenants"]
    assert [(each["tenant"], each["source"], each["people"]) for each in status] == [("acme", "file", 2)]
    assert "acme  from file  2 people, 2 active, last read 20" in people(around, "status").out


def test_the_example_of_a_query_is_pulled(around: Company) -> None:
    with closing(sqlite3.connect(around.directory / "hr.db")) as base:
        base.executescript(
            "CREATE TABLE employees (emp_no TEXT, full_name TEXT, boss_no TEXT, units TEXT, employed INTEGER,"
            " mail TEXT, dept TEXT); INSERT INTO employees VALUES ('e1', 'Dana', NULL, 'hr', 1, 'dana', NULL),"
            " ('e2', 'Bob', 'e1', 'staff', 1, NULL, 'sales'), ('e3', 'Eve', 'e1', '', 0, NULL, NULL);"
        )
    around.config.write_text(around.config.read_text() + block("yaml"))
    assert "acme: 3 people, 3 new" in people(around, "pull", "--tenant", "acme").out
    assert "below       e1" in people(around, "show", "e2", "--tenant", "acme").out
    assert "(no longer active)" in people(around, "show", "e3").out
    (around.directory / "hr.db").unlink()
    told = people(around, "pull")
    assert (told.code, "unable to open" in told.err) == (2, True)
    assert "unable to open" in people(around, "status").out


def test_what_would_make_too_many_leave_is_refused_once_allowed_and_released(around: Company) -> None:
    feed = around.directory / "p.jsonl"
    feed.write_text("".join(f'{{"id": "e{n}", "name": "E"}}\n' for n in range(30)))
    assert people(around, "load", str(feed)).code == 0
    feed.write_text('{"id": "e1", "name": "E"}\n')
    told = people(around, "load", str(feed))
    assert (told.code, told.out) == (2, "")
    assert "would deactivate 29 of 30" in told.err
    assert "--deactivate-at-most" in told.err
    assert people(around, "load", str(feed), "--deactivate-at-most", "1").code == 0
    assert people(around, "release", "acme").code == 0
    assert people(around, "show", "e1").code == 2


@pytest.mark.parametrize(
    ("words", "said_then"),
    [
        (["load"], "people.yaml"), (["load", "no.csv"], "cannot be read"), (["load", "x.txt"], "is not loaded"),
        (["load", "x.csv", "--tenant", "eve"], "no issuer may speak for"), (["pull"], "no feed is configured"),
        (["show", "nobody"], "there is no"), (["status"], "there is no directory"), (["release", "x"], "no tenant `x`"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_with_what_to_do(around: Company, words: list[str], said_then: str) -> None:
    told = people(around, *words)
    assert (told.code, told.out) == (2, "")
    assert said_then in told.err
    assert "what to do:" in told.err
    assert "internal" not in told.err


def test_check_says_what_was_loaded_and_that_nothing_was(around: Company) -> None:
    around.edit("gateway:\n", "gateway:\n  people: people.csv\n")
    assert "no directory at" in said("check", "--config", around.config).out
    (around.directory / "people.csv").write_text(block("csv"))
    assert people(around, "load").code == 0
    assert "acme has 2 active people from file" in said("check", "--config", around.config).out
    (around.directory / "people.csv").write_text("id,name\ne1,A\ne1,B\n")
    assert people(around, "load").code == 2
    assert "stands in the feed twice" in said("check", "--config", around.config).out
