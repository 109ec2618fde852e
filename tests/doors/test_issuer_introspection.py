"""The door that asks issuers about tokens, against a real HTTP issuer: what it asks whom, believes, keeps and ends."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from msgspec import UNSET

from doors.issuer_house import Hands, Issuer, callers_of, issuing, prove
from identify.minting import NOW, RESOURCE, claims, key_for, mint
from onbehalf.config import IntrospectionSettings, TenantClaim
from onbehalf.doors import issuer_introspection
from onbehalf.doors.issuer_client import ClientKey, TokenClient
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.doors.issuer_introspection import introspection_clients
from onbehalf.errors import (
    AnswerRefused,
    ClaimRefused,
    ConfigInvalid,
    IdentifyError,
    IssuerUnavailable,
    SignatureMismatch,
    TenantRefused,
    TokenExpired,
    TokenInactive,
    TokenMalformed,
    TokenTooLarge,
    UnknownIssuer,
    WrongAudience,
    WrongType,
)

CLIENT, SECRET = "gateway: one", "a secret & more: 100% ä"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
OWN = TokenClient(id=CLIENT, secret=SECRET)
JSON = {"content-type": "application/json"}
Answer = tuple[int, dict[str, str], bytes]
Check = Callable[[Issuer, IssuerCallers, Hands], Awaitable[None]]


def settings(issuer: Issuer, **changes: Any) -> IntrospectionSettings:
    good = {"endpoint": f"{issuer.url}/introspect", "client_id": CLIENT, "client_secret": "env:X"}
    return IntrospectionSettings(**{**good, **changes})


def plain(issuer: Issuer, **changes: Any) -> Answer:
    return 200, JSON, json.dumps(claims(**{"active": True, "iss": issuer.url, **changes})).encode()


def signed(issuer: Issuer, *, told: dict[str, Any] | None = None, key: str = "ES256", **changes: Any) -> Answer:
    inner = claims(active=True, iss=issuer.url) if told is None else told
    body = {"iss": issuer.url, "aud": CLIENT, "iat": NOW, "token_introspection": inner, **changes}
    text = mint(body, key=key_for("ES256", key), typ="token-introspection+jwt")
    return 200, {"content-type": "application/token-introspection+jwt"}, text.encode()


def asking(
    check: Check, *, rule: dict[str, Any] | None = None, client: TokenClient = OWN, **changes: Any
) -> None:  # fmt: skip
    """`check` with the door to one issuer that says of every token that it is alice's."""

    async def run(issuer: Issuer) -> None:
        hands = Hands()
        made = issuer.rule(introspection=settings(issuer, **changes), **(rule or {}))
        async with callers_of(made, hands=hands, clients={issuer.url: client}) as callers:
            await check(issuer, callers, hands)

    with issuing() as issuer:
        issuer.about = lambda form: plain(issuer)
        asyncio.run(run(issuer))


async def refused(callers: IssuerCallers, token: str, error: type[IdentifyError]) -> IdentifyError:
    with pytest.raises(error) as caught:
        await prove(callers, token)
    assert token not in f"{caught.value!r} {caught.value.hint}"
    return caught.value


# --- asking ----------------------------------------------------------------------------------


def test_an_opaque_token_proves_its_caller_and_the_question_is_authenticated() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        caller = await prove(callers, "tok-1")
        assert (caller.subject, caller.tenant, caller.evidence.algorithm) == ("alice", "acme", "introspection")
        (form,) = issuer.forms
        assert (form["token"], form["token_type_hint"]) == ("tok-1", "access_token")
        assert form["content-type"] == "application/x-www-form-urlencoded"
        assert form["accept"] == "application/json"
        kind, _, pair = form["authorization"].partition(" ")
        id_, _, secret = base64.b64decode(pair).decode("ascii").partition(":")  # each part form-encoded
        assert (kind, unquote_plus(id_), unquote_plus(secret)) == ("Basic", CLIENT, SECRET)
        assert await prove(callers, "tok-1") is caller
        assert len(issuer.forms) == 1

    asking(check)


