"""The directory file in wrong hands: what constraints refuse, what is noticed, and what the next load puts back."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from doors.directory_house import ISSUER, NEXT, TEXT, person, raw, unavailable, users
from onbehalf.doors import directory_sqlite_look
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.errors import DirectoryUnavailable, PersonUnknown
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
    """The statement with the books of the tenants that it names; of one that is not there, a book that is not."""
    if "tenant" in statement.partition("VALUES")[0].partition("WHERE")[0]:
        return statement
    for tenant in ("acme", "globex", "none"):
        book = f"(SELECT coalesce(max(book), 99) FROM tenant WHERE id = '{tenant}')"
        for before in ("VALUES (", "book = "):
            statement = statement.replace(f"{before}'{tenant}'", f"{before}{book}")
    return statement


def tamper(path: Path, *statements: str, constraints: bool = False) -> None:
    raw(path, *(in_books(each) for each in statements), constraints=constraints)


def tamper_behind(path: Path, trigger: str, *statements: str) -> None:
    """With a trigger away, and there again when somebody looks."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        (text,) = other.execute("SELECT sql FROM sqlite_master WHERE name = ?", (trigger,)).fetchone()
    tamper(path, f"DROP TRIGGER {trigger}", *statements, text)


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
        "INSERT INTO tenant SELECT 'eve', book, 'file' FROM tenant WHERE id = 'acme'",
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

CIRCLE = "INSERT INTO position_edge VALUES ('acme', 'ceo', 'ic')"
OF_BOB = {
    "an ancestor made up": ["INSERT INTO position_above VALUES ('acme', 'ic', 'ic2')"],
    "an ancestor lost": ["DELETE FROM position_above WHERE below = 'ic' AND above = 'ceo'"],
    "an edge to another tenant": ["INSERT INTO position_edge VALUES ('acme', 'ic', 'boss')"],
    "a group of another tenant": ["INSERT INTO grouping VALUES ('globex', 'vip')",
                                  "INSERT INTO membership VALUES ('acme', 'bob', 'vip')"],
    "a group that was removed": ["DELETE FROM grouping WHERE id = 'staff'"],
    "a position that was removed": ["DELETE FROM position WHERE id = 'ic'"],
    "a position above that was removed": ["DELETE FROM position WHERE id = 'ceo'"],
    "a name with a slash": ["UPDATE person SET position = NULL WHERE id = 'dana'",
                            "INSERT INTO position VALUES ('acme', 'globex/lead')",
                            "UPDATE person SET position = 'globex/lead' WHERE id = 'bob'"],
    "two holders": ["DROP INDEX person_holds", "UPDATE person SET active = 1 WHERE id = 'gone'"],
    "a circle with no trigger": ["DROP TRIGGER position_circle", CIRCLE],
    "the book of another tenant": ["DELETE FROM tenant WHERE id = 'globex'",
                                   "UPDATE tenant SET book = book + 1 WHERE id = 'acme'"],
}  # fmt: skip
"""What the slice of bob is made of."""
OF_OTHERS = {
    "an ancestor lost": ["DELETE FROM grouping_above WHERE below = 'hr' AND above = 'all'"],
    "an edge to another tenant": ["INSERT INTO position_edge VALUES ('acme', 'ic2', 'boss')"],
    "a group of another tenant": ["INSERT INTO membership VALUES ('globex', 'erin', 'staff')"],
    "a login of another tenant's person": ["INSERT INTO login VALUES ('acme', 'u-7', 'https://issuer.test', 'erin')"],
}


@pytest.fixture
def looks_wait(monkeypatch: pytest.MonkeyPatch, directory: SqliteDirectory) -> Iterator[SqliteDirectory]:
    """No look through the whole file ends before the test: only what a slice shows by itself is known.

    It may end before `directory` is closed, which waits for it.
    """
    release = threading.Event()
    look = directory_sqlite_look.require_whole

    def wait(connection: sqlite3.Connection) -> None:
        release.wait(60)
        look(connection)

    monkeypatch.setattr(directory_sqlite_look, "require_whole", wait)
    yield directory
    release.set()


@pytest.mark.usefixtures("looks_wait")
@pytest.mark.parametrize("case", OF_BOB)
def test_a_slice_that_was_tampered_with_is_never_served_though_nobody_has_looked_at_the_file_yet(
    directory: SqliteDirectory, path: Path, case: str
) -> None:
    assert person(directory, "u-2")
    tamper(path, *OF_BOB[case])
    for _ in range(2):
        unavailable(lambda: person(directory, "u-2"))
        unavailable(lambda: users(directory, "bob"))


@pytest.mark.usefixtures("looks_wait")
def test_an_edge_that_was_taken_behind_the_back_of_its_trigger_is_seen_in_the_slice(
    directory: SqliteDirectory, path: Path
) -> None:
    tamper_behind(path, "grouping_open", "DELETE FROM grouping_edge")
    unavailable(lambda: person(directory, "u-1"))


@pytest.mark.usefixtures("looks_wait")
def test_an_edge_to_itself_behind_the_back_of_its_trigger_is_seen_in_the_slice(
    directory: SqliteDirectory, path: Path
) -> None:
    tamper_behind(path, "position_circle", "INSERT INTO position_edge VALUES ('acme', 'ic', 'ic')")
    unavailable(lambda: person(directory, "u-2"))


