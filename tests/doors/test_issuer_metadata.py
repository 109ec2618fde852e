"""The copy of the issuer's metadata on the gateway's own host: the issuer's words or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx2

from company import company
from doors.issuer_house import METADATA, OPENID, Hands, Issuer, issuing
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_metadata import IssuerMetadata


def whole(at: Issuer, /, **changes: Any) -> dict[str, Any]:
    return {
        "issuer": at.url,
        "authorization_endpoint": f"{at.url}/authorize",
        "token_endpoint": f"{at.url}/token",
        "code_challenge_methods_supported": ["S256"],
        **changes,
    }


def asked(issuer: Issuer, hands: Hands, *moves: float) -> list[Mapping[str, Any] | None]:
    """What the copy gives at first, and after each move of the clock."""

    async def run() -> list[Mapping[str, Any] | None]:
        copy = IssuerMetadata(issuer.rule(), IssuerFetcher(seconds=2), monotonic=hands)
        try:
            found = [await copy.document()]
            for move in moves:
                hands.at += move
                found.append(await copy.document())
            return found
        finally:
            await copy.aclose()

    return asyncio.run(run())


def test_the_copy_is_what_the_issuer_says_word_for_word() -> None:
    with issuing() as issuer:
        issuer.json(METADATA, whole(issuer, extra=["kept"]))
        assert asked(issuer, Hands()) == [whole(issuer, extra=["kept"])]


def test_an_issuer_that_only_speaks_openid_is_copied_too() -> None:
    with issuing() as issuer:
        del issuer.answers[METADATA]
        issuer.json(OPENID, whole(issuer))
        assert asked(issuer, Hands()) == [whole(issuer)]


def test_metadata_of_another_issuer_or_without_endpoints_is_not_copied() -> None:
    for changes in (
        {"issuer": "https://evil.example"},
        {"token_endpoint": None},
        {"token_endpoint": "http://evil.example"},
    ):
        with issuing() as issuer:
            issuer.json(METADATA, whole(issuer, **changes))
            assert asked(issuer, Hands()) == [None]


def test_it_is_fetched_once_in_five_minutes_however_often_it_is_asked_for() -> None:
    with issuing() as issuer:
        issuer.json(METADATA, whole(issuer))
        assert None not in asked(issuer, Hands(), 0, 1, 298)
        assert issuer.asked[METADATA] == 1


def test_many_at_once_cause_one_fetch() -> None:
    async def run(issuer: Issuer) -> None:
        copy = IssuerMetadata(issuer.rule(), IssuerFetcher(seconds=2))
        found = await asyncio.gather(*(copy.document() for _ in range(50)))
        await copy.aclose()
        assert all(each == whole(issuer) for each in found)

    with issuing() as issuer:
        issuer.json(METADATA, whole(issuer))
        asyncio.run(run(issuer))
        assert issuer.asked[METADATA] == 1


def test_an_old_copy_is_not_given_once_the_issuer_is_gone_and_a_failure_is_not_asked_for_again_at_once() -> None:
    async def run(issuer: Issuer) -> None:
        hands = Hands()
        copy = IssuerMetadata(issuer.rule(), IssuerFetcher(seconds=2), monotonic=hands)
        assert await copy.document() is not None
        issuer.answers.clear()
        hands.at += 301
        assert await copy.document() is None
        before = issuer.asked.total()
        assert await copy.document() is None
        assert issuer.asked.total() == before
        hands.at += 6
        assert await copy.document() is None
        assert issuer.asked.total() > before
        await copy.aclose()

    with issuing() as issuer:
        issuer.json(METADATA, whole(issuer))
        asyncio.run(run(issuer))


def test_the_gateway_serves_it_at_both_paths_of_its_own_host_only_and_502_without_the_issuer(tmp_path: Any) -> None:
    with company(tmp_path / "it") as around, around.serving(), httpx2.Client(trust_env=False, timeout=10) as http:
        for path in (METADATA, f"{METADATA}/mcp"):
            assert http.get(f"{around.gateway}{path}").status_code == 502
            assert http.get(f"{around.gateway}{path}", headers={"host": "evil.example"}).status_code == 421
            assert http.post(f"{around.gateway}{path}").status_code == 405
        assert http.get(f"{around.gateway}{METADATA}/other").status_code == 404


def test_the_gateway_gives_the_issuers_own_metadata_to_anybody(tmp_path: Any) -> None:
    with company(tmp_path / "it") as around:
        keys = f"{around.issuer.url}/jwks.json"
        around.issuer.json(METADATA, whole(around.issuer, jwks_uri=keys))
        with around.serving():
            for path in (METADATA, f"{METADATA}/mcp"):
                answer = around.get(path, public=True)
                assert answer.status_code == 200
                assert answer.json() == whole(around.issuer, jwks_uri=keys)
                assert answer.headers["access-control-allow-origin"] == "*"
