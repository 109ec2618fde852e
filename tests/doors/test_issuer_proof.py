"""The proofs of tokens at the door that proves callers, without HTTP: what is kept, what is asked every time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from doors.issuer_house import Hands, Issuer, callers_of, issuing
from identify.minting import NOW, RESOURCE, claims, key_for
from identify.proving import certificate, certificate_hash, proof, rfc9440, thumbprint
from onbehalf.config_introspection import IntrospectionSettings
from onbehalf.config_proof import DpopSettings
from onbehalf.doors.issuer_client import TokenClient
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.doors.issuer_proof import DpopProofs, Proofs
from onbehalf.errors import DpopMissing, DpopRefused, NonceNeeded, ProofMissing, ProofsUnavailable, TokenMalformed
from onbehalf.identify import NONCE_RENEWED_S, nonce_at
from onbehalf.model import Presented, Shown, UnixTime

KEY = b"k" * 32


class Used:
    """Remembers for ever; `calls` counts how often it was asked."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()
        self.calls = 0
        self.full = False

    async def add(self, key: str, id_: str, *, now: UnixTime, until: UnixTime) -> bool:
        self.calls += 1
        assert until > now
        if self.full:
            raise ProofsUnavailable("full")
        new = (key, id_) not in self.seen
        self.seen.add((key, id_))
        return new


def proving(
    walk: Callable[[IssuerCallers, Issuer, Used, Proofs], Awaitable[None]], *, nonce: Any = "none", **rule: Any
) -> None:
    async def run() -> None:
        used = Used()
        dpop = DpopProofs(settings=DpopSettings(nonce=nonce), used=used, key=KEY)
        proofs = Proofs(dpop, resource=RESOURCE, certificates="rfc9440")
        with issuing() as issuer:
            async with callers_of(issuer.rule(**rule), hands=Hands(), proofs=proofs) as callers:
                await walk(callers, issuer, used, proofs)

    asyncio.run(run())


def by_key(token: str, text: str | None = None, *, method: str = "POST", **changes: Any) -> Presented:
    return Presented(token=token, shown=Shown(dpop=True, method=method, proof=text or proof(token=token, **changes)))


def test_a_kept_token_needs_its_proof_every_time_and_only_then_gives_its_caller() -> None:
    async def walk(callers: IssuerCallers, issuer: Issuer, used: Used, proofs: Proofs) -> None:
        token = issuer.token(cnf={"jkt": thumbprint()})
        for number in range(1, 4):
            caller = await callers.prove(by_key(token), now=NOW)
            assert (caller.evidence.proof, caller.evidence.thumbprint) == ("dpop", thumbprint())
            assert used.calls == number
            for lacking in (Presented(token=token), Presented(token=token, shown=Shown(dpop=False, method="POST"))):
                with pytest.raises(DpopMissing):
                    await callers.prove(lacking, now=NOW)
            with pytest.raises(DpopRefused):
                await callers.prove(by_key(token, method="GET"), now=NOW)
        assert issuer.asked["/jwks.json"] == 1

    proving(walk)


def test_a_good_proof_by_another_key_than_the_tokens_is_refused_and_uses_nothing_up() -> None:
    async def walk(callers: IssuerCallers, issuer: Issuer, used: Used, proofs: Proofs) -> None:
        token = issuer.token(cnf={"jkt": thumbprint()})
        for _ in range(2):
            with pytest.raises(DpopRefused, match="another key"):
                await callers.prove(by_key(token, key=key_for("ES256", "thief")), now=NOW)
        assert used.calls == 0

    proving(walk)


def test_a_token_that_was_never_kept_is_not_taken_without_its_proof_either() -> None:
    async def walk(callers: IssuerCallers, issuer: Issuer, used: Used, proofs: Proofs) -> None:
        for number in range(3):
            token = issuer.token(cnf={"jkt": thumbprint()}, jti=f"{number}")
            with pytest.raises(DpopMissing):
                await callers.prove(Presented(token=token), now=NOW)
            callers.revoke_all()
            with pytest.raises(DpopMissing):
                await callers.prove(Presented(token=token), now=NOW)

    proving(walk)