def test_the_question_is_authenticated_by_a_key_with_a_fresh_assertion_for_the_endpoint_alone() -> None:
    key = ECKey.generate_key("P-256", {"kid": "gateway-1"})
    client = TokenClient(id=CLIENT, key=ClientKey.read(json.dumps(key.as_dict(private=True)), what="client_key"))

    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        await prove(callers, "tok-1")
        await prove(callers, "tok-2")
        seen = set()
        for form in issuer.forms:
            assert "authorization" not in form
            assert (form["client_id"], form["client_assertion_type"]) == (CLIENT, ASSERTION_TYPE)
            told = jwt.decode(form["client_assertion"], key, algorithms=["ES256"])
            assert (told.header["kid"], told.claims["aud"]) == ("gateway-1", f"{issuer.url}/introspect")
            assert (told.claims["iss"], told.claims["sub"]) == (CLIENT, CLIENT)
            assert told.claims["exp"] - told.claims["iat"] == 60
            seen.add(told.claims["jti"])
        assert len(seen) == 2

    asking(check, client=client, client_secret=UNSET, client_key="env:X")


def test_a_signed_answer_is_believed_by_its_signature() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.about = lambda form: signed(issuer)
        evidence = (await prove(callers, "tok-1")).evidence
        assert (evidence.algorithm, evidence.key) == ("introspection", "ES256")
        assert issuer.forms[0]["accept"] == "application/token-introspection+jwt"

    asking(check, signed=True)


def test_a_jwt_of_such_an_issuer_is_proven_by_its_signature_and_nobody_is_asked() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        assert (await prove(callers, issuer.token())).evidence.algorithm == "ES256"
        await refused(callers, mint(claims(iss=issuer.url), key=key_for("ES256", "attacker")), SignatureMismatch)
        head, payload, _ = issuer.token().split(".")
        for broken in (f"{head}.{payload}", f"{head}.{payload}.", f"{head}.{payload}!.x", f"{head}.a.b.c.d"):
            await refused(callers, broken, TokenMalformed)
        assert not issuer.forms

    asking(check)


def test_asked_about_every_token_a_jwt_must_be_signed_by_the_issuer_and_active_there() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        slim = issuer.token(sub=None, aud=None, scope=None, client_id=None)  # says nothing but who signed it
        caller = await prove(callers, slim)
        assert (caller.subject, caller.evidence.algorithm) == ("alice", "introspection")
        assert await prove(callers, slim) is caller
        assert len(issuer.forms) == 1
        await refused(callers, mint(claims(iss=issuer.url), key=key_for("ES256", "attacker")), SignatureMismatch)
        id_token = mint(claims(iss=issuer.url), key=key_for("ES256", "ES256"), typ="JWT")
        await refused(callers, id_token, WrongType)
        assert len(issuer.forms) == 1, "what anybody can make up causes no question"
        issuer.about = lambda form: (200, JSON, b'{"active": false}')
        await refused(callers, issuer.token(jti="2"), TokenInactive)

    asking(check, asked="every")


def test_a_token_is_shown_to_the_one_issuer_whose_prefix_it_has_and_to_nobody_else() -> None:
    async def run(one: Issuer, two: Issuer) -> None:
        rules = [
            one.rule(introspection=settings(one, prefix="one_")),
            two.rule(tenant="globex", introspection=settings(two, prefix="two_")),
        ]
        async with callers_of(*rules, hands=Hands(), clients={one.url: OWN, two.url: OWN}) as callers:
            assert (await prove(callers, "one_abc")).tenant == "acme"
            assert (await prove(callers, "two_abc")).tenant == "globex"
            for stray in ("abc", "One_abc", "one-abc", "xone_abc", "three_abc"):
                await refused(callers, stray, UnknownIssuer)
        assert [form["token"] for form in one.forms] == ["one_abc"]
        assert [form["token"] for form in two.forms] == ["two_abc"]

    with issuing() as one, issuing() as two:
        one.about, two.about = (lambda form: plain(one)), (lambda form: plain(two))
        asyncio.run(run(one, two))


