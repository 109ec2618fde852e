"""The npm client, which other people's tools are built on, against the whole running house."""

from __future__ import annotations

from typing import Any

import pytest

import node_peers
from house_process import Running, running_demo
from onbehalf.demo.data import world
from onbehalf.demo.truth import readable_reviews, reports


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


def told(house: Running, person_id: str, tenant: str, calls: list[Any]) -> dict[str, Any]:
    subject = world().person(tenant, person_id).subject
    return node_peers.ran("oauth_client.mjs", {"url": house.places.resource, "subject": subject, "calls": calls})


def test_the_npm_client_logs_in_through_oauth_and_a_manager_gets_exactly_her_teams_reviews(house: Running) -> None:
    answer = told(house, "alice", "acme", [["reviews_list", {"about": "team"}]])
    assert answer["protocol"] == "2025-11-25"
    assert answer["registered"].startswith("demo-")
    assert answer["resource"] == house.places.resource
    assert answer["challenge_method"] == "S256"
    assert answer["issuer"] == house.places.issuer
    assert answer["tools"] == [
        "order_cancel", "order_get", "order_ship", "orders_list", "reviews_list", "tickets_get", "tickets_list",
        "tickets_update",
    ]  # fmt: skip
    [result] = answer["results"]
    assert not result["error"], result
    below = reports(world(), "acme", "alice")
    right = {each.id for each in world().reviews if each.tenant == "acme" and each.subject_id in below}
    rows = result["structured"]["rows"]
    assert {row["id"] for row in rows} == right
    assert {row["tenant"] for row in rows} == {"acme"}
    assert result["meta"]["onbehalf/call"]


def test_the_npm_client_is_told_why_a_change_is_refused_and_what_to_do(house: Running) -> None:
    calls = [["tickets_update", {"ticket_id": "T-1002", "status": "closed"}], ["tickets_get", {"ticket_id": "T-1002"}]]
    refused, after = told(house, "bob", "acme", calls)["results"]
    assert refused["error"]
    denial = refused["meta"]["onbehalf/denial"]
    assert denial["code"] == "not_permitted"
    assert denial["remedy"]
    assert not after["error"], after
    assert after["structured"]["ticket"]["status"] != "closed"


def test_the_npm_client_of_another_tenant_sees_nothing_of_acme(house: Running) -> None:
    listed, asked = told(house, "dave", "globex", [["reviews_list", {}], ["reviews_list", {"subject_id": "bob"}]])[
        "results"
    ]
    assert {row["id"] for row in listed["structured"]["rows"]} == readable_reviews(world(), "globex", "dave")
    assert asked["structured"]["rows"] == []
