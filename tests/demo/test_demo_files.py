"""The data directory of the demo: what is written is what the gateway can read."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import cedarpy
import pytest
import yaml

from onbehalf import config
from onbehalf.demo.data import LEFT, PERIODS, world
from onbehalf.demo.files import Places, write
from onbehalf.demo.truth import chain, readable_reviews, reports

WORLD = world()
PLACES = Places(
    gateway="http://127.0.0.1:1",
    admin="http://127.0.0.1:2",
    issuer="http://127.0.0.1:3",
    tickets="http://127.0.0.1:4",
    orders="http://127.0.0.1:5",
)
CORE = """
entity Tenant;
entity Position in [Position] { tenant: Tenant };
entity Group in [Group] { tenant: Tenant };
entity User in [Group] { tenant: Tenant, position?: Position, name: String, active: Bool };
entity Client;
entity Tool { tenant: Tenant, writes: Bool };
type Context = { client: Client, scopes: Set<String>, now: Long };
"""


def core_schema() -> str:
    shipped = Path(config.__file__).parent / "doors" / "core.cedarschema"
    return shipped.read_text() if shipped.exists() else CORE


def test_the_world_is_the_same_every_time() -> None:
    assert world() == WORLD


def test_there_are_people_reviews_and_tickets_enough() -> None:
    assert len(WORLD.people) >= 40
    assert {person.tenant for person in WORLD.people} == {"acme", "globex"}
    assert 180 <= len(WORLD.reviews) <= 220
    assert len(WORLD.tickets) == 200


@pytest.mark.parametrize("tenant", ["acme", "globex"])
def test_four_levels_of_managers_stand_above_somebody(tenant: str) -> None:
    deepest = max(
        len(chain(WORLD, tenant, person.id)) for person in WORLD.people if person.tenant == tenant and person.position
    )
    assert deepest == 4


def test_the_corners_are_there() -> None:
    alice = [review for review in WORLD.reviews if (review.tenant, review.subject_id) == ("acme", "alice")]
    assert any(review.author_id == "tomas" for review in alice), "a manager reviewed by a peer"
    for tenant, person_id in LEFT:
        person = WORLD.person(tenant, person_id)
        assert not person.active
        assert any((review.tenant, review.subject_id) == (tenant, person_id) for review in WORLD.reviews)
    assert not WORLD.person("acme", "sofia").position
    assert WORLD.person("acme", "sofia").active
    namesakes = [person for person in WORLD.people if person.name == "Alice Ngo"]
    assert {person.tenant for person in namesakes} == {"acme", "globex"}
    assert len({person.subject for person in WORLD.people}) == len(WORLD.people)


def test_the_people_of_the_story_stand_where_it_says() -> None:
    below = reports(WORLD, "acme", "alice")
    assert {"bob", "carol", "omar", "erik"} <= below
    assert "tomas" not in below
    assert "alice" not in below
    assert chain(WORLD, "acme", "bob")[0] == chain(WORLD, "acme", "carol")[0] == "alice"
    assert len(readable_reviews(WORLD, "acme", "alice")) > 20
    assert readable_reviews(WORLD, "acme", "bob")
    assert reports(WORLD, "globex", "dave")
    assert {review.period for review in WORLD.reviews} == set(PERIODS)


def test_feedback_reads_as_text_and_names_its_subject() -> None:
    for review in WORLD.reviews:
        assert "NAME" not in review.feedback
        assert WORLD.person(review.tenant, review.subject_id).name.split()[0] in review.feedback


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    settings = config.parse(write(tmp_path, WORLD, PLACES).read_text())
    tools = {name: tool for upstream in settings.upstreams.values() for name, tool in upstream.tools.items()}
    assert set(tools) == {
        "reviews_list", "tickets_list", "tickets_get", "tickets_update", "orders_list", "order_get", "order_ship",
        "order_cancel",
    }  # fmt: skip
    assert tools["tickets_update"].writes
    assert settings.gateway.resource == "http://127.0.0.1:1/mcp"


def test_the_policies_are_valid_under_the_schema(tmp_path: Path) -> None:
    write(tmp_path, WORLD, PLACES)
    schema = core_schema() + (tmp_path / "policies" / "demo.cedarschema").read_text()
    text = "\n".join(path.read_text() for path in sorted((tmp_path / "policies").glob("*.cedar")))
    answer = cedarpy.validate_policies(text, schema)
    assert answer.validation_passed, answer.errors
    assert text.count("@id(") == text.count("@doc(") == text.count("@remedy(")


def test_people_file_knows_everyone_with_a_login(tmp_path: Path) -> None:
    write(tmp_path, WORLD, PLACES)
    tenants = yaml.safe_load((tmp_path / "people.yaml").read_text())["tenants"]
    assert sum(len(tenant["people"]) for tenant in tenants.values()) == len(WORLD.people)
    assert tenants["acme"]["people"]["alice"]["logins"] == [{"issuer": "http://127.0.0.1:3", "subject": "u-1001"}]
    assert "position" not in tenants["acme"]["people"]["ravi"]
    for tenant in tenants.values():
        assert {person["position"] for person in tenant["people"].values() if "position" in person} == set(
            tenant["positions"]
        )


def test_the_statement_runs_and_filters_as_told(tmp_path: Path) -> None:
    settings = config.parse(write(tmp_path, WORLD, PLACES).read_text())
    statement = settings.upstreams["hr"].tools["reviews_list"].statement
    base = sqlite3.connect(tmp_path / "hr.db")
    asked = {"tenant_id": "acme", "me": "alice", "about": None, "status": None, "subject_id": None, "period": None}
    acme = [review for review in WORLD.reviews if review.tenant == "acme"]
    assert len(base.execute(statement, asked).fetchall()) == len(acme)
    mine = base.execute(statement, {**asked, "about": "me"}).fetchall()
    others = base.execute(statement, {**asked, "about": "team"}).fetchall()
    assert {row[2] for row in mine} == {"alice"}
    assert len(mine) + len(others) == len(acme)
    assert base.execute(statement, {**asked, "status": "final' OR '1'='1"}).fetchall() == []
    assert base.execute(statement, {**asked, "subject_id": "dave"}).fetchall() == []
    base.close()