@pytest.mark.parametrize(("first", "second"), [("", ""), ("", "x_"), ("x_", "x_"), ("x", "x_"), ("x_y", "x_")])
def test_issuers_whose_tokens_cannot_be_told_apart_are_refused(first: str, second: str) -> None:
    with issuing() as one, issuing() as two:
        rules = [each.rule(introspection=settings(each, prefix=p)) for each, p in ((one, first), (two, second))]
        with pytest.raises(ConfigInvalid):
            IssuerCallers(rules, resource=RESOURCE, clients={one.url: OWN, two.url: OWN})


def test_without_a_secret_or_a_safe_address_no_such_door_is_opened(tmp_path: Path) -> None:
    with issuing() as issuer:
        rule = issuer.rule(introspection=settings(issuer))
        with pytest.raises(ConfigInvalid):
            IssuerCallers([rule], resource=RESOURCE)
        with pytest.raises(ConfigInvalid):
            introspection_clients([issuer.rule(introspection=settings(issuer, client_secret="file:no"))], base=tmp_path)
        (tmp_path / "it").write_text(f"{SECRET}\n")
        found = introspection_clients(
            [issuer.rule(introspection=settings(issuer, client_secret="file:it"))], base=tmp_path
        )
        assert found == {issuer.url: OWN}
        for endpoint in ("http://login.example/introspect", "https://u@login.example/i", "ftp://127.0.0.1/i"):
            rule = issuer.rule(introspection=settings(issuer, endpoint=endpoint))
            with pytest.raises(ConfigInvalid):
                IssuerCallers([rule], resource=RESOURCE, clients={issuer.url: OWN})


# --- answers that prove nobody ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"active": False}, TokenInactive),
        ({"aud": "https://other.example/mcp"}, WrongAudience),
        ({"aud": None}, ClaimRefused),
        ({"iss": "https://login.globex.example"}, UnknownIssuer),
        ({"exp": NOW - 60, "iat": NOW - 600}, TokenExpired),
        ({"exp": None}, ClaimRefused),
        ({"org": "globex"}, TenantRefused),
    ],
)
def test_an_answer_that_is_not_good_is_refused_and_not_asked_for_again_at_once(
    changes: dict[str, Any], error: type[IdentifyError]
) -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.about = lambda form: plain(issuer, **{"org": "acme", **changes})
        first = await refused(callers, "tok-1", error)
        again = await refused(callers, "tok-1", error)
        assert (again.message, again.hint, again.status) == (first.message, first.hint, 401)
        assert len(issuer.forms) == 1
        hands.at += 10
        await refused(callers, "tok-1", error)
        assert len(issuer.forms) == 2
        assert not callers.introspection._kept

    asking(check, rule={"tenant": TenantClaim(claim="org", allowed=("acme",))})


@pytest.mark.parametrize(
    "answer",
    [
        (200, JSON, b""),
        (200, JSON, b"{"),
        (200, JSON, b"[true]"),
        (200, JSON, b'{"active": true, "active": false}'),
        (200, JSON, b'{"active": "true"}'),
        (200, JSON, b"{}"),
        (200, JSON, b'{"active": false, "x": "' + b"x" * 70_000 + b'"}'),
        (200, {"content-type": "text/html"}, b'{"active": true}'),
        (200, {"content-type": ""}, b'{"active": true}'),
        (200, {**JSON, "content-encoding": "gzip"}, b'{"active": true}'),
        (201, JSON, b'{"active": true}'),
        (204, JSON, b""),
        (400, JSON, b'{"error": "invalid_request"}'),
        (401, JSON, b'{"error": "invalid_client"}'),
        (403, JSON, b'{"active": true}'),
        (500, JSON, b'{"active": true}'),
        (200, {"content-type": "application/token-introspection+jwt"}, b"a.b.c"),
        (200, {"content-type": "application/token-introspection+jwt"}, b"\xff\xff"),
    ],
)
def test_what_is_no_answer_is_a_503_that_the_next_call_tries_again(answer: Answer) -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        good = issuer.about
        issuer.about = lambda form: answer
        error = await refused(callers, "tok-1", IssuerUnavailable)
        assert error.status == 503
        issuer.about = good
        assert (await prove(callers, "tok-1")).subject == "alice"

    asking(check)


