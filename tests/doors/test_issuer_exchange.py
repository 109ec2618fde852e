"""People's tokens are held to be exchanged at their own issuer, for nothing else; what is got is its person's alone."""

from __future__ import annotations

import base64
import json
import warnings
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from doors.exchanging import BASIC, call_of, house, rule_for
from doors.issuer_house import METADATA, issuing
from exchange_house import CLIENT, SECRET, TokenEndpoint
from identify.minting import NOW, RESOURCE
from onbehalf.doors.issuer_client import ClientKey, TokenClient
from onbehalf.doors.issuer_exchange import IssuerExchange, NotExchangeable
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_http import IssuerCallers
from onbehalf.doors.upstream_authorization import AuthorizationFailed
from onbehalf.errors import ConfigInvalid
from onbehalf.model import Caller, Evidence, Presented, ToolCall, UnixTime, digest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# --- what is asked ------------------------------------------------------------------------------


async def test_the_issuer_is_asked_as_rfc_8693_says_with_the_persons_token_as_subject() -> None:
    async with house(scope="read", resource="urn:orders") as made:
        token = made.issuer.token()
        await made.bearer(token)
        assert made.endpoint.forms == [{
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "audience": "orders", "resource": "urn:orders", "scope": "read",
        }]  # fmt: skip
        shown = base64.b64decode(made.endpoint.heads[0]["authorization"].removeprefix("Basic ")).decode()
        assert shown == f"{CLIENT}:{SECRET.replace(' ', '+').replace(chr(39), '%27')}"


@pytest.mark.parametrize("pem", [True, False])
async def test_a_client_assertion_is_for_this_endpoint_a_minute_and_once(pem: bool) -> None:
    key = ECKey.generate_key("P-256", {"kid": "gateway-1"})
    text = key.as_pem(private=True).decode() if pem else json.dumps(key.as_dict(private=True))
    client = TokenClient(id=CLIENT, key=ClientKey.read(text, what="client_key"))
    async with house(client) as made:
        for jti in "ab":
            await made.bearer(made.issuer.token(jti=jti))
        one, two = (jwt.decode(form["client_assertion"], key, algorithms=["ES256"]) for form in made.endpoint.forms)
        assert (one.claims["iss"], one.claims["sub"], one.claims["aud"]) == (CLIENT, CLIENT, made.endpoint.url)
        assert one.claims["exp"] - one.claims["iat"] == 60
        assert one.claims["jti"] != two.claims["jti"]
        assert one.header.get("kid") == (None if pem else "gateway-1")
        assert "authorization" not in made.endpoint.heads[0]
        assert made.endpoint.forms[0]["client_assertion_type"].endswith(":client-assertion-type:jwt-bearer")


def test_a_certificate_beside_the_key_is_named_by_its_thumbprint() -> None:
    import datetime

    key = RSAKey.generate_key(2048)
    private: Any = key.private_key
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gateway")])
    start = datetime.datetime(2026, 1, 1)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
        .serial_number(1).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=9))
        .sign(private, SHA256())
    )  # fmt: skip
    pem = key.as_pem(private=True).decode() + certificate.public_bytes(Encoding.PEM).decode()
    token = jwt.decode(
        ClientKey.read(pem, what="client_key").assertion("g", "https://t", UnixTime(NOW)), key, algorithms=["PS256"]
    )
    wanted = base64.urlsafe_b64encode(certificate.fingerprint(SHA256())).rstrip(b"=").decode()
    assert token.header == {"alg": "PS256", "typ": "JWT", "x5t#S256": wanted}


def bad_keys() -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        short = RSAKey.generate_key(1024).as_dict(private=True)
    public = ECKey.generate_key("P-256").as_dict(private=False)
    other = ECKey.generate_key("P-384").as_dict(private=True)
    wrong = {**ECKey.generate_key("P-256").as_dict(private=True), "alg": "none"}
    return [*map(json.dumps, (short, public, other, wrong, {}, {"kty": 5})), "nonsense", "-----BEGIN PRIVATE KEY-----"]


@pytest.mark.filterwarnings("ignore")
def test_a_key_that_must_not_be_used_is_refused_without_a_word_of_it() -> None:
    for text in bad_keys():
        with pytest.raises(ConfigInvalid) as caught:
            ClientKey.read(text, what="client_key")
        assert caught.value.__cause__ is None
        assert text not in f"{caught.value.message} {caught.value.hint}"


