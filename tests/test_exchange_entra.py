"""Entra's on-behalf-of form, held to its documented parameters by a token endpoint on loopback."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from company import Company, company, said, wait_for
from doors.issuer_house import METADATA, OPENID, issuing
from exchange_house import SECRET, OrdersApi, TokenEndpoint, written

APP = "535fb089-9ff3-47b6-9bfb-4f1264799865"
SCOPE = "api://orders/.default"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DOCUMENTED = {"grant_type", "client_id", "assertion", "scope", "requested_token_use"}
INTERACTION = {
    "error": "interaction_required", "error_codes": [50079], "timestamp": "2026-05-01 22:43:20Z",
    "error_description": "AADSTS50079: Due to a configuration change made by your administrator, you must enroll",
    "trace_id": "b72a68c3-0926-4b8e-bc35-3150069c2800", "correlation_id": "73d656cf-54b1-4eb2-b429-26d8165a52d7",
    "claims": '{"access_token":{"polids":{"essential":true,"values":["9ab03e19-ed42-4168-b6b7-7001fb3e933a"]}}}',
}  # fmt: skip


def no(code: int, why: str) -> tuple[int, dict[str, Any]]:
    return 400, {"error": "invalid_request", "error_description": f"AADSTS{code}: {why}", "error_codes": [code]}


class Entra:
    """The token endpoint of a tenant. What it is asked must be what Microsoft documents, and nothing besides."""

    def __init__(self, made: Company, key: RSAKey | None) -> None:
        self.company, self.key = made, key
        self.policies: dict[str, Any] = {}
        self.endpoint = TokenEndpoint()
        self.endpoint.answer = self.answer

    def answer(self, form: dict[str, str]) -> Any:
        proof = {"client_assertion_type", "client_assertion"} if self.key else {"client_secret"}
        if set(form) != DOCUMENTED | proof:
            return no(900144, f"the parameters are {sorted(form)}")
        if form["grant_type"] != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return no(70003, "the grant is another")
        if form["requested_token_use"] != "on_behalf_of" or form["scope"] != SCOPE or form["client_id"] != APP:
            return no(90014, "it is not on behalf of anybody, or for nothing")
        if "authorization" in self.endpoint.heads[-1] or not self.proven(form):
            return 401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret"}
        keys = httpx2.get(f"{self.company.issuer.url}/jwks.json", trust_env=False).json()
        claims = jwt.decode(form["assertion"], KeySet.import_key_set(keys), algorithms=["ES256"]).claims
        if claims["aud"] != f"{self.company.gateway}/mcp":
            return no(50013, "the assertion is for another application")
        if denied := self.policies.get(claims["sub"]):
            return 400, denied
        own = self.company.token(claims["sub"], aud="api://orders", appid=APP, client_id=None, scp="Orders.Read")
        return {
            "token_type": "Bearer", "scope": "api://orders/Orders.Read", "expires_in": 3269, "ext_expires_in": 3269,
            "access_token": own,
        }  # fmt: skip

    def proven(self, form: dict[str, str]) -> bool:
        if self.key is None:
            return form["client_secret"] == SECRET
        token = jwt.decode(form["client_assertion"], self.key, algorithms=["PS256"])
        assert token.header == {"alg": "PS256", "typ": "JWT", "x5t#S256": "the-thumbprint-of-the-certificate"}
        assert form["client_assertion_type"] == ASSERTION
        return bool(token.claims["aud"] == self.endpoint.url and token.claims["iss"] == token.claims["sub"] == APP)


@dataclass(kw_only=True)
class House:
    company: Company
    entra: Entra
    api: OrdersApi

    def call(self, subject: str = "alice-at-login", tool: str = "orders", **claims: Any) -> Any:
        return self.company.call(tool, token=self.token(subject, **claims))

    def token(self, subject: str = "alice-at-login", **claims: Any) -> str:
        told = {"appid": "desktop", "client_id": None, "scp": "notes.read desk.write", "scope": None, **claims}
        return self.company.token(subject, **told)


@pytest.fixture(scope="module", params=["secret", "certificate"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    key = RSAKey.generate_key(2048) if request.param == "certificate" else None
    api = OrdersApi()
    with ExitStack() as stack:
        made = stack.enter_context(company(tmp_path_factory.mktemp("entra")))
        entra = Entra(made, key)
        stack.enter_context(entra.endpoint.serving())
        # as Entra's: OpenID discovery alone, nothing about grants
        metadata = {
            "issuer": made.issuer.url, "jwks_uri": f"{made.issuer.url}/jwks.json",
            "token_endpoint": entra.endpoint.url,
            "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        }  # fmt: skip
        del made.issuer.answers[METADATA]
        made.issuer.json(OPENID, metadata)
        made.edit("[ES256]}", "[ES256], client_claim: appid, scope_claim: scp}")
        proof = "client_secret: file:exchange.secret"
        if key is not None:
            own = {**key.as_dict(private=True), "alg": "PS256", "x5t#S256": "the-thumbprint-of-the-certificate"}
            own.pop("kid", None)
            (made.directory / "client.jwk").write_text(json.dumps(own))
            proof = "client_key: file:client.jwk"
        rule = f"issuer: {made.issuer.url}\ngrant: entra\nclient_id: {APP}\n{proof}\nscope: {SCOPE}"
        written(made, stack.enter_context(api.serving()), rule)
        stack.enter_context(made.serving())
        yield House(company=made, entra=entra, api=api)


def test_a_call_is_made_with_the_token_that_entra_gives_for_the_person(house: House) -> None:
    result = house.call()
    assert not result.get("isError"), (result, house.entra.endpoint.forms[-1:], house.company.served_log()[-2000:])
    part = house.api.bearers[-1].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=="))
    assert (claims["aud"], claims["sub"], claims["appid"]) == ("api://orders", "alice-at-login", APP)


def test_interaction_required_is_a_clear_denial_and_nothing_is_sent_or_tried_again(house: House) -> None:
    house.entra.policies = {"alice-at-login": INTERACTION}
    before, asked = len(house.api.seen), len(house.entra.endpoint.forms)
    try:
        result = house.call(jti="conditional access")
    finally:
        house.entra.policies = {}
    denial = result["_meta"]["onbehalf/denial"]
    assert denial["code"] == "login_needed"
    assert "log in anew, more strongly" in denial["remedy"]
    assert "tried again later" not in json.dumps(result)
    assert len(house.api.seen) == before
    assert len(house.entra.endpoint.forms) == asked + 1
    for word in ("AADSTS", "polids", "9ab03e19"):
        assert word not in json.dumps(result)
    explained = ("explain", denial["call"], "--config", house.company.config)
    wait_for(lambda: "login_needed" in said(*explained).out, what="the outcome on record")
    # and with a new login it goes on
    assert not house.call(jti="after it").get("isError")


def test_what_is_on_record_of_it_is_that_nothing_was_done(house: House) -> None:
    house.entra.policies = {"alice-at-login": {"error": "invalid_grant", "suberror": "consent_required"}}
    try:
        result = house.call(jti="no consent", tool="order")
    finally:
        house.entra.policies = {}
    assert result["_meta"]["onbehalf/denial"]["code"] == "login_needed"
    assert "not known" not in json.dumps(result)


def test_a_token_for_the_gateway_itself_is_not_sent_and_that_is_on_record(house: House) -> None:
    before, answering = len(house.api.seen), house.entra.endpoint.answer

    def mixed_up(form: dict[str, str]) -> Any:
        part = base64.urlsafe_b64encode(json.dumps({"aud": f"{house.company.gateway}/mcp"}).encode()).decode()
        return {**answering(form), "access_token": f"e30.{part.rstrip('=')}.c2ln"}

    house.entra.endpoint.answer = mixed_up
    try:
        result = house.call(jti="mix-up")
    finally:
        house.entra.endpoint.answer = answering
    denial = result["_meta"]["onbehalf/denial"]
    assert denial["code"] == "upstream_token_unfit"
    assert "do not repeat it" in denial["remedy"]
    assert len(house.api.seen) == before
    explained = ("explain", denial["call"], "--config", house.company.config)
    wait_for(lambda: "upstream_token_unfit" in said(*explained).out, what="the outcome on record")


def test_who_is_of_another_issuer_is_told_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    api, endpoint = OrdersApi(), TokenEndpoint()
    with ExitStack() as stack:
        made = stack.enter_context(company(tmp_path_factory.mktemp("two")))
        other = stack.enter_context(issuing())
        stack.enter_context(endpoint.serving())
        other.json(
            METADATA, {"issuer": other.url, "jwks_uri": f"{other.url}/jwks.json", "token_endpoint": endpoint.url}
        )
        made.edit("upstreams:", f'  - {{issuer: "{other.url}", tenant: acme, algorithms: [ES256]}}\nupstreams:')
        rule = f"issuer: {other.url}\nclient_id: c\nclient_secret: file:exchange.secret\naudience: orders"
        written(made, stack.enter_context(api.serving()), rule)
        told = said("check", "--config", made.config)
        assert f"people with tokens of {made.issuer.url} cannot use it" in " ".join(told.out.split())
        assert "does not say whether it has the grant" in " ".join(told.out.split())
        with made.serving():
            result = made.call("orders", token=made.token())
            assert result["_meta"]["onbehalf/denial"]["code"] == "exchange_impossible"
            assert "have the client log in there" in json.dumps(result)
        assert endpoint.forms == api.seen == []
        methods = {"grant_types_supported": ["authorization_code"], "token_endpoint": endpoint.url}
        other.json(METADATA, {"issuer": other.url, "jwks_uri": f"{other.url}/jwks.json", **methods})
        told = said("check", "--config", made.config)
        assert (told.code, "does not have the grant" in " ".join(told.out.split())) == (1, True)