def test_a_redirect_is_not_followed_wherever_it_leads() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        good = issuer.about
        assert good is not None
        answered = iter([301, 302, 303, 307, 308])
        issuer.about = lambda form: (next(answered), {"location": f"{issuer.url}/elsewhere"}, good(form)[2])
        for number in range(5):
            await refused(callers, f"tok-{number}", IssuerUnavailable)
        assert issuer.asked["/elsewhere"] == 0

    asking(check)


def test_an_issuer_that_is_slow_or_away_denies_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(issuer_introspection, "_SECONDS", 0.2)

    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.pause = 1.0
        with caplog.at_level(logging.WARNING):
            for number in range(3):
                began = time.monotonic()
                assert (await refused(callers, f"slow-{number}", IssuerUnavailable)).status == 503
                assert time.monotonic() - began < 0.9
        assert len(caplog.records) == 1
        assert "slow-" not in caplog.text
        assert SECRET not in caplog.text
        assert not callers.problems(), "else a gateway that is sent no calls for it would stay so"

    asking(check)


@pytest.mark.parametrize(
    "flaw",
    [
        lambda issuer: plain(issuer),
        lambda issuer: signed(issuer, aud="another"),
        lambda issuer: signed(issuer, iat=NOW - 600),
        lambda issuer: signed(issuer, iss="https://login.globex.example"),
        lambda issuer: signed(issuer, key="attacker"),
        lambda issuer: signed(issuer, told={"sub": "alice"}),
        lambda issuer: (*signed(issuer)[:2], issuer.token(aud=CLIENT).encode()),
        lambda issuer: (200, JSON, signed(issuer)[2]),
        lambda issuer: (200, {"content-type": "application/jwt"}, signed(issuer)[2]),
    ],
)
def test_where_answers_must_be_signed_nothing_else_is_one(flaw: Callable[[Issuer], Answer]) -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.about = lambda form: flaw(issuer)
        assert (await refused(callers, "tok-1", AnswerRefused)).status == 503
        issuer.about = lambda form: signed(issuer)
        assert (await prove(callers, "tok-1")).subject == "alice"

    asking(check, signed=True)


def test_without_the_issuers_keys_no_signed_answer_is_believed_and_the_gateway_is_not_ready() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.answers.clear()
        issuer.about = lambda form: signed(issuer)
        await refused(callers, "tok-1", IssuerUnavailable)
        assert callers.problems()

    asking(check, signed=True)


def test_an_issuer_of_opaque_tokens_alone_needs_no_keys() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.answers.clear()
        await callers.warm()
        assert not callers.problems()
        assert callers.keyless()
        assert await prove(callers, "tok-1")

    asking(check)


@pytest.mark.parametrize("text", ["a b", "a\x00b", "tok\udc80", "tök", "a" * 4097, "=", '{"a":1}'])
def test_what_no_token_looks_like_is_not_asked_about(text: str) -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        with pytest.raises((TokenMalformed, TokenTooLarge)):
            await prove(callers, text)
        assert not issuer.forms

    asking(check)


# --- how long and how often ------------------------------------------------------------------


def test_an_answer_is_kept_for_its_seconds_and_not_one_more_whatever_happens() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        await prove(callers, "tok-1")
        issuer.about = lambda form: (200, JSON, b'{"active": false}')
        hands.at += 19.9
        assert await prove(callers, "tok-1")
        hands.at += 0.1
        await refused(callers, "tok-1", TokenInactive)
        issuer.about = lambda form: plain(issuer)
        hands.at += 10
        await prove(callers, "tok-1")
        issuer.about = None  # 404 from here on: an issuer that cannot be asked is no reason to believe longer
        hands.at += 20
        for _ in range(2):
            await refused(callers, "tok-1", IssuerUnavailable)

    asking(check, kept_seconds=20)