# --- where a person's token may go --------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://198.51.100.7/token", "https://user@127.0.0.1/token", "ftp://127.0.0.1/", "//evil", "", 5, None,
        "HTTP://127.0.0.1/token", "http://127.0.0.1.evil.example/token", "http://127.0.0.1\\@evil.example/",
    ],
)  # fmt: skip
async def test_a_token_endpoint_that_is_not_https_gets_nothing(url: Any) -> None:
    async with house() as made:
        metadata = {"issuer": made.issuer.url, "jwks_uri": f"{made.issuer.url}/jwks.json", "token_endpoint": url}
        made.issuer.json(METADATA, metadata)
        assert "no https `token_endpoint`" in str(await made.fails(made.issuer.token()))
        assert made.endpoint.forms == []


async def test_metadata_of_another_issuer_says_nothing_about_where_it_goes() -> None:
    async with house() as made:
        token = made.issuer.token()
        await made.call(token)
        made.issuer.json(METADATA, {"issuer": "https://other.example", "token_endpoint": made.endpoint.url})
        assert (await made.fails(token)).code == "upstream_login_failed"
        assert made.endpoint.forms == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_the_token_endpoint_is_not_followed(status: int) -> None:
    async with house() as made:
        with TokenEndpoint().serving() as thief:
            made.endpoint.status, made.endpoint.headers = status, {"location": thief.url}
            await made.fails(made.issuer.token())
            assert thief.forms == []
            assert len(made.endpoint.forms) == 1


async def test_of_two_issuers_each_sees_its_own_peoples_tokens_only() -> None:
    async with house() as made:
        with issuing() as other:
            callers = IssuerCallers(
                [made.issuer.rule(), other.rule()], resource=RESOURCE, keeper=made.held, monotonic=made.hands
            )
            presented = Presented(token=other.token())
            caller = await callers.prove(presented, now=UnixTime(NOW))
            with pytest.raises(AuthorizationFailed) as caught:
                await made.exchanger.bearer(call_of(caller))
            assert caught.value.code == "exchange_impossible"
            assert made.endpoint.forms == []
            # Held for both, it still goes to the one that it is of, whatever an upstream says.
            both = IssuerExchange(
                [made.issuer.rule(), other.rule()], IssuerFetcher(), clock=lambda: UnixTime(NOW), monotonic=made.hands
            )
            both.keep(caller, presented)
            with pytest.raises(NotExchangeable):
                await both.asked(caller, {}, rule=rule_for(made.issuer.url), client=BASIC)
            said_otherwise = replace(caller, evidence=replace(caller.evidence, issuer=made.issuer.url))
            with pytest.raises(NotExchangeable):
                await both.asked(said_otherwise, {}, rule=rule_for(made.issuer.url), client=BASIC)
            await callers.aclose()
            assert made.endpoint.forms == []


async def test_a_token_that_is_bound_or_was_not_proven_by_its_signature_is_not_exchanged() -> None:
    async with house() as made:
        good_call = await made.call(made.issuer.token())
        evidence = good_call.caller.evidence
        for token, key in (
            (made.issuer.token(cnf={"jkt": "x"}), evidence.key),  # DPoP (RFC 9449)
            ("an-opaque-token-that-was-introspected", ""),
            (made.issuer.token(jti="introspected"), ""),
        ):
            caller = replace(good_call.caller, evidence=replace(evidence, token=digest(token.encode()), key=key))
            made.held.keep(caller, Presented(token=token))
            with pytest.raises(AuthorizationFailed) as caught:
                await made.exchanger.bearer(call_of(caller))
            assert caught.value.code == "exchange_impossible"
        # And evidence of one token does not bring another one in.
        caller = replace(good_call.caller, evidence=replace(evidence, token=digest(b"another")))
        made.held.keep(caller, Presented(token=made.issuer.token()))
        with pytest.raises(AuthorizationFailed):
            await made.exchanger.bearer(call_of(caller))
        assert made.endpoint.forms == []


async def test_a_token_that_was_not_proven_is_not_held() -> None:
    async with house() as made:
        token = made.issuer.token(aud="https://other.example")
        caller = (await made.call(made.issuer.token())).caller
        evidence = replace(caller.evidence, token=digest(token.encode()))
        with pytest.raises(Exception, match="not for"):
            await made.callers.prove(Presented(token=token), now=UnixTime(NOW))
        with pytest.raises(AuthorizationFailed):
            await made.exchanger.bearer(call_of(replace(caller, evidence=evidence)))
        assert made.endpoint.forms == []


def test_no_word_that_is_handed_on_can_hold_a_token() -> None:
    for kind in (Caller, Evidence, ToolCall):
        for name, type_ in kind.__annotations__.items():
            assert "token" not in name or type_ == "Digest", name
    assert "jwt" not in repr(Presented(token="jwt"))