def test_one_request_may_ask_more_than_once_but_not_for_another_token() -> None:
    async def walk(callers: IssuerCallers, issuer: Issuer, used: Used, proofs: Proofs) -> None:
        token, other = (issuer.token(cnf={"jkt": thumbprint()}, jti=each) for each in ("a", "b"))
        shown = by_key(token)
        for _ in range(3):
            await callers.prove(shown, now=NOW)
        assert used.calls == 1
        with pytest.raises(DpopRefused):
            await callers.prove(Presented(token=other, shown=shown.shown), now=NOW)
        same_proof_in_another_request = by_key(token, shown.shown.proof if shown.shown else "")
        with pytest.raises(DpopRefused, match="used before"):
            await callers.prove(same_proof_in_another_request, now=NOW)

    proving(walk)


def test_a_bearer_token_is_asked_for_nothing() -> None:
    async def walk(callers: IssuerCallers, issuer: Issuer, used: Used, proofs: Proofs) -> None:
        token = issuer.token()
        for _ in range(3):
            assert (await callers.prove(Presented(token=token), now=NOW)).evidence.proof == "bearer"
            with pytest.raises(TokenMalformed):
                await callers.prove(by_key(token), now=NOW)
        assert used.calls == 0

    proving(walk)


def test_a_bad_proof_uses_nothing_up_and_a_lack_of_a_nonce_neither() -> None:
    async def walk(callers: IssuerCallers, issuer: Issuer, used: Used, proofs: Proofs) -> None:
        token = issuer.token(cnf={"jkt": thumbprint()})
        with pytest.raises(NonceNeeded) as asked:
            await callers.prove(by_key(token, jti="one"), now=NOW)
        with pytest.raises(NonceNeeded):
            await callers.prove(by_key(token, jti="one", nonce=nonce_at(UnixTime(NOW - 301), key=KEY)), now=NOW)
        with pytest.raises(DpopRefused):
            await callers.prove(by_key(token, jti="one", nonce=asked.value.nonce, htm="GET"), now=NOW)
        assert used.calls == 0
        await callers.prove(by_key(token, jti="one", nonce=asked.value.nonce), now=NOW)

    proving(walk, nonce="required")


def test_a_new_nonce_is_offered_when_the_clients_is_getting_old() -> None:
    async def walk(callers: IssuerCallers, issuer: Issuer, used: Used, proofs: Proofs) -> None:
        token = issuer.token(cnf={"jkt": thumbprint()})
        for age, offered in ((0, False), (NONCE_RENEWED_S - 1, False), (NONCE_RENEWED_S, True), (300, True)):
            shown = by_key(token, nonce=nonce_at(UnixTime(NOW - age), key=KEY))
            await callers.prove(shown, now=NOW)
            assert shown.shown is not None
            assert proofs.offered(shown.shown) == (nonce_at(NOW, key=KEY) if offered else "")
        assert proofs.offered(Shown(dpop=True, method="POST")) == ""

    proving(walk, nonce="required")


def test_where_nothing_can_be_remembered_no_proof_is_taken() -> None:
    async def walk(callers: IssuerCallers, issuer: Issuer, used: Used, proofs: Proofs) -> None:
        used.full = True
        with pytest.raises(ProofsUnavailable):
            await callers.prove(by_key(issuer.token(cnf={"jkt": thumbprint()})), now=NOW)

    proving(walk)


