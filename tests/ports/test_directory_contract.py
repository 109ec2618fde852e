"""What every Directory promises: a caller's own slice, others by id, and nobody outside the asked tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import house
from onbehalf.config_directory import ClaimsSettings, DirectorySettings
from onbehalf.doors.directory_claims import with_claims
from onbehalf.doors.directory_revoked import RevokedPeople
from onbehalf.doors.directory_sqlite import SqliteDirectory
from onbehalf.doors.revocations_sqlite import Revocations
from onbehalf.errors import DirectoryUnavailable, PersonUnknown
from onbehalf.model import Caller, Entity, Ref
from onbehalf.ports import Directory
from onbehalf.validate import people
from validate import policy_house

_LOGIN = f"logins: [{{issuer: '{policy_house.EVIDENCE.issuer}', subject: "
PEOPLE = f"""
tenants:
  acme:
    positions: {{lead: null, ic: lead, ic2: lead}}
    groups: {{hr: []}}
    people:
      dana: {{name: dana, position: lead, groups: [hr], {_LOGIN}dana}}]}}
      bob: {{name: bob, position: ic, {_LOGIN}bob}}]}}
      carol: {{name: carol, position: ic2, {_LOGIN}carol}}]}}
      gone: {{name: gone, position: lead, active: false, {_LOGIN}gone}}]}}
      zoe: {{name: zoe}}
  globex: {{people: {{erin: {{name: erin, {_LOGIN}erin}}]}}}}}}
"""
"""The people of tests/house.py."""


CLAIMS = DirectorySettings(claims=(ClaimsSettings(tenant="initech", issuer=policy_house.EVIDENCE.issuer),))


def over(made: SqliteDirectory, kind: str, tmp_path: Path) -> Directory:
    """The directory's file as such, or with what stands before it."""
    if kind == "claims":
        return with_claims(made, CLAIMS, note=lambda *_: None)
    if kind == "revoked":
        return RevokedPeople(made, Revocations.open(tmp_path / "revocations.db"), note=lambda *_: None)
    return made


@pytest.fixture(params=["sqlite", "memory", "claims", "revoked"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Directory]:
    if request.param == "memory":
        yield house.Doors()
        return
    made = SqliteDirectory.open(tmp_path / "directory.db")
    made.load(people.parse(PEOPLE))
    yield over(made, request.param, tmp_path)
    made.close()


@pytest.fixture(params=["sqlite", "memory", "claims", "revoked"])
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> Directory:
    if request.param == "memory":
        return house.Doors(broken={"directory_down", "directory_down_later"})
    made = SqliteDirectory.open(tmp_path / "directory.db")
    found = over(made, request.param, tmp_path)
    made.close()
    return found


def caller(subject: str, tenant: str = "acme") -> Caller:
    return replace(policy_house.caller(tenant=tenant), subject=subject)


def found(directory: Directory, tenant: str, *ids: str) -> dict[Ref, Entity]:
    entities = asyncio.run(directory.people(tenant, ids))
    index = {entity.ref: entity for entity in entities}
    assert all(index[entity.ref] == entity for entity in entities)  # one entity has one meaning
    return index


@pytest.mark.parametrize("subject", ["dana", "bob", "carol"])
def test_a_person_is_their_own_user_with_everything_it_refers_to(directory: Directory, subject: str) -> None:
    person = asyncio.run(directory.person(caller(subject)))
    index = {entity.ref: entity for entity in person.entities}
    assert (person.ref, person.tenant, person.active) == (Ref(type="User", id=f"acme/{subject}"), "acme", True)
    assert person.entities[0].ref == person.ref
    todo, reached = [person.ref], set()
    while todo:
        entity = index[todo.pop()]
        reached.add(entity.ref)
        refs = [*entity.parents, *(v for v in entity.attributes.values() if isinstance(v, Ref) and v.type != "Tenant")]
        todo += [ref for ref in refs if ref not in reached]
    assert all(ref.id.startswith("acme/") for ref in reached)
    assert Ref(type="Position", id="acme/lead") in reached


def test_somebody_who_left_is_returned_as_not_active(directory: Directory) -> None:
    person = asyncio.run(directory.person(caller("gone")))
    assert person.active is False
    assert person.entities[0].attributes["active"] is False
    assert found(directory, "acme", "gone")[person.ref].attributes["active"] is False


def test_the_answer_stays_the_same_while_nothing_changes(directory: Directory) -> None:
    assert asyncio.run(directory.person(caller("dana"))) == asyncio.run(directory.person(caller("dana")))


@pytest.mark.parametrize(
    ("subject", "tenant"), [("nobody", "acme"), ("erin", "acme"), ("dana", "globex"), ("", "acme")]
)
def test_a_login_outside_the_tenant_is_nobody(directory: Directory, subject: str, tenant: str) -> None:
    with pytest.raises(PersonUnknown):
        asyncio.run(directory.person(caller(subject, tenant)))


def test_people_are_found_by_id_with_what_they_are_in(directory: Directory) -> None:
    index = found(directory, "acme", "bob", "zoe")
    users = {ref.id for ref in index if ref.type == "User"}
    assert users == {"acme/bob", "acme/zoe"}
    assert index[Ref(type="Position", id="acme/ic")].parents == (Ref(type="Position", id="acme/lead"),)
    assert Ref(type="Position", id="acme/lead") in index
    assert "position" not in index[Ref(type="User", id="acme/zoe")].attributes


@pytest.mark.parametrize("id_", ["erin", "globex/erin", "", "nobody", "acme/bob"])
def test_an_id_outside_the_tenant_is_left_out(directory: Directory, id_: str) -> None:
    assert {ref.id for ref in found(directory, "acme", id_, "bob") if ref.type == "User"} == {"acme/bob"}
    assert found(directory, "acme", id_) == found(directory, "none", "bob") == found(directory, "acme") == {}


def test_what_cannot_be_read_is_unavailable_and_never_nobody(broken: Directory) -> None:
    with pytest.raises(DirectoryUnavailable):
        asyncio.run(broken.person(caller("dana")))
    with pytest.raises(DirectoryUnavailable):
        asyncio.run(broken.people("acme", ["bob"]))
