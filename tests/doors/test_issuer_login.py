"""The gateway as a client of an issuer that would have it log people in less safely."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from doors.issuer_house import METADATA, issuing
from onbehalf.doors.issuer_fetch import IssuerFetcher
from onbehalf.doors.issuer_login import CodeLogin, Redirected
from onbehalf.errors import LoginFailed

VERIFIER = "v" * 43
SAID_NOTHING: Any = object()


def asked(methods: Any, *, back: Redirected | None = None, **more: Any) -> str:
    """Where a browser is sent by an issuer with these methods of PKCE; with `back`, its answer is redeemed as well."""

    async def run(url: str) -> str:
        fetcher = IssuerFetcher()
        login = CodeLogin(
            issuer.rule(), fetcher, client_id="us", redirect_uri="https://us.example/back", asked={"scope": "openid"},
            redeeming={},
        )  # fmt: skip
        try:
            address = await login.address(state="s", verifier=VERIFIER)
            if back is not None:
                await login.redeemed(back, verifier=VERIFIER)
            return address
        finally:
            await fetcher.aclose()

    with issuing() as issuer:
        said = {} if methods is SAID_NOTHING else {"code_challenge_methods_supported": methods}
        document = {
            "issuer": issuer.url,
            "authorization_endpoint": f"{issuer.url}/a",
            "token_endpoint": f"{issuer.url}/t",
        }
        issuer.json(METADATA, {**document, **said, **more})
        return asyncio.run(run(issuer.url))


@pytest.mark.parametrize("methods", [["plain"], [], ["s256"], "S256", None, {"S256": True}, 256])
def test_pkce_downgrade_an_issuer_that_takes_no_s256_is_not_asked(methods: Any) -> None:
    with pytest.raises(LoginFailed, match="PKCE"):
        asked(methods)


@pytest.mark.parametrize("methods", [["S256"], ["plain", "S256"], SAID_NOTHING])
def test_pkce_downgrade_the_challenge_is_always_sent_as_s256(methods: Any) -> None:
    sent = parse_qs(urlsplit(asked(methods)).query)
    assert sent["code_challenge_method"] == ["S256"]
    assert VERIFIER not in sent["code_challenge"]


@pytest.mark.parametrize("iss", ["", "https://evil.example", "http://127.0.0.1/", "null"])
def test_mix_up_an_answer_without_the_issuer_that_was_promised_is_not_redeemed(iss: str) -> None:
    back = Redirected(code="c", iss=iss, error="")
    with pytest.raises(LoginFailed, match="another issuer"):
        asked(["S256"], back=back, authorization_response_iss_parameter_supported=True)


@pytest.mark.parametrize("code", ["", "a\nb", "\u00e9", "x" * 2049, "a\x00"])
def test_code_injection_what_is_no_code_never_reaches_the_token_endpoint(code: str) -> None:
    with pytest.raises(LoginFailed, match="did not log you in"):
        asked(["S256"], back=Redirected(code=code, iss="", error=""))


def test_an_error_beside_a_code_counts() -> None:
    with pytest.raises(LoginFailed, match="did not log you in"):
        asked(["S256"], back=Redirected(code="good", iss="", error="access_denied"))
