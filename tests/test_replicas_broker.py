"""The sign-in broker on two gateways with one database: a real OpenID provider, and a client that meets either."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx2
import pytest

from broker_house import Asking, BrokerHouse, Browser, broker_house
from company import wait_for
from replica_house import served_twice
from state_house import state_database


@pytest.fixture(scope="module")
def houses(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BrokerHouse, str]]:
    """The first gateway, and where the other one listens."""
    with (
        state_database(postgres) as dsn, broker_house(tmp_path_factory.mktemp("replicas") / "here") as house,
        served_twice(house.company, dsn) as there,
    ):  # fmt: skip
        yield house, there.gateway


def token(at: str, **form: str) -> httpx2.Response:
    return httpx2.post(f"{at}/oauth/token", data=form, timeout=20, trust_env=False)


def redeemed(house: BrokerHouse, at: str, asking: Asking, code: str) -> httpx2.Response:
    return token(
        at, grant_type="authorization_code", client_id=asking.client_id, code=code, redirect_uri=asking.redirect_uri,
        code_verifier=asking.verifier, resource=house.resource,
    )  # fmt: skip


def refreshed(at: str, refresh: str) -> httpx2.Response:
    return token(at, grant_type="refresh_token", client_id="desktop", refresh_token=refresh)


def listed(house: BrokerHouse, at: str, access: str) -> int:
    """The status of a request with this token, which comes to one of them."""
    return replace(house.company, gateway=at).post("tools/list", token=access).status_code


def test_a_login_at_one_gateway_is_one_at_the_other_and_a_code_is_good_once(houses: tuple[BrokerHouse, str]) -> None:
    house, there = houses
    asking = Asking()
    code = house.code(asking)
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda at: redeemed(house, at, asking, code), (house.at, there) * 3))
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 5
    (got,) = [answer.json() for answer in answers if answer.status_code == 200]
    for at in (house.at, there):  # of a code that was shown twice nothing is worth anything
        wait_for(lambda: listed(house, at, got["access_token"]) == 401, what="the end of the login")  # noqa: B023
        assert refreshed(at, got["refresh_token"]).json()["error"] == "invalid_grant"


def test_of_both_that_are_shown_one_refresh_token_one_gives_another_and_the_login_is_over_on_both(
    houses: tuple[BrokerHouse, str],
) -> None:
    house, there = houses
    asking = Asking()
    first = redeemed(house, there, asking, house.code(asking)).json()
    second = refreshed(house.at, first["refresh_token"]).json()
    assert [listed(house, at, second["access_token"]) for at in (house.at, there)] == [200, 200]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda at: refreshed(at, second["refresh_token"]), (house.at, there)))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    (got,) = [answer.json() for answer in answers if answer.status_code == 200]
    for at in (house.at, there):
        for access in (second["access_token"], got["access_token"]):
            wait_for(lambda: listed(house, at, access) == 401, what="the end of the login")  # noqa: B023
        assert refreshed(at, got["refresh_token"]).json()["error"] == "invalid_grant"


def test_what_is_revoked_at_one_gateway_is_over_at_the_other(houses: tuple[BrokerHouse, str]) -> None:
    house, there = houses
    got = house.tokens()
    assert listed(house, there, got["access_token"]) == 200
    form = {"client_id": "desktop", "token": got["refresh_token"]}
    assert httpx2.post(f"{house.at}/oauth/revoke", data=form, timeout=20, trust_env=False).status_code == 200
    wait_for(lambda: listed(house, there, got["access_token"]) == 401, what="the end of the login")
    assert refreshed(there, got["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_client_that_registers_at_one_gateway_is_known_to_the_other(houses: tuple[BrokerHouse, str]) -> None:
    house, there = houses
    asked = {"client_name": "Elsewhere", "redirect_uris": ["http://127.0.0.1/back"]}
    made = httpx2.post(f"{there}/oauth/register", json=asked, timeout=20, trust_env=False).json()
    page = Browser().get(house.authorize(Asking(client_id=made["client_id"])))
    assert "Elsewhere" in page.text
