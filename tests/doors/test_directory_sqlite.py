"""The directory file: its closures are right, what must not be is refused, and what was tampered with is not served."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from doors.directory_house import NEXT, TEXT, person, raw, unavailable, users
from onbehalf.doors import directory_sqlite_slice
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.errors import DirectoryInvalid, PersonUnknown
from onbehalf.model import Entity, Ref, digest
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


# --- what is found ---


def test_a_person_comes_with_all_they_are_in(directory: SqliteDirectory) -> None:
    found = person(directory, "u-1")
    assert (found.ref, found.tenant, found.name) == (Ref(type="User", id="acme/dana"), "acme", "Dana")
    assert (found.active, found.attributes, found.revision) == (True, {"department": "hr"}, 1)
    parents = {entity.ref: entity.parents for entity in found.entities}
    assert parents == {
        Ref(type="User", id="acme/dana"): (Ref(type="Group", id="acme/hr"),),
        Ref(type="Tenant", id="acme"): (),
        Ref(type="Position", id="acme/lead"): (Ref(type="Position", id="acme/ceo"),),
        Ref(type="Position", id="acme/ceo"): (),
        Ref(type="Group", id="acme/hr"): (Ref(type="Group", id="acme/staff"),),
        Ref(type="Group", id="acme/staff"): (Ref(type="Group", id="acme/all"),),
        Ref(type="Group", id="acme/all"): (),
    }
    assert found.entities[0].attributes == {
        "tenant": Ref(type="Tenant", id="acme"), "name": "Dana", "active": True,
        "position": Ref(type="Position", id="acme/lead"),
    }  # fmt: skip


def test_somebody_who_left_is_known_and_not_active(directory: SqliteDirectory) -> None:
    found = person(directory, "u-3")
    assert found.active is False
    assert found.entities[0].attributes["active"] is False


def test_namesakes_in_two_tenants_are_two_people(directory: SqliteDirectory) -> None:
    assert person(directory, "u-2").name == "Bob"
    assert person(directory, "u-9", "globex").name == "Other Bob"
    assert [user.attributes["name"] for user in users(directory, "bob")] == ["Bob"]
    assert [user.attributes["name"] for user in users(directory, "bob", tenant="globex")] == ["Other Bob"]


@pytest.mark.parametrize(
    "subject", ["u-5", "u-9", "", "bob", "U-1", "u-1 ", "u-1\0", "%", "' OR 1=1 --", "\ud800", "x" * 10**6]
)
def test_a_login_the_tenant_does_not_know_is_nobody(directory: SqliteDirectory, subject: str) -> None:
    with pytest.raises(PersonUnknown) as caught:
        person(directory, subject)
    assert caught.value.hint


@pytest.mark.parametrize("id_", ["erin", "", "x", "acme/bob", "../globex/erin", "bob\0", "\ud800", "BOB"])
def test_an_id_the_tenant_does_not_know_is_left_out(directory: SqliteDirectory, id_: str) -> None:
    assert [user.ref.id for user in users(directory, "dana", id_, "bob")] == ["acme/dana", "acme/bob"]
    assert asyncio.run(directory.people("acme", [id_])) == ()
    assert asyncio.run(directory.people("none", ["bob"])) == ()


def test_a_thousand_people_are_found_at_once(path: Path) -> None:
    many = {f"u{n}": {"name": f"U {n}", "position": f"p{n}"} for n in range(1000)}
    positions = {f"p{n}": f"p{(n - 1) // 10}" if n else None for n in range(1000)}
    text = yaml.safe_dump({"tenants": {"acme": {"positions": positions, "people": many}}})
    with closing(SqliteDirectory.open(path)) as directory:
        directory.load(people.parse(text))
        found = asyncio.run(directory.people("acme", many))
        refs = [each.ref for each in found]
        assert len(refs) == len(set(refs)) == 1000 + 1000 + 1


# --- revisions ---


def test_the_same_content_is_the_same_revision_and_a_change_is_the_next(directory: SqliteDirectory) -> None:
    before = person(directory, "u-2")
    assert directory.load(people.parse(TEXT)) == directory.revision == 1
    assert person(directory, "u-2") is before
    assert directory.load(people.parse(NEXT)) == directory.revision == 2
    after = person(directory, "u-2")
    assert (after.name, after.revision) == ("Robert", 2)
    assert directory.load(people.parse(TEXT)) == 3
    assert person(directory, "u-2").entities == before.entities


def test_what_another_process_loads_is_seen_at_once(directory: SqliteDirectory, path: Path) -> None:
    before = person(directory, "u-2")
    assert person(directory, "u-2") is before
    with closing(SqliteDirectory.open(path)) as other:
        assert person(directory, "u-2") is before  # opening writes nothing
        other.load(people.parse(NEXT))
    assert person(directory, "u-2").name == "Robert"
    assert users(directory, "bob")[0].attributes["position"] == Ref(type="Position", id="acme/ic2")


def test_people_survive_a_restart(path: Path) -> None:
    with closing(SqliteDirectory.open(path)) as first:
        first.load(people.parse(TEXT))
    with closing(SqliteDirectory.open(path)) as again:
        assert person(again, "u-1").revision == 1


def test_a_load_that_is_refused_changes_nothing(directory: SqliteDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = people.parse(NEXT)
    monkeypatch.setattr(
        "onbehalf.doors.directory_sqlite_write.require_book", lambda *_: (_ for _ in ()).throw(KeyError())
    )
    with pytest.raises(KeyError):
        directory.load(broken)
    monkeypatch.undo()
    assert person(directory, "u-2").name == "Bob"
    assert directory.revision == 1
    assert directory.load(broken) == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"positions": {"a": ("b",), "b": ("a",)}}, {"positions": {"a": ("a",)}}, {"positions": {"a/b": ()}},
        {"groups": {"a": ("b",), "b": ("c",), "c": ("a",)}},
    ],
    ids=["a circle", "itself", "a slash", "a circle of groups"],
)  # fmt: skip
def test_what_a_constraint_refuses_is_not_loaded_though_nobody_parsed_it(
    directory: SqliteDirectory, changed: dict[str, dict[str, tuple[str, ...]]]
) -> None:
    tenant = people.TenantPeople(**{"positions": {}, "groups": {}, "people": {}, **changed})
    with pytest.raises(DirectoryInvalid) as caught:
        directory.load(people.People(tenants={"acme": tenant}, digest=digest(b"")))
    assert caught.value.hint
    assert person(directory, "u-2").revision == 1


@pytest.mark.parametrize("doors", [1, 2], ids=["one process", "two processes"])
def test_who_asks_during_a_load_gets_the_old_or_the_new_and_never_a_mix(
    directory: SqliteDirectory, path: Path, doors: int
) -> None:
    loading = directory if doors == 1 else SqliteDirectory.open(path)
    versions = [people.parse(NEXT), people.parse(TEXT)]
    failures: list[BaseException] = []

    def load() -> None:
        try:
            for n in range(30):
                loading.load(versions[n % 2])
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    seen = set()
    while thread.is_alive():
        found = person(directory, "u-2")
        seen.add((found.name, found.entities[0].attributes["position"].id, found.entities[0].parents[0].id))  # type: ignore[union-attr]  # they are refs
        assert (found.name == "Robert") == (found.revision % 2 == 0)
        names = [each.ref.id for each in found.entities if each.ref.type == "Group"]
        assert names[0] == found.entities[0].parents[0].id
    thread.join()
    if doors == 2:
        loading.close()
    assert failures == []
    assert seen <= {("Bob", "acme/ic", "acme/staff"), ("Robert", "acme/ic2", "acme/hr")}
    assert person(directory, "u-2").name == "Bob"


def test_a_load_of_its_own_is_noticed_at_once_though_somebody_was_just_reading(path: Path) -> None:
    """A reader that began before a load must not make what it saw count as fresh after it."""
    directory = SqliteDirectory.open(path, fresh_seconds=600)
    directory.load(people.parse(TEXT))
    assert person(directory, "u-2").name == "Bob"
    with directory._reading():
        loading = threading.Thread(target=directory.load, args=(people.parse(NEXT),))
        loading.start()
        loading.join(0.3)  # as far as it comes while somebody reads
        with closing(sqlite3.connect(path)) as watching:
            assert watching.execute("SELECT revision FROM meta").fetchone() == (2,)
        directory._fresh_until = float("inf")  # as the reader does when it has looked, here at the worst moment
    loading.join()
    assert person(directory, "u-2").name == "Robert"
    directory.close()


def test_an_answer_that_is_half_made_when_another_loads_is_the_old_one_whole(
    directory: SqliteDirectory, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = directory_sqlite_slice._places
    other = SqliteDirectory.open(path)

    def load_first(
        connection: sqlite3.Connection, kind: str, tenant: str, book: int, starts: Sequence[str]
    ) -> list[Entity]:
        other.load(people.parse(NEXT.replace("lead: ceo, ic: lead", "lead: null, ic: ceo")))
        return places(connection, kind, tenant, book, starts)

    monkeypatch.setattr(directory_sqlite_slice, "_places", load_first)
    found = person(directory, "u-2")
    monkeypatch.undo()
    other.close()
    assert (found.name, found.revision) == ("Bob", 1)
    parents = {entity.ref.id: entity.parents for entity in found.entities}
    assert parents["acme/ic"] == (Ref(type="Position", id="acme/lead"),)
    assert parents["acme/lead"] == (Ref(type="Position", id="acme/ceo"),)
    assert (person(directory, "u-2").name, directory.revision) == ("Robert", 2)


# --- closures ---


@st.composite
def hierarchies(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    size = draw(st.integers(1, 8))
    above = {
        f"n{n}": draw(st.sets(st.sampled_from([f"n{m}" for m in range(n)]), max_size=3)) if n else ()
        for n in range(size)
    }
    return {name: tuple(sorted(above[name])) for name in draw(st.permutations(sorted(above)))}


@given(positions=hierarchies(), groups=hierarchies())
@settings(max_examples=40, deadline=None)
def test_closures_are_what_can_be_reached_by_edges(
    tmp_path_factory: pytest.TempPathFactory, positions: dict[str, tuple[str, ...]], groups: dict[str, tuple[str, ...]]
) -> None:
    path = tmp_path_factory.mktemp("closure") / "directory.db"
    tenant = {"positions": {k: [*v] for k, v in positions.items()}, "groups": {k: [*v] for k, v in groups.items()}}
    with closing(SqliteDirectory.open(path)) as directory:
        directory.load(people.parse(yaml.safe_dump({"tenants": {"acme": tenant, "globex": tenant}})))
    with closing(sqlite3.connect(path)) as other:
        for kind, edges in (("position", positions), ("grouping", groups)):
            reached = {(name, above) for name in edges for above in edges[name]}
            for _ in edges:
                reached |= {(below, up) for below, above in reached for up in edges[above]}
            found = set(other.execute(f"SELECT t.id, below, above FROM {kind}_above JOIN tenant t USING (book)"))
            assert found == {(tenant, *pair) for pair in reached for tenant in ("acme", "globex")}


# --- failures ---


def test_a_closed_directory_is_unavailable(directory: SqliteDirectory) -> None:
    directory.close()
    directory.close()
    unavailable(lambda: person(directory, "u-1"))
    unavailable(lambda: users(directory, "bob"))
    unavailable(lambda: directory.revision)
    unavailable(lambda: directory.load(people.parse(NEXT)))


def test_a_file_that_is_removed_or_replaced_is_noticed(directory: SqliteDirectory, path: Path) -> None:
    assert person(directory, "u-1")
    moved = path.rename(path.with_name("moved.db"))
    unavailable(lambda: person(directory, "u-1"))
    unavailable(lambda: directory.load(people.parse(NEXT)))
    assert not path.exists()
    path.write_bytes(moved.read_bytes())
    unavailable(lambda: person(directory, "u-1"))


def test_a_file_that_is_damaged_while_running_is_unavailable(directory: SqliteDirectory, path: Path) -> None:
    assert person(directory, "u-1")
    raw(path, "UPDATE person SET name = 'D' WHERE id = 'dana'", "PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (path.stat().st_size - 100))
    unavailable(lambda: person(directory, "u-2"))
    unavailable(lambda: directory.load(people.parse(NEXT)))


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_cannot_be_opened(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    unavailable(lambda: SqliteDirectory.open(path))
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_cannot_be_opened(tmp_path: Path) -> None:
    unavailable(lambda: SqliteDirectory.open(tmp_path / "absent" / "directory.db"))
    unavailable(lambda: SqliteDirectory.open(tmp_path))


def test_a_file_that_cannot_be_written_keeps_what_it_has(
    directory: SqliteDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, *, constraints: bool) -> sqlite3.Connection:
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)

    monkeypatch.setattr("onbehalf.doors.directory_sqlite.connected", read_only)
    unavailable(lambda: directory.load(people.parse(NEXT)))
    assert person(directory, "u-2").name == "Bob"


def test_only_its_owner_may_read_the_file(directory: SqliteDirectory, path: Path) -> None:
    assert {each.name: each.stat().st_mode & 0o777 for each in path.parent.glob("directory.db*")} == {
        "directory.db": 0o600, "directory.db-wal": 0o600, "directory.db-shm": 0o600,
    }  # fmt: skip


def test_two_that_start_at_once_make_one_directory(path: Path) -> None:
    opened: list[SqliteDirectory] = []
    threads = [threading.Thread(target=lambda: opened.append(SqliteDirectory.open(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    for each in opened:
        each.close()
