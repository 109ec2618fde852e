"""A scoped tool in the whole house: narrowed by the company's own tables, and withdrawn when these and the directory
disagree."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from company import Company, company
from test_app import recorded

TABLES = """
CREATE TABLE people (tenant TEXT, id TEXT);
CREATE TABLE memberships (tenant TEXT, below TEXT, above TEXT);
INSERT INTO people VALUES ('acme', 'alice'), ('acme', 'bob');
INSERT INTO memberships VALUES ('acme', 'alice', 'staff');
"""
POLICY = """
@id("of-staff") @doc("Staff read each other's notes.") @remedy("Ask for the group staff.")
permit (principal in Group::"acme/staff", action == Action::"readNote", resource is Note)
when { resource.owner in Group::"acme/staff" };
"""
MAPPED = """    database: notes.db
    tables: {notes: tenant, people: tenant, memberships: tenant}
    entities: {User: {table: people, tenant: tenant}}
    hierarchies: [{types: [User, Group], table: memberships, tenant: tenant}]
"""


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Company]:
    with company(tmp_path / "it") as made:
        text = made.config.read_text()
        text = text.replace("    database: notes.db\n    tables: {notes: tenant}\n", MAPPED)
        made.config.write_text(text.replace("scopes: [notes.read]", "scopes: [notes.read]\n        scoped: true"))
        (made.directory / "policies" / "staff.cedar").write_text(POLICY)
        sql(made, TABLES)
        yield made


def sql(around: Company, text: str) -> None:
    with closing(sqlite3.connect(around.directory / "notes.db")) as base:
        base.executescript(text)


def notes(around: Company, subject: str) -> object:
    return around.call("notes_list", token=around.token(subject))


def test_people_get_their_rows_until_tables_and_directory_disagree_and_then_nobody_does(around: Company) -> None:
    with around.serving():
        found = notes(around, "alice-at-login")
        assert isinstance(found, dict)
        assert [row["text"] for row in found["structuredContent"]["rows"]] == ["mine"]
        sql(around, "INSERT INTO memberships VALUES ('acme', 'bob', 'staff')")  # the directory does not know of it
        found = notes(around, "alice-at-login")
        assert isinstance(found, dict)
        assert [row["text"] for row in found["structuredContent"]["rows"]] == ["mine"]
        assert "notes_list" not in around.tools()
        assert "structuredContent" not in str(notes(around, "alice-at-login"))
    [withdrawn] = recorded(around, "tool_withdrawn")
    assert withdrawn["tool"] == "notes_list"
    assert "gave a row that the policies refuse" in withdrawn["reason"]
    intents = [facts for facts in recorded(around, "intent") if facts["tool"]["name"] == "notes_list"]
    assert all("scoped." in facts["scope"]["predicate"] for facts in intents)
    outcomes = [facts["rows"] for facts in recorded(around, "outcome")]
    assert sorted((rows["returned"], rows["released"]) for rows in outcomes) == [(1, 1), (2, 1)]


def test_types_and_actions_may_stand_in_a_namespace(around: Company) -> None:
    folder = around.directory / "policies"
    schema = (folder / "own.cedarschema").read_text()
    note, read, desk = schema.strip().splitlines()
    (folder / "own.cedarschema").write_text(f"namespace Desk {{ {note} {read} }}\n{desk}")
    for name in ("own.cedar", "staff.cedar"):
        text = (folder / name).read_text().replace("is Note", "is Desk::Note")
        (folder / name).write_text(text.replace('Action::"readNote"', 'Desk::Action::"readNote"'))
    around.edit("action: readNote", 'action: "Desk::readNote"')
    around.edit("type: Note", 'type: "Desk::Note"')
    with around.serving():
        found = notes(around, "alice-at-login")
        assert isinstance(found, dict)
        assert [row["text"] for row in found["structuredContent"]["rows"]] == ["mine"]
        assert "structuredContent" not in str(notes(around, "bob-at-login"))
    [allowed] = recorded(around, "outcome")
    assert (allowed["rows"]["returned"], allowed["rows"]["released"]) == (1, 1)
