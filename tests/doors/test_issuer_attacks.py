"""Issuers whose keys are down, slow, huge, garbage, rotated in the middle of calls, or named like another's."""

from __future__ import annotations

import asyncio
import gzip
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from doors.issuer_house import KEYS, METADATA, Hands, Issuer, callers_of, issuing, prove
from identify.minting import NOW, claims, jwks, key_for, mint, public
from onbehalf.doors import issuer_http
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.doors.issuer_keys import FRESH_S, UNKNOWN_KEY_S
from onbehalf.errors import IdentifyError, IssuerUnavailable, SignatureMismatch, UnknownKey
from onbehalf.model import Caller

CALLERS = 50
GOOD = jwks(public("ES256"))
BOMB = gzip.compress(b'{"keys":[' + b" " * 50_000_000 + b"]}")
Change = Callable[[Issuer], None]


def answers(body: bytes, status: int = 200, **headers: str) -> Change:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda at: at.answers.update({KEYS: (status, sent, body)})


def moved(at: Issuer) -> None:
    at.answers["/moved"] = at.answers[KEYS]
    at.answers[KEYS] = (302, {"location": f"{at.url}/moved"}, b"")


def elsewhere(at: Issuer) -> None:
    at.json(METADATA, {"issuer": at.url, "jwks_uri": "http://169.254.169.254/latest/meta-data"})


