"""What another authorization server gives for a person is looked at before it is sent."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from act.test_bearer import jwt_of
from doors.exchanging import call_of
from doors.issuer_house import Hands
from doors.test_upstream_openapi import ADD, sent, serving
from exchange_house import TokenEndpoint, good
from identify.minting import NOW, RESOURCE, mint, prove
from onbehalf.config_upstreams import AccountSettings, AuthorizationSettings
from onbehalf.connecting import Account
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_login import Redirected
from onbehalf.doors.key_file import KeyFile
from onbehalf.doors.upstream_authorization import AuthorizationFailed, Authorizer
from onbehalf.doors.vault_accounts import Meant, OauthAccounts
from onbehalf.errors import LoginFailed
from onbehalf.model import Failed, ToolCall

API = "https://api.partner.example"
UNFIT = [{"aud": RESOURCE}, {"aud": [API, RESOURCE]}, {"aud": "https://other.example"}, {"aud": API, "exp": NOW - 60}]
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextlib.asynccontextmanager
async def house(tmp_path: Path, **changes: Any) -> AsyncIterator[tuple[Authorizer, TokenEndpoint, Hands]]:
    with TokenEndpoint().serving() as endpoint:
        rule = AuthorizationSettings(
            issuer="https://partner.example", token_endpoint=endpoint.url, client_id="ours", client_secret="env:S",
            **changes,
        )  # fmt: skip
        keys = KeyFile.open(tmp_path / "keys" / "assertions.keys", kind="oauth-id-jag+jwt", lifetime_s=60, now=NOW)
        fetcher, hands = IssuerFetcher(seconds=4), Hands()
        authorizer = Authorizer(
            rule, fetcher, keys, gateway=RESOURCE, issuer="https://g.example/assertions", resource=API, secret="s",
            clock=lambda: NOW, monotonic=hands,
        )  # fmt: skip
        try:
            yield authorizer, endpoint, hands
        finally:
            await fetcher.aclose()


def call() -> ToolCall:
    return call_of(prove(mint()))


def gives(endpoint: TokenEndpoint, **claims: Any) -> str:
    token = jwt_of(**claims)
    endpoint.answer = lambda form: good(form, access_token=token)
    return token


@pytest.mark.parametrize("claims", UNFIT)
async def test_a_chained_token_that_is_not_for_the_api_is_neither_sent_nor_kept(
    claims: dict[str, Any], tmp_path: Path
) -> None:
    async with house(tmp_path) as (authorizer, endpoint, _), serving() as server:
        token = gives(endpoint, **claims)
        failed = await sent(server, ADD, {"text": "a"}, authorizer=authorizer)
        assert isinstance(failed, Failed)
        assert (failed.code, failed.unknown, server.seen) == ("upstream_token_unfit", False, [])
        assert token not in failed.message
        with pytest.raises(AuthorizationFailed):
            await authorizer.bearer(call())
        assert len(endpoint.forms) == 2


async def test_a_chained_token_for_the_api_and_an_opaque_one_are_sent(tmp_path: Path) -> None:
    async with house(tmp_path) as (authorizer, endpoint, hands):
        token, one = gives(endpoint, aud=API, exp=NOW + 60), call()
        assert [await authorizer.bearer(one) for _ in range(2)] == [token] * 2
        assert len(endpoint.forms) == 1
        hands.at += 31  # the token ends before `expires_in` says that it does
        endpoint.answer = lambda form: good(form, access_token="opaque")
        assert await authorizer.bearer(one) == "opaque"


async def test_an_authorization_server_that_spells_the_api_otherwise_is_told_of_by_token_audience(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, token_audience="api://partner") as (authorizer, endpoint, _):
        token = gives(endpoint, aud="api://partner")
        assert await authorizer.bearer(call()) == token
    async with house(tmp_path, token_audience="api://partner") as (authorizer, endpoint, _):
        gives(endpoint, aud=API)
        with pytest.raises(AuthorizationFailed, match="another API"):
            await authorizer.bearer(call())


@contextlib.asynccontextmanager
async def accounts(endpoint: TokenEndpoint, **changes: Any) -> AsyncIterator[OauthAccounts]:
    settings = AccountSettings(
        authorization_endpoint="https://code.example/authorize", token_endpoint=endpoint.url, client_id="c",
        client_secret="env:S", **changes,
    )  # fmt: skip
    fetcher = IssuerFetcher(seconds=4)
    try:
        yield OauthAccounts(
            "code", settings, fetcher, redirect_uri="https://g.example/connect/back", secret="s",
            meant=Meant.of(settings, gateway=RESOURCE),
        )  # fmt: skip
    finally:
        await fetcher.aclose()


BACK = Redirected(code="code", iss="", error="")


@pytest.mark.parametrize("claims", UNFIT)
async def test_an_account_whose_token_is_not_for_the_upstream_is_not_connected_and_not_renewed(
    claims: dict[str, Any],
) -> None:
    with TokenEndpoint().serving() as endpoint:
        gives(endpoint, **claims)
        async with accounts(endpoint, parameters={"resource": API}) as code:
            with pytest.raises(LoginFailed, match="the token that was given for it"):
                await code.redeemed(BACK, verifier="v" * 43, now=NOW)
            with pytest.raises(AuthorizationFailed) as caught:
                await code.renewed(Account(access="a", refresh="r"), now=NOW)
            assert caught.value.code == "upstream_token_unfit"


async def test_an_account_whose_upstream_was_asked_for_no_resource_has_its_token_compared_with_the_gateway_alone() -> (
    None
):
    with TokenEndpoint().serving() as endpoint:
        async with accounts(endpoint) as code:
            token = gives(endpoint, aud="https://whoever.example")
            assert (await code.redeemed(BACK, verifier="v" * 43, now=NOW)).access == token
            gives(endpoint, aud=RESOURCE)
            with pytest.raises(LoginFailed, match="this gateway"):
                await code.redeemed(BACK, verifier="v" * 43, now=NOW)


@pytest.mark.parametrize(("life", "until"), [(None, NOW + 90), (3600, NOW + 90), (60, NOW + 60)])
async def test_an_accounts_token_is_renewed_before_it_says_itself_that_it_ends(life: int | None, until: int) -> None:
    with TokenEndpoint().serving() as endpoint:
        token = jwt_of(exp=NOW + 90)
        endpoint.answer = lambda form: good(form, access_token=token, expires_in=life)
        async with accounts(endpoint) as code:
            assert (await code.redeemed(BACK, verifier="v" * 43, now=NOW)).until == until
