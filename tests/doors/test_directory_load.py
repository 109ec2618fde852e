"""A feed becomes a tenant's people as a whole or not at all, wherever it is broken off."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doors.directory_house import TEXT, person, raw, unavailable, users
from doors.feed_house import NOW, company_csv, content, jsonl, killed, line, loaded, opened
from onbehalf.doors.directory_file import FileFeed
from onbehalf.doors.directory_load import Progress, load, release
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.directory_tell import tell, tenants
from onbehalf.errors import DirectoryInvalid, DirectoryUnavailable, PersonUnknown
from onbehalf.model import UnixTime
from onbehalf.validate import people

MANY = 21_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "directory.db"


@pytest.fixture
def directory(path: Path) -> Iterator[SqliteDirectory]:
    made = opened(path)
    yield made
    made.close()


# --- what is loaded ---


def test_lines_become_people_with_managers_groups_and_logins(directory: SqliteDirectory, tmp_path: Path) -> None:
    said = loaded(directory.path, jsonl(tmp_path / "p.jsonl", map(line, range(100))))
    assert (said.people, said.added, said.deactivated, said.revision, said.resumed) == (100, 100, 0, 1, False)
    found = person(directory, "s99")
    assert (found.name, found.attributes, found.revision) == ("Person 99", {"department": "d0"}, 1)
    chain = ["e99", "e12", "e1", "e0"]
    assert {each.ref.id for each in found.entities if each.ref.type == "Position"} == {f"acme/{n}" for n in chain}
    assert found.entities[0].parents[0].id == "acme/unit1"


def test_csv_and_json_lines_of_the_same_people_are_the_same_directory(tmp_path: Path) -> None:
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    for path, feed in (
        (first, jsonl(tmp_path / "p.jsonl", map(line, range(500)))), (second, company_csv(tmp_path / "p.csv", 500)),
    ):  # fmt: skip
        opened(path).close()
        loaded(path, feed)
    assert content(first) == content(second)


def test_the_same_file_again_is_the_same_revision_and_a_change_the_next(
    directory: SqliteDirectory, tmp_path: Path
) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(50)))
    assert loaded(directory.path, feed).revision == loaded(directory.path, feed, now=NOW + 9).revision == 1
    jsonl(feed, (line(n, **({"name": "Else"} if n == 7 else {})) for n in range(50)))
    again = loaded(directory.path, feed)
    assert (again.revision, again.changed, directory.revision) == (2, 1, 2)
    assert person(directory, "s7").name == "Else"


def test_lines_may_name_what_comes_later_and_places_may_stand_alone(directory: SqliteDirectory, tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [
        {"id": "a", "name": "A", "position": "clerk", "groups": ["hr"]},
        {"position": "clerk", "above": ["head"]}, {"position": "head"}, {"group": "hr", "in": ["staff"]},
        {"group": "staff"}, {"id": "b", "name": "B", "position": "head", "manager_position": "chair"},
    ]  # fmt: skip
    loaded(directory.path, jsonl(tmp_path / "p.jsonl", lines))
    told = tell(directory.path, "acme", "a")
    assert told is not None
    assert (set(told.above), set(told.groups)) == ({"head", "chair"}, {"hr", "staff"})


def test_who_held_a_position_before_puts_nobody_above_who_holds_it_now(
    directory: SqliteDirectory, tmp_path: Path
) -> None:
    lines: list[dict[str, object]] = [
        {"id": "old", "name": "Old", "position": "desk", "manager_position": "former", "active": False},
        {"id": "new", "name": "New", "position": "desk", "manager_position": "boss"},
    ]
    loaded(directory.path, jsonl(tmp_path / "p.jsonl", lines))
    told = tell(directory.path, "acme", "new")
    assert told is not None
    assert told.above == ("boss",)


# --- who leaves ---


def test_who_is_no_longer_in_the_file_is_known_and_not_active(directory: SqliteDirectory, tmp_path: Path) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(50)))
    loaded(directory.path, feed)
    jsonl(feed, (line(n) for n in range(50) if n not in (20, 49)))
    assert loaded(directory.path, feed).deactivated == 2
    for _ in range(2):  # and the next load does not make them unknown either
        gone = person(directory, "s49")
        assert (gone.active, gone.entities[0].attributes["active"]) == (False, False)
        assert gone.entities[0].parents == ()
        (seen,) = users(directory, "e49")
        assert {each.ref.id for each in asyncio.run(directory.people("acme", ["e49"]))} >= {"acme/e49", "acme/e0"}
        assert seen.attributes["active"] is False
        assert loaded(directory.path, feed).deactivated == 0


@pytest.mark.parametrize(("left", "refused"), [(89, True), (90, False), (0, True)])
def test_a_feed_that_would_deactivate_more_than_the_share_is_refused_unless_it_is_allowed(
    directory: SqliteDirectory, tmp_path: Path, left: int, refused: bool
) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(100)))
    loaded(directory.path, feed)
    before = content(directory.path)
    jsonl(feed, map(line, range(left)))
    if refused:
        with pytest.raises(DirectoryInvalid, match=f"would deactivate {100 - left} of 100") as caught:
            loaded(directory.path, feed)
        assert "--deactivate-at-most" in caught.value.hint
        assert content(directory.path) == before
        (told,) = tenants(directory.path)
        assert (told.active, "would deactivate" in told.problem, told.succeeded) == (100, True, NOW)
    assert loaded(directory.path, feed, at_most=1.0).deactivated == 100 - left
    assert [each.active for each in tenants(directory.path)] == [left]


def test_marking_people_inactive_counts_like_leaving_them_out(directory: SqliteDirectory, tmp_path: Path) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(100)))
    loaded(directory.path, feed)
    jsonl(feed, (line(n, active=n < 80) for n in range(100)))
    with pytest.raises(DirectoryInvalid, match="would deactivate 20 of 100"):
        loaded(directory.path, feed)


def test_one_person_may_leave_a_company_of_any_size(directory: SqliteDirectory, tmp_path: Path) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(3)))
    loaded(directory.path, feed)
    assert loaded(directory.path, jsonl(feed, map(line, range(2)))).deactivated == 1


# --- broken off ---


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize(
    ("step", "done"), [("read", 1), ("read", 600_000), ("complete", 0), ("close", 1), ("switch", 0), ("switch", 1)]
)
def test_a_load_that_is_killed_goes_on_and_comes_to_the_same(tmp_path: Path, form: str, step: str, done: int) -> None:
    whole, path = tmp_path / "whole.db", tmp_path / "directory.db"
    feed = tmp_path / f"p.{form}"
    jsonl(feed, map(line, range(MANY))) if form == "jsonl" else company_csv(feed, MANY)
    for each in (whole, path):
        opened(each).close()
    loaded(whole, feed)
    killed(path, feed, step=step, done=done)
    if step in ("read", "complete", "close"):
        with closing(opened(path)) as directory, pytest.raises(PersonUnknown):
            person(directory, "s1")
    said = loaded(path, feed)
    assert said.people == MANY
    if (step, done) != ("switch", 0):  # the one step that may or may not have happened when the kill comes
        assert said.resumed == (step in ("read", "complete", "close"))
    assert content(path) == content(whole)
    with closing(opened(path)) as directory:
        assert person(directory, f"s{MANY - 1}").name == f"Person {MANY - 1}"
    with closing(sqlite3.connect(path)) as reading:
        (rows, books) = reading.execute("SELECT (SELECT count(*) FROM person), (SELECT count(*) FROM book)").fetchone()
    assert (rows, books) == (MANY, 1)  # of the load that was killed nothing is left


def test_another_file_under_the_same_name_is_not_gone_on_with(tmp_path: Path) -> None:
    path, feed = tmp_path / "directory.db", tmp_path / "p.jsonl"
    opened(path).close()
    killed(path, jsonl(feed, map(line, range(MANY))), step="read", done=1)
    feed.unlink()
    said = loaded(path, jsonl(feed, map(line, range(40))))
    assert (said.resumed, said.people) == (False, 40)


def test_the_old_people_are_served_until_the_switch(directory: SqliteDirectory, tmp_path: Path) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(50)))
    loaded(directory.path, feed)
    jsonl(feed, (line(n, name=f"New {n}") for n in range(50)))
    seen: list[tuple[str, int, str]] = []

    def look(said: Progress) -> None:
        found = person(directory, "s7")
        seen.append((said.step, found.revision, found.name))

    load(directory.path, "acme", FileFeed(feed), now=NOW, progress=look)
    switched = [each[0] for each in seen].index("switch")
    assert {each[1:] for each in seen[: switched + 1]} == {(1, "Person 7")}
    assert {each[1:] for each in seen[switched + 1 :]} == {(2, "New 7")}


@pytest.mark.parametrize(("step", "done"), [("switch", 1), ("sweep", 0)])
def test_what_is_in_force_is_told_so_though_the_load_is_stopped_while_it_tidies_up(
    directory: SqliteDirectory, tmp_path: Path, step: str, done: int
) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(50)))
    loaded(directory.path, feed)
    jsonl(feed, (line(n, name=f"New {n}") for n in range(50)))
    stopped: list[str] = []

    def stop(said: Progress) -> None:
        if said.step == step and said.done >= done:
            stopped.append(said.step)
            raise DirectoryUnavailable("the gateway is closing", hint="")

    said = load(directory.path, "acme", FileFeed(feed), now=NOW, progress=stop)
    assert stopped == [step]
    assert (said.before, said.revision, directory.revision) == (1, 2, 2)
    assert [each.problem for each in tenants(directory.path)] == [""]
    jsonl(feed, (line(n, name=f"Newer {n}") for n in range(50)))
    assert loaded(directory.path, feed).revision == directory.revision == 3
    with closing(sqlite3.connect(directory.path)) as reading:
        assert reading.execute("SELECT count(*) FROM person").fetchall() == [(50,)]


def test_of_two_loads_at_once_the_first_gives_way_and_says_so(directory: SqliteDirectory, tmp_path: Path) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(50)))
    other = jsonl(tmp_path / "q.jsonl", map(line, range(60)))

    def meanwhile(said: Progress) -> None:
        if said.step == "close" and not tenants(directory.path):
            loaded(directory.path, other)

    with pytest.raises(DirectoryUnavailable, match="taken over"):
        load(directory.path, "acme", FileFeed(feed), now=NOW, progress=meanwhile)
    assert [each.people for each in tenants(directory.path)] == [60]


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"id": "a", "name": "A"}\n{"id": "a", "name": "B"}', "line 2: this person stands in the feed twice"),
        ('{"id": "a", "name": "A", "manager": "b"}', "position `a` is said to be below `b`"),
        ('{"id": "a", "name": "A", "manager": "b"}\n{"id": "b", "name": "B", "manager": "a"}', "above itself"),
        ('{"id": "a", "name": "A", "manager": "a"}', "line 1: "),
        ('{"id": "a", "name": "A", "position": "p"}', "holds a position that is not there"),
        ('{"id": "a", "name": "A", "position": "p", "manager_position": "q"}\n'
         '{"id": "b", "name": "B", "position": "p"}', "line 2: somebody else who is active holds this position"),
        ('{"id": "a/b", "name": "A"}', "has a `/`"), ('{"id": "a"}', "`name` is not 1 to 200"),
        ('{"id": "a", "name": "A", "boss": "b"}', "unknown key `boss`"),
        ('{"id": "a", "name": "A", "manager": "b", "manager_position": "c"}', "has both"),
        ('{"id": "a", "name": "A", "manager_position": "c"}', "has `manager_position` and no `position`"),
        ('{"id": "a", "name": "A"}\nnot json', "line 2"), ("[1]", "line 1"), ('{"id": "a", "id": "b"}', "line 1"),
        ('{"id": "a", "name": "A", "logins": [{"issuer": "i", "subject": "s"}]}\n'
         '{"id": "b", "name": "B", "logins": [{"issuer": "i", "subject": "s"}]}', "line 2: this login is somebody"),
        ('{"id": "a", "name": "' + "x" * 70_000 + '"}', "longer than 65536"), ("[" * 60_000, "line 1"),
        ('{"id": "a", "name": "\\ud800"}', "line 1"),
    ],
)  # fmt: skip
def test_what_a_file_may_not_say_is_refused_with_its_place_and_the_old_people_stay(
    directory: SqliteDirectory, tmp_path: Path, text: str, said: str
) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(30)))
    loaded(directory.path, feed)
    before = content(directory.path)
    feed.write_text(text)
    with pytest.raises(DirectoryInvalid) as caught:
        loaded(directory.path, feed, at_most=1.0)
    assert said in caught.value.message
    assert caught.value.hint
    assert content(directory.path) == before
    assert person(directory, "s7").revision == 1
    with closing(sqlite3.connect(directory.path)) as reading:
        assert reading.execute("SELECT count(*) FROM book WHERE stage IN ('read', 'close')").fetchone() == (0,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name\nA", "no column `id`"), ("id,name,salary\na,A,1", "column `salary` means nothing"),
        ("id,name\na", "line 2 has 1 fields"), ("id,name,id\na,A,b", "stands twice"), ("", "no column `id`"),
        ('id,name\na,"A"x', "line 2"), ("id,name,active\na,A,maybe", "neither true nor false"),
        ("id,name,active\na,A,", "neither true nor false"), ("id,name\na,\xff", "not UTF-8"),
        ("id,name,subject\na,A,s", "are one login"), ('id,name\na,"' + "x\n" * 90_000, "line"),
    ],
)  # fmt: skip
def test_a_table_that_leaves_doubt_is_refused(directory: SqliteDirectory, tmp_path: Path, text: str, said: str) -> None:
    feed = tmp_path / "p.csv"
    feed.write_bytes(text.encode("latin-1"))
    with pytest.raises(DirectoryInvalid) as caught:
        loaded(directory.path, feed)
    assert said in caught.value.message
    assert [each.people for each in tenants(directory.path)] == [0]


def test_a_tenant_has_one_source_until_it_is_released(directory: SqliteDirectory, tmp_path: Path) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(30)))
    directory.load(people.parse(TEXT))
    with pytest.raises(DirectoryInvalid, match=r"come from `people\.yaml`"):
        loaded(directory.path, feed)
    loaded(directory.path, feed, tenant="third")
    directory.load(people.parse("tenants: {globex: {}}"))  # leaves out acme, and is silent about third
    assert {each.tenant: each.source for each in tenants(directory.path)} == {
        "acme": "file", "globex": "people.yaml", "third": "file",
    }  # fmt: skip
    with pytest.raises(DirectoryInvalid, match="come from `file`"):
        directory.load(people.parse("tenants: {third: {}}"))
    release(directory.path, "third")
    directory.load(people.parse("tenants: {third: {}}"))
    with pytest.raises(DirectoryInvalid):
        release(directory.path, "nobody")


def test_a_feed_of_one_tenant_leaves_the_others_as_they_are(directory: SqliteDirectory, tmp_path: Path) -> None:
    directory.load(people.parse(TEXT))
    before = content(directory.path, "globex")
    loaded(directory.path, jsonl(tmp_path / "p.jsonl", map(line, range(30))), tenant="third")
    assert content(directory.path, "globex") == before
    with pytest.raises(PersonUnknown):
        person(directory, "s1", "globex")
    assert users(directory, "e1", tenant="acme") == []


def test_rows_laid_into_a_load_under_way_are_seen_where_they_matter(directory: SqliteDirectory, tmp_path: Path) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(30)))

    def lay(said: Progress) -> None:
        if (said.step, said.done) == ("switch", 0):
            raw(directory.path, "INSERT INTO position_above SELECT max(id), 'e0', 'e29' FROM book")

    load(directory.path, "acme", FileFeed(feed), now=NOW, progress=lay)
    unavailable(lambda: person(directory, "s0"))
    unavailable(lambda: person(directory, "s0"))


@given(data=st.binary(max_size=400), form=st.sampled_from([".jsonl", ".csv"]))
@settings(max_examples=60, deadline=None)
def test_no_bytes_of_a_file_do_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, form: str
) -> None:
    place = tmp_path_factory.mktemp("bytes")
    feed = place / f"p{form}"
    feed.write_bytes(b"id,name\n" * (form == ".csv") + data)
    with closing(opened(place / "directory.db")) as directory:
        refused = ""
        try:
            loaded(directory.path, feed)
        except DirectoryInvalid as error:
            refused = error.message
        (told,) = tenants(directory.path)
        assert told.problem == refused
        assert (directory.revision, told.succeeded) == ((0, None) if refused else (1, NOW))


def test_a_list_of_people_from_elsewhere_touches_its_own_tenants_only(directory: SqliteDirectory) -> None:
    directory.load(people.parse(TEXT))
    before = content(directory.path, "globex")
    pushed = people.parse("tenants: {third: {people: {eve: {name: Eve}}}}")
    assert directory.load(pushed, source="push", now=NOW) == 2
    assert directory.load(pushed, source="push", now=UnixTime(NOW + 5)) == 2
    assert {each.tenant: (each.source, each.succeeded) for each in tenants(directory.path)} == {
        "acme": ("people.yaml", None), "globex": ("people.yaml", None), "third": ("push", NOW + 5),
    }  # fmt: skip
    with pytest.raises(DirectoryInvalid, match="stands in push"):
        directory.load(people.parse(TEXT), source="push")
    directory.load(people.parse("tenants: {}"), source="push")
    assert [each.tenant for each in tenants(directory.path) if each.people] == ["acme", "globex"]
    assert content(directory.path, "globex") == before


def test_people_are_fresh_for_the_budget_after_the_last_success_of_their_own_source(path: Path, tmp_path: Path) -> None:
    feed = jsonl(tmp_path / "p.jsonl", map(line, range(9)))
    with closing(SqliteDirectory.open(path, lag_budget_s=60)) as directory:
        directory.load(people.parse(TEXT))
        loaded(path, feed, tenant="third")
        assert person(directory, "s1", "third").fresh_until == NOW + 60
        assert person(directory, "u-1").fresh_until is None  # of people.yaml
        loaded(path, feed, tenant="third", now=NOW + 7)
        assert person(directory, "s1", "third").fresh_until == NOW + 67
        assert person(directory, "s1", "third") is person(directory, "s1", "third")
        jsonl(feed, [])
        with pytest.raises(DirectoryInvalid):
            loaded(path, feed, tenant="third", now=NOW + 30)
        assert person(directory, "s1", "third").fresh_until == NOW + 67
        raw(path, "DELETE FROM feed")
        assert person(directory, "s1", "third").fresh_until == 60  # never, as far as it is known
    with closing(opened(path)) as directory:
        assert person(directory, "s1", "third").fresh_until is None