UNREADABLE: dict[str, Change] = {
    "down": answers(b"", 503), "gone": answers(GOOD, 404), "empty": answers(b""),
    "html": answers(b"<html>It works!</html>", content_type="text/html"),
    "garbage": answers(random.Random(1).randbytes(4096)), "huge": answers(GOOD + b" " * 300_000),
    "cut off": answers(GOOD[:-40], content_length=str(len(GOOD))),
    "packed": answers(gzip.compress(GOOD), content_encoding="gzip"), "a bomb": answers(BOMB, content_encoding="gzip"),
    "a bomb that says nothing of it": answers(BOMB), "packed and unsaid": answers(gzip.compress(GOOD)),
    "brotli": answers(GOOD, content_encoding="br"), "deep": answers(b'{"keys":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "moved": moved, "in the cloud's metadata": elsewhere, "twice": answers(GOOD[:-1] + b',"keys":[]}'),
    "too many": answers(jwks(*(public("ES256", kid=f"k{number}") for number in range(65)))), "a list": answers(b"[]"),
    "not 200": answers(GOOD, 203), "utf-16": answers(GOOD.decode().encode("utf-16")),
    "two documents": answers(GOOD + GOOD),
}  # fmt: skip
"""What is no answer: what was known before stays."""
UNFIT: dict[str, Change] = {
    "no keys": answers(b'{"keys":[]}'),
    "one id twice": answers(jwks(public("ES256"), public("ES256", "other", kid="ES256"))),
    "private": answers(jwks({**key_for("ES256").as_dict(private=True), "kid": "ES256"})),
    "symmetrical": answers(jwks({"kty": "oct", "k": "c2VjcmV0", "kid": "ES256", "alg": "HS256"})),
    "for encryption": answers(jwks(public("ES256", use="enc"))),
    "off the curve": answers(jwks(public("ES256", x=public("ES256")["y"]))),
}  # fmt: skip
"""Answers whose keys are unfit: none of them is believed."""


@pytest.mark.parametrize("how", [*UNREADABLE, *UNFIT])
def test_a_jwks_that_is_hostile_lets_nobody_in_and_holds_up_no_other_issuer(how: str) -> None:
    async def run(bad: Issuer, good: Issuer) -> None:
        async with callers_of(bad.rule(), good.rule(tenant="globex"), hands=Hands()) as callers:
            began = time.monotonic()
            tries = [prove(callers, bad.token(sub=f"p{number}")) for number in range(10)]
            tries += [prove(callers, good.token(sub=f"p{number}")) for number in range(10)]
            told = await asyncio.gather(*tries, return_exceptions=True)
            assert all(isinstance(each, IssuerUnavailable | UnknownKey) for each in told[:10]), told[:10]
            assert [each.tenant for each in told[10:] if isinstance(each, Caller)] == ["globex"] * 10
            assert time.monotonic() - began < 7, "less than a fetch may take"
            assert bad.asked[KEYS] <= 1
            assert not bad.asked["/moved"]

    with issuing() as bad, issuing() as good:
        {**UNREADABLE, **UNFIT}[how](bad)
        asyncio.run(run(bad, good))


@pytest.mark.parametrize("how", UNREADABLE)
def test_a_hostile_answer_does_not_take_away_keys_that_are_known(how: str) -> None:
    async def run(issuer: Issuer) -> None:
        hands = Hands()
        async with callers_of(issuer.rule(), hands=hands) as callers:
            assert (await prove(callers, issuer.token())).subject == "alice"
            UNREADABLE[how](issuer)
            hands.at += FRESH_S + 1
            await callers.warm()
            assert (await prove(callers, issuer.token(sub="bob"))).subject == "bob"
            with pytest.raises(IdentifyError):
                await prove(callers, mint(claims(iss=issuer.url), key=key_for("ES256", "evil"), kid="ES256"))

    with issuing() as issuer:
        asyncio.run(run(issuer))


def test_a_jwks_that_drips_is_given_up_while_kept_keys_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n")
        try:
            for _ in range(400):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except OSError:
            pass
        finally:
            writer.close()

    async def run(issuer: Issuer) -> None:
        hands = Hands()
        dripping = await asyncio.start_server(drip, "127.0.0.1", 0)
        async with callers_of(issuer.rule(), hands=hands) as callers:
            await prove(callers, issuer.token())
            slow = f"http://127.0.0.1:{dripping.sockets[0].getsockname()[1]}/jwks"
            issuer.json(METADATA, {"issuer": issuer.url, "jwks_uri": slow})
            hands.at += FRESH_S + 1
            began = time.monotonic()
            told = await asyncio.gather(*(prove(callers, issuer.token(sub=f"p{number}")) for number in range(CALLERS)))
            assert len({each.subject for each in told}) == CALLERS
            assert time.monotonic() - began < 1.5, "nobody waits for keys while there are some"
            with pytest.raises(UnknownKey):  # who needs new ones waits as long as a fetch may take, and no longer
                await prove(callers, issuer.token("unknown"))
            assert time.monotonic() - began < 6
        dripping.close()

    monkeypatch.setattr(issuer_http, "IssuerFetcher", partial(IssuerFetcher, seconds=2.0))
    with issuing() as issuer:
        asyncio.run(run(issuer))


# --- rotation under load -----------------------------------------------------------------------


def good(issuer: Issuer, name: str, number: int) -> str:
    return issuer.token(name, sub=f"p{number}", jti=f"{name}-{number}")


def bad(issuer: Issuer, name: str, number: int) -> str:
    """One of the tokens that must never be believed, whatever keys there are."""
    said = {"iss": issuer.url, "sub": f"p{number}", "jti": f"bad-{name}-{number}"}
    forgeries: list[Callable[[], str]] = [
        lambda: mint(claims(**said), key=key_for("ES256", "evil"), kid=name),
        lambda: mint(claims(**said), key=key_for("ES256", name), kid=f"made-up-{number}"),
        lambda: mint(claims(**said, exp=NOW - 60), key=key_for("ES256", name), kid=name),
        lambda: mint(claims(**{**said, "aud": "https://other.example"}), key=key_for("ES256", name), kid=name),
        lambda: mint(claims(**said), key=key_for("ES256", name), kid="withdrawn"),
    ]
    return forgeries[number % len(forgeries)]()


async def at_once(callers: IssuerCallers, tokens: list[tuple[str, bool]], dice: random.Random) -> None:
    """`CALLERS` of them at a time, each seen in full: whoever is good is believed, and nobody else."""
    dice.shuffle(tokens)

    async def one(share: list[tuple[str, bool]]) -> None:
        for token, fine in share:
            [told] = await asyncio.gather(prove(callers, token), return_exceptions=True)
            assert isinstance(told, Caller if fine else IdentifyError), told

    await asyncio.gather(*(one(tokens[start::CALLERS]) for start in range(CALLERS)))


def test_key_rotation_under_load_lets_every_good_token_in_and_no_other_one() -> None:
    async def run(issuer: Issuer) -> None:
        hands, dice = Hands(), random.Random(7)
        async with callers_of(issuer.rule(), hands=hands) as callers:
            issuer.publish("k0")
            await callers.warm()
            for turn in range(4):
                old, new = f"k{turn}", f"k{turn + 1}"
                asked = issuer.asked[KEYS]
                issuer.publish(old, new)  # as issuers do: the new key beside the old one
                hands.at += UNKNOWN_KEY_S
                fine = {name: [good(issuer, name, number) for number in range(CALLERS)] for name in (old, new)}
                tokens = [(token, True) for each in fine.values() for token in each]
                tokens += [(bad(issuer, name, number), False) for name in (old, new) for number in range(CALLERS)]
                await at_once(callers, tokens * 2, dice)
                assert issuer.asked[KEYS] - asked == 1, "one fetch for a hundred new tokens and twenty made-up ids"
                issuer.publish(new)  # and then the old one is withdrawn
                hands.at += FRESH_S
                await callers.warm()
                await at_once(callers, [(token, name == new) for name, each in fine.items() for token in each], dice)
                assert issuer.asked[KEYS] - asked == 3, "one that was due, and one for the id that is gone"

    with issuing() as issuer:
        asyncio.run(run(issuer))


def test_made_up_key_ids_delay_a_new_key_by_thirty_seconds_and_no_more() -> None:
    """The bound that is documented: whoever floods the gateway with made-up ids keeps a new key out for so long."""

    async def run(issuer: Issuer) -> None:
        hands = Hands()
        async with callers_of(issuer.rule(), hands=hands) as callers:
            await callers.warm()
            flood = [prove(callers, bad(issuer, "ES256", 5 * number + 1)) for number in range(CALLERS)]
            assert all(isinstance(each, UnknownKey) for each in await asyncio.gather(*flood, return_exceptions=True))
            issuer.publish("ES256", "new")
            with pytest.raises(UnknownKey):
                await prove(callers, good(issuer, "new", 1))
            assert (await prove(callers, good(issuer, "ES256", 1))).subject == "p1", "the old one goes on"
            hands.at += UNKNOWN_KEY_S
            assert (await prove(callers, good(issuer, "new", 1))).subject == "p1"
            assert issuer.asked[KEYS] == 3

    with issuing() as issuer:
        asyncio.run(run(issuer))


# --- two issuers, one key id -------------------------------------------------------------------


def shared(issuer: Issuer, name: str) -> None:
    """Publish the key of this name under the id that both issuers use."""
    issuer.answers[KEYS] = (200, {}, jwks(public("ES256", name, kid="shared")))


def two_with_one_id(check: Callable[[Issuer, Issuer, IssuerCallers, Hands], Awaitable[None]]) -> None:
    async def run(one: Issuer, two: Issuer) -> None:
        shared(one, "one")
        shared(two, "two")
        hands = Hands()
        async with callers_of(one.rule(), two.rule(tenant="globex"), hands=hands) as callers:
            await check(one, two, callers, hands)

    with issuing() as one, issuing() as two:
        asyncio.run(run(one, two))


def said_by(issuer: Issuer, name: str, **changes: Any) -> str:
    return mint(claims(iss=issuer.url, **changes), key=key_for("ES256", name), kid="shared")


def test_issuer_confusion_two_issuers_with_one_key_id_never_speak_for_each_other() -> None:
    async def check(one: Issuer, two: Issuer, callers: IssuerCallers, _: Hands) -> None:
        for _turn in range(2):  # the second time with what the first one left behind
            assert (await prove(callers, said_by(one, "one"))).tenant == "acme"
            assert (await prove(callers, said_by(two, "two"))).tenant == "globex"
            for issuer, signer in ((one, "two"), (two, "one")):
                with pytest.raises(SignatureMismatch):
                    await prove(callers, said_by(issuer, signer))
                with pytest.raises(SignatureMismatch):
                    await prove(callers, said_by(issuer, signer, tenant="globex", org="acme", tid="acme"))

    two_with_one_id(check)


def test_issuer_confusion_under_load_every_caller_is_of_the_issuer_that_signed() -> None:
    async def check(one: Issuer, two: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        right = [(said_by(one, "one", sub=f"a{n}"), "acme") for n in range(CALLERS)]
        right += [(said_by(two, "two", sub=f"a{n}"), "globex") for n in range(CALLERS)]
        wrong = [(said_by(one, "two", sub=f"a{n}"), "") for n in range(CALLERS)]
        wrong += [(said_by(two, "one", sub=f"a{n}"), "") for n in range(CALLERS)]

        async def one_call(token: str, tenant: str) -> None:
            try:
                caller = await prove(callers, token)
            except IdentifyError:
                assert not tenant
            else:
                assert (caller.tenant, caller.evidence.issuer) == (tenant, (one if tenant == "acme" else two).url)

        for turn in range(3):
            calls = [*right, *wrong]
            random.Random(turn).shuffle(calls)
            await asyncio.gather(*(one_call(*each) for each in calls))
            hands.at += FRESH_S  # keys are fetched in the middle of the next turn

    two_with_one_id(check)


def test_tenant_confusion_a_key_that_one_issuer_takes_over_from_another_speaks_for_its_own_tenant_only() -> None:
    """One provider behind two issuers, as hosted ones are: the very same key, published by both."""

    async def check(one: Issuer, two: Issuer, callers: IssuerCallers, _: Hands) -> None:
        shared(two, "one")
        mine, theirs = said_by(one, "one"), said_by(two, "one")
        assert (await prove(callers, mine)).tenant == "acme"
        assert (await prove(callers, theirs)).tenant == "globex"
        assert (await prove(callers, said_by(two, "one", tenant="acme", sub="alice"))).tenant == "globex"

    two_with_one_id(check)