def test_a_certificate_is_compared_every_time() -> None:
    async def walk(callers: IssuerCallers, issuer: Issuer, used: Used, proofs: Proofs) -> None:
        token = issuer.token(cnf={"x5t#S256": certificate_hash(certificate())})

        def by(header: str) -> Presented:
            return Presented(token=token, shown=Shown(dpop=False, method="POST", certificate=header))

        for _ in range(2):
            assert (await callers.prove(by(rfc9440(certificate())), now=NOW)).evidence.proof == "mtls"
            for wrong in (by(rfc9440(certificate("another"))), by("nonsense"), by(""), Presented(token=token)):
                with pytest.raises(ProofMissing):
                    await callers.prove(wrong, now=NOW)
            with pytest.raises(TokenMalformed):
                await callers.prove(by_key(token), now=NOW)

    proving(walk)


def test_what_a_request_showed_is_forgotten_with_it() -> None:
    async def walk(callers: IssuerCallers, issuer: Issuer, used: Used, proofs: Proofs) -> None:
        for _ in range(5):
            await callers.prove(by_key(issuer.token(cnf={"jkt": thumbprint()})), now=NOW)
        assert len(proofs._passed) <= 1

    proving(walk)


def test_a_door_without_proofs_takes_no_bound_token_and_nothing_shown_besides() -> None:
    async def run() -> None:
        with issuing() as issuer:
            async with callers_of(issuer.rule(), hands=Hands()) as callers:
                bound = issuer.token(cnf={"jkt": thumbprint()})
                for shown in (Presented(token=bound), by_key(bound), by_key(issuer.token())):
                    with pytest.raises(ProofMissing):
                        await callers.prove(shown, now=NOW)

    asyncio.run(run())


def test_an_opaque_token_that_its_issuer_calls_bound_needs_its_proof_every_time() -> None:
    async def run() -> None:
        used = Used()
        proofs = Proofs(DpopProofs(settings=DpopSettings(nonce="none"), used=used, key=KEY), resource=RESOURCE)
        with issuing() as issuer:
            told = claims(active=True, iss=issuer.url, token_type="DPoP", cnf={"jkt": thumbprint()})
            issuer.about = lambda form: (200, {"content-type": "application/json"}, json.dumps(told).encode())
            asked = IntrospectionSettings(
                endpoint=f"{issuer.url}/introspect", client_id="gateway", client_secret="env:X"
            )  # fmt: skip
            rule = issuer.rule(introspection=asked)
            async with callers_of(
                rule, hands=Hands(), proofs=proofs, clients={issuer.url: TokenClient(id="gateway", secret="secret")}
            ) as callers:
                for _ in range(2):
                    with pytest.raises(DpopMissing):
                        await callers.prove(Presented(token="opaque"), now=UnixTime(NOW))
                    caller = await callers.prove(by_key("opaque"), now=UnixTime(NOW))
                    assert (caller.evidence.proof, caller.evidence.algorithm) == ("dpop", "introspection")
                with pytest.raises(DpopRefused):
                    await callers.prove(by_key("opaque", proof(token="another")), now=UnixTime(NOW))
        assert used.calls == 2

    asyncio.run(run())


def test_an_opaque_bearer_token_under_dpop_is_refused() -> None:
    async def run() -> None:
        proofs = Proofs(DpopProofs(settings=DpopSettings(nonce="none"), used=Used(), key=KEY), resource=RESOURCE)
        with issuing() as issuer:
            told = claims(active=True, iss=issuer.url)
            issuer.about = lambda form: (200, {"content-type": "application/json"}, json.dumps(told).encode())
            asked = IntrospectionSettings(
                endpoint=f"{issuer.url}/introspect", client_id="gateway", client_secret="env:X"
            )  # fmt: skip
            rule = issuer.rule(introspection=asked)
            async with callers_of(
                rule, hands=Hands(), proofs=proofs, clients={issuer.url: TokenClient(id="gateway", secret="secret")}
            ) as callers:
                with pytest.raises(TokenMalformed):
                    await callers.prove(by_key("opaque"), now=UnixTime(NOW))

    asyncio.run(run())
