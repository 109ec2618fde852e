"""Who is stopped is refused at once, by everything that asks for a person; what was lifted leaves old tokens dead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doors.directory_house import TEXT, caller, raw
from doors.issuer_house import Hands
from onbehalf.doors.directory_revoked import RevokedPeople
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.revocations_sqlite import Kind, Revocations
from onbehalf.errors import Blocked, ConfigInvalid, DirectoryUnavailable, LedgerUnavailable, TokenRevoked
from onbehalf.model import Caller, Json, Person, UnixTime
from onbehalf.validate import people

AT = UnixTime(10_000)


class Place:
    """A directory, the file of revocations as the gateway has it, and as somebody else does."""

    def __init__(self, directory: Path) -> None:
        self.notes: list[tuple[str, dict[str, Json]]] = []
        self.full = False
        self.hands = Hands()
        self.path = directory / "revocations.db"
        self.file = SqliteDirectory.open(directory / "directory.db")
        self.file.load(people.parse(TEXT))
        self.mine, self.other = Revocations.open(self.path), Revocations.open(self.path)
        self.directory = RevokedPeople(self.file, self.mine, note=self.note, monotonic=self.hands)

    def note(self, kind: str, facts: dict[str, Json]) -> None:
        if self.full:
            raise LedgerUnavailable("full")
        self.notes.append((kind, facts))

    def stop(self, kind: Kind, name: str, *, tenant: str = "acme", blocks: bool = True) -> int:
        made = self.other.add(kind, tenant, name, at=AT, blocks=blocks, by="root", reason="why")
        self.hands.at += 1
        return made.id

    def person(self, who: Caller) -> Person:
        return asyncio.run(self.directory.person(who))

    def close(self) -> None:
        for each in (self.file, self.mine, self.other):
            each.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def token(subject: str = "u-1", tenant: str = "acme", *, issued: int = AT + 1000, client: str = "chat") -> Caller:
    made = caller(subject, tenant)
    return replace(made, client=client, evidence=replace(made.evidence, issued_at=UnixTime(issued)))


@pytest.mark.parametrize(("kind", "name"), [("person", "dana"), ("client", "chat"), ("tenant", "")])
def test_who_is_stopped_is_refused_with_the_newest_token_too(place: Place, kind: Kind, name: str) -> None:
    assert place.person(token()).name == "Dana"
    place.stop(kind, name)
    with pytest.raises(Blocked) as caught:
        place.person(token())
    assert caught.value.hint


def test_others_go_on(place: Place) -> None:
    place.stop("person", "bob")
    place.stop("person", "dana", tenant="globex")
    place.stop("client", "other")
    place.stop("client", "chat", tenant="globex")
    assert place.person(token()).name == "Dana"
    with pytest.raises(Blocked):
        place.person(token("u-2"))
    with pytest.raises(Blocked):  # the namesake's tenant, through the client that is stopped there
        place.person(token("u-5", "globex"))
    assert place.person(token("u-5", "globex", client="else")).name == "Erin"


def test_a_name_of_one_kind_is_none_of_another(place: Place) -> None:
    place.stop("client", "dana")
    place.stop("person", "chat")
    assert place.person(token()).name == "Dana"


def test_tokens_from_before_are_worth_nothing_and_new_ones_go_on(place: Place) -> None:
    place.stop("person", "dana", blocks=False)
    for issued in (0, AT - 1, AT, AT + 30):  # an issuer's clock may be 30 s ahead
        with pytest.raises(TokenRevoked) as caught:
            place.person(token(issued=issued))
        assert (caught.value.status, bool(caught.value.hint)) == (401, True)
    assert place.person(token(issued=AT + 31)).name == "Dana"


def test_what_is_lifted_leaves_older_tokens_dead(place: Place) -> None:
    number = place.stop("person", "dana")
    assert place.other.lift(number, at=UnixTime(AT + 60), by="root") is not None
    place.hands.at += 1
    assert place.person(token()).name == "Dana"
    with pytest.raises(TokenRevoked):
        place.person(token(issued=AT))
    assert place.other.lift(number, at=UnixTime(AT + 60), by="root") is None
    assert place.other.lift(99, at=AT, by="root") is None


def test_one_of_two_that_is_lifted_lets_nobody_go(place: Place) -> None:
    first = place.stop("person", "dana")
    place.stop("person", "dana")
    place.other.lift(first, at=AT, by="root")
    place.hands.at += 1
    with pytest.raises(Blocked):
        place.person(token())


def test_it_is_asked_again_after_50_ms(place: Place) -> None:
    place.person(token())
    place.stop("person", "dana")
    place.hands.at -= 1
    assert place.person(token()).name == "Dana"
    place.hands.at += 0.05
    with pytest.raises(Blocked):
        place.person(token())


def test_others_may_still_be_decided_about(place: Place) -> None:
    place.stop("person", "bob")
    assert [each.ref.id for each in asyncio.run(place.directory.people("acme", ["bob"]))][:1] == ["acme/bob"]


def test_it_is_on_record_once(place: Place) -> None:
    number = place.stop("person", "dana")
    place.person(token("u-2"))
    place.other.lift(number, at=UnixTime(AT + 60), by="ann")
    place.hands.at += 1
    place.person(token("u-2"))
    whom: dict[str, Any] = {"id": number, "kind": "person", "tenant": "acme", "name": "dana", "blocks": True}
    assert place.notes == [
        ("revoked", {**whom, "at": AT, "by": "root", "reason": "why"}),
        ("revocation_lifted", {**whom, "at": AT + 60, "by": "ann"}),
    ]
    again = RevokedPeople(place.file, place.mine, note=place.note)  # as after a restart
    asyncio.run(again.person(token("u-2")))
    assert len(place.notes) == 2


def test_what_could_not_be_recorded_stops_all_the_same_and_is_recorded_later(place: Place) -> None:
    place.full = True
    place.stop("person", "dana")
    with pytest.raises(Blocked):
        place.person(token())
    place.full = False
    place.stop("person", "bob")
    place.person(token("u-4"))
    assert [facts["name"] for _, facts in place.notes] == ["dana", "bob"]


@pytest.mark.parametrize("harm", ["removed", "replaced", "closed", "table"])
def test_where_it_cannot_be_read_nobody_goes_on(place: Place, tmp_path: Path, harm: str) -> None:
    place.person(token())
    place.hands.at += 1
    if harm == "removed":
        place.path.unlink()
    elif harm == "replaced":
        place.path.unlink()
        Revocations.open(place.path).close()
    elif harm == "closed":
        place.mine.close()
    else:
        raw(place.path, "ALTER TABLE revocation RENAME TO other")
    for _ in range(2):
        with pytest.raises(DirectoryUnavailable):
            place.person(token())


def test_a_revocation_is_never_removed(place: Place) -> None:
    place.stop("person", "dana")
    with pytest.raises(Exception, match="lifted, never removed"):
        raw(place.path, "DELETE FROM revocation")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "revocations.db").write_bytes(b"x" * 5000)
    with pytest.raises(ConfigInvalid):
        Revocations.open(tmp_path / "revocations.db")
