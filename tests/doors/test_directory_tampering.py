"""The directory file in wrong hands: what constraints refuse, what is noticed, and what the next load puts back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from doors.directory_house import NEXT, TEXT, person, raw, unavailable, users
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.model import Ref
from onbehalf.validate import people


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "directory.db"


@pytest.fixture
def directory(path: Path) -> Iterator[SqliteDirectory]:
    opened = SqliteDirectory.open(path)
    opened.load(people.parse(TEXT))
    yield opened
    opened.close()


def in_books(statement: str) -> str:
    """The statement with the books of the tenants that it names."""
    if "tenant" in statement.partition("VALUES")[0].partition("WHERE")[0]:
        return statement
    for tenant in ("acme", "globex", "none"):
        book = f"(SELECT coalesce(max(book), 99) FROM tenant WHERE id = '{tenant}')"
        statement = statement.replace(f"VALUES ('{tenant}'", f"VALUES ({book}").replace(f"'{tenant}'", book)
    return statement


# --- attacks on the file, with its constraints on ---


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO position_edge VALUES ('acme', 'ic', 'boss')",
        "INSERT INTO position_edge VALUES ('globex', 'boss', 'lead')",
        "INSERT INTO position_edge VALUES ('acme', 'ceo', 'ic')",
        "INSERT INTO position_edge VALUES ('acme', 'ic', 'ic')",
        "INSERT INTO grouping_edge VALUES ('acme', 'all', 'hr')",
                "INSERT INTO position_above VALUES ('acme', 'ic', 'ic')",
        "UPDATE position_edge SET above = 'ic2' WHERE below = 'ic'",
        "UPDATE position_above SET above = 'ic2' WHERE below = 'ic' AND above = 'lead'",
        "UPDATE grouping_edge SET book = 'globex'",
        "DELETE FROM position WHERE id = 'lead'",
        "INSERT INTO position VALUES ('acme', 'a/b')",
        "INSERT INTO position VALUES ('acme', '')",
        "INSERT INTO book VALUES (77, 'a/b', 's', '', '', '', 0, '')",
        "INSERT INTO tenant VALUES ('a/b', 77, 'file')",
        "UPDATE tenant SET book = (SELECT book FROM tenant WHERE id = 'globex') WHERE id = 'acme'",
        "UPDATE tenant SET id = 'eve' WHERE id = 'acme'",
        "INSERT INTO person VALUES ('acme', 'eve', 'Eve', 'lead', 1, '{}')",
        "UPDATE person SET active = 1 WHERE id = 'gone'",
        "UPDATE person SET position = 'boss' WHERE id = 'free'",
        "UPDATE person SET book = 'globex' WHERE id = 'free'",
        "UPDATE person SET active = 'yes' WHERE id = 'free'",
        "UPDATE person SET active = 2 WHERE id = 'free'",
        "UPDATE person SET attributes = '[]' WHERE id = 'free'",
        "UPDATE person SET attributes = '{' WHERE id = 'free'",
        "INSERT INTO person VALUES ('acme', 'globex/erin', 'Eve', NULL, 1, '{}')",
        "INSERT INTO person VALUES ('none', 'eve', 'Eve', NULL, 1, '{}')",
        "INSERT INTO login VALUES ('acme', 'u-7', 'https://issuer.test', 'erin')",
        "INSERT INTO login VALUES ('acme', 'u-1', 'https://issuer.test', 'bob')",
        "INSERT INTO login VALUES ('acme', '', 'https://issuer.test', 'bob')",
        "UPDATE login SET book = 'globex' WHERE subject = 'u-1'",
        "INSERT INTO membership VALUES ('acme', 'erin', 'hr')",
        "INSERT INTO membership VALUES ('globex', 'erin', 'staff')",
        "INSERT INTO meta VALUES (2, 0, 0, 0)",
    ],
)
def test_raw_sql_that_would_break_the_directory_is_refused_by_a_constraint(
    directory: SqliteDirectory, path: Path, statement: str
) -> None:
    before = person(directory, "u-2")
    with pytest.raises(sqlite3.IntegrityError):
        raw(path, in_books(statement))
    assert person(directory, "u-2") is before


# --- and with its constraints off, or where none can speak ---

TAMPERED = {
    "an ancestor made up": ["INSERT INTO position_above VALUES ('acme', 'ic', 'ic2')"],
    "an ancestor lost": ["DELETE FROM grouping_above WHERE below = 'hr' AND above = 'all'"],
    "edges lost": [
        "DELETE FROM grouping_above WHERE above = 'x'",
        "DROP TRIGGER grouping_kept",
        "DELETE FROM grouping_edge",
    ],
    "an edge to another tenant": ["INSERT INTO position_edge VALUES ('acme', 'ic', 'boss')"],
    "an edge to itself": ["INSERT INTO position_edge VALUES ('acme', 'ic', 'ic')"],
    "two holders": ["DROP INDEX person_holds", "UPDATE person SET active = 1 WHERE id = 'gone'"],
    "a circle": ["DROP TRIGGER position_circle", "INSERT INTO position_edge VALUES ('acme', 'ceo', 'ic')"],
    "a group of another tenant": ["INSERT INTO membership VALUES ('globex', 'erin', 'staff')"],
    "a login of another tenant's person": ["INSERT INTO login VALUES ('acme', 'https://issuer.test', 'u-7', 'erin')"],
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_file_is_not_served_while_running_nor_at_the_next_start(
    directory: SqliteDirectory, path: Path, case: str
) -> None:
    assert person(directory, "u-2")
    raw(path, *TAMPERED[case], constraints=False)
    for _ in range(2):
        unavailable(lambda: person(directory, "u-2"))
        unavailable(lambda: users(directory, "bob"))
        unavailable(lambda: directory.revision)
    directory.close()
    unavailable(lambda: SqliteDirectory.open(path))


@pytest.mark.parametrize(
    "last", ["DELETE FROM position_above WHERE 0", "DELETE FROM position_above WHERE below = above"]
)
def test_a_circle_made_in_the_absence_of_the_closure_is_never_served(
    directory: SqliteDirectory, path: Path, last: str
) -> None:
    """What no trigger refuses: they know of a circle by the closure, which `load` must be able to remove."""
    raw(path, "DELETE FROM position_above", "INSERT INTO position_edge VALUES ('acme', 'ceo', 'ic')", last)
    unavailable(lambda: person(directory, "u-2"))
    unavailable(lambda: SqliteDirectory.open(path))
    assert directory.load(people.parse(TEXT)) == 2
    assert person(directory, "u-2").active


def test_a_file_without_its_revision_is_unavailable_to_readers_loads_and_the_next_start(
    directory: SqliteDirectory, path: Path
) -> None:
    raw(path, "DELETE FROM meta")
    unavailable(lambda: person(directory, "u-2"))
    unavailable(lambda: directory.load(people.parse(NEXT)))
    unavailable(lambda: SqliteDirectory.open(path))


@pytest.mark.parametrize(
    "statement",
    ["UPDATE person SET id = 'a/b' WHERE id = 'free'", "UPDATE person SET attributes = '{' WHERE id = 'free'"],
)
def test_what_a_check_forbids_is_noticed_at_the_next_start(
    directory: SqliteDirectory, path: Path, statement: str
) -> None:
    directory.close()
    raw(path, "DELETE FROM login WHERE person = 'free'", statement, constraints=False)
    assert "CHECK constraint failed" in unavailable(lambda: SqliteDirectory.open(path)).message


@pytest.mark.parametrize("attributes", ["{", "[]", "null", "7"])
def test_attributes_that_are_no_json_object_make_the_directory_unavailable(
    directory: SqliteDirectory, path: Path, attributes: str
) -> None:
    raw(path, f"UPDATE person SET attributes = '{attributes}' WHERE id = 'free'", constraints=False)
    unavailable(lambda: person(directory, "u-4"))


def test_what_was_written_by_hand_within_the_constraints_is_put_back_by_the_next_load(
    directory: SqliteDirectory, path: Path
) -> None:
    raw(path, "DELETE FROM person WHERE 0", "UPDATE person SET position = NULL WHERE id IN ('dana', 'bob')")
    raw(path, "UPDATE person SET position = 'lead' WHERE tenant = 'acme' AND id = 'bob'")
    assert users(directory, "bob")[0].attributes["position"] == Ref(type="Position", id="acme/lead")
    assert directory.load(people.parse(TEXT)) == 2
    assert users(directory, "bob")[0].attributes["position"] == Ref(type="Position", id="acme/ic")


def test_a_load_mends_a_tampered_closure_while_running(directory: SqliteDirectory, path: Path) -> None:
    raw(path, "DELETE FROM grouping_above WHERE below = 'hr'")
    unavailable(lambda: person(directory, "u-1"))
    assert directory.load(people.parse(NEXT)) == 2
    assert len(person(directory, "u-1").entities) == 7


@pytest.mark.parametrize(
    "statement",
    ["DROP TRIGGER position_circle", "DROP INDEX person_holds", "CREATE TABLE other (x)", "PRAGMA user_version = 2",
     "CREATE TRIGGER t AFTER INSERT ON person BEGIN DELETE FROM login; END"],
)  # fmt: skip
def test_a_file_with_other_tables_or_of_another_version_is_refused_with_what_to_do(path: Path, statement: str) -> None:
    SqliteDirectory.open(path).close()
    raw(path, statement)
    assert "remove the file" in unavailable(lambda: SqliteDirectory.open(path)).hint