@pytest.mark.usefixtures("looks_wait")
def test_a_circle_is_seen_in_the_slice_though_the_closure_agrees_with_it(
    directory: SqliteDirectory, path: Path
) -> None:
    names = "('ceo'), ('lead'), ('ic')"
    tamper_behind(
        path, "position_circle", CIRCLE,
        "INSERT OR IGNORE INTO position_above SELECT t.book, a.column1, b.column1 FROM tenant t, "
        f"(VALUES {names}) a, (VALUES {names}) b WHERE t.id = 'acme'",
    )  # fmt: skip
    unavailable(lambda: person(directory, "u-2"))
    unavailable(lambda: person(directory, "u-1"))


@pytest.mark.parametrize("case", [*(("bob", each) for each in OF_BOB), *(("others", each) for each in OF_OTHERS)])
def test_a_tampered_file_is_not_served_to_anybody_once_looked_through_nor_at_the_next_start(
    directory: SqliteDirectory, path: Path, case: tuple[str, str]
) -> None:
    assert person(directory, "u-9", "globex")
    tamper(path, *(OF_BOB if case[0] == "bob" else OF_OTHERS)[case[1]])
    with contextlib.suppress(DirectoryUnavailable):
        person(directory, "u-4")
    assert directory.settled(30)
    for _ in range(2):
        unavailable(lambda: person(directory, "u-4"))
        unavailable(lambda: users(directory, "dana", "free"))
        unavailable(lambda: directory.revision)
    directory.close()
    unavailable(lambda: SqliteDirectory.open(path))


def test_a_directory_found_damaged_stays_closed_whatever_else_is_written(
    directory: SqliteDirectory, path: Path
) -> None:
    tamper(path, *OF_OTHERS["an edge to another tenant"])
    assert person(directory, "u-9", "globex")  # whole by itself
    assert directory.settled(30)
    for n in range(3):
        tamper(path, f"UPDATE person SET name = 'N{n}' WHERE id = 'erin'")
        unavailable(lambda: person(directory, "u-9", "globex"))
        assert directory.settled(30)
    unavailable(lambda: person(directory, "u-9", "globex"))


def test_what_is_written_while_a_look_is_under_way_is_looked_at_after_it(
    directory: SqliteDirectory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = directory_sqlite_look.require_whole
    more = [OF_OTHERS["an edge to another tenant"]]

    def write_meanwhile(connection: sqlite3.Connection) -> None:
        look(connection)
        if more:
            tamper(path, *more.pop())

    monkeypatch.setattr(directory_sqlite_look, "require_whole", write_meanwhile)
    tamper(path, "UPDATE person SET name = 'E' WHERE id = 'erin'")
    assert person(directory, "u-9", "globex")
    assert directory.settled(30)
    unavailable(lambda: person(directory, "u-9", "globex"))


def test_rows_laid_in_wait_for_the_next_book_do_not_come_into_force(directory: SqliteDirectory, path: Path) -> None:
    following = "(SELECT max(id) + 1 FROM book)"
    tamper(
        path, f"INSERT INTO person VALUES ({following}, 'eve', 'Eve', NULL, 1, '{{}}')",
        f"INSERT INTO login VALUES ({following}, 'eve', '{ISSUER}', 'eve')",
        f"INSERT INTO membership VALUES ({following}, 'eve', 'hr')",
    )  # fmt: skip
    directory.load(people.parse(NEXT))
    with pytest.raises(PersonUnknown):
        person(directory, "eve")
    assert users(directory, "eve") == []
    assert person(directory, "u-2").name == "Robert"


@pytest.mark.parametrize(
    "last", ["DELETE FROM position_above WHERE 0", "DELETE FROM position_above WHERE below = above"]
)
def test_no_circle_can_be_made_in_the_absence_of_the_closure(directory: SqliteDirectory, path: Path, last: str) -> None:
    """Triggers walk the edges themselves; and a directory without its closure is not served until it is loaded."""
    tamper(path, "DELETE FROM position_above", constraints=True)
    with pytest.raises(sqlite3.IntegrityError):
        tamper(path, CIRCLE, last, constraints=True)
    unavailable(lambda: person(directory, "u-2"))
    unavailable(lambda: SqliteDirectory.open(path))
    assert directory.load(people.parse(TEXT)) == directory.revision > 1
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
    raw(path, "UPDATE person SET position = NULL WHERE id IN ('dana', 'bob')")
    raw(path, in_books("UPDATE person SET position = 'lead' WHERE book = 'acme' AND id = 'bob'"))
    assert users(directory, "bob")[0].attributes["position"] == Ref(type="Position", id="acme/lead")
    by_hand = directory.revision
    assert by_hand > 1
    assert directory.load(people.parse(TEXT)) == directory.revision > by_hand
    assert users(directory, "bob")[0].attributes["position"] == Ref(type="Position", id="acme/ic")


def test_a_load_mends_a_tampered_closure_while_running(directory: SqliteDirectory, path: Path) -> None:
    raw(path, "DELETE FROM grouping_above WHERE below = 'hr'")
    unavailable(lambda: person(directory, "u-1"))
    assert directory.settled(30)
    unavailable(lambda: person(directory, "u-2"))  # the whole directory is closed by now
    assert directory.load(people.parse(NEXT)) == directory.revision
    assert len(person(directory, "u-1").entities) == 7
    assert person(directory, "u-2").name == "Robert"


@pytest.mark.parametrize(
    "statement",
    ["DROP TRIGGER position_circle", "DROP INDEX person_holds", "CREATE TABLE other (x)", "PRAGMA user_version = 2",
     "CREATE TRIGGER t AFTER INSERT ON person BEGIN DELETE FROM login; END"],
)  # fmt: skip
def test_a_file_with_other_tables_or_of_another_version_is_refused_with_what_to_do(path: Path, statement: str) -> None:
    SqliteDirectory.open(path).close()
    raw(path, statement)
    assert "remove the file" in unavailable(lambda: SqliteDirectory.open(path)).hint