def test_an_answer_is_not_kept_beyond_the_tokens_own_end() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.about = lambda form: plain(issuer, exp=NOW + 5)
        await prove(callers, "tok-1")
        await prove(callers, "tok-1", NOW + 4)
        assert len(issuer.forms) == 1
        await prove(callers, "tok-1", NOW + 5)  # within the tolerance, and the issuer still says active
        assert len(issuer.forms) == 2
        with pytest.raises(TokenExpired):
            await prove(callers, "tok-1", NOW + 35)

    asking(check)


def test_nothing_is_kept_where_it_is_to_be_asked_each_time() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        for _ in range(3):
            await prove(callers, "tok-1")
        assert len(issuer.forms) == 3

    asking(check, kept_seconds=0)


def test_revocation_ends_what_is_kept_and_what_is_under_way() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        await prove(callers, "tok-1")
        callers.revoke_all()
        await prove(callers, "tok-1")
        assert len(issuer.forms) == 2
        issuer.pause = 0.3
        under_way = asyncio.create_task(prove(callers, "tok-2"))
        while len(issuer.forms) < 3:
            await asyncio.sleep(0.01)
        callers.revoke_all()
        await asyncio.gather(under_way, prove(callers, "tok-2"))
        assert len(issuer.forms) == 4, "who comes after the revocation does not get an answer from before it"
        issuer.pause = 0
        await prove(callers, "tok-2")
        assert len(issuer.forms) == 4

    asking(check)


def test_many_calls_with_one_token_are_one_question_and_one_who_goes_away_ends_it_for_nobody() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.pause = 0.2
        first = asyncio.create_task(prove(callers, "tok-1"))
        others = [asyncio.create_task(prove(callers, "tok-1")) for _ in range(20)]
        await asyncio.sleep(0.05)
        first.cancel()
        assert {each.subject for each in await asyncio.gather(*others)} == {"alice"}
        assert len(issuer.forms) == 1
        assert not callers.introspection._flights
        assert not callers.introspection._tasks

    asking(check)


def test_made_up_tokens_wait_for_each_other_and_a_known_one_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer_introspection, "_AT_ONCE", 2)

    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        await prove(callers, "known")
        hands.at += 30
        issuer.about = lambda form: plain(issuer, active=form["token"] == "known")
        issuer.pause = 0.2
        junk = [asyncio.create_task(refused(callers, f"junk-{n}", TokenInactive)) for n in range(6)]
        await asyncio.sleep(0.05)
        assert len(issuer.forms) == 3  # the first, and two at once
        await prove(callers, "known")
        assert sum(each.done() for each in junk) <= 4
        await asyncio.gather(*junk)

    asking(check)


def test_no_more_than_a_bound_of_tokens_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer_introspection, "_KEPT", 3)

    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.about = lambda form: plain(issuer, active=form["token"].startswith("good"))
        for number in range(5):
            await prove(callers, f"good-{number}")
            await refused(callers, f"bad-{number}", TokenInactive)
        assert len(callers.introspection._kept) == len(callers.introspection._refused) == 3

    asking(check)


def test_no_token_stays_in_memory_nor_does_the_secret_show() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        issuer.about = lambda form: plain(issuer, active=form["token"] == "good-token")
        await prove(callers, "good-token")
        await refused(callers, "bad-token", TokenInactive)
        introspection = callers.introspection
        held = f"{introspection._kept} {introspection._refused} {introspection._flights} {introspection._asked}"
        assert "good-token" not in held
        assert "bad-token" not in held
        assert SECRET not in held

    asking(check)


# --- trying it, for `onbehalf check` ---------------------------------------------------------


def test_a_trial_says_what_is_wrong_with_asking() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        async def tried() -> str:
            [(name, wrong)] = [each async for each in callers.introspection.tried(now=NOW)]
            assert name == issuer.url
            return wrong

        issuer.about = lambda form: (200, JSON, b'{"active": false}')
        assert await tried() == ""
        assert issuer.forms[0]["token"].startswith("tok_")
        issuer.about = lambda form: plain(issuer)
        assert "made-up" in await tried()
        issuer.about = lambda form: (401, JSON, b"{}")
        assert "401" in await tried()
        issuer.about = None
        assert "404" in await tried()

    asking(check, prefix="tok_")
