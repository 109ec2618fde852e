"""What an issuer gives for a person's token is judged, kept for its login alone, and given up in time."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doors.exchanging import BASIC, call_of, house, rule_for
from exchange_house import good
from identify.minting import NOW, RESOURCE
from onbehalf.config import IssuerSettings
from onbehalf.doors import issuer_exchange
from onbehalf.doors.issuer_exchange import IssuerExchange
from onbehalf.doors.upstream_authorization import AuthorizationFailed
from onbehalf.doors.upstream_exchange import Exchanger
from onbehalf.model import Caller, Evidence, Json, Presented, ToolCall, UnixTime, digest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- what comes back ----------------------------------------------------------------------------


async def test_the_same_token_come_back_in_any_spelling_is_refused() -> None:
    async with house() as made:
        token = made.issuer.token()
        signed, _, signature = token.rpartition(".")
        other = signature[:-1] + ("A" if signature[-1] != "A" else "B")
        for back in (token, f"{signed}.{other}", f"x{token}", f"{token}="):
            made.endpoint.answer = lambda form, back=back: good(form, access_token=back)
            assert "gave back the token" in str(await made.fails(token))
        made.endpoint.answer = lambda form: good(form, access_token=form["subject_token"])
        assert "gave back the token" in str(await made.fails(made.issuer.token(jti="2")))


@pytest.mark.parametrize(
    "changes",
    [
        {"token_type": "N_A"}, {"scope": "read admin"}, {"issued_token_type": None}, {"access_token": "a\tb"},
        {"issued_token_type": "urn:ietf:params:oauth:token-type:refresh_token"}, {"expires_in": "later"},
    ],
)  # fmt: skip
async def test_an_answer_that_is_not_what_was_asked_for_is_refused_and_not_kept(changes: dict[str, Any]) -> None:
    async with house(scope="read") as made:
        made.endpoint.answer = lambda form: good(form, **changes)
        token = made.issuer.token()
        assert (await made.fails(token)).code == "upstream_login_failed"
        made.endpoint.answer = good
        assert await made.bearer(token)


@pytest.mark.parametrize(
    "said", [b"{" * 70_000, b'{"access_token": "' + b"a" * 70_000 + b'"}', b"", b"[]", b"\xff", b'{"a":1,"a":2}']
)
@pytest.mark.parametrize("status", [200, 400])
async def test_a_huge_or_broken_answer_is_refused(said: bytes, status: int) -> None:
    async with house() as made:
        made.endpoint.answer = lambda _: (status, said)
        assert (await made.fails(made.issuer.token())).code == "upstream_login_failed"


async def test_a_slow_answer_is_not_waited_for() -> None:
    async with house(seconds=0.3) as made:
        token = made.issuer.token()
        await made.call(token)
        made.endpoint.pause = 2
        async with asyncio.timeout(1.5):
            assert "within 0.3 s" in str(await made.fails(token))


async def test_a_refresh_token_in_the_answer_is_dropped() -> None:
    async with house() as made:
        made.endpoint.answer = lambda form: good(form, refresh_token="kept by nobody", expires_in=60)
        token = made.issuer.token()
        for _ in range(2):
            await made.bearer(token)
            made.hands.at += 61
        assert len(made.endpoint.forms) == 2
        assert all(form["grant_type"].endswith(":token-exchange") for form in made.endpoint.forms)
        assert "kept by nobody" not in json.dumps(made.endpoint.forms)


@pytest.mark.parametrize("status", [400, 401])
async def test_an_error_that_wants_a_login_says_so_and_others_do_not(status: int) -> None:
    async with house() as made:
        said = {"error": "interaction_required", "error_description": "AADSTS50076", "claims": '{"access_token": {}}'}
        made.endpoint.answer = lambda _: (status, said)
        error = await made.fails(made.issuer.token())
        assert error.code == "login_needed"
        assert "AADSTS" not in str(error)
        made.endpoint.answer = lambda _: (status, {"error": "invalid_target"})
        error = await made.fails(made.issuer.token())
        assert (error.code, "invalid_target" in str(error)) == ("upstream_login_failed", True)
        assert len(made.endpoint.forms) == 2  # neither is asked twice by itself


# --- how long it is kept ------------------------------------------------------------------------


async def test_what_was_given_is_used_until_shortly_before_it_ends_and_not_beyond_the_login() -> None:
    async with house() as made:
        token = made.issuer.token()
        call = await made.call(token)
        for wait, asked_so_far in ((0, 1), (269, 1), (1, 2)):
            made.hands.at += wait
            await made.exchanger.bearer(call)
            assert len(made.endpoint.forms) == asked_so_far
        made.endpoint.answer = lambda form: good(form, expires_in=86_400)
        short = await made.call(made.issuer.token(exp=NOW + 50))
        await made.exchanger.bearer(short)
        made.hands.at += 49
        await made.exchanger.bearer(short)
        assert len(made.endpoint.forms) == 3
        made.hands.at += 1
        made.clock[0] = NOW + 50
        with pytest.raises(AuthorizationFailed):
            await made.exchanger.bearer(short)
        assert len(made.endpoint.forms) == 3


async def test_with_all_proofs_all_tokens_and_what_was_had_for_them_are_given_up() -> None:
    async with house() as made:
        token = made.issuer.token()
        call = await made.call(token)
        first = await made.exchanger.bearer(call)
        made.callers.revoke_all()
        with pytest.raises(AuthorizationFailed) as caught:
            await made.exchanger.bearer(call)
        assert caught.value.code == "upstream_login_failed"
        assert len(made.endpoint.forms) == 1
        made.endpoint.answer = lambda form: good(form, access_token="another")
        assert await made.bearer(token) == "another" != first


async def test_what_comes_while_all_is_given_up_is_not_kept() -> None:
    async with house() as made:
        token = made.issuer.token()
        call = await made.call(token)
        made.endpoint.pause = 0.4
        under_way = asyncio.create_task(made.exchanger.bearer(call))
        while not made.endpoint.forms:
            await asyncio.sleep(0.01)
        made.callers.revoke_all()
        await under_way
        made.endpoint.pause = 0
        await made.bearer(token)
        assert len(made.endpoint.forms) == 2


async def test_of_calls_of_one_login_at_the_same_time_one_asks() -> None:
    async with house() as made:
        call, other = [await made.call(made.issuer.token(jti=jti)) for jti in "ab"]
        made.endpoint.pause = 0.2
        had = await asyncio.gather(*(made.exchanger.bearer(each) for each in (call, call, other, call, other)))
        assert len(made.endpoint.forms) == len(set(had)) == 2
        assert (had[0], had[2]) == (had[1], had[4])
        assert not made.exchanger._locks


async def test_calls_that_waited_get_an_answer_of_their_own_where_the_first_got_none() -> None:
    async with house() as made:
        call = await made.call(made.issuer.token())
        answers = [(400, {"error": "temporarily_unavailable"}), (200, good({}))]
        made.endpoint.pause, made.endpoint.answer = 0.1, lambda _: answers.pop(0)
        one, two = await asyncio.gather(*(made.exchanger.bearer(call) for _ in "12"), return_exceptions=True)
        assert isinstance(one, AuthorizationFailed)
        assert isinstance(two, str)


async def test_what_a_waiting_call_finds_after_all_was_given_up_is_not_used() -> None:
    async with house() as made:
        call = await made.call(made.issuer.token())
        made.endpoint.pause = 0.3
        first, second = (asyncio.create_task(made.exchanger.bearer(call)) for _ in "12")
        while not made.endpoint.forms:
            await asyncio.sleep(0.01)
        made.callers.revoke_all()
        assert await first
        with pytest.raises(AuthorizationFailed):
            await second
        assert len(made.endpoint.forms) == 1


async def test_a_login_that_was_pushed_out_is_held_again_with_its_next_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer_exchange, "_HELD", 3)
    async with house() as made:
        tokens = [made.issuer.token(jti=str(number)) for number in range(5)]
        calls = [await made.call(token) for token in tokens]
        with pytest.raises(AuthorizationFailed):
            await made.exchanger.bearer(calls[0])
        assert made.endpoint.forms == []
        assert await made.bearer(tokens[0])
        assert len(made.held._held) == 3


async def test_a_token_had_anew_is_worth_a_second_try_once() -> None:
    async with house() as made:
        call = await made.call(made.issuer.token())
        await made.exchanger.bearer(call)
        assert await made.exchanger.refused(call) is False  # it was fresh, so another would fare no better
        await made.exchanger.bearer(call)
        await made.exchanger.bearer(call)
        assert await made.exchanger.refused(call) is True
        assert await made.exchanger.refused(call) is False


async def test_what_is_over_is_not_held_on_to() -> None:
    async with house() as made:
        for number in range(5):
            await made.call(made.issuer.token(jti=str(number), exp=NOW + 10))
        made.clock[0] = NOW + 100
        await made.call(made.issuer.token())
        assert len(made.held._held) == 1


# --- whose it is --------------------------------------------------------------------------------


class Mirror:
    """In place of the network: an issuer that answers with whose token it was sent, and for the how manieth time."""

    def __init__(self) -> None:
        self.times = 0

    def check(self, rule: IssuerSettings) -> None:
        pass

    async def metadata(self, rule: IssuerSettings, *names: str) -> Mapping[str, Json]:
        return {"token_endpoint": f"{rule.issuer}/token"}

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Mapping[str, Json]:
        self.times += 1
        number = self.times
        await asyncio.sleep(0)
        sent = json.loads(base64.urlsafe_b64decode(form["subject_token"].split(".")[1] + "=="))
        mine = [url.removesuffix("/token"), sent["sub"], sent["client_id"], sent["jti"]]
        assert sent["iss"] == mine[0]
        return dict(good(form, access_token=f"{json.dumps(mine)}{number}".replace(" ", "")))


def unsigned(issuer: str, person: str, client: str, jti: str) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    header = {"alg": "ES256", "kid": "k", "typ": "at+jwt"}
    claims = {"iss": issuer, "sub": person, "client_id": client, "jti": jti}
    return f"{part(header)}.{part(claims)}.{part('signature')}"


ISSUERS = ("https://one.example", "https://two.example")
WHO = st.tuples(
    st.sampled_from(ISSUERS), st.sampled_from("ab"), st.sampled_from("pq"), st.sampled_from("12"), st.sampled_from("tu")
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.lists(WHO, min_size=1, max_size=4)),
        st.tuples(st.just("refuse"), st.lists(WHO, min_size=1, max_size=1)),
        st.tuples(st.just("forget"), st.just([])),
    ),
    max_size=12,
)


@given(steps=STEPS)
@settings(max_examples=150, deadline=None)
def test_nobody_ever_gets_what_was_given_for_another(steps: list[tuple[str, list[Any]]]) -> None:
    """Persons of one name at two issuers, in two tenants, through two clients, in two logins; at the same time."""

    async def walked() -> None:
        mirror: Any = Mirror()
        rules = [IssuerSettings(issuer=issuer, tenant="t") for issuer in ISSUERS]
        held = IssuerExchange(rules, mirror, clock=lambda: UnixTime(NOW))
        doors = {
            issuer: Exchanger(rule_for(issuer), held, BASIC, gateway=RESOURCE, clock=lambda: UnixTime(NOW))
            for issuer in ISSUERS
        }

        def call_for(issuer: str, person: str, client: str, jti: str, tenant: str) -> ToolCall:
            token = unsigned(issuer, person, client, jti)
            evidence = Evidence(
                issuer=issuer, key="k", algorithm="ES256", token=digest(token.encode()), issued_at=UnixTime(NOW),
                expires_at=UnixTime(NOW + 900),
            )  # fmt: skip
            caller = Caller(
                subject=person, tenant=tenant, client=client, actors=(), scopes=frozenset(), evidence=evidence
            )
            held.keep(caller, Presented(token=token))
            return call_of(caller)

        async def one(who: tuple[str, str, str, str, str]) -> None:
            given = await doors[who[0]].bearer(call_for(*who))
            assert given.startswith(json.dumps(who[:4]).replace(" ", "")), (given, who)
            assert kept.setdefault(given, who) == who

        kept: dict[str, Any] = {}
        for kind, people in steps:
            if kind == "call":
                await asyncio.gather(*map(one, people))
            elif kind == "refuse":
                await doors[people[0][0]].refused(call_for(*people[0]))
            else:
                held.forget_all()

    asyncio.run(walked())
