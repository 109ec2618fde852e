"""The door to issuers, against a real HTTP issuer: what it fetches, keeps, believes and stops believing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from doors.issuer_house import KEYS, METADATA, OPENID, Hands, Issuer, callers_of, issuing, prove
from identify.minting import NOW, RESOURCE, claims, jwks, key_for, mint, public
from onbehalf.config import IssuerSettings, TenantClaim
from onbehalf.doors import issuer_http
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.errors import (
    AlgorithmRefused,
    ConfigInvalid,
    IssuerUnavailable,
    SignatureMismatch,
    TenantRefused,
    TokenExpired,
    TokenTooLarge,
    UnknownIssuer,
    UnknownKey,
    WrongAudience,
)

Check = Callable[[Issuer, IssuerCallers, Hands], Awaitable[None]]


def with_issuer(check: Check, *, path: str = "", **rule: Any) -> None:
    async def run(issuer: Issuer) -> None:
        hands = Hands()
        async with callers_of(issuer.rule(**rule), hands=hands) as callers:
            await check(issuer, callers, hands)

    with issuing(path) as issuer:
        asyncio.run(run(issuer))


async def settled(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not done():
            await asyncio.sleep(0.005)


# --- proving ---------------------------------------------------------------------------------


def test_a_caller_is_proven_and_the_second_time_without_any_fetch_or_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        caller = await prove(callers, token := issuer.token())
        assert (caller.subject, caller.tenant, caller.evidence.issuer) == ("alice", "acme", issuer.url)
        monkeypatch.setattr(issuer_http, "verify", None)
        assert await prove(callers, token) is caller
        assert issuer.asked == {METADATA: 1, KEYS: 1}

    with_issuer(check)


def test_a_bad_token_is_refused_each_time_and_leaves_nothing_behind() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        other = mint(claims(iss=issuer.url), key=key_for("ES256", "attacker"))
        for _ in range(2):
            with pytest.raises(SignatureMismatch):
                await prove(callers, other)
            with pytest.raises(WrongAudience):
                await prove(callers, issuer.token(aud="https://other.example"))
            with pytest.raises(TokenTooLarge):
                await prove(callers, "\udc80" * 20_000)
        assert not callers._kept

    with_issuer(check)


def test_a_token_of_an_unknown_issuer_or_algorithm_is_refused_without_a_fetch() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        with pytest.raises(UnknownIssuer):
            await prove(callers, mint(claims(iss="https://login.globex.example")))
        with pytest.raises(UnknownIssuer):
            await prove(callers, mint(claims(iss=issuer.url + "/")))
        with pytest.raises(AlgorithmRefused):
            await prove(callers, mint(claims(iss=issuer.url), algorithm="RS256"))
        assert not issuer.asked

    with_issuer(check, algorithms=("ES256",))


def test_one_issuer_cannot_speak_for_another_or_for_its_tenant() -> None:
    async def run(one: Issuer, two: Issuer) -> None:
        one.publish("one")
        two.publish("two")
        tenants = TenantClaim(claim="org", allowed=("globex",))
        async with callers_of(one.rule(), two.rule(tenant=tenants), hands=Hands()) as callers:
            assert (await prove(callers, one.token("one", org="globex"))).tenant == "acme"
            assert (await prove(callers, two.token("two", org="globex"))).tenant == "globex"
            with pytest.raises(TenantRefused):
                await prove(callers, two.token("two", org="acme"))
            with pytest.raises(UnknownKey):  # signed by two, in the name of one
                await prove(callers, mint(claims(iss=one.url), key=key_for("ES256", "two"), kid="two"))
            with pytest.raises(SignatureMismatch):
                await prove(callers, mint(claims(iss=one.url), key=key_for("ES256", "two"), kid="one"))

    with issuing() as one, issuing() as two:
        asyncio.run(run(one, two))


def test_a_kept_token_is_refused_30_s_after_it_expired() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        token = issuer.token(exp=NOW + 10)
        for now in (NOW, NOW + 39):
            await prove(callers, token, now)
        for _ in range(2):
            with pytest.raises(TokenExpired):
                await prove(callers, token, NOW + 40)
        assert not callers._kept

    with_issuer(check)


def test_no_more_than_a_bound_of_tokens_is_kept_and_the_longest_unused_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(issuer_http, "_KEPT", 2)

    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        first, second, third = (issuer.token(jti=str(n)) for n in range(3))
        kept = await prove(callers, first)
        gone = await prove(callers, second)
        assert await prove(callers, first) is kept
        await prove(callers, third)
        assert len(callers._kept) == 2
        assert await prove(callers, first) is kept
        assert await prove(callers, second) is not gone

    with_issuer(check)


def test_after_revoke_all_every_token_is_proven_anew() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        before = await prove(callers, token := issuer.token())
        callers.revoke_all()
        after = await prove(callers, token)
        assert after == before
        assert after is not before

    with_issuer(check)


def test_a_proof_under_way_during_revoke_all_is_not_kept() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.pause = 0.1
        proof = asyncio.create_task(prove(callers, issuer.token()))
        await settled(lambda: issuer.asked.total() > 0)
        callers.revoke_all()
        await proof
        assert not callers._kept

    with_issuer(check)


# --- keys that change ------------------------------------------------------------------------


def test_a_new_key_is_found_by_its_unknown_id_and_the_old_one_stays() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        kept = await prove(callers, old := issuer.token())
        issuer.publish("ES256", "next")
        await prove(callers, issuer.token("next"))
        assert await prove(callers, old) is kept
        assert issuer.asked[KEYS] == 2

    with_issuer(check)


def test_unknown_key_ids_cause_one_fetch_in_30_s() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        await callers.warm()
        for expected in (2, 3):
            for n in range(20):
                with pytest.raises(UnknownKey):
                    await prove(callers, mint(claims(iss=issuer.url), kid=f"made-up-{n}"))
            hands.at += 29.9
            with pytest.raises(UnknownKey):
                await prove(callers, mint(claims(iss=issuer.url), kid="made-up"))
            assert issuer.asked[KEYS] == expected
            hands.at += 0.1

    with_issuer(check)


def test_a_hundred_unknown_key_ids_at_once_cause_one_fetch() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        await callers.warm()
        issuer.pause = 0.05
        tokens = [mint(claims(iss=issuer.url), kid=f"made-up-{n}") for n in range(100)]
        refused = await asyncio.gather(*(prove(callers, token) for token in tokens), return_exceptions=True)
        assert {type(each) for each in refused} == {UnknownKey}
        assert issuer.asked[KEYS] == 2

    with_issuer(check)


def test_a_hundred_first_calls_at_once_cause_one_fetch_though_the_first_caller_leaves() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.pause = 0.05
        first = asyncio.create_task(prove(callers, issuer.token()))
        rest = [asyncio.create_task(prove(callers, issuer.token(jti=str(n)))) for n in range(100)]
        await settled(lambda: issuer.asked.total() > 0)
        first.cancel()
        await asyncio.gather(*rest)
        assert issuer.asked == {METADATA: 1, KEYS: 1}

    with_issuer(check)


def test_keys_are_fetched_again_after_four_minutes_without_holding_up_a_call() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        kept = await prove(callers, token := issuer.token())
        hands.at += 239
        await prove(callers, token)
        assert issuer.asked[KEYS] == 1
        hands.at += 1
        assert await prove(callers, token) is kept
        await settled(lambda: issuer.asked[KEYS] == 2)

    with_issuer(check)


def test_a_kept_token_is_refused_once_its_key_is_withdrawn() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        await prove(callers, old := issuer.token())
        issuer.publish("next")
        await prove(callers, issuer.token("next"))
        with pytest.raises(UnknownKey):
            await prove(callers, old)

    with_issuer(check)


def test_a_kept_token_is_refused_once_another_key_has_its_key_s_id() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        await prove(callers, old := issuer.token())
        issuer.answers[KEYS] = (200, {}, jwks(public("ES256", "other", kid="ES256")))
        await callers.warm()
        with pytest.raises(SignatureMismatch):
            await prove(callers, old)

    with_issuer(check)


def test_a_withdrawn_key_is_not_believed_because_nobody_called_for_long() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        await prove(callers, old := issuer.token())
        issuer.publish("next")
        issuer.pause = 0.05
        hands.at += 1800
        refused = await asyncio.gather(*(prove(callers, old) for _ in range(5)), return_exceptions=True)
        assert {type(each) for each in refused} == {UnknownKey}

    with_issuer(check)


def test_an_issuer_that_withdraws_all_its_keys_is_believed_nothing_more() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        await prove(callers, old := issuer.token())
        issuer.publish()
        await callers.warm()
        with pytest.raises(IssuerUnavailable):
            await prove(callers, old)
        assert "no key that can be used" in callers.problems()[0]

    with_issuer(check)


# --- outages ---------------------------------------------------------------------------------


def test_keys_are_kept_through_an_outage_and_not_longer_than_its_bound() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        kept = await prove(callers, token := issuer.token())
        good = dict(issuer.answers)
        issuer.answers.clear()
        hands.at += 240 + 599
        assert await prove(callers, token) is kept
        assert (await prove(callers, issuer.token(sub="bob"))).subject == "bob"
        assert not callers.problems()
        hands.at += 1
        assert "404" in callers.problems()[0]
        for each in (token, issuer.token(sub="carol")):
            with pytest.raises(IssuerUnavailable):
                await prove(callers, each)
        issuer.answers.update(good)
        hands.at += 30
        assert await prove(callers, token) is kept
        assert not callers.problems()

    with_issuer(check, outage_seconds=600)


def test_in_an_outage_the_issuer_is_asked_once_in_30_s() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        await prove(callers, token := issuer.token())
        issuer.answers.clear()
        hands.at += 300
        for _ in range(10):
            await prove(callers, token)
            hands.at += 2.9
        assert issuer.asked[METADATA] == 2
        hands.at += 1
        await prove(callers, token)
        await settled(lambda: issuer.asked[METADATA] == 3)

    with_issuer(check)


def test_without_any_keys_a_token_is_refused_as_the_issuer_s_fault_and_the_issuer_asked_once_in_5_s() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.answers.clear()
        await callers.warm()
        for _ in range(10):
            with pytest.raises(IssuerUnavailable) as refused:
                await prove(callers, issuer.token())
        assert refused.value.status == 503
        assert issuer.asked[METADATA] == 1
        hands.at += 5
        with pytest.raises(IssuerUnavailable):
            await prove(callers, issuer.token())
        assert issuer.asked[METADATA] == 2

    with_issuer(check)


def test_problems_name_each_issuer_without_keys_and_start_to_mend_them() -> None:
    async def run(issuer: Issuer) -> None:
        down = IssuerSettings(issuer="http://127.0.0.1:9", tenant="globex")
        async with callers_of(issuer.rule(), down, hands=Hands()) as callers:
            assert len(callers.problems()) == 2
            await settled(lambda: len(callers.problems()) == 1)
            await callers.warm()
            assert "http://127.0.0.1:9" in callers.problems()[0]
            assert "cannot be reached" in callers.problems()[0]

    with issuing() as issuer:
        asyncio.run(run(issuer))


def test_problems_can_be_asked_without_an_event_loop() -> None:
    callers = IssuerCallers([IssuerSettings(issuer="https://a.example", tenant="a")], resource=RESOURCE)
    assert len(callers.problems()) == 1


# --- discovery -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [f"{METADATA}/tenant/one", f"/tenant/one{OPENID}"])
def test_metadata_is_found_before_and_after_the_issuer_s_path(where: str) -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.answers[where] = issuer.answers.pop(f"{METADATA}/tenant/one")
        assert (await prove(callers, issuer.token())).subject == "alice"

    with_issuer(check, path="/tenant/one")


def test_configured_metadata_is_the_only_one_asked_for() -> None:
    async def run(issuer: Issuer) -> None:
        issuer.json("/elsewhere", {"issuer": issuer.url, "jwks_uri": issuer.url + KEYS})
        async with callers_of(issuer.rule(metadata=f"{issuer.url}/elsewhere"), hands=Hands()) as callers:
            await prove(callers, issuer.token())
        assert issuer.asked == {"/elsewhere": 1, KEYS: 1}

    with issuing() as issuer:
        asyncio.run(run(issuer))


@pytest.mark.parametrize("url", ["http://login.example", "http://127.0.0.1.login.example", "https://u:p@a.example"])
def test_an_issuer_or_metadata_without_https_is_no_configuration(url: str) -> None:
    for rule in (
        IssuerSettings(issuer=url, tenant="a"),
        IssuerSettings(issuer="https://a.example", tenant="a", metadata=url),
    ):
        with pytest.raises(ConfigInvalid):
            IssuerCallers([rule], resource=RESOURCE)
    IssuerCallers([IssuerSettings(issuer="http://login.example", tenant="a")], resource=RESOURCE, insecure_http=True)


def test_an_issuer_twice_or_a_tenant_that_is_no_name_is_no_configuration() -> None:
    rule = IssuerSettings(issuer="https://a.example", tenant="a")
    for rules in ([rule, rule], [IssuerSettings(issuer="https://a.example", tenant="a/b")]):
        with pytest.raises(ConfigInvalid):
            IssuerCallers(rules, resource=RESOURCE)
