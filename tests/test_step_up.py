"""A policy that asks for more of the token or the login: the challenge, the record, and another login."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from broker_house import Asking, BrokerHouse, Browser, broker_house
from company import Company, company, said

FRESH = """
@id("fresh") @doc("Staff change the desk after a strong login.") @remedy("Log in with your key.")
@acr("phr") @max_age("300") @scope("desk.sudo")
permit (principal in Group::"acme/staff", action == Action::"writeDesk", resource is Tool);
"""
NARROW = """
@id("staff") @doc("Staff use the desk and notes.") @remedy("Ask for the group staff.")
permit (principal in Group::"acme/staff", action in [Action::"readDesk", Action::"readNote"], resource is Tool);
"""


def strict(made: Company) -> None:
    """The desk is changed after a strong and recent login only."""
    path = made.directory / "policies" / "own.cedar"
    text = path.read_text(encoding="utf-8")
    _, _, own = text.partition('@id("own")')
    path.write_text(f'{NARROW}{FRESH}@id("own"){own}', encoding="utf-8")


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with company(tmp_path_factory.mktemp("fresh")) as made:
        strict(made)
        with made.serving():
            yield made


def call(at: Company, **claims: Any) -> Any:
    scope = claims.pop("scope", "desk.write desk.sudo")
    return at.post("tools/call", token=at.token(scope=scope, **claims), name="desk_write", arguments={"word": "x"})


def strong(**changes: Any) -> dict[str, Any]:
    return {"acr": "phr", "auth_time": int(time.time()) - 5, **changes}


def test_what_is_lacking_is_one_challenge_as_a_403_and_in_the_result(at: Company) -> None:
    before = len(at.desk.seen)
    answer = call(at)
    assert answer.status_code == 403
    [challenge] = answer.headers.get_list("www-authenticate")
    for part in (
        'scope="desk.sudo desk.write"', 'error="insufficient_user_authentication"', 'acr_values="phr"', 'max_age="300"',
        f'resource_metadata="{at.gateway}/.well-known/oauth-protected-resource/mcp"',
    ):  # fmt: skip
        assert part in challenge
    result = answer.json()["result"]
    assert result["isError"] is True
    assert result["_meta"]["mcp/www_authenticate"] == [challenge]
    assert result["_meta"]["onbehalf/denial"]["code"] == "step_up_needed"
    assert "at most 300 seconds ago" in result["content"][0]["text"]
    assert len(at.desk.seen) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"acr": "pwd"}, {"acr": None}, {"auth_time": None}, {"auth_time": 1}, {"scope": "desk.write"},
        {"auth_time": int(time.time()) + 3600},
    ],
)  # fmt: skip
def test_each_demand_counts_by_itself(at: Company, changes: dict[str, Any]) -> None:
    claims = {name: value for name, value in strong(**changes).items() if value is not None}
    answer = call(at, **claims)
    assert answer.status_code == 403
    assert 'error="insufficient_user_authentication"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("changes", [{"acr": 1}, {"auth_time": "now"}, {"auth_time": -1}, {"acr": "x" * 300}])
def test_a_claim_about_the_login_that_is_none_refuses_the_token(at: Company, changes: dict[str, Any]) -> None:
    assert call(at, **strong(**changes)).status_code == 401


def test_with_all_of_it_the_call_is_done(at: Company) -> None:
    answer = call(at, **strong())
    assert answer.status_code == 200
    assert not answer.json()["result"].get("isError")


def test_a_missing_scope_of_the_tool_is_a_result_too(at: Company) -> None:
    answer = call(at, scope="notes.read", **strong())
    assert answer.status_code == 403
    challenge = answer.headers["www-authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert answer.json()["result"]["_meta"]["mcp/www_authenticate"] == [challenge]


def test_the_tool_is_listed_to_whoever_could_log_in_so_with_its_scheme(at: Company) -> None:
    tools = at.post("tools/list", token=at.token()).json()["result"]["tools"]
    [tool] = [each for each in tools if each["name"] == "desk_write"]
    assert tool["securitySchemes"] == [{"type": "oauth2", "scopes": ["desk.write"]}]
    metadata = at.get("/.well-known/oauth-protected-resource", public=True).json()
    assert "desk.sudo" in metadata["scopes_supported"]


def test_the_record_says_what_was_lacking(at: Company) -> None:
    denial = call(at, scope="desk.write").json()["result"]["_meta"]["onbehalf/denial"]
    told = said("explain", denial["call"], "--config", at.config)
    assert told.code == 0, told.err
    text = " ".join(told.out.split())
    for part in ("`fresh` permits this, but demands", "the scope `desk.sudo`", "a login by `phr`", "300 seconds ago"):
        assert part in text


def test_the_broker_carries_what_a_client_asks_of_the_login_and_what_the_login_says(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with broker_house(tmp_path_factory.mktemp("broker")) as house:
        strict(house.company)
        house.company.edit('@acr("phr") @max_age("300")', '@max_age("300")', name="policies/own.cedar")
        (house.company.directory / "policies" / "asking.cedar").unlink()
        with house.company.serving():
            asking = Asking(changes={"scope": "desk.write desk.sudo", "max_age": "200"})
            token = _token(house, asking, Browser())
            assert not house.company.call("desk_write", token=token, word="y").get("isError")
            plain = Asking(changes={"scope": "desk.write desk.sudo"})
            answer = house.company.post(
                "tools/call", token=_token(house, plain, Browser()), name="desk_write", arguments={"word": "z"}
            )
            assert answer.status_code == 403, "without being asked, the login does not say when it was"


def _token(house: BrokerHouse, asking: Asking, browser: Browser) -> str:
    return str(house.redeemed(asking, house.code(asking, browser=browser)).json()["access_token"])
