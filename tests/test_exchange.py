"""An API of the company's own login: each person's token exchanged at its issuer, by a real OpenID provider."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from company import Company, company, said, wait_for
from exchange_house import API, CLIENT, OrdersApi, Provider, Relay, exchanging_provider, files, written


@dataclass(kw_only=True)
class House:
    """A served gateway, the provider that people log in at, and the API behind a relay."""

    company: Company
    provider: Provider
    api: OrdersApi
    relays: list[Relay]
    process: subprocess.Popen[str]

    def call(self, tool: str, token: str) -> Any:
        return self.company.call(tool, token=token)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    api = OrdersApi()
    with ExitStack() as stack:
        made = stack.enter_context(company(tmp_path_factory.mktemp("exchange")))
        provider = stack.enter_context(exchanging_provider(made))
        orders, desk = Relay(stack.enter_context(api.serving())), Relay(made.desk.url)
        for relay in (orders, desk):
            stack.callback(relay.close)
        made.edit(made.desk.url, desk.url)
        made.edit(made.issuer.url, provider.issuer, name="people.yaml")
        made.edit(made.issuer.url, provider.issuer)
        made.edit("[ES256]", "[RS256]")
        rule = f"issuer: {provider.issuer}\nclient_id: {CLIENT}\nclient_secret: file:exchange.secret\nresource: {API}\n"
        written(made, orders.url, rule + "scope: orders.read")
        process = stack.enter_context(made.serving())
        yield House(company=made, provider=provider, api=api, relays=[orders, desk], process=process)


def test_the_api_gets_a_token_of_its_own_for_the_person_by_the_issuer_of_both(house: House) -> None:
    own = house.provider.token(house.company)
    result = house.call("orders", own)
    assert not result.get("isError"), result
    claims = house.provider.checked(house.api.bearers[-1])
    assert (claims["sub"], claims["aud"], claims["scope"]) == ("alice-at-login", API, "orders.read")
    assert (claims["client_id"], claims["act"]) == (CLIENT, {"sub": CLIENT})
    wait_for(lambda: house.provider.told, what="what the provider tells")
    assert house.provider.told[-1] == {"from": "alice-at-login", "through": "desktop", "by": CLIENT}
    assert house.api.seen[-1]["txn-token"].count(".") == 2


def test_each_login_has_its_own_and_it_is_asked_for_once(house: House) -> None:
    alice = house.provider.token(house.company)
    for _ in range(3):
        assert not house.call("orders", alice).get("isError")
    assert len(set(house.api.bearers[-3:])) == 1
    again = house.provider.token(house.company)
    house.call("orders", again)
    assert house.api.bearers[-1] != house.api.bearers[-2]


def test_a_token_that_the_api_takes_no_longer_is_had_anew_within_the_call(house: House) -> None:
    token = house.provider.token(house.company)
    house.call("orders", token)
    house.api.refuse = 1
    assert not house.call("orders", token).get("isError")
    before, refused, after = house.api.bearers[-3:]
    assert before == refused != after
    parts = (each["txn-token"].split(".")[1] for each in house.api.seen[-2:])
    first, second = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in parts)
    assert first["txn"] == second["txn"]
    assert first["jti"] != second["jti"], "no call token is shown twice"
    assert second["tctx"]["record"]["n"] == first["tctx"]["record"]["n"] + 1


def test_what_the_api_refuses_again_or_a_write_is_not_sent_on(house: House) -> None:
    token = house.provider.token(house.company)
    house.call("orders", token)
    house.api.refuse, before = 2, len(house.api.seen)
    assert house.call("orders", token)["isError"] is True
    assert len(house.api.seen) == before + 2
    house.call("orders", token)
    house.api.refuse, before = 1, len(house.api.seen)
    assert house.call("order", token)["_meta"]["onbehalf/denial"]["code"] == "upstream_refused"
    assert len(house.api.seen) == before + 1
    assert house.api.refuse == 0


def test_a_reload_gives_up_what_was_had_and_the_same_login_goes_on(house: House) -> None:
    token = house.provider.token(house.company)
    house.call("orders", token)
    before = house.company.served_log().count("people ")
    house.process.send_signal(signal.SIGHUP)
    wait_for(lambda: house.company.served_log().count("people ") > before, what="the reload")
    assert not house.call("orders", token).get("isError")
    assert house.api.bearers[-1] != house.api.bearers[-2]


def test_the_exchanged_token_is_not_taken_here(house: House) -> None:
    house.call("orders", house.provider.token(house.company))
    answer = house.company.post("tools/list", token=house.api.bearers[-1])
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_the_persons_token_is_in_no_byte_that_an_upstream_gets_nor_in_any_file(house: House) -> None:
    """The canary: whole, by its payload, and by its signature, in what went out and in what stayed."""
    token = house.provider.token(house.company)
    assert not house.call("orders", token).get("isError")
    house.call("order", token)
    house.call("desk_read", token)
    house.call("desk_write", token)
    house.api.refuse = 1
    house.call("orders", token)
    header, payload, signature = token.split(".")
    exchanged = house.api.bearers[-1]
    for relay in house.relays:
        assert len(relay.kept) > 500
        for part in (token, payload, signature):
            assert part.encode() not in relay.kept
    looked = 0
    for path, data in files(house.company.directory):
        looked += 1
        for part in (token, payload, signature, exchanged, exchanged.split(".")[2]):
            assert part.encode() not in data, path
    assert {"gateway.log", "ledger.db"} <= {path.name for path, _ in files(house.company.directory)}
    assert looked > 10
    assert header  # the same for all tokens of a key, so it says nothing


def test_check_says_that_the_issuer_can_exchange(house: House) -> None:
    told = said("check", "--config", house.company.config, "--json")
    found = [each for each in json.loads(told.out)["findings"] if each["what"] == "exchange orders"]
    assert [each["level"] for each in found] == ["ok"], found
    assert house.provider.issuer in found[0]["text"]


def test_the_gateway_may_prove_itself_by_a_key(tmp_path_factory: pytest.TempPathFactory) -> None:
    key, api = RSAKey.generate_key(2048, {"kid": "gateway-1", "alg": "PS256"}), OrdersApi()
    with ExitStack() as stack:
        made = stack.enter_context(company(tmp_path_factory.mktemp("key")))
        provider = stack.enter_context(exchanging_provider(made, key))
        made.edit(made.issuer.url, provider.issuer, name="people.yaml")
        made.edit(made.issuer.url, provider.issuer)
        made.edit("[ES256]", "[RS256]")
        (made.directory / "client.jwk").write_text(json.dumps(key.as_dict(private=True)))
        rule = f"issuer: {provider.issuer}\nclient_id: {CLIENT}\nclient_key: file:client.jwk\nresource: {API}\n"
        written(made, stack.enter_context(api.serving()), rule)
        stack.enter_context(made.serving())
        result = made.call("orders", token=provider.token(made))
        assert not result.get("isError"), result
        assert provider.checked(api.bearers[-1])["sub"] == "alice-at-login"
