"""The door for workloads: bundles over real HTTP and from files, what they withdraw, and who is asked for whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from doors.issuer_house import Hands, Issuer, issuing, prove
from identify.minting import NOW, RESOURCE, claims, mint
from identify.svids import DOMAIN, EXPORT, WORKLOAD, bundle, jwk, svid
from onbehalf.config import WorkloadSettings
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.doors.issuer_keys import FRESH_S
from onbehalf.errors import (
    AlgorithmRefused,
    ConfigInvalid,
    IssuerUnavailable,
    SignatureMismatch,
    TokenExpired,
    UnknownIssuer,
    UnknownKey,
    WrongAudience,
    WrongType,
)

Check = Callable[[Issuer, IssuerCallers, Hands], Awaitable[None]]


def served(issuer: Issuer, document: bytes) -> None:
    issuer.answers["/bundle.json"] = (200, {}, document)


def of(issuer: Issuer, **changes: Any) -> WorkloadSettings:
    url = f"{issuer.url}/bundle.json"
    return msgspec.structs.replace(WORKLOAD, **{"bundle_url": url, "bundle_file": "", **changes})


def with_domain(check: Check, **changes: Any) -> None:
    async def run(issuer: Issuer) -> None:
        hands = Hands()
        callers = IssuerCallers([issuer.rule()], resource=RESOURCE, monotonic=hands, workloads=[of(issuer, **changes)])
        try:
            await check(issuer, callers, hands)
        finally:
            await callers.aclose()

    with issuing() as issuer:
        served(issuer, bundle())
        asyncio.run(run(issuer))


def test_a_workload_is_proven_by_its_trust_domains_bundle_and_kept_like_any_caller() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        token = svid()
        caller = await prove(callers, token)
        assert (caller.kind, caller.service, caller.tenant) == ("service", EXPORT, "acme")
        assert await prove(callers, token) is caller
        assert issuer.asked == {"/bundle.json": 1}
        with pytest.raises(TokenExpired):
            await prove(callers, token, NOW + 330)
        callers.revoke_all()
        assert await prove(callers, token) is not caller

    with_domain(check)


def test_a_person_beside_it_is_proven_as_ever() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        assert (await prove(callers, issuer.token())).kind == "person"

    with_domain(check)


def test_a_foreign_trust_domain_is_nobodys_and_causes_no_fetch() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        for sub in ("spiffe://other.example/a", f"spiffe://{DOMAIN.upper()}/a", f"spiffe://{DOMAIN}/a/../b", "alice"):
            with pytest.raises(UnknownIssuer):
                await prove(callers, svid(sub=sub))
        with pytest.raises(AlgorithmRefused):
            await prove(callers, svid(header={"alg": "HS256"}))
        assert not issuer.asked

    with_domain(check)


def test_what_is_not_good_is_refused_and_nothing_of_it_is_kept() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        for token, error in (
            (svid(name="attacker"), SignatureMismatch),
            (svid(aud=["https://other.example"]), WrongAudience),
            (svid(header={"typ": "at+jwt"}), WrongType),
            (svid(header={"kid": "unknown"}), UnknownKey),
        ):
            with pytest.raises(error):
                await prove(callers, token)
        assert not callers._kept

    with_domain(check)


def test_a_jwt_svid_that_names_a_known_issuer_is_judged_as_that_issuers_token() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        with pytest.raises((UnknownKey, SignatureMismatch)):
            await prove(callers, svid(iss=issuer.url, header={"typ": "at+jwt"}))
        theirs = mint(claims(iss=issuer.url, sub=EXPORT), kid="ES256")  # and a person's key signs for no workload
        with pytest.raises(SignatureMismatch):
            await prove(callers, theirs)
        assert "/bundle.json" not in issuer.asked

    with_domain(check)


def test_a_key_that_the_bundle_withdraws_ends_what_it_proved() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        token = svid()
        await prove(callers, token)
        served(issuer, bundle(jwk(name="new", kid="new"), spiffe_sequence=2))
        hands.at += FRESH_S
        await callers.warm()
        with pytest.raises(UnknownKey):
            await prove(callers, token)

    with_domain(check)


def test_a_bundle_that_was_put_back_to_an_older_one_is_not_taken() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        served(issuer, bundle(jwk(name="new", kid="new"), spiffe_sequence=5))
        await callers.warm()
        served(issuer, bundle(spiffe_sequence=4))
        await callers.warm()
        with pytest.raises(UnknownKey):
            await prove(callers, svid())
        assert (await prove(callers, svid(name="new", header={"kid": "new"}))).service == EXPORT

    with_domain(check)


def test_without_a_bundle_no_workload_is_believed_and_it_is_said() -> None:
    async def check(issuer: Issuer, callers: IssuerCallers, hands: Hands) -> None:
        for document in (b"", b"{}", b"<html>", bundle() + b" " * 300_000):
            served(issuer, document)
            hands.at += 60
            await callers.warm()
            with pytest.raises(IssuerUnavailable):
                await prove(callers, svid())
        issuer.answers["/bundle.json"] = (302, {"location": f"{issuer.url}/elsewhere"}, b"")
        hands.at += 60
        await callers.warm()
        [said] = callers.problems()
        assert f"spiffe://{DOMAIN}" in said
        assert "/elsewhere" not in issuer.asked

    with_domain(check)


def test_a_bundle_may_be_a_file_which_is_read_anew(tmp_path: Path) -> None:
    async def run() -> None:
        hands = Hands()
        callers = IssuerCallers([], resource=RESOURCE, monotonic=hands, workloads=[WORKLOAD], base=tmp_path)
        with pytest.raises(IssuerUnavailable):
            await prove(callers, svid())
        (tmp_path / "bundle.json").write_bytes(bundle())
        hands.at += 60
        assert (await prove(callers, svid())).service == EXPORT
        (tmp_path / "bundle.json").write_bytes(bundle(jwk(name="new", kid="new")))
        hands.at += FRESH_S
        await callers.warm()
        with pytest.raises(UnknownKey):
            await prove(callers, svid())
        await callers.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("url", ["http://bundles.example/b", "https://u@bundles.example/b", "ftp://127.0.0.1/b"])
def test_a_bundle_is_had_from_a_safe_address_only(url: str) -> None:
    with issuing() as issuer, pytest.raises(ConfigInvalid):
        IssuerCallers([], resource=RESOURCE, workloads=[of(issuer, bundle_url=url)])


def test_a_tenant_that_is_no_name_and_a_domain_twice_are_refused() -> None:
    with issuing() as issuer:
        for workloads in ([of(issuer, tenant="a/b")], [of(issuer), of(issuer)]):
            with pytest.raises(ConfigInvalid):
                IssuerCallers([], resource=RESOURCE, workloads=workloads)
