"""People who are told by their tokens: they come into the directory as they call, and what they were is no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from doors.directory_house import ISSUER, TEXT, caller, raw
from onbehalf.config_directory import ClaimsSettings, DirectorySettings
from onbehalf.doors.directory_claims import with_claims
from onbehalf.doors.directory_load import release
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.directory_tell import tell, tenants
from onbehalf.errors import ClaimsUnusable, DirectoryInvalid, DirectoryUnavailable, PersonUnknown
from onbehalf.model import Caller, Json, Person, Ref, UnixTime, canonical, digest
from onbehalf.ports import Directory
from onbehalf.validate import people

TOLD = ClaimsSettings(tenant="initech", issuer=ISSUER, person="oid", groups="groups", attributes=("department",))
SETTINGS = DirectorySettings(claims=(TOLD,))


class Place:
    """A directory with people of people.yaml beside those of tokens; `notes` is what went on record."""

    def __init__(self, path: Path, settings: DirectorySettings = SETTINGS) -> None:
        self.notes: list[tuple[str, dict[str, Json]]] = []
        self.file = SqliteDirectory.open(path, lag_budget_s=settings.lag_budget_seconds)
        self.file.load(people.parse(TEXT))
        self.directory: Directory = with_claims(
            self.file, settings, note=lambda kind, facts: self.notes.append((kind, facts))
        )

    def person(self, who: Caller) -> Person:
        return asyncio.run(self.directory.person(who))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "directory.db")
    yield made
    made.file.close()


def token(
    subject: str = "s-1", *, at: int = 1000, tenant: str = "initech", issuer: str = ISSUER, **claims: Any
) -> Caller:
    """Who presents a token with these claims, issued then."""
    said = {"oid": subject.upper(), "name": "Ann Lee", **claims}
    made = caller(subject, tenant)
    evidence = replace(
        made.evidence,
        issuer=issuer,
        issued_at=UnixTime(at),
        token=digest(canonical([subject, at, tenant, issuer, said])),
    )
    return replace(made, evidence=evidence, claims=canonical(said))


def groups(person: Person) -> list[str]:
    return sorted(each.id for each in person.entities[0].parents)


def test_who_calls_is_in_the_directory_from_then_on(place: Place) -> None:
    before = place.file.revision
    ann = place.person(token(groups=["hr"], department="sales"))
    assert (ann.ref, ann.name, ann.active) == (Ref(type="User", id="initech/S-1"), "Ann Lee", True)
    assert (ann.attributes, groups(ann)) == ({"department": "sales"}, ["initech/hr"])
    assert ann.revision == before + 1
    assert ann.entities[0].attributes["tenant"] == Ref(type="Tenant", id="initech")
    assert "position" not in ann.entities[0].attributes
    others = asyncio.run(place.directory.people("initech", ["S-1", "S-2"]))
    assert [each.ref.id for each in others if each.ref.type == "User"] == ["initech/S-1"]
    (noted,) = place.notes
    about = {"tenant": "initech", "person": "S-1", "before": before, "after": before + 1}
    assert noted == ("directory_change", about)


def test_the_same_again_is_the_same_revision_and_the_same_object(place: Place) -> None:
    first = place.person(token(groups=["hr"]))
    assert place.person(token(groups=["hr"])) is first
    renewed = place.person(token(groups=["hr"], at=2000))
    assert renewed is first
    assert len(place.notes) == 1


def test_a_later_token_changes_what_its_person_is(place: Place) -> None:
    place.person(token(groups=["hr", "staff"], department="sales"))
    second = place.person(token(groups=["staff"], at=1001, name="Ann Roe"))
    assert (groups(second), second.name, second.attributes) == (["initech/staff"], "Ann Roe", {})
    assert [each["after"] for _, each in place.notes] == [second.revision - 1, second.revision]


def test_an_older_token_gives_back_nothing_that_a_later_one_took(place: Place, tmp_path: Path) -> None:
    old, new = token(groups=["hr"], at=1000), token(groups=[], at=1001)
    assert groups(place.person(old)) == ["initech/hr"]
    assert groups(place.person(new)) == []
    assert groups(place.person(old)) == []
    place.file.close()
    again = Place(tmp_path / "directory.db")  # nor after a restart
    assert groups(again.person(old)) == []
    again.file.close()


def test_one_person_cannot_take_over_the_name_of_another(place: Place) -> None:
    """A claim that people can change, such as an e-mail address, made somebody else of whoever changed it (nOAuth)."""
    place.person(token("s-1", oid="boss@initech.example", groups=["hr"]))
    with pytest.raises(ClaimsUnusable, match="somebody else"):
        place.person(token("s-2", oid="boss@initech.example"))
    assert tell(place.file.path, "initech", "boss@initech.example").logins == ((ISSUER, "s-1"),)  # type: ignore[union-attr]  # there is one
    with pytest.raises(PersonUnknown):
        asyncio.run(place.file.person(caller("s-2", "initech")))


def test_one_login_is_one_person(place: Place) -> None:
    place.person(token("s-1", oid="ann"))
    with pytest.raises(ClaimsUnusable, match="otherwise than before"):
        place.person(token("s-1", oid="anna", at=2000))
    assert place.person(token("s-1", oid="ann", at=3000)).ref.id == "initech/ann"


def test_what_cannot_be_taken_changes_nothing(place: Place) -> None:
    place.person(token(groups=["hr"]))
    before = place.file.revision
    for claims in ({"groups": ["a/b"]}, {"_claim_names": {"groups": "x"}}, {"oid": None}, {"groups": 7}):
        with pytest.raises(ClaimsUnusable):
            place.person(token(at=2000, **claims))
    assert place.file.revision == before
    assert groups(place.person(token(groups=["hr"]))) == ["initech/hr"]


def test_tokens_of_other_issuers_and_tenants_tell_nothing(place: Place) -> None:
    with pytest.raises(PersonUnknown):
        place.person(token(issuer="https://other.example", groups=["hr"]))
    with pytest.raises(PersonUnknown):
        place.person(token(tenant="globex", groups=["hr"]))
    assert groups(place.person(token("u-1", tenant="acme", groups=["boss"]))) == ["acme/hr"]  # as people.yaml says
    assert place.notes == []


def test_a_group_of_one_tenant_is_not_that_of_another(place: Place) -> None:
    ann = place.person(token(groups=["hr"]))
    assert all(each.ref.id.startswith("initech/") or each.ref.id == "initech" for each in ann.entities)


def test_with_a_budget_a_person_is_as_fresh_as_their_own_token(tmp_path: Path) -> None:
    place = Place(tmp_path / "directory.db", DirectorySettings(claims=(TOLD,), lag_budget_seconds=60))
    first = place.person(token(at=1000))
    assert first.fresh_until == 1060
    assert place.person(token(at=1000)) is first
    assert place.person(token(at=1500)).fresh_until == 1560
    assert place.person(token(at=1000)).fresh_until == 1060
    assert place.person(token("u-1", tenant="acme")).fresh_until is None
    place.file.close()


def test_a_tenant_that_is_fed_otherwise_is_refused_at_the_start(tmp_path: Path) -> None:
    both = DirectorySettings(claims=(ClaimsSettings(tenant="acme", issuer=ISSUER),))
    with pytest.raises(DirectoryInvalid, match=r"people\.yaml"):
        Place(tmp_path / "directory.db", both)


def test_a_released_tenant_comes_in_anew(place: Place) -> None:
    place.person(token(groups=["hr"], at=2000))
    release(place.file.path, "initech")
    place.file.forget()
    assert groups(place.person(token(groups=["staff"], at=1500))) == ["initech/staff"]
    assert groups(place.person(token(groups=["hr"], at=2000))) == ["initech/hr"]


def test_a_tenant_that_got_another_source_meanwhile_is_nobodys(place: Place) -> None:
    place.person(token())
    raw(place.file.path, "UPDATE tenant SET source = 'x.csv' WHERE id = 'initech'")
    with pytest.raises(DirectoryUnavailable, match=r"x\.csv"):
        place.person(token("s-2"))


def test_nobody_is_told_of_by_a_file_that_cannot_be_written(place: Place) -> None:
    raw(place.file.path, "CREATE TRIGGER stop BEFORE INSERT ON person BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(DirectoryUnavailable):
        place.person(token())


def test_a_load_of_another_tenant_and_a_reload_leave_people_of_tokens_alone(place: Place) -> None:
    place.person(token(groups=["hr"]))
    place.file.load(people.parse(TEXT.replace("name: Dana", "name: Diana")))
    assert groups(place.person(token(groups=["hr"]))) == ["initech/hr"]


def test_status_tells_where_they_come_from(place: Place) -> None:
    place.person(token())
    found = {each.tenant: (each.source, each.people) for each in tenants(place.file.path)}
    assert found["initech"] == ("token claims", 1)


def test_many_who_come_at_once_are_all_there(place: Place) -> None:
    async def all_at_once() -> list[Person]:
        return await asyncio.gather(*(place.directory.person(token(f"s-{n}", groups=["hr"])) for n in range(40)))

    found = asyncio.run(all_at_once())
    assert {each.ref.id for each in found} == {f"initech/S-{n}" for n in range(40)}
    assert len(place.notes) == 40
